"""Finished runs in a temporary folder, each stage's files written here and not by a model."""

import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from minilima.config.compose import load_config
from minilima.config.schema import Config
from minilima.formats.files import write_jsonl
from minilima.pipeline import asked, stages
from minilima.report.run_folder import StageNote, write_run
from minilima.report.summary import Summary
from minilima.run.graph import run_key
from minilima.run.sources import resolve
from minilima.run.stages.verdicts import judge_identity
from minilima.store.entries import Artifact, Store
from minilima.store.job import Outcome

Prompt = dict[str, Any]
"""instruction, tuned, base, preference; orders, explanation and category where they matter; by the role of another judge's
verdicts what that one said."""


def finished_run(outputs: Path, prompts: Sequence[Prompt], *overrides: str) -> Summary:
    """The folder of a quickstart whose model gave these answers and whose judge these verdicts."""
    config = load_config(["+experiment=quickstart", f"paths.outputs={outputs}", *overrides])
    sources = resolve(config)
    graph = stages(config, sources)
    store = Store(outputs / "store")
    artifacts: dict[str, Artifact] = {
        node.role: store.get_or_build(node.stage, partial(_fill, node.role, config, prompts))
        for node in graph.until(config.until)
    }
    notes = {
        node.role: StageNote(outcome=node.spec.outcome(artifacts[node.role].metrics), files=node.spec.files)
        for node in graph.until(config.until)
    }
    folder = outputs / "runs" / f"{config.name}-{run_key(graph, config.until)}"
    return write_run(
        folder,
        config,
        sources,
        artifacts,
        notes=notes,
        judge_identity=judge_identity(config, sources),
        asked=asked(config, sources),
    )


def plain_prompts(count: int, skill: float = 0.5, seed: int = 0) -> list[Prompt]:
    """Prompts of which the tuned model wins about the share `skill`; hardness is shared by runs of one seed."""
    rng = random.Random(seed)
    return [
        {
            "instruction": f"Explain thing {number}.",
            "tuned": "word " * rng.randint(5, 60) + f"tuned {number}",
            "base": "word " * rng.randint(5, 60) + f"base {number}",
            "preference": 2.0 if rng.random() < skill else 1.0,
        }
        for number in range(count)
    ]


def _fill(role: str, config: Config, prompts: Sequence[Prompt], work: Path) -> Outcome:
    if role.startswith(("answers", "base_answers", "other_answers")):
        return _answers("tuned" if role.startswith("answers") else "base", prompts, work)
    if role.startswith("verdicts"):
        named = ("preference", "orders", "explanation", "weight", "scores", "turn_scores")
        # Of another judge, what a prompt holds under the role.
        prompts = [{**row, **row.get(role, {})} for row in prompts]
        rows = [
            {"id": str(number), **{name: row[name] for name in named if row.get(name) is not None}}
            for number, row in enumerate(prompts)
        ]
        write_jsonl(work / "verdicts.jsonl", rows)
        read = [row["preference"] for row in prompts if row["preference"] is not None]
        wins, losses = sum(value > 1.5 for value in read), sum(value < 1.5 for value in read)
        counts = {"wins": wins, "losses": losses, "ties": len(read) - wins - losses}
        return Outcome(metrics={"judged": len(read), "prompts": len(prompts), **counts})
    if role == "model":
        log = [{"step": step, "loss": 2.0 + 1 / step, "learning_rate": 1e-4, "epoch": step / 8} for step in range(1, 9)]
        write_jsonl(work / "training_log.jsonl", log)
        return Outcome(metrics={"steps": 8, "first_loss": 3.0, "last_loss": 2.125, "epoch_losses": [2.34]})
    if role == "dataset":
        return _dataset(config, prompts, work)
    if role == "pool":
        return _pool(prompts, work)
    if role.startswith("minilima_verifiable"):
        return _benchmark(role, work)
    return Outcome(metrics={"parameters": 1})


def _benchmark(role: str, work: Path) -> Outcome:
    """Of 20 items the base model gets the first 6, the tuned one those from the third to the twelfth, loosely one more."""
    right = range(2, 12) if role.endswith("_tuned") else range(6)
    rows = [{"id": str(n), "scores": {"strict": float(n in right), "loose": float(n in right or n == 19)}} for n in range(20)]
    write_jsonl(work / "items.jsonl", rows)
    return Outcome(metrics={"items": 20, "figures": {"strict": len(right) / 20, "loose": (len(right) + 1) / 20}, "truncated": 0})


def _answers(whose: str, prompts: Sequence[Prompt], work: Path) -> Outcome:
    told = {"generator": whose, "tokens": 9, "truncated": False}
    rows = [
        {"id": str(number), "instruction": row["instruction"], "output": row[whose], **told} for number, row in enumerate(prompts)
    ]
    # As a file may hold it that came from elsewhere: escaped, so that halves of characters survive.
    (work / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outputs = [{"dataset": row.get("category"), "instruction": row["instruction"], "output": row[whose]} for row in prompts]
    (work / "model_outputs.json").write_text(json.dumps(outputs))
    nats = 4.0 if whose == "tuned" else 6.0
    write_jsonl(work / "reference_loss.jsonl", [{"id": str(number), "nats": nats, "tokens": 2} for number in range(len(prompts))])
    words = sum(len(row[whose].split()) for row in prompts) / len(prompts)
    return Outcome(metrics={"answers": len(rows), "mean_words": words, "truncated": 0})


def _dataset(config: Config, prompts: Sequence[Prompt], work: Path) -> Outcome:
    rows = [
        {"id": str(number), "instruction": row["instruction"], "input": "", "output": row["base"], "source": "machine"}
        for number, row in enumerate(prompts)
    ]  # fmt: skip
    (work / "dataset.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "rejected.jsonl").write_text(json.dumps({"id": "x", "text": prompts[0]["instruction"], "reason": "duplicate"}) + "\n")
    counts = {"examples": config.dataset.size, "seed": 0, "machine": len(rows), "classification": 0, "available": len(rows)}
    return Outcome(metrics={**counts, "wanted": config.dataset.size, "labels": {prompts[0]["base"]: 3, "no": 1}})


def _pool(prompts: Sequence[Prompt], work: Path) -> Outcome:
    written = [{"id": "r0.0.0", "instruction": "Explain the moon", "round": 0, "nearest_id": "s1", "nearest_rouge": 0.3}]
    (work / "instructions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    near = {
        "id": "r0.0.1",
        "text": prompts[0]["instruction"],
        "reason": "near_duplicate",
        "nearest_id": "s1",
        "nearest_rouge": 0.9,
    }
    (work / "rejected.jsonl").write_text(json.dumps(near) + "\n")
    return Outcome(metrics={"tasks": 1, "rejected": 1, "rounds": [{"round": 0, "candidates": 2, "accepted": 1}]})
