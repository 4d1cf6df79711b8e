"""One small table of each kind that people have, with what is read from it; the page docs/reference/formats.md shows them.

python -m tests.formats.shapes      # writes the page, by reading each of them
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from minilima.errors import MinilimaError
from minilima.formats.imports import Imported, Reading, read_file
from minilima.formats.llamafactory import locate

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"
ASKED, REPLIED = {"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}
USER, ASSISTANT = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}
OPENED = {"role": "system", "content": "S"}
WORSE = {**ASSISTANT, "content": "Go."}
SIDES = {"chosen": "chosen", "rejected": "rejected"}
OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A row as people have it, and what is read: the messages of its example, a reason, or a part of the refusal."""

    name: str
    row: dict[str, Any]
    said: tuple[str, ...] = ("user: Hi.", "assistant: Hello.")
    reason: str | None = None
    refusal: str | None = None
    entry: dict[str, Any] | None = None
    """Of a dataset_info.json."""
    reading: Reading = field(default_factory=Reading)
    settings: str = ""

    def read(self, folder: Path) -> Imported:
        """What is read from a file with this row alone beside one that is always fine."""
        fine = self.row if self.entry is not None else {"instruction": "Fine.", "output": "Yes."}
        (folder / "rows.json").write_text(json.dumps([self.row, fine]))
        path, layout = folder / "rows.json", None
        if self.entry is not None:
            (folder / "dataset_info.json").write_text(json.dumps({"demo": {"file_name": "rows.json", **self.entry}}))
            path, _, layout = locate(folder / "dataset_info.json", "demo")
        return read_file(path, layout, self.reading)


