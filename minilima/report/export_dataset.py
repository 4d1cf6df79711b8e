"""Takes a finished data set out of the store, in the forms that other tools read, with a data card.

    store/dataset-… ─> FOLDER/data/train.parquet                          datasets.load_dataset(FOLDER)
                              hf_dataset/                                 datasets.load_from_disk(FOLDER/hf_dataset)
                              alpaca.json  messages.jsonl  dataset_info.json   LLaMA-Factory, and data.path=… here
    store/pool-…/preferences.jsonl ─> preferences.jsonl  preferences.json      TRL; LLaMA-Factory: pairs for preference training
                              README.md                                   the data card
The folder is written aside and renamed: it is there whole or not at all. Nothing is uploaded unless a name is given.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.config.choices import DataKind, GeneratorKind
from minilima.config.schema import Config
from minilima.formats.files import new_folder, read_jsonl, sizes, write_atomic, write_jsonl
from minilima.formats.llamafactory import FILE_NAME
from minilima.formats.records import Example, user_text
from minilima.models.packaged import PACKAGED
from minilima.report.dataset_card import CardFacts, Origin, card_text
from minilima.store.entries import Artifact
from minilima.store.sources import Sources


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote: the folder, its files with their sizes in bytes, and the number of examples."""

    folder: Path
    files: dict[str, int]
    examples: int


def export_data(
    config: Config, sources: Sources, dataset: Artifact, pool: Artifact | None, folder: Path, model: str | None = None
) -> Exported:
    """Writes the experiment's data set into a new folder.

    Args:
        config: the experiment.
        sources: what its inputs are.
        dataset: its data set.
        pool: what the data set was chosen from, where that is still in the store.
        folder: must not be there yet, or be empty.
        model: the name on the hub of a model that was trained on it.

    Raises:
        MinilimaError: the folder holds something.
    """
    facts = CardFacts(
        name=config.name,
        examples=[Example(**row) for row in read_jsonl(dataset.path / "dataset.jsonl")],
        dataset=dataset.manifest,
        pool=pool.manifest if pool else None,
        origin=_origin(config, sources),
        model=model,
    )
    with new_folder(folder) as aside:
        _write(aside, facts, preference_pairs(dataset, pool))
    return Exported(folder=folder, files=sizes(folder), examples=len(facts.examples))


def _origin(config: Config, sources: Sources) -> Origin:
    """Who wrote the rows, and what that means for passing them on."""
    if config.data.kind == DataKind.file:
        assert sources.data is not None
        return Origin(
            what="imported from",
            name=f"{sources.data.name} (sha256 {sources.data.sha256})",
            terms="the licence of the imported file holds, and the terms of any model that wrote it.",
        )
    # With data=answers the tasks may come from a file, and only the answers from the model.
    tasks = "to the tasks of an imported file (whose own licence holds too), " if sources.data is not None else ""
    if config.generator.kind == GeneratorKind.openai:
        return Origin(
            what=f"written, except for the seed tasks, {tasks}over an API by",
            name=str(config.generator.model),
            terms="the provider's terms may limit what its output may be used for, for example to train other models. "
            "Read them before you pass this on.",
        )
    source = sources.generator or sources.base
    location = source.location
    terms = "the model's licence may set conditions for what it writes. Read it before you pass this on."
    if source.kind == "packaged":
        terms = f"that model's licence is {PACKAGED[location].licence}."
    # A folder's full path says more about its owner than about the model.
    name = Path(location).name if source.kind == "path" else location
    return Origin(what=f"written, except for the seed tasks, {tasks}on the author's machine by", name=name, terms=terms)


