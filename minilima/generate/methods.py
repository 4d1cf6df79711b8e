"""The ways to ask for new tasks: Self-Instruct's lists, Alpaca's whole examples, Magpie's empty user turn.

Each method turns demonstrations into a request, and a reply into candidates. Pure.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minilima.formats.records import Example, SeedTask, user_text
from minilima.generate.prompting import Prompter
from minilima.models.chat import Message, Reply, Request, continue_text

_TEXT = {"type": "string"}


def _object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def list_schema(name: str, item: Mapping[str, Any]) -> str:
    """JSON schema of `{name: […]}`, as JSON."""
    return json.dumps(_object_schema({name: {"type": "array", "items": item}}))


TASKS_SCHEMA = list_schema("tasks", _TEXT)
EXAMPLES_SCHEMA = list_schema("tasks", _object_schema({"instruction": _TEXT, "input": _TEXT, "output": _TEXT}))

Demo = SeedTask | Example
"""A task to show: a seed, or a machine-written one."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A task as the model wrote it, before any filter; with input and output where the method asks for whole examples."""

    instruction: str
    input: str = ""
    output: str | None = None
    complete: bool = False
    """Whether the input was written too, even if it is empty: then none is asked for later."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How to ask for tasks and how to read the reply. Each request shows `demonstrations` tasks; `whole`: with their answers."""

    demonstrations: int
    whole: bool = False
    request: Callable[[Sequence[Demo], int], Request]
    parse: Callable[[Reply], list[Candidate]]


def list_method(prompter: Prompter) -> Method:
    """Self-Instruct: a list of instructions (section 2.2); instances are asked for later."""
    data = prompter.data

    def request(shown: Sequence[Demo], sample: int) -> Request:
        tasks = [_one_line(task.instruction) for task in shown]
        return prompter.list_request(
            "instructions", sample, data.instruction_tokens, "1.", TASKS_SCHEMA,
            tasks=tasks, wanted=data.instructions_per_request, classification=data.classification_only,
        )  # fmt: skip

    def parse(reply: Reply) -> list[Candidate]:
        # A completion continues after the number that ends the prompt.
        text = reply.text if prompter.is_chat else f"1. {reply.text}"
        return [Candidate(instruction=item) for item in parse_list(text, cut=reply.finish == "length")]

    return Method(demonstrations=data.demonstrations, request=request, parse=parse)


def example_method(prompter: Prompter) -> Method:
    """Alpaca: instruction, input and output in one reply, several of them (Taori et al. 2023)."""
    data = prompter.data

    def request(shown: Sequence[Demo], sample: int) -> Request:
        tokens = data.instruction_tokens + data.instructions_per_request * data.instance_tokens
        return prompter.list_request(
            "examples", sample, tokens, "1. Instruction:", EXAMPLES_SCHEMA,
            tasks=shown, wanted=data.instructions_per_request, words=data.answer_words,
        )  # fmt: skip

    def parse(reply: Reply) -> list[Candidate]:
        text = reply.text if prompter.is_chat else f"1. Instruction: {reply.text}"
        return parse_examples(text, cut=reply.finish == "length")

    return Method(demonstrations=min(3, data.demonstrations), request=request, parse=parse)


def turn_method(prompter: Prompter, open_user_turn: Callable[[Sequence[Message]], str], demonstrations: int) -> Method:
    """An instruct model continues a conversation where the user speaks next, one task a reply.

    Without demonstrations this is Magpie (Xu et al. 2024, section 2). With them, each an earlier turn with its answer, it is
    Self-Instruct's prompt in the form that a small model knows best.
    """
    # A penalty on repeated tokens is meant for long answers; here it would push a short text off its topic.
    sampling = replace(prompter.sampling(prompter.data.instruction_tokens), repetition_penalty=None)

    def request(shown: Sequence[Demo], sample: int) -> Request:
        turns = [turn for task in shown for turn in _turns(task)]
        return Request(messages=continue_text(open_user_turn(turns)), sampling=sampling, sample=sample)

    def parse(reply: Reply) -> list[Candidate]:
        text = reply.text.strip()
        if reply.finish != "stop" or not text:
            return []
        # A turn has the form of the demonstrations: the input stands below the instruction.
        instruction, _, given = text.partition("\n\n") if demonstrations else (text, "", "")
        return [Candidate(instruction=instruction.strip(), input=given.strip(), complete=True)]

    return Method(demonstrations=demonstrations, whole=True, request=request, parse=parse)


def _turns(task: Demo) -> list[Message]:
    """The task as a turn of the user, and its answer where it has one yet."""
    asked = Message(role="user", content=user_text(task.instruction, task.input))
    return [asked, Message(role="assistant", content=task.output)] if task.output else [asked]


# `1. ` and `1) `; `1、`, `１．`, `（1）`, `①` and `一、`; and `1.` or `(1)` without a space before a letter that is not ASCII.
_MARK = (
    r"(?:\d+\s*[.)]\s+|\d+\s*[、．）]\s*|（\s*\d+\s*）\s*|\(\d+\)\s*(?=[^\x00-\x7f])|\d+[.)](?=[^\x00-\x7f])(?=\w)"
    r"|[①-⑳]\s*|[一二三四五六七八九十]{1,3}、)"
)
_ITEM = re.compile(rf"(?:^\s*|(?<=[.?!])\s\s*|(?<=[。？！；])\s*){_MARK}+(?=\S)", re.MULTILINE)
_NUMBER = re.compile(rf"^\s*{_MARK}")
_DECORATION = re.compile(r"^(\*\*|[\"“'])(.*?)(\*\*|[\"”'])$", re.DOTALL)


