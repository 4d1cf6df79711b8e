"""Filters and readers of replies understand eleven languages beside English, and reject no good text of any other."""

import pytest

from minilima.config.schema import DataConfig
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import DATA
from minilima.formats.records import Example
from minilima.formats.seeds import load_seeds
from minilima.formats.words import has_word, lowered, words_of
from minilima.generate.classification import label_balance, parse_labels, says_yes
from minilima.generate.filters import has_broken_list, instance_fault, instruction_fault, is_repetitive
from minilima.generate.imperatives import asks, points_to_an_input
from minilima.generate.methods import Candidate, no_input, parse_examples, parse_list
from minilima.generate.quality import parse_rating
from minilima.generate.refusals import is_refusal

YES = {
    "Chinese": "是的，这是一个分类任务。",
    "Japanese": "はい、そうです。",
    "Korean": "네, 분류 작업입니다.",
    "Thai": "ใช่ค่ะ",
    "Arabic": "نعم، هذا تصنيف.",
    "Hindi": "हाँ, यह वर्गीकरण है।",
    "Russian": "Да.",
    "Turkish": "EVET",
    "German": "Ja, das ist eine Klassifikation.",
    "French": "Oui.",
    "Spanish": "Sí, lo es.",
}
NO = {
    "Chinese": "不是。",
    "Chinese, formal": "否",
    "Japanese": "いいえ。",
    "Korean": "아니요.",
    "Thai": "ไม่ใช่",
    "Arabic": "لا.",
    "Hindi": "नहीं।",
    "Russian": "Нет, это не так.",
    "Turkish": "HAYIR",
    "German": "**Nein**",
    "French": "Non.",
    "Spanish": "No.",
}
NEITHER = (
    "是否",
    "예를 들어",
    "Januar",
    "Nonsense",
    "Non-classification",
    "Date",
    "不过这很难说",
    "لاحقا",
    "данные",
    "ใช่ไหม",
    "हाँक",
)


@pytest.mark.parametrize("text", YES.values(), ids=YES)
def test_a_yes_is_understood(text: str) -> None:
    assert says_yes(text) is True


@pytest.mark.parametrize("text", NO.values(), ids=NO)
def test_a_no_is_understood(text: str) -> None:
    assert says_yes(text) is False


@pytest.mark.parametrize("text", NEITHER)
def test_words_that_only_begin_like_a_yes_or_a_no_decide_nothing(text: str) -> None:
    assert says_yes(text) is None


LABELS = {
    "1、正面\n2、负面\n3、中性": ["正面", "负面", "中性"],
    "正面、负面或者中性。": ["正面", "负面", "中性"],
    "标签：\n（1）是\n（2）否": ["是", "否"],
    "①肯定的\n②否定的": ["肯定的", "否定的"],
    "肯定的、否定的": ["肯定的", "否定的"],
    "긍정, 부정 또는 중립": ["긍정", "부정", "중립"],
    "บวก หรือ ลบ": ["บวก", "ลบ"],
    "إيجابي، سلبي أو محايد": ["إيجابي", "سلبي", "محايد"],
    "सकारात्मक या नकारात्मक।": ["सकारात्मक", "नकारात्मक"],
    "положительный, отрицательный или нейтральный": ["положительный", "отрицательный", "нейтральный"],
    "olumlu, olumsuz veya tarafsız": ["olumlu", "olumsuz", "tarafsız"],
    "positiv, negativ oder neutral": ["positiv", "negativ", "neutral"],
    "positif, négatif ou neutre": ["positif", "négatif", "neutre"],
    "positivo, negativo o neutro": ["positivo", "negativo", "neutro"],
    "这个问题的答案取决于我收到的那个句子的具体内容。\n我无法在没有更多信息的情况下列出标签。": [],
}


@pytest.mark.parametrize(("text", "labels"), LABELS.items())
def test_lists_of_labels_are_read_as_each_language_writes_them(text: str, labels: list[str]) -> None:
    assert parse_labels(text) == labels


RATINGS = {
    "8": 8.0,
    "评分：8分": 8.0,
    "８": 8.0,
    "满分10分，我给7分": 7.0,
    "八分": 8.0,
    "十": 10.0,
    "10点満点中9点です": 9.0,
    "10점 만점에 8점": 8.0,
    "7.5分": 7.5,
    "٨": 8.0,
    "८": 8.0,
    "๗ คะแนน": 7.0,
    "8,5": 8.5,
    "8,5 von 10": 8.5,
    "Auf einer Skala von 1 bis 10: 6": 6.0,
    "Оценка: 9": 9.0,
    "没有分数": None,
    "Puan yok": None,
}