CHOSEN = Reading(chosen=True)
SHARED = {"formatting": "sharegpt"}
SHAPES = (
    Shape(name="alpaca, code_alpaca, BELLE (one turn)", row={"instruction": "Add.", "input": "1, 2", "output": "3"},
          said=("user: Add.\n\n1, 2", "assistant: 3")),
    Shape(name="alpaca with the mark <noinput>", row={"instruction": "Hi.", "input": "<noinput>", "output": "Hello."}),
    Shape(name="alpaca with history and system",
          row={"instruction": "Hi.", "output": "Hello.", "history": [["A", "B"]], "system": "S"},
          said=("system: S", "user: A", "assistant: B", "user: Hi.", "assistant: Hello.")),
    Shape(name="Self-Instruct's seed tasks",
          row={"id": "t", "instruction": "Hi.", "instances": [{"input": "", "output": "Hello."}], "is_classification": False}),
    Shape(name="dolly", row={"instruction": "Who?", "context": "Ann won.", "response": "Ann.", "category": "closed_qa"},
          said=("user: Who?\n\nAnn won.", "assistant: Ann.")),
    Shape(name="LIMA", row={"conversations": ["Hi.", "Hello."], "source": "authors"}),
    Shape(name="ShareGPT", row={"id": "x", "conversations": [ASKED, REPLIED]}),
    Shape(name="BELLE (several turns)", row={"conversations": [ASKED, {"from": "assistant", "value": "Hello."}]}),
    Shape(name="OpenAI messages, oasst in this form", row={"messages": [{"role": "system", "content": ""}, USER, ASSISTANT]}),
    Shape(name="OpenAI messages in parts",
          row={"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}, ASSISTANT]}),
    Shape(name="OpenAI messages with a picture as a part",
          row={"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "a.png"}]}, ASSISTANT]},
          refusal="a part of the type 'image_url'"),
    Shape(name="ultrachat", row={"prompt": "Hi.", "prompt_id": "x", "messages": [USER, ASSISTANT]}),
    Shape(name="a developer's message, a ShareGPT export of another model",
          row={"conversations": [{"from": "developer", "value": "S"}, ASKED, {"from": "chatgpt", "value": "Hello."}]},
          said=("system: S", "user: Hi.", "assistant: Hello.")),
    Shape(name="system_prompt", row={"instruction": "Hi.", "output": "Hello.", "system_prompt": "S"},
          said=("system: S", "user: Hi.", "assistant: Hello.")),
    Shape(name="OpenOrca", row={"system_prompt": "S", "question": "Hi.", "response": "Hello."},
          said=("system: S", "user: Hi.", "assistant: Hello.")),
    Shape(name="TRL: prompt and completion", row={"prompt": "Hi.", "completion": "Hello."}),
    Shape(name="TRL: conversational prompt and completion", row={"prompt": [USER], "completion": [ASSISTANT]}),
    Shape(name="TRL: several turns, and a prompt that opens with a system message",
          row={"prompt": [OPENED, USER, ASSISTANT, {**USER, "content": "And?"}], "completion": "Bye."},
          said=("system: S", "user: Hi.", "assistant: Hello.", "user: And?", "assistant: Bye.")),
    Shape(name="TRL: KTO", row={"prompt": "Hi.", "completion": "Go.", "label": 0}, reason="label_false"),
    Shape(name="TRL: with settings of the chat template",
          row={"prompt": [USER], "completion": [ASSISTANT], "chat_template_kwargs": {"enable_thinking": True}},
          refusal="chat_template_kwargs"),
    Shape(name="question and answer (GSM8K)", row={"question": "Hi.", "answer": "Hello."}),
    Shape(name="SQuAD", row={"id": "x", "title": "t", "context": "Ann won.", "question": "Who?",
                             "answers": {"text": ["Ann.", "Ann."], "answer_start": [0, 0]}},
          said=("user: Who?\n\nAnn won.", "assistant: Ann.")),
    Shape(name="several right answers", row={"question": "Who?", "answers": ["Ann.", "Bea."]}, refusal="several answers"),
    Shape(name="a choice that the question does not name", row={"question": "Who?", "choices": ["Ann", "Bea"], "answer": "Ann"},
          refusal="choices that its question does not name"),
    Shape(name="ms-swift", row={"query": "Hi.", "response": "Hello.", "history": [["A", "B"]], "system": "S"},
          said=("system: S", "user: A", "assistant: B", "user: Hi.", "assistant: Hello.")),
    Shape(name="ms-swift: with a worse answer", row={"messages": [USER, ASSISTANT], "rejected_response": "Go."}, reading=CHOSEN,
          settings="data.side=chosen"),
    Shape(name="input and output", row={"input": "Hi.", "output": "Hello."}),
    Shape(name="Firefly", row={"conversation_id": 1, "conversation": [{"human": "Hi.", "assistant": "Hello."}]}),
    Shape(name="XTuner", row={"conversation": [{"system": "S", "input": "Hi.", "output": "Hello."}]},
          said=("system: S", "user: Hi.", "assistant: Hello.")),
    Shape(name="WildChat, LMSYS", row={"conversation": [{**USER, "toxic": False}, {**ASSISTANT, "toxic": False}], "turn": 1}),
    Shape(name="a dialog of texts", row={"dialog": ["Hi.", "Hello."]}),
    Shape(name="turns with text", row={"conversations": [{"from": "Human", "text": "Hi."}, {"from": "Model", "text": "Hello."}]}),
    Shape(name="axolotl: turns that are not trained", row={"conversations": [ASKED, {**REPLIED, "train_on_turn": False}]},
          reason="train_on_turn_false"),
    Shape(name="masked, loss, deleted and the like", row={"instruction": "Hi.", "output": "Go.", "masked": True},
          reason="masked_true"),
    Shape(name="Mistral: an answer whose beginning is given", row={"messages": [USER, {**ASSISTANT, "prefix": True}]},
          refusal="prefix"),
    Shape(name="two questions", row={"instruction": "Be brief.", "question": "Hi.", "output": "Hello."},
          refusal="an instruction and a question"),
    Shape(name="Orca's DPO", row={"system": "S", "question": "Hi.", "chosen": "Hello.", "rejected": "Go."}, reading=CHOSEN,
          settings="data.side=chosen", said=("system: S", "user: Hi.", "assistant: Hello.")),
    Shape(name="two answers", row={"instruction": "Hi.", "output": "Hello.", "response": "Go."},
          refusal="an output and a response"),
    Shape(name="two conversations", row={"messages": [USER, ASSISTANT], "conversations": [ASKED]},
          refusal="messages and conversations"),
    Shape(name="an example beside a conversation", row={"instruction": "Hi.", "output": "Go.", "messages": [USER, ASSISTANT]},
          refusal="an instruction with output beside its messages"),
    Shape(name="ShareGPT with calls of tools",
          row={"conversations": [ASKED, {"from": "function_call", "value": "{}"}, REPLIED]},
          refusal="'function_call' in turn 2"),
    Shape(name="OpenAI messages with weight 0", row={"messages": [USER, {**ASSISTANT, "weight": 0}]}, reason="weight_0"),
    Shape(name="OpenAI messages with calls of tools", row={"messages": [USER, {**ASSISTANT, "tool_calls": [{"id": "1"}]}]},
          refusal="tool_calls"),
    Shape(name="thoughts before the answer", row={"messages": [USER, {**ASSISTANT, "reasoning_content": "Hm."}]},
          refusal="reasoning_content"),
    Shape(name="oasst: a tree of messages a row (best-ranked replies)",
          row={"message_tree_id": "1", "prompt": {"message_id": "1", "role": "prompter", "text": "Hi.", "replies": [
              {"message_id": "2", "role": "assistant", "text": "Go.", "rank": 1, "replies": []},
              {"message_id": "3", "role": "assistant", "text": "Hello.", "rank": 0, "replies": []}]}}),
    Shape(name="oasst: a message a row, here a first one that nobody answers",
          row={"message_id": "1", "parent_id": None, "role": "prompter", "text": "Hi."}, reason="unanswered"),
    Shape(name="own columns, named by a setting", row={"frage": "Hi.", "antwort": "Hello.", "instruction": None},
          reading=Reading(columns=(("instruction", "frage"), ("output", "antwort")), reject=True),
          settings="data.columns.instruction=frage data.columns.output=antwort"),
    Shape(name="own columns", row={"frage": "Hi.", "antwort": "Hello."}, refusal="no known format"),
    Shape(name="a text alone", row={"text": "Hi."}, refusal="a text alone"),
    Shape(name="empty answer", row={"instruction": "Hi.", "output": ""}, reason="empty_output"),
    Shape(name="prompt without an answer", row={"conversations": ["Hi."]}, reason="unanswered"),
    Shape(name="pictures", row={"instruction": "Hi.", "output": "Hello.", "images": ["a.png"]}, refusal="images"),
    Shape(name="KTO", row={"instruction": "Hi.", "output": "Go.", "label": False}, reason="label_false"),
    Shape(name="DPO", row={"prompt": "Hi.", "chosen": "Hello.", "rejected": "Go."}, refusal="a chosen and a rejected answer"),
    Shape(name="DPO", row={"prompt": "Hi.", "chosen": [USER, ASSISTANT], "rejected": [USER, WORSE]}, reading=CHOSEN,
          settings="data.side=chosen"),
    Shape(name="LLaMA-Factory: alpaca_en_demo, identity", row={"instruction": "Hi.", "input": "", "output": "Hello."}, entry={}),
    Shape(name="LLaMA-Factory: glaive_toolcall_en_demo", row={"conversations": [ASKED, REPLIED], "tools": "[]"},
          entry={**SHARED, "columns": {"messages": "conversations", "tools": "tools"}}, refusal="the columns tools"),
    Shape(name="LLaMA-Factory: mllm_demo", row={"messages": [USER, ASSISTANT], "images": ["a.jpg"]},
          entry={**SHARED, "columns": {"messages": "messages", "images": "images"}, "tags": OPENAI_TAGS},
          refusal="the columns images"),
    Shape(name="LLaMA-Factory: dpo_en_demo",
          row={"conversations": [ASKED], "chosen": REPLIED, "rejected": {"from": "gpt", "value": "Go."}},
          entry={**SHARED, "ranking": True, "columns": {"messages": "conversations", **SIDES}}, reading=CHOSEN,
          settings="data.side=chosen"),
    Shape(name="LLaMA-Factory: kto_en_demo", row={"messages": [USER, ASSISTANT], "label": True},
          entry={**SHARED, "columns": {"messages": "messages", "kto_tag": "label"}, "tags": OPENAI_TAGS}),
    Shape(name="LLaMA-Factory: c4_demo", row={"text": "Hi."}, entry={"columns": {"prompt": "text"}}, refusal="names no response"),
)  # fmt: skip


def page() -> str:
    """The page, made by reading each shape."""
    lines = [
        "# Formats and what is read",
        "",
        "<!-- Written by python -m tests.formats.shapes from the tables that the tests read. -->",
        "",
        "Every row is read from a JSON, JSONL, CSV, TSV, parquet or arrow file, also packed with gzip, bzip2, xz or zstd;",
        "from a folder of `save_to_disk`; and from the shards of a folder, of a ZIP archive or of a pattern",
        "(`data.path=/my/train-*.jsonl`), by the numbers in their names. Files of several splits in one place are refused: name",
        "one. Texts are UTF-8 or UTF-16. A refusal names the rows; `data.on_bad_row=reject` leaves them out instead. A plan",
        "names the columns that are not used.",
        "",
        "| Kind | A row | What is read |",
        "|---|---|---|",
    ]
    for shape in SHAPES:
        with TemporaryDirectory() as folder:
            try:
                read = _read(shape.read(Path(folder)))
            except MinilimaError as error:
                read = "refused: " + error.what.replace(f"{Path(folder)}/", "").replace(str(Path(folder).resolve()) + "/", "")
        row = json.dumps(shape.row, ensure_ascii=False)
        name = shape.name + (f" (`{shape.settings}`)" if shape.settings else "")
        lines.append(f"| {name} | `{row}` | {_cell(read)} |")
    return "\n".join(lines) + "\n"


def _read(imported: Imported) -> str:
    rows = [item for item in imported.rejected if item.id == "row1"]
    examples = [example for example in imported.examples if example.id == "row1"]
    said = [f"{turn['role']}: {turn['content']}" for example in examples for turn in example.messages()]
    return " / ".join([*said, *(f"left out: {item.reason}" for item in rows)])


def _cell(text: str) -> str:
    return text.replace("\n", " ⏎ ").replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
