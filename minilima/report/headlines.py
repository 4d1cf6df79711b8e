"""The end of a run in the terminal: the win rate first, then each other figure, what the judge is worth, and the report."""

from minilima import console
from minilima.config.choices import JudgeKind, Until
from minilima.config.schema import Config
from minilima.evaluate.benchmark_scores import BenchmarkChange
from minilima.evaluate.judge_cards import JudgeCard
from minilima.evaluate.length_control_tables import LengthControlled
from minilima.evaluate.results import Results
from minilima.evaluate.significance import p_text
from minilima.report.panel import panel_facts
from minilima.report.summary import Summary

Fact = tuple[str, str]
"""What it is, in a word or two, and the figure; without a name it belongs to the fact before."""

_TO_COPY = ("W&B", "Report")
"""Facts with an address or a command."""


def show_end(summary: Summary, *, until: Until = Until.report, in_sweep: bool = False) -> None:
    """Prints the stages that were reused (the others have had their line), then the headlines, the first of them in bold.

    Args:
        summary: what came out.
        until: the last stage that was asked for.
        in_sweep: whether what all points of a sweep share is said at its end.
    """
    reused = [(entry.role, entry.how, entry.outcome) for entry in summary.stages if entry.how != "built"]
    if reused and not in_sweep:
        console.show_result(reused)
    if not summary.built:
        console.say("Everything was reused; nothing was computed.")
    console.say()
    facts = headlines(summary)
    if in_sweep:
        facts = [(name, text) for name, text in facts if name not in _SHARED]
    elif until == Until.report:
        facts.append(("Again", "the same command, which builds only what is missing"))
    else:
        facts.append(("Resume", f"the same command without until={until}, which goes on from here"))
    console.show_facts(facts, whole=_TO_COPY, bold=facts[0][0] if summary.results is not None else None)


def headlines(summary: Summary) -> list[Fact]:
    """The figures with their uncertainty; then what the judge is worth, and where the report is."""
    facts = [] if summary.results is None else [*_win_facts(summary.results, _whose(summary)), *_bias_facts(summary.results)]
    facts += panel_facts(summary.panel)
    if summary.results and (loss := summary.results.loss_change):
        facts.append(
            (
                "Loss change",
                f"{loss.change.text('+.3f', ' nats per token')} ({loss.base:.3f} to {loss.tuned:.3f} on {loss.prompts} reference "
                "answers; no judge)",
            )
        )
    facts += [benchmark_fact(change) for change in summary.benchmarks if change.main]
    if summary.results:
        facts += [("Judge", summary.judge), *(("", warning) for warning in judge_warning(summary.results))]
    notes = [note.partition(": ") for note in summary.notes]
    return [*facts, *((name, text) for name, _, text in notes), ("Report", str(summary.folder / "report.html"))]


_SHARED = ("Judge", "W&B")
"""Facts that are the same for all points of a sweep."""


def benchmark_fact(change: BenchmarkChange) -> Fact:
    """What one benchmark says, base against tuned."""
    paired = change.paired
    return change.task, (
        f"{paired.difference.text('+.1f', ' points')} ({change.base.value:.1f} % to {change.tuned.value:.1f} % {change.figure}, "
        f"{change.items:,} items; {paired.first_better:,} gained, {paired.second_better:,} lost, {p_text(paired.p_mcnemar)}; no "
        "judge)"
    )


def _whose(summary: Summary) -> str:
    """By which judge and on which set the run's own figures are, where there are several."""
    return f", {summary.panel.opinions[0].whose}" if summary.panel is not None else ""


def _win_facts(results: Results, whose: str) -> list[Fact]:
    rate = results.win_rate
    if rate is None:
        return [("Win rate", results.coverage.refusal())]
    counts = f"{rate.wins} won, {rate.losses} lost, {rate.ties} tied; {results.coverage}"
    # Pairs that were judged by the beginnings of their answers.
    cut = f"; in {results.cut:,} pairs an answer was cut at eval.max_tokens" if results.cut else ""
    first = ("Win rate", f"{rate.win_rate.text('.1f', ' %')}, against {results.against}{whose}")
    return [first, ("", f"{counts}{cut}"), *_score_facts(results), *_paired_facts(results)]