@pytest.mark.parametrize(("text", "rating"), RATINGS.items())
def test_ratings_are_read_in_the_digits_of_each_script(text: str, rating: float | None) -> None:
    assert parse_rating(text) == rating


REQUESTS = {
    "Chinese": [
        "写一首关于大海的诗。",
        "请把下面的句子翻译成英文。",
        "为什么天空是蓝色的",
        "列出三种水果",
        "根据以下信息写一封邮件",
        "判断这句话的情感是正面还是负面",
    ],
    "Japanese": [
        "海について詩を書いてください。",
        "次の文を英語に訳しなさい。",
        "三つの果物を挙げよ。",
        "この文章を要約して。",
        "なぜ空は青いのか。",
    ],
    "Korean": [
        "바다에 관한 시를 써 줘.",
        "다음 문장을 영어로 번역하세요.",
        "하늘은 왜 파란가요?",
        "과일을 세 가지 나열하시오.",
        "이 글을 요약해 주세요.",
    ],
    "Thai": [
        "เขียนบทกวีเกี่ยวกับทะเล",
        "จงแปลประโยคนี้เป็นภาษาอังกฤษ",
        "ทำไมท้องฟ้าจึงเป็นสีฟ้า",
        "โปรดสรุปข้อความนี้",
    ],
    "Arabic": [
        "اكتب قصيدة عن البحر.",
        "ترجم الجملة التالية.",
        "لماذا السماء زرقاء؟",
        "اذكر ثلاث فواكه.",
        "لخّص هذا النص.",
    ],
    "Hindi": [
        "समुद्र पर एक कविता लिखो।",
        "इस वाक्य का अनुवाद कीजिए।",
        "आकाश नीला क्यों है?",
        "तीन फलों के नाम बताइए।",
        "इस पाठ का सारांश दें।",
    ],
    "Russian": [
        "Напиши стихи о море.",
        "Переведите предложение.",
        "Объясни, почему небо голубое.",
        "Составь план.",
        "Назовите три фрукта.",
        "Придумай заголовок.",
        "Ответь одним словом.",
        "Используй слова.",
        "Помогите мне.",
        "Сравни два города.",
    ],
    "Turkish": [
        "Deniz üzerine kısa bir şiir yaz.",
        "Bu cümleyi İngilizceye çevirin.",
        "Gökyüzü neden mavi?",
        "Üç meyve adı söyle.",
        "Metni özetleyin.",
    ],
    "German": [
        "Nenne drei Farben.",
        "Fasse den Text zusammen.",
        "Übersetzen Sie den Satz.",
        "Warum ist der Himmel blau?",
        "Ein Satz über Igel, bitte.",
        "Hier ist ein Brief. Kürze ihn.",
    ],
    "French": [
        "Écris un poème sur la mer.",
        "Traduisez la phrase.",
        "Pourquoi le ciel est-il bleu ?",
        "Donne trois fruits.",
        "Résume le texte.",
    ],
    "Spanish": [
        "Escribe un poema sobre el mar.",
        "Traduzca la frase.",
        "¿Por qué el cielo es azul?",
        "Nombra tres frutas.",
        "Resume el texto.",
    ],
    "Italian": ["Scrivi una poesia sul mare.", "Spiega perché il cielo è blu.", "Elenca tre frutti.", "Traduci in inglese."],
    "Portuguese": ["Escreva um poema sobre o mar.", "Liste três frutas.", "Resuma o texto a seguir.", "Traduza a frase."],
    "Dutch": ["Schrijf een gedicht.", "Leg uit waarom de lucht blauw is.", "Noem drie vruchten.", "Vat de tekst samen."],
    "Swedish": ["Skriv en dikt om havet.", "Nämn tre frukter.", "Sammanfatta texten.", "Översätt till engelska."],
    "Danish, Norwegian": ["Skriv et digt om havet.", "Nævn tre frugter.", "Forklar hvorfor himmelen er blå."],
    "Polish": ["Napisz wiersz o morzu.", "Wyjaśnij, dlaczego niebo jest niebieskie.", "Wymień trzy owoce."],
    "Czech": ["Napiš báseň o moři.", "Vyjmenuj tři druhy ovoce.", "Přelož do angličtiny."],
    "Finnish": ["Kirjoita runo merestä.", "Selitä, miksi taivas on sininen.", "Luettele kolme hedelmää."],
    "Hungarian": ["Írj egy verset a tengerről.", "Magyarázd el, miért kék az ég.", "Sorolj fel három gyümölcsöt."],
    "Romanian": ["Scrie o poezie despre mare.", "Explică de ce cerul este albastru.", "Enumeră trei fructe."],
    "Indonesian": ["Tulis puisi tentang laut.", "Jelaskan mengapa langit berwarna biru.", "Sebutkan tiga buah."],
    "Swahili, Tagalog, Catalan": ["Andika shairi kuhusu bahari.", "Sumulat ng tula.", "Escriu un poema sobre el mar."],
    "Persian": ["یک شعر درباره دریا بنویس.", "توضیح بده چرا آسمان آبی است.", "سه میوه نام ببر."],
    "Urdu": ["سمندر پر ایک نظم لکھیں۔", "آسمان نیلا کیوں ہے؟"],
    "Ukrainian": ["Напиши вірш про море.", "Перелічи три фрукти."],
    "Italian, a statement": [
        "Il cielo della sera è una poesia per gli occhi.",
    ],
    "Greek, not known here": [
        "Γράψε ένα ποίημα.",
    ],
    "Vietnamese, not known here": [
        "Hãy viết một bài thơ về biển.",
    ],
}
STATEMENTS = (
    "大海是蓝色的。",
    "昨日は雨が降った。",
    "바다는 파랗다.",
    "ทะเลเป็นสีฟ้า",
    "البحر أزرق جميل.",
    "समुद्र नीला है।",
    "Небо сегодня голубое.",
    "Ankara Türkiye'nin başkentidir.",
    "Der Himmel ist heute nicht blau.",
    "Le ciel est bleu dans le sud.",
    "El cielo es azul en verano.",
    "Leg day is Monday, and he is out.",
    "A vat of wine was on the table.",
    "آسمان امروز آبی است.",
)


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_of_each_language_are_kept_where_a_task_must_ask(name: str) -> None:
    assert [text for text in REQUESTS[name] if not asks(text)] == []