def parse_list(text: str, *, cut: bool = False) -> list[str]:
    """The items of a JSON or numbered list. Double numbers (`1. 1. …`) count once; an item that was cut is dropped."""
    items = json_items(text, "tasks")
    if items is not None:
        # The prompt asks for a numbered list, so some models number the strings of a JSON list too.
        return [_one_line(_NUMBER.sub("", task)) for task in items if isinstance(task, str)]
    listed = _ITEM.split(text)[1:]
    whole = listed[:-1] if cut else listed
    return [_DECORATION.sub(r"\2", _one_line(item)).strip() for item in whole]


def json_items(text: str, name: str) -> list[Any] | None:
    """The complete items of `{name: […]}`, also from a reply that was cut; None if the text has no such list."""
    begin = re.search(rf'\{{\s*"{name}"\s*:\s*\[', text)
    if begin is None:
        return None
    items, position, decoder = [], begin.end(), json.JSONDecoder()
    while (separator := re.compile(r"[\s,]*").match(text, position)) is not None:
        try:
            item, position = decoder.raw_decode(text, separator.end())
        except ValueError:  # the end of the list, or the point where the reply was cut
            break
        items.append(item)
    return items


_NUMBERED = rf"^\W*(?:\d+\s*[.)]\s*|{_MARK})?"
# The prompt names the parts in English; models that write in another language translate the names too.
_PART_NAMES = {
    "instruction": "Instruction|Anweisung|Aufgabe|Consigne|Instrucción|Инструкция|Задание|Talimat|Görev|指令|指示|任务|명령|지시"
    "|คำสั่ง|التعليمات|निर्देश",
    "input": "Input|Eingabe|Entrée|Entrada|Ввод|Входные данные|Girdi|Giriş|输入|輸入|入力|입력|ข้อมูลนำเข้า|อินพุต|المدخلات"
    "|الإدخال|इनपुट",
    "output": "Output|Ausgabe|Sortie|Salida|Вывод|Ответ|Выходные данные|Çıktı|输出|輸出|出力|출력|ผลลัพธ์|เอาต์พุต|المخرجات"
    "|الإخراج|आउटपुट",
}
_PART = {name: rf"{_NUMBERED}(?:{names})\s*[:：]" for name, names in _PART_NAMES.items()}
_FIELDS = re.compile(
    rf"{_PART['instruction']}(?P<instruction>.*?){_PART['input']}(?P<input>.*?){_PART['output']}"
    rf"(?P<output>.*?)(?={_PART['instruction']}|\Z)",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_NO_INPUT = re.compile(
    r"^\W*(none|n/?a|no input( needed| required)?|nothing|not needed|empty"
    r"|keine?|keine eingabe(?: nötig| erforderlich| notwendig)?|nicht nötig|entfällt|leer"
    r"|aucune?|aucune entrée(?: requise| nécessaire)?|pas d['’]entrée|rien|vide"
    r"|ninguna?|ninguno|ninguna entrada|sin entrada|vacío|no aplica"
    r"|yok|girdi yok|giriş yok|gerekmez|gerek yok|boş|нет|нет ввода|нет данных|не требуется|отсутствует|пусто"
    r"|无|无输入|无需输入|没有|没有输入|不需要|不需要输入|不适用|空|無|無輸入|なし|入力なし|特になし|ありません|不要|該当なし"
    r"|없음|입력 없음|필요 없음|해당 없음|없습니다|ไม่มี|ไม่มีข้อมูล|ไม่มีข้อมูลนำเข้า|ไม่จำเป็น|ไม่ต้องมี"
    r"|لا يوجد|لا شيء|لا يوجد إدخال|لا يوجد مدخلات|غير مطلوب|कोई नहीं|कोई इनपुट नहीं|आवश्यक नहीं|नहीं)\W*$",
    re.IGNORECASE,
)


def parse_examples(text: str, *, cut: bool = False) -> list[Candidate]:
    """Whole examples out of numbered Instruction/Input/Output lines; one that was cut is dropped."""
    items = json_items(text, "tasks")
    if items is not None:
        return [candidate for item in items if (candidate := _candidate(item)) is not None]
    candidates = [
        Candidate(
            instruction=_one_line(match["instruction"]),
            input=no_input(match["input"]),
            output=match["output"].strip().rstrip("#").strip(),
        )
        for match in _FIELDS.finditer(text)
    ]
    return candidates[:-1] if cut else candidates


def _candidate(item: object) -> Candidate | None:
    """A whole example out of JSON; None where it is something else."""
    parts = [item.get(name) for name in ("instruction", "input", "output")] if isinstance(item, dict) else []
    if not parts or not all(isinstance(part, str) for part in parts):
        return None
    instruction, given, output = (str(part) for part in parts)
    return Candidate(instruction=_one_line(_NUMBER.sub("", instruction)), input=no_input(given), output=output.strip())


def no_input(text: str) -> str:
    """The input a model wrote, empty where it says that there is none."""
    return "" if _NO_INPUT.match(text) else text.strip()


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(":：")