def _score_facts(results: Results) -> list[Fact]:
    """The mean scores of a judge that sees each answer alone, over all turns and, in conversations, turn by turn."""
    if results.scores is None:
        return []
    turns = [(f"turn {number}: ", change) for number, change in enumerate(results.turn_scores, start=1)]
    return [
        (
            "" if which else "Mean score",
            f"{which}{change.change.text('+.2f')} ({change.base.value:.2f} to {change.tuned.value:.2f} on {change.prompts:,} "
            "prompts; each answer judged alone)",
        )
        for which, change in [("", results.scores), *turns]
    ]


def _paired_facts(results: Results) -> list[Fact]:
    """How sure it is that the win rate is not 50 %, and, against another run, how the losses differ."""
    facts = []
    if (paired := results.paired) is not None:
        smallest = f"; detectable at 80 % power: {paired.minimum_detectable:.1f}" if paired.standard_error > 0 else ""
        facts.append(
            (
                "Against 50 %",
                f"{paired.difference.value:+.1f} points, {p_text(paired.p_bootstrap)} (paired bootstrap), "
                f"{p_text(paired.p_mcnemar)} (exact sign test){smallest}",
            )
        )
    if (loss := results.loss_against) is not None:
        facts.append(
            (
                "Loss difference",
                f"{loss.change.text('+.3f', ' nats per token')} ({loss.base:.3f} of {results.other}, {loss.tuned:.3f} of this "
                "model; paired)",
            )
        )
    return facts


def _bias_facts(results: Results) -> list[Fact]:
    """What length and position have to do with the win rate."""
    facts: list[Fact] = []
    controlled = results.length_controlled
    if isinstance(controlled, LengthControlled):
        facts.append(("Length control", f"{controlled.text()}, as if both answers were equally long ({controlled.how})"))
    elif controlled is not None:
        facts.append(("Length control", f"not known, {controlled.reason.rstrip('.')}"))
    where = results.positions
    shares = [
        ("the longer answer won", results.length_preference),
        ("the answer shown first won", where.first_wins if where else None),
        ("both orders agreed", where.consistency if where else None),
    ]
    texts = [f"{what} in {share.text()}" for what, share in shares if share is not None]
    return [*facts, ("", "; ".join(texts))] if texts else facts


_NO_CARD = "its agreement with people has not been measured."


def judge_worth(config: Config, card: JudgeCard | None) -> str:
    """One sentence on the judge: its card, or that nobody has measured it."""
    if card is not None:
        return card.sentence()
    kind = config.judge.kind
    if kind == JudgeKind.reference:
        return (
            "it measures which answer is closer to a reference answer in words and meaning, knows nothing of correctness and "
            f"does not stand for people's preferences; {_NO_CARD}"
        )
    if kind == JudgeKind.local:
        return f"{_NO_CARD} Small models often judge no better than a coin."
    if kind == JudgeKind.alpaca_eval:
        asked = config.judge.model or "the model in its config"
        return f"alpaca_eval's {config.judge.annotators_config} asked {asked}; {_NO_CARD}"
    return f"{config.judge.model} was asked; {_NO_CARD}"


def judge_warning(results: Results) -> list[str]:
    """A line where the judge was not shown to be better than choosing the longer answer; none where it was."""
    card = results.judge_card
    if card is not None and card.above_floor:
        return []
    if card is not None and card.own and card.against_people is not None:
        return [
            'Warning: on the pairs of its card, this judge was not shown to be better than "the longer answer wins". '
            "More labelled pairs make the interval narrower; another judge is chosen with judge=…"
        ]
    return [
        'Warning: this judge was not shown to be better than "the longer answer wins". '
        "To measure it: minilima agreement --labels FILE judge=…"
    ]
