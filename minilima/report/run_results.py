"""The figures of a run: from what was judged, the tables for length control, and what was measured of the judge."""

from dataclasses import replace
from pathlib import Path

from minilima.config.schema import Config
from minilima.evaluate.judge import draws_order
from minilima.evaluate.judge_cards import find_card
from minilima.evaluate.judge_forms import form_of
from minilima.evaluate.judged import Judged
from minilima.evaluate.length_control_cached import length_controlled_win_rate
from minilima.evaluate.length_control_tables import LengthControlled, NotKnown
from minilima.evaluate.results import Results, compute_results, loss_against
from minilima.report.alpaca_files import as_run
from minilima.store.sources import Sources


def run_results(judged: Judged, config: Config, sources: Sources, *, verdicts_key: str, judge_identity: str) -> Results:
    """All figures of one run.

    Args:
        judged: what was judged.
        config: the run's settings.
        sources: the files that it was made from.
        verdicts_key: the verdicts' key in the store, under which their length-controlled win rate is remembered.
        judge_identity: names the judge; its card is filed under it.
    """
    results = compute_results(judged, min_coverage=config.judge.min_coverage, random_order=draws_order(config.judge))
    outputs = Path(config.paths.outputs)
    controlled: LengthControlled | NotKnown | None = None
    if any(judged.weights):
        controlled = NotKnown(reason="strong verdicts count more than once here, which length control does not know")
    elif results.win_rate is not None:
        tables = Path(config.paths.length_tables).expanduser() if config.paths.length_tables else None
        remembered = outputs / "cache" / "length_control"
        controlled = length_controlled_win_rate(as_run(config.judge, judged), verdicts_key, tables, remembered)
    card = find_card(judge_identity, form_of(config.judge), outputs / "judges")
    results = replace(results, judge_card=card, length_controlled=controlled)
    if sources.reference is None:
        return results
    other = sources.reference.name
    loss = loss_against(sources.reference.path, judged)
    return replace(results, against=f"the answers in {other}", other=other, loss_against=loss)
