"""Measures a judge on labelled pairs, and writes and shows its card.

The verdicts are entries of the store like any stage's, and replies lie in the reply cache: nothing is asked twice.
"""

import csv
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from minilima import console
from minilima.config.choices import JudgeKind
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.evaluate.agreement import FEWEST_MODELS, measure, rank
from minilima.evaluate.judge import draws_order
from minilima.evaluate.judge_cards import Figure, JudgeCard, Measured, Ranking, find_card, read_card, share_text
from minilima.formats.files import read_jsonl, write_atomic, write_jsonl
from minilima.formats.preferences import LabelSet, read_labels, read_published
from minilima.formats.records import Verdict
from minilima.models.budget import missing_key
from minilima.models.database import cache_file
from minilima.report.alpaca_files import judge_name
from minilima.run.build import get_or_build
from minilima.run.graph import arrow
from minilima.run.preflight import confirm_usd
from minilima.run.probe import probe_missing
from minilima.run.requests import requests_of_judge
from minilima.run.sources import resolve
from minilima.run.stages.agreement import agreement
from minilima.run.stages.base import BASE, JUDGE_BASE
from minilima.run.stages.verdicts import judge_identity, judges_here
from minilima.store.entries import Store, reserved
from minilima.store.job import Outcome
from minilima.store.sources import Sources


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Where the labelled pairs are, how many of each file are taken, and the leaderboard whose ranks are compared."""

    labels: Sequence[Path]
    annotations: Sequence[Path]
    leaderboard: Path | None
    size: int | None

    def words(self) -> list[str]:
        """The options that name them on the command line."""
        named = [("--labels", file) for file in self.labels] + [("--annotations", file) for file in self.annotations]
        named += [("--leaderboard", self.leaderboard)] if self.leaderboard else []
        sized = ["--size", str(self.size)] if self.size is not None else []
        return [*(word for option, file in named for word in (option, str(file))), *sized]


def measure_judge(asked: Pairs, config: Config, command: str, *, confirmed: bool) -> tuple[JudgeCard, str]:
    """The judge's card, written; and why it ranks no models, where it does not."""
    sources = resolve(config)
    sets = [read_labels(file, asked.size) for file in asked.labels]
    published = [labels for file in asked.annotations for labels in read_published(file, asked.size)]
    _check_ready(config, sources, [*sets, *published], confirmed)
    _probe(config, sources, [*sets, *published])
    cards = [_judge(labels, config, sources, command) for labels in [*sets, *published]]
    ranking = _ranking(published, [verdicts for _, verdicts in cards[len(sets) :]], asked.leaderboard)
    card = JudgeCard(
        judge=judge_name(config.judge),
        identity=judge_identity(config, sources),
        own=True,
        measured=tuple(measured for measured, _ in cards),
        ranking=ranking if isinstance(ranking, Ranking) else None,
    )
    return _write(card, Path(config.paths.outputs) / "judges"), ranking if isinstance(ranking, str) else ""


def _check_ready(config: Config, sources: Sources, sets: Sequence[LabelSet], confirmed: bool) -> None:
    """Says what will be asked, and stops before anything is where a key, a model or a reference answer is missing."""
    asks = config.judge.kind == JudgeKind.openai or sources.annotators_ask_openai
    pairs = [pair for labels in sets for pair in labels.pairs]
    console.say(f"{judge_name(config.judge)} on {len(pairs):,} pairs")
    if asks and missing_key(config.endpoints.judge):
        variable = config.endpoints.judge.api_key_env
        raise MinilimaError(
            f"No API key: ${variable} is not set.",
            "The judge is a model behind an API; nothing was sent.",
            f"export {variable}=…",
        )
    if asks:
        guess = requests_of_judge(config, sources, [len(pair.instruction + pair.output_1 + pair.output_2) for pair in pairs])
        usd = f"{guess.usd:,.2f} USD by the prices of {guess.as_of}" if guess.usd is not None else "the price is not known"
        tokens = guess.prompt_tokens + guess.completion_tokens
        console.say(f"About {guess.requests:,} requests, {tokens:,} tokens, less what was asked before; {usd}.")
        if not confirmed:
            confirm_usd(guess.usd, config.confirm_above_usd)
    if sources.judge is not None and sources.judge.missing:
        raise MinilimaError(
            f"Not on this machine: {sources.judge.missing}.", "The judge's weights are needed.", "Fetch them with `hf download`."
        )


def _probe(config: Config, sources: Sources, sets: Sequence[LabelSet]) -> None:
    """Sends one small request before a judge at an endpoint is asked, as a run does."""
    store = Store(Path(config.paths.outputs) / "store")
    nodes = [agreement(config, sources, labels.data, None)[1] for labels in sets]
    missing = [node for node in nodes if sources.judge is None and store.find(node.stage) is None]
    probe_missing(missing, cache_file(store.root.parent))


