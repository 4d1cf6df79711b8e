"""A run's verdicts in AlpacaEval's formats, beside the report: annotations.json and leaderboard.csv.

verdicts.jsonl + both models' answers ─> annotations.json      read by `minilima score` and by alpaca_eval
                          the figures ─> leaderboard.csv
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from minilima.config.choices import JudgeKind
from minilima.config.schema import Config, JudgeConfig
from minilima.evaluate.length_control_tables import LengthControlled
from minilima.evaluate.results import Results
from minilima.formats.annotations import Annotation, Run, mean_length, write_annotations, write_leaderboard
from minilima.formats.files import read_jsonl
from minilima.formats.records import Answer, Verdict
from minilima.store.entries import Artifact


def write_alpaca_files(folder: Path, config: Config, artifacts: Mapping[str, Artifact], results: Results) -> None:
    """Writes both files into the run's folder.

    Args:
        folder: the run's.
        config: names the judge.
        artifacts: with verdicts, answers and reference_answers.
        results: below the least coverage the leaderboard has only the counts.
    """
    run = as_run(config, artifacts)
    write_annotations(folder / "annotations.json", run)
    row: dict[str, object] = {
        "n_total": results.coverage.judged,
        "mode": "community",
        "avg_length": int(mean_length([row.output_2 for row in run.annotations])),
    }
    if (rate := results.win_rate) is not None:
        row |= {
            "win_rate": rate.win_rate.value,
            "standard_error": None if math.isnan(rate.standard_error) else rate.standard_error,
            "n_wins": rate.wins,
            "n_wins_base": rate.losses,
            "n_draws": rate.ties,
            "discrete_win_rate": rate.discrete_win_rate,
        }
    if isinstance(results.length_controlled, LengthControlled):
        row["length_controlled_winrate"] = results.length_controlled.value
    write_leaderboard(folder / "leaderboard.csv", {run.generator: row})


def as_run(config: Config, artifacts: Mapping[str, Artifact]) -> Run:
    """The verdicts with what was judged, as annotations of the tuned model against its base."""
    tuned, base = (_answers(artifacts[role].path) for role in ("answers", "reference_answers"))
    datasets = {row["instruction"]: row.get("dataset") for row in _model_outputs(artifacts["answers"].path)}
    rows = []
    for verdict in (Verdict(**row) for row in read_jsonl(artifacts["verdicts"].path / "verdicts.jsonl")):
        answer = tuned[verdict.id]
        rows.append(
            Annotation(
                instruction=answer.instruction,
                output_1=base[verdict.id].output,
                output_2=answer.output,
                preference=verdict.preference,
                dataset=datasets.get(answer.instruction),
                # alpaca_eval asks in one order; two replies must not be taken for one.
                raw_completion={"both_orders": verdict.explanation} if verdict.orders else verdict.explanation,
            )
        )
    generator, baseline = (next(iter(answers.values())).generator for answers in (tuned, base))
    return Run(generator=generator, baseline=baseline, judge=judge_name(config.judge), annotations=tuple(rows))


def judge_name(judge: JudgeConfig) -> str:
    """What stands as `annotator`: all that makes verdicts of two judges different."""
    if judge.kind == JudgeKind.alpaca_eval:
        own = str(judge.annotators_config)
        return f"{own} ({judge.model})" if judge.model else own
    parts = ["minilima", str(judge.kind)]
    if judge.kind == JudgeKind.openai:
        parts += [judge.prompt, judge.model or "", judge.orders]
    elif judge.kind == JudgeKind.local:
        parts += [Path(judge.model).name if judge.model else "base", *([judge.prompt] if judge.prompt != "choose" else [])]
        parts.append(judge.orders)
    return "_".join(parts)


def _answers(folder: Path) -> dict[str, Answer]:
    return {row["id"]: Answer(**row) for row in read_jsonl(folder / "answers.jsonl")}


def _model_outputs(folder: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads((folder / "model_outputs.json").read_text(encoding="utf-8"))
    return rows