@pytest.mark.parametrize("text", STATEMENTS)
def test_a_statement_of_each_language_asks_for_nothing(text: str) -> None:
    assert not asks(text)


def test_all_german_seeds_and_prompts_ask() -> None:
    texts = [task.instruction for task in load_seeds(DATA / "minilima_de_50.jsonl")]
    texts += [prompt.instruction for prompt in load_eval_set(DATA / "minilima_de_40.jsonl", None)]
    assert [text for text in texts if not asks(text)] == []


@pytest.mark.parametrize("text", ["Schreibe ein Gedicht.", "写一首诗。", "Der Himmel ist nicht blau.", "Напиши стихи."])
def test_an_input_beside_an_instruction_in_another_language_is_never_dropped(text: str) -> None:
    assert points_to_an_input(text)


REFUSALS = {
    "Chinese": "对不起，我无法回答这个问题。",
    "Chinese model": "作为一个人工智能语言模型，我没有个人观点。",
    "Japanese": "申し訳ありませんが、お答えできません。",
    "Korean": "죄송합니다. 도와드릴 수 없습니다.",
    "Thai": "ขออภัย ฉันไม่สามารถช่วยเรื่องนี้ได้",
    "Arabic": "عذراً، لا يمكنني المساعدة في ذلك.",
    "Hindi": "माफ़ कीजिए, मैं इसमें मदद नहीं कर सकता।",
    "Russian": "Извините, но я не могу помочь с этим.",
    "Turkish": "Üzgünüm, bu konuda yardımcı olamam.",
    "German": "Es tut mir leid, aber ich kann dabei nicht helfen.",
    "German model": "Als KI-Sprachmodell habe ich keine Meinung.",
    "French": "Je suis désolé, mais je ne peux pas répondre.",
    "French model": "En tant qu'IA, je n'ai pas d'avis.",
    "Spanish": "Lo siento, pero no puedo ayudar con eso.",
    "Spanish model": "Como modelo de lenguaje, no tengo opiniones.",
}
ANSWERS = (
    "抱歉，我来晚了，请原谅。",
    "申し訳ありません。次回から気をつけます。",
    "죄송합니다. 늦었습니다.",
    "ขออภัยที่มาสาย",
    "أعتذر عن التأخير.",
    "माफ़ कीजिए, मुझे देर हो गई।",
    "Извините, я опоздал.",
    "Üzgünüm, geç kaldım.",
    "Es tut mir leid, dass ich zu spät komme.",
    "Leider regnet es.",
    "Ich kann nicht nur kochen, sondern auch backen.",
    "Désolé pour le retard.",
    "Lo siento mucho, llegué tarde.",
    "Als Kind war ich oft am See.",
)


