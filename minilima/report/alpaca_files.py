"""A run's verdicts in AlpacaEval's formats, beside the report: annotations.json and leaderboard.csv.

verdicts.jsonl + both models' answers ─> annotations.json      read by `minilima score` and by alpaca_eval
                          the figures ─> leaderboard.csv
"""

import math
from pathlib import Path

from minilima.config.choices import JudgeKind
from minilima.config.schema import JudgeConfig
from minilima.evaluate.judge_forms import form_named, form_shown
from minilima.evaluate.judged import Judged
from minilima.evaluate.length_control_tables import LengthControlled
from minilima.evaluate.results import Results
from minilima.formats.annotations import Annotation, Run, mean_length, write_annotations, write_leaderboard


def write_alpaca_files(folder: Path, judge: JudgeConfig, judged: Judged, results: Results) -> None:
    """Writes both files into the run's folder.

    Args:
        folder: the run's.
        judge: the run's.
        judged: what it judged.
        results: below the least coverage the leaderboard has only the counts.
    """
    run = as_run(judge, judged)
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


def as_run(judge: JudgeConfig, judged: Judged) -> Run:
    """The verdicts with what was judged, as annotations of the tuned model against its base."""
    annotations = tuple(
        Annotation(
            instruction=prompt.instruction,
            output_1=prompt.reference.text,
            output_2=prompt.tuned.text,
            preference=prompt.verdict.preference,
            dataset=prompt.category,
            # alpaca_eval asks in one order; two replies must not be taken for one.
            raw_completion={"both_orders": prompt.verdict.explanation} if prompt.verdict.orders else prompt.verdict.explanation,
        )
        for prompt in judged.prompts
    )
    first = judged.prompts[0]
    names = {"generator": first.tuned.generator, "baseline": first.reference.generator}
    return Run(**names, judge=judge_name(judge), annotations=annotations)


def judge_name(judge: JudgeConfig) -> str:
    """What stands as `annotator`: all that makes verdicts of two judges different."""
    if judge.kind == JudgeKind.alpaca_eval:
        own = str(judge.annotators_config)
        return f"{own} ({judge.model})" if judge.model else own
    parts, form = ["minilima", str(judge.kind)], form_shown(judge)
    # Of a judge that sees each answer alone no order is part.
    orders = [] if form is not None and form_named(form).alone else [judge.orders]
    if judge.kind == JudgeKind.openai:
        parts += [form or "", judge.model or "", *orders]
    elif judge.kind == JudgeKind.local:
        parts += [Path(judge.model).name if judge.model else "base", *([form] if form else []), *orders]
    return "_".join(parts)