def _judge(labels: LabelSet, config: Config, sources: Sources, command: str) -> tuple[Measured, Mapping[str, Verdict]]:
    """The judge's verdicts on a set of pairs, from the store or from the judge, and what they come to."""
    weights = arrow(config, sources, JUDGE_BASE if sources.judge else BASE) if judges_here(config) else None
    given, node = agreement(config, sources, labels.data, weights)
    store = Store(Path(config.paths.outputs) / "store")
    needs = [stage.directory for stage in (*node.stage.inputs.values(), node.stage)]
    with reserved(store.root, needs):
        if weights is not None:
            get_or_build(weights, store, needs=needs)

        def write(work: Path) -> Outcome:
            write_jsonl(work / "pairs.jsonl", labels.pairs)
            return Outcome(metrics={"pairs": len(labels.pairs)})

        store.get_or_build(given, write)
        artifact = get_or_build(node, store, needs=needs)
    verdicts = {row["id"]: Verdict(**row) for row in read_jsonl(artifact.path / "verdicts.jsonl")}
    measured = measure(
        labels,
        verdicts,
        random_order=draws_order(config.judge),
        source=labels.source,
        command=command,
        date=datetime.date.today().isoformat(),
        entry=artifact.path.name,
    )
    if measured is None:
        raise MinilimaError(
            f"Nothing can be said about {labels.name}.",
            f"The judge gave no verdict that can be read on any of its {len(labels.pairs):,} pairs that has a winner.",
            f"Look at {artifact.path / 'verdicts.jsonl'}: it holds the replies.",
        )
    return measured, verdicts


def _ranking(sets: Sequence[LabelSet], verdicts: Sequence[Mapping[str, Verdict]], leaderboard: Path | None) -> Ranking | str:
    """How the judge ranks models, or why that is not known."""
    if not sets:
        return "no annotations of models were given"
    if leaderboard is None:
        rates = {str(labels.model): sum(pair.labels[0] for pair in labels.pairs) / len(labels.pairs) for labels in sets}
        name = "the win rates in the annotations themselves"
    else:
        rates, name = _leaderboard(leaderboard), leaderboard.name
    if lacking := sorted({str(labels.model) for labels in sets if labels.model not in rates}):
        return f"{name} lacks {', '.join(lacking)}"
    if len({labels.model for labels in sets}) != len(sets):
        return "a model occurs in more than one of the annotations"
    if len(sets) < FEWEST_MODELS:
        return f"ranks need {FEWEST_MODELS} models, and there {'is 1' if len(sets) == 1 else f'are {len(sets)}'}"
    return rank(sets, verdicts, rates, name)


def _leaderboard(path: Path) -> dict[str, float]:
    """Win rates by model from a leaderboard.csv of alpaca_eval."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row[""]: float(row["win_rate"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise MinilimaError(
            f"{path} cannot be read as a leaderboard.",
            f"{type(error).__name__}: {error}.",
            "It is a CSV with the models' names in a column without a heading, and win_rate.",
        ) from None


def _write(card: JudgeCard, folder: Path) -> JudgeCard:
    """Writes the card and returns it; what was measured earlier on other pairs stays in it."""
    file = folder / f"{card.identity}.json"
    earlier = read_card(file) if file.is_file() else None
    if earlier is not None:
        fresh = {(item.labels, item.by) for item in card.measured}
        kept = tuple(item for item in earlier.measured if (item.labels, item.by) not in fresh)
        card = JudgeCard(**{**vars(card), "measured": (*kept, *card.measured), "ranking": card.ranking or earlier.ranking})
    write_atomic(file, json.dumps(asdict(card), indent=2, ensure_ascii=False))
    console.say(f"The card is {file}; every run of this judge shows it.")
    return card


def show(card: JudgeCard, no_ranking: str) -> None:
    for item in card.measured:
        console.say()
        console.say(f"{card.judge} on {item.labels}, labelled by {item.by}", style="bold")
        console.show_table(("", ""), _rows(item))
    console.say()
    if card.ranking is not None:
        models, figure = len(card.ranking.models), card.ranking.spearman
        console.say(f"Ranks of {models} models against {card.ranking.leaderboard}: Spearman {figure.text('.2f')}.")
    else:
        console.say(f"Ranks of models: not known, {no_ranking}.")
    if card.against_people is not None:
        verdict = "is" if card.above_floor else "was not shown to be"
        console.say(f'This judge {verdict} better than "the longer answer wins".')


def _rows(item: Measured) -> list[tuple[str, str]]:
    def text(figure: Figure | None) -> str:
        return share_text(figure) if figure else "not known"

    unread = f", {item.unread:,} of them not read" if item.unread else ""
    return [
        ("pairs", f"{item.pairs:,}{unread}; {item.decided:,} have a winner"),
        ("agreement", text(item.agreement)),
        ('"the longer answer"', text(item.longest)),
        ("the judge's gain over it", share_text(item.gain, "+.1f", "points") if item.gain else "not known"),
        ("human-human agreement", text(item.people) if item.people else _published_people()),
        ("Cohen's kappa", _kappa_text(item.kappa)),
        ("both orders agree", text(item.consistency)),
        ("first answer won", text(item.first_wins)),
        ("longer answer won", text(item.longer_wins)),
    ]


def _published_people() -> str:
    """What people are to each other in AlpacaEval's data, for pairs that one person alone has labelled."""
    card = find_card("", "chatgpt", Path())
    people = card.against_people.people if card and card.against_people else None
    return f"not known here; {share_text(people)} in AlpacaEval's data" if people else "not known"


def _kappa_text(figure: Figure | None) -> str:
    return figure.text(".2f") if figure else "not known"
