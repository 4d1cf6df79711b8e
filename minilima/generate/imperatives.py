"""Whether a text asks for something, and whether it speaks of an input: small models often write statements, and write on.

English is judged by its verbs and by what they stand after; other languages by their question marks, by words of asking and by
the forms of their imperatives. A language without such a list is never judged.
"""

import re
import unicodedata

from minilima.generate.languages import LATIN, NO_LETTERS, is_foreign, language_of, script_of

_VERBS = (
    "add adapt advise analyse analyze answer apply argue arrange ask assess assign balance boil brainstorm break build "
    "calculate categorise categorize change check choose cite classify combine come compare complete compose compress "
    "compute condense consider construct continue contrast convert correct count craft create critique debug decide decline "
    "deduce define describe design detect determine develop devise diagnose differentiate discuss distinguish divide draft "
    "edit elaborate eliminate estimate evaluate expand explain express extend extract figure fill find finish fix flag "
    "format formulate generate get give grade guess help highlight identify illustrate imagine implement improve infer "
    "insert interpret introduce invent judge justify keep label link list make mark match mention merge modify name negate "
    "note offer order organise organize outline paraphrase parse pick plan point practise predict prepare present produce "
    "proofread propose prove provide pull punctuate put quote rank rate read rearrange recommend reconstruct reduce "
    "refactor refer remove rename reorder repeat rephrase replace reply report respond restate return reverse review revise "
    "reword rewrite rhyme round route say scale schedule score select separate shift shorten show simplify sketch solve "
    "sort specify spell split spot state subtract suggest sum summarise summarize swap tag take tell test think trace "
    "transform translate transcribe triage try turn update use verify weigh work write"
)
_TELLS = re.compile(
    r"(?:^|[.!:;,\n\"'(]\s*|\b(?:please|you (?:need|have|are asked) to|and|then|i want you to)\s+)"
    rf"(?:{_VERBS.replace(' ', '|')})\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"(?:^|[.!?,\n]\s*)(?:who|whom|whose|what|when|where|which|why|how)\b|\?(?![\"”'’])", re.IGNORECASE)
_POINTS = re.compile(
    r"\b(?:this|these|following|below|above|given|provided|options?|translate|rewrite|rephrase|summari[sz]e|shorten|correct"
    r"|classify|the (?:passage|paragraph|text|sentence|article|story|poem|code|message|email|review|claim|statement|argument"
    r"|list|table|notes|numbers|words|data))\b|:$",
    re.IGNORECASE,
)

# Imperatives at the beginning of a clause. Words that are English too are excluded, so that English texts are judged as ever.
_LATIN_VERBS = {
    "German": (
        "analysiere antworte argumentiere begründe benenne berechne bereite beschreibe bestimme beurteile bewerte bilde "
        "bringe charakterisiere definiere dichte diskutiere empfiehl entscheide entwickle entwirf erfinde ergänze erkläre "
        "erläutere ermittle erstelle erzähle fasse finde formatiere formuliere führe fülle gestalte gib gliedere gruppiere "
        "identifiziere interpretiere klassifiziere konjugiere konstruiere korrigiere kürze leite löse löste mache markiere "
        "nenne notiere ordne paraphrasiere prüfe rechne reime schildere schlage schreib schreibe schätze setz setze "
        "skizziere sortiere stell stelle streiche suche teile trenne unterscheide unterstreiche untersuche verbessere "
        "vereinfache verfasse vergleiche vervollständige verwandle wandle werte widerlege wähle zeichne zeige zerlege zieh "
        "ziehe zitiere zähle überarbeite überprüfe übersetze übertrage"
    ),
    "French": (
        "ajoute analysez calcule calculez cherche choisis choisissez citez classez comparez complète complétez composez "
        "conjugue conjuguez convertis corrige corrigez crée créez devine donne donnez dresse décris décrivez définis "
        "définissez détermine déterminez développe explique expliquez exprime extrais fais faites formule formulez fournis "
        "fournissez identifie identifiez imaginez invente inventez justifie listez mettez montre nomme nommez ordonne "
        "planifie proposez précise prépare présente présentez raconte racontez reformule reformulez remplace rédige rédigez "
        "répondez réponds résous résume résumez simplifie souligne suggère suggérez traduis traduisez transforme transformez "
        "trie trouve trouvez veuillez vérifie écris écrivez énumère énumérez évalue"
    ),
    "Spanish": (
        "analice analiza aplica añade busca calcula calcule cambia cita clasifica clasifique combina comenta compara completa "
        "compón conjuga construye convierte corrige corrija crea cuenta defina define desarrolla describa determina dibuja "
        "diga diseña elabora elabore elige encuentra enumera enumere escoge escriba escribe evalúa explica explique extrae "
        "genera genere haga haz identifica identifique imagina indica indique interpreta inventa invente justifica menciona "
        "muestra nombra ofrece ordena ordene organiza planifica pon prepara proporciona proporcione propón redacta redacte "
        "reemplaza reescriba reescribe relata resalta responda responde resuelve resuma selecciona señala simplifica sugiera "
        "sugiere sustituye traduce traduzca transforma utiliza verifica"
    ),
    "Italian": (
        "aggiungi calcola classifica completa confronta converti correggi crea definisci descrivi elenca fornisci immagina "
        "individua inventa proponi racconta riassumi riformula riordina riscrivi rispondi scegli scrivi spiega suggerisci "
        "traduci trasforma trova valuta"
    ),
    "Portuguese": (
        "apresente calcule classifique conte converta corrija crie descreva elabore encontre escolha escreva "
        "escreve explique faça forneça gere indique proponha reescreva resuma responda sugira "
        "traduza"
    ),
    "Dutch": (
        "beantwoord bedenk bereken beschrijf corrigeer geef herschrijf maak noem schrijf verbeter verklaar vergelijk vertaal "
        "vertel verzin"
    ),
    "Swedish": "berätta beskriv beräkna förklara föreslå jämför nämn omformulera räkna sammanfatta skriv översätt",
    "Danish and Norwegian": (
        "beskriv besvar beregn foreslå forklar giv nævn nevn omskriv oversæt oversett opsummer oppsummer skriv"
    ),
    "Polish": (
        "napisz oblicz odpowiedz opisz opowiedz podaj popraw porównaj przetłumacz streść stwórz sklasyfikuj uzupełnij "
        "wyjaśnij wymień wypisz wymyśl wytłumacz zaproponuj"
    ),
    "Czech and Slovak": (
        "napiš navrhni oprav popíš popiš porovnaj porovnej přelož prelož shrň uveď vyjmenuj vymysli vypočítej vysvetli vysvětli"
    ),
    "Finnish": "keksi kirjoita kerro korjaa kuvaile käännä laske luettele nimeä selitä tiivistä vertaa",
    "Hungarian": (
        "fogalmazd foglald fordítsd hasonlítsd írd írj javasolj javítsd magyarázd nevezz készíts sorold sorolj számítsd számold"
    ),
    "Romanian": "calculează compară corectează creează descrie enumeră explică listează numește oferă propune rezumă scrie tradu",
    "Catalan": "calcula descriu digues enumera escriu explica resumeix tradueix",
    "Indonesian and Malay": (
        "bandingkan berikan buatlah deskripsikan gambarkan hitunglah jelaskan klasifikasikan perbaiki rangkum ringkas "
        "sarankan sebutkan senaraikan terangkan terjemahkan tulis tuliskan tulislah ubahlah uraikan"
    ),
    "Swahili": "andika eleza fupisha linganisha orodhesha tafsiri taja",
    "Tagalog": "ilarawan ipaliwanag isalin isulat sumulat",
}
_TURKISH = (
    "açıkla açıklayın açıklayınız adlandır analiz anlat anlatın ara bul bulun çevir çevirin çöz çözün değerlendir dene derle "
    "düzelt düzeltin düzenle ekle et edin ediniz belirle belirleyin belirt belirtin hesapla hesaplayın hazırla hazırlayın "
    "karşılaştır karşılaştırın kısalt listele listeleyin oluştur oluşturun öner önerin örnekle özetle özetleyin planla sınıfla "
    "sınıflandır sınıflandırın sırala sıralayın söyle söyleyin tamamla tamamlayın tanımla tanımlayın tarif tasarla tartış "
    "türet uydur üret ver verin veriniz yanıtla yanıtlayın yap yapın yaz yazın yazınız yorumla"
)
_LATIN_ASKS = re.compile(
    r"(?:^|[.!:;,\n\"'(„“«»]\s*|\b(?:und|et|y|puis|dann|luego|bitte|por favor|s['’]il (?:te|vous) pla[iî]t)\s+)"
    rf"(?:{' '.join(_LATIN_VERBS.values()).replace(' ', '|')})\b"
    # Verbs that are English words too, before an article or a number.
    r"|(?:^|[.!:;,\n]\s*)(?:plane|rate|sage|cite|classe|liste|analyse|compare|compose|imagine|propose|organise|commente|resume|complete|lista"
    r"|di|range)\s+(?:d(?:er|ie|as|en|em)|eine?n?|mir|les?|l['’]|la|une?|des|ces?|cette|el|l[oa]s|una|est[ae]|drei|trois|tr[eê]s|fünf|cinq|cinco)\b"
    # Dutch verbs that are English words too, by what ends their clause or follows.
    r"|(?:^|[.!:;,\n]\s*)(?:leg\b.{0,30}\buit|vat\b.{0,40}\bsamen|los\b.{0,30}\bop)\b"
    # Formal German: the verb, then Sie.
    r"|(?:^|[.!:;,\n]\s*)\w+en Sie\b"
    # Turkish imperatives end their clause.
    rf"|\b(?:{_TURKISH.replace(' ', '|')})\s*(?:$|[.!:\n])|\blütfen\b|\bbitte\b",
    re.IGNORECASE,
)
_BY_SCRIPT = {
    "Chinese": r"[？?]|[吗呢]|什么|怎么|怎样|如何|为什么|为何|哪[些个里种位]|谁|多少|几[个种次岁]|是否|请|帮我|给我|告诉我"
    r"|(?:^|[。！；：，、\n])\s*(?:并|再|然后|根据.{0,20}?)?(?:写|列|解释|描述|翻译|总结|概括|给出|说明|说出|计算|比较|分析|设计|创[建作]"
    r"|生成|改[写正]|编[写造]|判断|分类|提[供出取]|回答|介绍|推荐|用|把|将|找出|补[全充]|纠正|修改|续写|讨论|评[价估]|列举|制定|画|排序|选|将|简[述化]"
    r"|[請為]|寫|翻譯|總結|說明|計算|設計|創作|從|将)",
    "Japanese": r"[？?]|(?:です|ます|でしょう|だろう)?か。|か$|何|なぜ|どう|どの|どれ|どこ|誰|いくつ|いくら|いつ"
    r"|(?:ください|下さい|なさい|せよ|しよう|ましょう|て|で|ほしい|お願い(?:します)?|[えけげせてねべめれ]よ|れ|こと)(?:[。！.!：:\n」]|$)",
    "Hangul": r"[?？]|무엇|뭐|왜|어떻게|어떤|누구|언제|어디|몇|얼마|(?:까요|나요|니까|가요|은가|는가)"
    r"|(?:세요|십시오|시오|하라|해라|어라|아라|써라|해|줘|줘요|주라|보자|하자|오|시기 바랍니다)(?:[.!\n]|$)",
    "Thai": r"[?？]|ไหม|มั้ย|อะไร|ทำไม|อย่างไร|ยังไง|หรือไม่|หรือเปล่า|ใคร|กี่|เท่า(?:ไร|ไหร่)|ที่ไหน|เมื่อ(?:ไร|ไหร่)|ข้อใด|ใด"
    r"|จง|โปรด|กรุณา|ช่วย|(?:^|[\s.:])(?:เขียน|อธิบาย|แปล|สรุป|ระบุ|บอก|เปรียบเทียบ|จัด|แต่ง|สร้าง|คำนวณ|ยกตัวอย่าง|ให้|หา|แนะนำ|เรียง|แก้|เติม|ตอบ"
    r"|วิเคราะห์|ออกแบบ|วางแผน|เลือก|แบ่ง|ทำ|ลอง|คิด)",
    "Arabic": r"[؟?]|(?:^|[\s:،.])(?:هل|ما|ماذا|لماذا|كيف|متى|أين|كم|أي)\s"
    r"|(?:^|[\s:،.]|و)(?:من فضلك|يرجى|الرجاء|اكتب|أكتب|اشرح|ترجم|لخ[ّ]?ص|اذكر|صف"
    r"|قارن|احسب|حد[ّ]?د|صن[ّ]?ف|أعط|اعط|أعطني|قد[ّ]?م|رت[ّ]?ب|اقترح|قم|أجب|اختر|استخرج|صح[ّ]?ح|أنشئ|عر[ّ]?ف|وض[ّ]?ح|حل[ّ]?ل|ضع|عد[ّ]?د|أكمل|ناقش|ابحث|اجعل"
    r"|أعد|حو[ّ]?ل|صم[ّ]?م|خط[ّ]?ط|استخدم|بي[ّ]?ن|سم[ّ]?|قل|أخبرني|تخي[ّ]?ل|ألّ?ف|علّ?ل|ارسم|أوجد|جد)\w*"
    # Persian and Urdu: questions, and imperatives at the end of their clause.
    r"|(?:^|\s)(?:آیا|چرا|چگونه|چیست|کدام|چند|کیا|کیوں|کیسے|کون|لطفا)(?:\s|$)"
    r"|(?:بنویس|بده|دهید|کن|کنید|ببر|بگو|بگویید|نام ببر|لکھیں|لکھو|بتائیں|کریں|دیں|کرو)(?:ید)?\s*(?:[.۔!؟،:\n]|$)"
    # … and Persian ones at its beginning.
    r"|(?:^|[.۔\n:،]\s*)(?:توضیح|شرح)\s+(?:بده|دهید)",
    "Devanagari": r"[?？]|क्या|क्यों|कैसे|कौन|कब|कहाँ|कहां|कितन|किस|कृपया"
    r"|(?:ें|िए|िये|इए|इये|ओ|ो|ाओ|ना है)\s*(?:[।.!:,\n]|और|तथा|$)",
    # Imperatives of Russian end in -и (of nouns only those after к, г, х do so often), -ай, -уй, -ей or a soft consonant.
    "Cyrillic": r"[?？]|(?:^|[.!:;,\n«]\s*|\b(?:и|а|затем|пожалуйста)\s+)(?:не\s+)?"
    r"(?:\w*(?:[аеяую]й|[^кгх\W]и|[бвдмнрстчшж]ь)(?:те)?(?:с[ья])?|помоги(?:те)?)\b|пожалуйста",
}
_OF_SCRIPT = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _BY_SCRIPT.items()}
_KANA = re.compile("[\u3040-\u30ff]")
_KNOWN = frozenset(("English", "German", "French", "Spanish"))
_LETTERS = frozenset("äöüßàâæçéèêëîïôœùûÿáíóúñğışéåø")
"""Letters beside a to z of the languages in Latin script that are known here, Turkish among them, and of names in English."""


def asks(text: str) -> bool:
    """Whether a text contains a question (other than in a quotation) or a command.

    True of texts in a language that is not known here: what cannot be judged is not rejected.
    """
    if _TELLS.search(text) or _QUESTION.search(text):
        return True
    script = script_of(text)
    if script == LATIN:
        return bool(_LATIN_ASKS.search(text)) or not _is_judged(text)
    pattern = _OF_SCRIPT.get(_writing(script, text))
    if pattern is None:
        return script != NO_LETTERS
    return bool(pattern.search(text))


def _is_judged(text: str) -> bool:
    """Whether a text in Latin script is in a language whose statements and requests can be distinguished."""
    if is_foreign(text):
        return language_of(text) in _KNOWN
    words = text.lower().split()
    strange = sum(any(_is_strange(letter) for letter in word) for word in words)
    return 4 * strange <= len(words) or language_of(text) == "English"


def _is_strange(letter: str) -> bool:
    return letter > "\x7f" and letter not in _LETTERS and "LATIN" in unicodedata.name(letter, "")


def points_to_an_input(instruction: str) -> bool:
    """Whether an instruction speaks of something that stands below it; True of every instruction that is not in English."""
    return bool(_POINTS.search(instruction)) or not _is_english(instruction)


def _is_english(text: str) -> bool:
    if script_of(text) not in (LATIN, NO_LETTERS) or is_foreign(text):
        return False
    return bool(_TELLS.search(text)) or not _LATIN_ASKS.search(text)


def _writing(script: str, text: str) -> str:
    """The name of a list: Japanese is written in several scripts, Chinese in one of them."""
    if script in ("CJK", "Hiragana", "Katakana"):
        return "Japanese" if _KANA.search(text) else "Chinese"
    return script