@pytest.mark.parametrize("text", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_found_in_each_language(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_apology_alone_is_an_answer(text: str) -> None:
    assert not is_refusal(text)


def test_turkish_letters_are_the_same_in_both_cases() -> None:
    assert lowered("İSTANBUL") == lowered("istanbul") and lowered("ISI") == lowered("ısı")
    assert words_of("İstanbul'da IŞIK") == words_of("istanbul'da ışık")
    data = DataConfig(blocked_words=["çizim"], blocked_beginnings=["İşte"], min_words=1)
    assert instruction_fault("Bana bir ÇİZİM yap.", data) == "blocked_word:çizim"
    assert instruction_fault("İŞTE bir örnek.", data) == "blocked_beginning"
    labels = [
        Example(id=str(at), instruction="x", input="", output=text, source="seed", is_classification=True)
        for at, text in enumerate(("İyi", "iyi", "İYİ", "kötü"))
    ]
    assert label_balance(labels) == {"labels": {"iyi": 3, "kötü": 1}, "most_common_label_share": 0.75}


@pytest.mark.parametrize(
    ("text", "word", "there"),
    [
        ("画一张图片吧", "图片", True),
        ("打开这个image文件", "image", True),
        ("Zeichne ein Bild.", "bild", True),
        ("Ein Bildband", "bild", False),
        ("नक्शा बनाओ", "नक्शा", True),
        ("नक्शानवीस", "नक्शा", False),
        ("그림을 그려 줘", "그림", False),
        ("วาดรูปแมว", "รูป", True),
        ("Opérations", "op", False),
    ],
)
def test_blocked_words_are_whole_words_of_their_script(text: str, word: str, there: bool) -> None:
    assert has_word(lowered(text), word) is there


def test_an_instruction_may_begin_with_the_quotation_marks_of_its_language() -> None:
    data = DataConfig()
    for text in (
        "《红楼梦》的作者是谁？",
        "「桜」を英語に訳して。",
        "„Guten Tag“ auf Englisch?",
        "«Bonjour» en anglais ?",
        "【翻译】你好",
    ):
        assert instruction_fault(text, data) is None
    assert instruction_fault("）写一首诗。", data) == "starts_with_punctuation"


@pytest.mark.parametrize(
    "text",
    [
        "keine Eingabe nötig",
        "Aucune",
        "Ninguna",
        "no aplica",
        "Gerekmez",
        "не требуется",
        "不适用",
        "該当なし",
        "해당 없음",
        "ไม่จำเป็น",
        "لا يوجد إدخال",
        "आवश्यक नहीं",
    ],
)
def test_no_input_is_understood_in_other_words_too(text: str) -> None:
    assert no_input(text) == ""


@pytest.mark.parametrize("text", ["①写诗\n②译文", "一、写诗\n二、译文", "(1)写诗\n(2)译文"])
def test_other_numbers_of_chinese_lists(text: str) -> None:
    assert parse_list(text) == ["写诗", "译文"]


def test_broken_lists_are_seen_and_nested_ones_are_not_broken() -> None:
    assert has_broken_list("1、甲\n1、乙\n1、丙") is False, "each begins again"
    assert (
        has_broken_list("1、甲\n2、乙\n2、丙")
        and has_broken_list("（2）甲\n（1）乙\n（1）丙\n（0）丁")
        and has_broken_list("1、2、甲")
    )
    assert not has_broken_list("1、甲\n（1）子\n（2）丑\n2、乙\n（1）寅\n3、丙")
    assert not has_broken_list("3．5倍\n2．5倍")


def test_loops_are_seen_where_words_have_no_spaces() -> None:
    assert is_repetitive("今天天气很好我们去公园玩吧" * 8)
    assert not is_repetitive(
        "春天来了，冰雪融化，小河又开始流淌。孩子们跑到田野里放风筝，老人坐在门前晒太阳，谈论着今年的收成和远方的亲人。"
    )


def test_examples_with_translated_names_are_read() -> None:
    german = "1. Anweisung: Nenne ein Tier.\nEingabe: keine\nAusgabe: Igel\n\n2. Anweisung: Grüße.\nEingabe: A\nAusgabe: Hallo!"
    assert parse_examples(german) == [
        Candidate(instruction="Nenne ein Tier.", input="", output="Igel"),
        Candidate(instruction="Grüße.", input="A", output="Hallo!"),
    ]
    chinese = "1、指令：翻译成英文。\n输入：你好\n输出：Hello"
    assert parse_examples(chinese) == [Candidate(instruction="翻译成英文。", input="你好", output="Hello")]


def test_a_good_answer_of_each_script_has_no_fault() -> None:
    for text in ("海是蓝色的，因为水吸收红光。", "море синее", "समुद्र नीला है।", "البحر أزرق"):
        assert instance_fault(instruction="为什么海是蓝的？", input_text="", output=text, truncated=False) is None
