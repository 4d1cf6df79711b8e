"""The end of a run in the terminal: the win rate first, then each other figure, what the judge is worth, and the report."""

from minilima import console
from minilima.config.choices import JudgeKind
from minilima.config.schema import Config
from minilima.evaluate.benchmark_scores import BenchmarkChange
from minilima.evaluate.judge_cards import JudgeCard
from minilima.evaluate.length_control_tables import LengthControlled
from minilima.evaluate.results import Results
from minilima.evaluate.significance import p_text
from minilima.report.panel import panel_lines
from minilima.report.summary import Summary

_TO_COPY = ("Report:", "W&B:")
"""Lines with an address or a command."""


def show_end(summary: Summary) -> None:
    """Prints the stages, then the headlines, the first of them in bold."""
    rows = [(entry.role, entry.how, f"{entry.seconds:.1f}", entry.outcome) for entry in summary.stages]
    console.show_result(rows)
    for number, line in enumerate(headlines(summary)):
        bold = number == 0 and summary.results is not None
        console.say(line, "bold" if bold else None, whole=line.startswith(_TO_COPY))


def headlines(summary: Summary) -> list[str]:
    """The figures with their uncertainty, a line each; then what the judge is worth, and where the report is."""
    lines = [] if summary.results is None else [*_win_lines(summary.results, _whose(summary)), *_bias_lines(summary.results)]
    lines += panel_lines(summary.panel)
    if summary.results and (loss := summary.results.loss_change):
        lines.append(
            f"Loss on the reference answers, no judge involved: {loss.base:.3f} to {loss.tuned:.3f} nats per token, change "
            f"{loss.change.text('+.3f')} (paired, {loss.prompts} prompts)."
        )
    lines += [benchmark_line(change) for change in summary.benchmarks if change.main]
    if summary.results:
        lines.append(f"What this judge is worth: {summary.judge}")
        lines.extend(judge_warning(summary.results))
    if not summary.built:
        lines.append("Everything was reused; nothing was computed.")
    return [*lines, *summary.notes, f"Report: {summary.folder / 'report.html'}"]


def benchmark_line(change: BenchmarkChange) -> str:
    """What one benchmark says, base against tuned."""
    paired = change.paired
    return (
        f"{change.task}, {change.figure}, no judge involved: {change.base.value:.1f} % to {change.tuned.value:.1f} %, change "
        f"{paired.difference.text('+.1f', ' points')} (paired, {change.items:,} items; {paired.first_better:,} gained, "
        f"{paired.second_better:,} lost, exact McNemar {p_text(paired.p_mcnemar)})."
    )


def _whose(summary: Summary) -> str:
    """By which judge and on which set the run's own figures are, where there are several."""
    return f" {summary.panel.opinions[0].whose}" if summary.panel is not None else ""


def _win_lines(results: Results, whose: str) -> list[str]:
    rate = results.win_rate
    if rate is None:
        return [results.coverage.refusal()]
    first = (
        f"Win rate of the tuned model against {results.against}{whose}: {rate.win_rate.text('.1f', ' %')} "
        f"({rate.wins} won, {rate.losses} lost, {rate.ties} tied; {results.coverage})."
    )
    return [first, *_cut_line(results), *_score_lines(results), *_paired_lines(results)]


def _score_lines(results: Results) -> list[str]:
    """The mean scores of a judge that sees each answer alone, over all turns and, in conversations, turn by turn."""
    if results.scores is None:
        return []
    turns = [(f"Mean score of turn {number}", change) for number, change in enumerate(results.turn_scores, start=1)]
    return [
        f"{what}: {change.base.value:.2f} to {change.tuned.value:.2f}, change {change.change.text('+.2f')} "
        f"(paired, {change.prompts:,} prompts)."
        for what, change in [("Mean score, each answer judged alone", results.scores), *turns]
    ]


def _cut_line(results: Results) -> list[str]:
    """How many of the pairs were judged by the beginnings of their answers."""
    if not results.cut:
        return []
    of = results.coverage.prompts
    return [f"In {results.cut:,} of {of:,} pairs an answer was cut at eval.max_tokens: the judge saw only its beginning."]


def _paired_lines(results: Results) -> list[str]:
    """How sure it is that the win rate is not 50 %, and, against another run, how the losses differ."""
    lines = []
    if (paired := results.paired) is not None:
        smallest = (
            f"; smallest difference detectable at 80 % power: {paired.minimum_detectable:.1f} points"
            if paired.standard_error > 0
            else ""
        )
        lines.append(
            f"Against 50 %: {paired.difference.value:+.1f} points, {p_text(paired.p_bootstrap)} (paired bootstrap), "
            f"{p_text(paired.p_mcnemar)} (exact sign test){smallest}."
        )
    if (loss := results.loss_against) is not None:
        lines.append(
            f"Loss on the set's reference answers, {results.other} to this model: {loss.base:.3f} to {loss.tuned:.3f} nats per "
            f"token, difference {loss.change.text('+.3f')} (paired)."
        )
    return lines


def _bias_lines(results: Results) -> list[str]:
    """What length and position have to do with the win rate."""
    lines = []
    controlled = results.length_controlled
    if isinstance(controlled, LengthControlled):
        lines.append(f"Length-controlled, as if both answers were equally long: {controlled.text()} ({controlled.how}).")
    elif controlled is not None:
        lines.append(f"Length-controlled win rate: not known, {controlled.reason.rstrip('.')}.")
    where = results.positions
    shares = [
        ("the longer answer won", results.length_preference),
        ("the answer shown first won", where.first_wins if where else None),
        ("both orders agreed", where.consistency if where else None),
    ]
    texts = [f"{what} in {share.text()}" for what, share in shares if share is not None]
    return [*lines, f"In this run {'; '.join(texts)}."] if texts else lines


_NO_CARD = "its agreement with people has not been measured."


def judge_worth(config: Config, card: JudgeCard | None) -> str:
    """One sentence on the judge: its card, or that nobody has measured it."""
    if card is not None:
        return card.sentence()
    kind = config.judge.kind
    if kind == JudgeKind.reference:
        return (
            "it only measures which answer is closer to a reference answer in words and meaning; it knows nothing of "
            f"correctness and does not stand for people's preferences; {_NO_CARD}"
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
