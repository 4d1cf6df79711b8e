"""A judge's verdicts on pairs that people have labelled: what its card is measured on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minilima.config.schema import Config
from minilima.console import count
from minilima.formats.records import OnProgress
from minilima.run.graph import Node
from minilima.run.spec import work
from minilima.run.stages.verdicts import VERDICTS, describe, judge_recipe
from minilima.store.job import Job, Outcome, Stage
from minilima.store.sources import Sources


def _outcome(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['judged']:,} of {count(metrics['prompts'], 'pair')} judged"


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.evaluate.agreement import build_agreement

    return build_agreement(job, on_progress)


AGREEMENT = replace(
    VERDICTS,
    kind="agreement",
    stage="agreement",
    until=None,
    describe=describe,
    outcome=_outcome,
    build=_build,
    planned_work=lambda config, sources, inputs: work(None),
    finished_work=lambda manifest, inputs: work(None),
)


def agreement(config: Config, sources: Sources, pairs: str, judge: Node | None) -> tuple[Stage, Node]:
    """The pairs as an entry of the store, and the judge's verdicts on them.

    Args:
        config: names the judge.
        sources: where it comes from.
        pairs: hash of what the judge sees of the pairs.
        judge: the conversion of its weights, where it is a packaged model on this machine.
    """
    given = Stage(name="pairs", version=1, recipe={"pairs": pairs})
    inputs = {"pairs": given, **({"judge": judge.stage} if judge else {})}
    recipe = {**judge_recipe(config, sources), "pairs": pairs}
    stage = Stage(name=AGREEMENT.stage, version=AGREEMENT.version, recipe=recipe, inputs=inputs)
    return given, Node(spec=AGREEMENT, stage=stage, config=config, sources=sources)
