"""Several judges or evaluation sets in one run: each one's figures, what most judges say, and how far they agree.

store entries ─> Opinion (one judge on one set) ─> Panel ─> run.json, the report, the terminal, comparisons
A run with one of each has no panel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minilima.config.schema import Config
from minilima.evaluate.judged import Judged, read_judged
from minilima.evaluate.panel import Concord, concords, majority
from minilima.evaluate.results import Results
from minilima.evaluate.statistics import WinRate, win_rate
from minilima.formats.records import Verdict
from minilima.report.run_results import run_results
from minilima.store.entries import Artifact
from minilima.store.sources import Sources


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One judge on one evaluation set, as the pipeline knows it."""

    set: str
    judge: str
    """Names of both; empty where the run has one."""
    roles: Mapping[str, str]
    """The role in this run of each stage that a run of one judge and one set calls so."""
    config: Config
    sources: Sources
    identity: str
    """Of the judge; its card is filed under it."""


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What one judge says on one evaluation set."""

    asked: Asked
    judged: Judged
    results: Results

    @property
    def name(self) -> str:
        """`cot`, `alpaca_eval`, or `cot on alpaca_eval`: what tells it from the others."""
        return " on ".join(filter(None, (self.asked.judge, self.asked.set)))

    @property
    def whose(self) -> str:
        """`by cot`, `on alpaca_eval`, or `by cot on alpaca_eval`."""
        return f"{'by' if self.asked.judge else 'on'} {self.name}"

    @property
    def verdicts(self) -> dict[str, Verdict]:
        return {prompt.id: prompt.verdict for prompt in self.judged.prompts}


@dataclass(frozen=True, kw_only=True)
class SetPanel:
    """All judges of one evaluation set."""

    set: str
    opinions: tuple[Opinion, ...]
    majority: WinRate | None
    """The win rate by what most judges prefer, of those with enough verdicts; None where there are not two of them."""
    concords: tuple[Concord, ...]

    @property
    def voting(self) -> int:
        """Judges with enough verdicts for a win rate of their own."""
        return sum(opinion.results.win_rate is not None for opinion in self.opinions)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """All sets, the experiment's own first."""

    sets: tuple[SetPanel, ...]

    @property
    def opinions(self) -> list[Opinion]:
        return [opinion for one in self.sets for opinion in one.opinions]

    def as_json(self) -> list[dict[str, Any]]:
        """For run.json: a list of sets with their judges' figures."""
        return [
            {
                "set": one.set,
                "judges": [
                    {"judge": opinion.asked.judge, "stage": opinion.asked.roles["verdicts"], "results": asdict(opinion.results)}
                    for opinion in one.opinions
                ],
                "majority": asdict(one.majority) if one.majority is not None else None,
                "agreement": [asdict(concord) for concord in one.concords],
            }
            for one in self.sets
        ]


def read_panel(asked: Sequence[Asked], artifacts: Mapping[str, Artifact]) -> Panel | None:
    """What all judges say; None where there is one judge and one set, or nothing was judged."""
    opinions = []
    for one in asked if len(asked) > 1 else ():
        folders: dict[str, Path] = {name: artifacts[role].path for name, role in one.roles.items() if role in artifacts}
        if (judged := read_judged(folders)) is None:
            return None
        key = artifacts[one.roles["verdicts"]].stage.key
        results = run_results(judged, one.config, one.sources, verdicts_key=key, judge_identity=one.identity)
        opinions.append(Opinion(asked=one, judged=judged, results=results))
    names = dict.fromkeys(opinion.asked.set for opinion in opinions)
    sets = tuple(_set_panel(name, [opinion for opinion in opinions if opinion.asked.set == name]) for name in names)
    return Panel(sets=sets) if opinions else None


def _set_panel(name: str, opinions: Sequence[Opinion]) -> SetPanel:
    judges = {opinion.asked.judge: opinion.verdicts for opinion in opinions}
    ids = [prompt.id for prompt in opinions[0].judged.prompts]
    voting = [opinion.verdicts for opinion in opinions if opinion.results.win_rate is not None]
    by_most = win_rate(majority(voting, ids)) if len(voting) > 1 else None
    return SetPanel(set=name, opinions=tuple(opinions), majority=by_most, concords=concords(judges))


def panel_facts(panel: Panel | None) -> list[tuple[str, str]]:
    """What each further judge and set says, what most judges say, and how far any two of them agree, each by its name."""
    if panel is None:
        return []
    rates = []
    for number, opinion in enumerate(panel.opinions):
        if (rate := opinion.results.win_rate) is None:
            rates.append(f"{opinion.name}: {opinion.results.coverage.refusal()}")
        elif number:
            counts = f"{rate.wins} won, {rate.losses} lost, {rate.ties} tied; {opinion.results.coverage}"
            rates.append(f"{rate.win_rate.text('.1f', ' %')}, {opinion.whose} ({counts})")
    most = [
        f"{rate.win_rate.text('.1f', ' %')}, by most of {one.voting} judges{f' on {one.set}' if one.set else ''} "
        f"({rate.wins} won, {rate.losses} lost, {rate.ties} tied)"
        for one in panel.sets
        if (rate := one.majority) is not None
    ]
    agreed = [f"{f'on {one.set}: ' if one.set else ''}{concord_text(concord)}" for one in panel.sets for concord in one.concords]
    return [*_named("Win rates", rates), *_named("Majority", most), *_named("Agreement", agreed)]


def _named(name: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Facts of one kind, of which the first has the name."""
    return [("" if number else name, text) for number, text in enumerate(texts)]


def concord_text(concord: Concord) -> str:
    """`chatgpt and cot agree on 72 % of 100 prompts; Cohen's kappa 0.44, 95 % interval …`."""
    figures = [("Cohen's kappa", concord.kappa), ("Spearman", concord.spearman)]
    known = [f"{what} {figure.text('.2f')}" for what, figure in figures if figure is not None]
    return "; ".join([f"{concord.first} and {concord.second} agree on {concord.same:.0%} of {concord.prompts:,} prompts", *known])