def preference_pairs(dataset: Artifact, pool: Artifact | None) -> list[dict[str, Any]]:
    """The pairs of a better and a worse answer (best-of-n) to tasks that the data set could choose: not those that resemble an
    evaluation prompt."""
    file = pool.path / "preferences.jsonl" if pool is not None else None
    if file is None or not file.is_file():
        return []
    order = dataset.path / "order.jsonl"
    usable = {row["id"] for row in read_jsonl(order if order.is_file() else dataset.path / "dataset.jsonl")}
    return [row for row in read_jsonl(file) if row["id"] in usable]


def _write(folder: Path, facts: CardFacts, pairs: Sequence[dict[str, Any]]) -> None:
    _write_datasets(folder, facts.examples)
    rows = alpaca_rows(facts.examples)
    write_atomic(folder / "alpaca.json", json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    write_jsonl(folder / "messages.jsonl", ({"messages": example.messages()} for example in facts.examples))
    info = dataset_info(facts.name, rows)
    if pairs:
        write_jsonl(folder / "preferences.jsonl", map(_conversational, pairs))
        kept = [{name: pair[name] for name in ("instruction", "input", "chosen", "rejected")} for pair in pairs]
        write_atomic(folder / "preferences.json", json.dumps(kept, ensure_ascii=False, indent=1) + "\n")
        info[f"{facts.name}_preferences"] = {"file_name": "preferences.json", "ranking": True, "columns": _RANKED}
    write_atomic(folder / FILE_NAME, json.dumps(info, ensure_ascii=False, indent=1) + "\n")
    write_atomic(folder / "README.md", card_text(facts))


_RANKED = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}


def _conversational(pair: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """A pair as TRL's trainers of preferences read it: the prompt, and both answers, as turns."""
    asked = user_text(pair["instruction"], pair["input"])
    turns = {"prompt": ("user", asked), "chosen": ("assistant", pair["chosen"]), "rejected": ("assistant", pair["rejected"])}
    return {name: [{"role": role, "content": text}] for name, (role, text) in turns.items()}


def alpaca_rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Alpaca's columns; history and system in all rows where any row has them, since LLaMA-Factory reads a table."""
    histories, systems = any(example.history for example in examples), any(example.system for example in examples)
    rows: list[dict[str, Any]] = []
    for example in examples:
        row: dict[str, Any] = {"instruction": example.instruction, "input": example.input, "output": example.output}
        row |= {"history": [list(turn) for turn in example.history]} if histories else {}
        row |= {"system": example.system or ""} if systems else {}
        rows.append(row)
    return rows


def dataset_info(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """LLaMA-Factory's two entries: the alpaca file under the experiment's name, and the conversations."""
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    columns |= {column: column for column in ("history", "system") if column in rows[0]}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    return {
        name: {"file_name": "alpaca.json", "columns": columns},
        f"{name}_messages": {
            "file_name": "messages.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {**tags, "system_tag": "system"},
        },
    }


def _write_datasets(folder: Path, examples: Sequence[Example]) -> None:
    """The parquet file and the arrow folder, with a type for each column even where it is empty in all rows."""
    import datasets

    text, number = datasets.Value("string"), datasets.Value("float64")
    names = ("id", "system", "instruction", "input", "output", "source", "prompt", "request", "nearest_id")
    columns: dict[str, Any] = dict.fromkeys(names, text) | dict.fromkeys(("score", "nearest_rouge"), number)
    columns |= {"history": datasets.List(datasets.List(text)), "parents": datasets.List(text)}
    columns |= {"is_classification": datasets.Value("bool"), "round": datasets.Value("int64")}
    if scored := sorted({name for example in examples for name in example.scores or ()}):
        columns["scores"] = dict.fromkeys(scored, number)
    else:
        columns["scores"] = datasets.Value("null")
    rows = [{name: getattr(example, name) for name in columns} for example in examples]
    table = datasets.Dataset.from_list(rows, features=datasets.Features(columns))
    (folder / "data").mkdir()
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        table.to_parquet(folder / "data" / "train.parquet")
        table.save_to_disk(folder / "hf_dataset")
    finally:
        if shown:
            datasets.enable_progress_bars()
