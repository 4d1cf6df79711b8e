"""Judge cards: how well a judge agrees with people, beside the rule "the longer answer is better" that costs nothing.

    minilima agreement ─> outputs/judges/<identity>.json ─┐
    benchmarks/judge_cards.py    ─> minilima/data/judge_cards.json ─┴─> every run of that judge shows its card
A card belongs to a judge's identity: all that enters the key of its verdicts but the data. For a judge that nobody has
measured, what was published for the form it follows is shown, and that it was another model and another wording.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.errors import MinilimaError
from minilima.evaluate.statistics import Estimate
from minilima.formats.files import DATA

PACKAGED = DATA / "judge_cards.json"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure with its 95 % interval; `low` and `high` are None where it was published without one."""

    value: float
    low: float | None = None
    high: float | None = None

    def text(self, form: str = ".1f", unit: str = "", scale: float = 1) -> str:
        """The figure, times `scale`, with its interval as `Estimate.text`; alone where it has none."""
        if self.low is None or self.high is None:
            return f"{scale * self.value:{form}}{unit}"
        return Estimate(value=scale * self.value, low=scale * self.low, high=scale * self.high).text(form, unit)

    def bounds(self, form: str = ".1f", scale: float = 1) -> str:
        """The interval alone, times `scale`; empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        return Estimate(value=self.value, low=self.low, high=self.high).bounds(form, scale)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Results on one set of pairs. Shares are between 0 and 1, a tie of the judge counts half."""

    labels: str
    """The set: a file's name, or where the figures were published."""
    by: str
    """Whose choices the judge is compared with: `people`, or the name of another judge."""
    data: str = ""
    """16 hex digits of what the judge saw; empty for published figures."""
    pairs: int
    """Pairs in the set; for published figures, judgments."""
    unread: int
    """Pairs on which the judge gave no verdict that could be read; they count in no figure."""
    decided: int
    """Pairs with a verdict and with a winner in the labels: what `agreement` and `longest` rest on."""
    agreement: Figure
    kappa: Figure | None
    """Cohen's kappa over first better, tie, second better, ties of both sides included; 0 = chance."""
    longest: Figure
    """The floor: the agreement of "the longer answer is better" on the same pairs."""
    gain: Figure | None
    """agreement - longest, paired."""
    people: Figure | None
    """The agreement of one person with the others, where several labelled the same pairs."""
    consistency: Figure | None
    """How often both orders led to the same winner."""
    first_wins: Figure | None
    """How often the answer shown first won."""
    longer_wins: Figure | None
    """How often the longer answer won."""
    source: str
    """Where the pairs or the figures come from."""
    command: str
    """What computes them."""
    date: str = ""
    """The day on which the judge was asked, or on which a file of published figures was read."""
    entry: str = ""
    """The store entry with the verdicts."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Whether the judge puts models into the same order as a leaderboard."""

    models: tuple[str, ...]
    spearman: Figure
    leaderboard: str


@dataclass(frozen=True, kw_only=True)
class JudgeCard:
    """What is known of a judge."""

    judge: str
    """Its name, or that of the published judge whose form it follows."""
    identity: str
    """16 hex digits; empty where `own` is False."""
    own: bool
    """Whether this very judge was measured: same model, prompt, orders and sampling."""
    measured: tuple[Measured, ...]
    ranking: Ranking | None = None

    @property
    def against_people(self) -> Measured | None:
        """The largest set that people labelled; None where the judge was only compared with other judges."""
        by_people = [item for item in self.measured if item.by == "people"]
        return max(by_people, key=lambda item: item.decided) if by_people else None

    @property
    def above_floor(self) -> bool:
        """Whether this judge was shown to agree with people more often than the longer answer does.

        Where the figures have intervals, the whole interval of the paired difference must be above 0.
        """
        measured = self.against_people
        if not self.own or measured is None:
            return False
        if measured.gain is not None and measured.gain.low is not None:
            return measured.gain.low > 0
        return measured.agreement.value > measured.longest.value

    def sentence(self) -> str:
        """The card in one sentence or two."""
        measured = self.against_people
        if measured is None:
            return f"{self.judge} was compared with other judges only, not with people."
        human = f"; human-human agreement {share_text(measured.people)}" if measured.people else ""
        figures = (
            f"agreement with people {share_text(measured.agreement)}; "
            f'of "the longer answer" {share_text(measured.longest)}{human} ({measured.labels}).'
        )
        if self.own:
            return f"measured: {figures}"
        return f"this judge was not measured. The published judge of its form, {self.judge}: {figures}"


def share_text(figure: Figure, form: str = ".1f", unit: str = "%") -> str:
    """A share in percent, with its interval where there is one."""
    return figure.text(form, f" {unit}", scale=100)


def find_card(identity: str, form: str | None, folder: Path, packaged: Path = PACKAGED) -> JudgeCard | None:
    """The card of a judge: measured here, else packaged, else the published one of the form it follows.

    Args:
        identity: the judge's.
        form: name of the published judge whose form it follows; None = there is none.
        folder: `judges` of the outputs.
        packaged: cards that come with minilima.
    """
    own = folder / f"{identity}.json"
    if own.is_file():
        return read_card(own)
    known = read_packaged(packaged)
    exact = [card for card in known if card.own and card.identity == identity]
    published = [card for card in known if not card.own and card.judge == form]
    return next(iter([*exact, *published]), None)


def read_card(path: Path) -> JudgeCard:
    """A card that `minilima agreement` wrote.

    Raises:
        MinilimaError: the file is no such card.
    """
    try:
        return _card(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MinilimaError(
            f"The judge card {path} cannot be read.",
            f"{type(error).__name__}: {error}.",
            "Delete it, or measure the judge again with: minilima agreement",
        ) from None


def read_packaged(path: Path = PACKAGED) -> list[JudgeCard]:
    """The cards that come with minilima."""
    return [_card(card) for card in json.loads(path.read_text(encoding="utf-8"))["cards"]] if path.is_file() else []


def _card(values: Mapping[str, Any]) -> JudgeCard:
    ranking = values.get("ranking")
    return JudgeCard(
        judge=values["judge"],
        identity=values["identity"],
        own=values["own"],
        measured=tuple(_measured(item) for item in values["measured"]),
        ranking=Ranking(
            models=tuple(ranking["models"]), spearman=Figure(**ranking["spearman"]), leaderboard=ranking["leaderboard"]
        )
        if ranking
        else None,
    )


def _measured(values: Mapping[str, Any]) -> Measured:
    figures = ("agreement", "longest", "kappa", "gain", "people", "consistency", "first_wins", "longer_wins")
    fields: dict[str, Any] = {**values, **{name: Figure(**values[name]) for name in figures if values.get(name)}}
    return Measured(**fields)
