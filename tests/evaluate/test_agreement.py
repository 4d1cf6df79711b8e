"""Agreement of judges with labels: figures that are right on cases worked out by hand, and the whole command on loopback."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from minilima.cli.agreement import run_agreement
from minilima.cli.commands import build
from minilima.errors import MinilimaError
from minilima.evaluate.agreement import kappa, measure, people, rank
from minilima.evaluate.judge_cards import JudgeCard, Measured
from minilima.formats.files import write_jsonl
from minilima.formats.preferences import LabelledPair, LabelSet
from minilima.formats.records import Verdict
from tests.models.test_whole_runs import work_here
from tests.server import VALID_KEY, ModelServer


def measured_by(arguments: Sequence[str]) -> JudgeCard:
    """The card that `minilima agreement …` shows and writes."""
    values = build()["agreement"].read(arguments, build())
    del values["handler"]
    return run_agreement(**values)


def labelled(rows: Sequence[tuple[str, str, float]], model: str | None = None) -> LabelSet:
    pairs = tuple(
        LabelledPair(id=str(n), instruction=f"Question {n}", output_1=one, output_2=two, labels=(label,))
        for n, (one, two, label) in enumerate(rows)
    )
    return LabelSet(name="set", by="people", pairs=pairs, source="test", model=model)


def found(labels: LabelSet, verdicts: Sequence[Verdict], *, random_order: bool = False) -> Measured:
    by_id = {verdict.id: verdict for verdict in verdicts}
    told = {"source": "s", "command": "c", "date": "d", "entry": "e"}
    measured = measure(labels, by_id, random_order=random_order, **told)
    assert measured is not None
    return measured


def test_agreement_counts_pairs_with_a_winner_and_a_judges_tie_as_half() -> None:
    labels = labelled([("a", "bb", 2.0), ("aa", "b", 2.0), ("a", "bb", 1.0), ("a", "b", 1.0), ("a", "bb", 1.5), ("a", "bb", 2.0)])
    preferences = [2.0, 1.9, 1.5, 1.2, 2.0, None]
    figures = found(labels, [Verdict(id=str(n), preference=value) for n, value in enumerate(preferences)])
    assert (figures.pairs, figures.unread, figures.decided) == (6, 1, 4)
    assert figures.agreement.value == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert figures.longest.value == pytest.approx((1 + 0 + 0 + 0.5) / 4), "equal lengths decide nothing"
    assert figures.gain is not None and figures.gain.value == pytest.approx(2 / 4)
    assert figures.consistency is None and figures.first_wins is None, "it was not asked in orders"


def test_orders_tell_what_a_judge_makes_of_the_place() -> None:
    labels = labelled([("a", "bb", 2.0), ("a", "bb", 1.0)])
    verdicts = [Verdict(id="0", preference=2.0, orders=(2.0, 2.0)), Verdict(id="1", preference=1.5, orders=(1.0, 2.0))]
    figures = found(labels, verdicts)
    assert figures.consistency is not None and figures.consistency.value == 0.5
    assert figures.first_wins is not None and figures.first_wins.value == 0.75


def test_a_set_on_which_nothing_was_read_has_no_figures() -> None:
    labels = labelled([("a", "b", 2.0)])
    told = {"source": "s", "command": "c", "date": "d", "entry": "e"}
    assert measure(labels, {"0": Verdict(id="0")}, random_order=False, **told) is None


def test_kappa_is_scikit_learns_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(0)
    ours = [float(value) for value in rng.choice([1.0, 1.5, 2.0], size=80, p=[0.5, 0.1, 0.4])]
    theirs = [one if rng.random() < 0.6 else float(rng.choice([1.0, 1.5, 2.0])) for one in ours]
    figure = kappa(ours, theirs)
    assert figure is not None and figure.low is not None and figure.high is not None
    assert figure.value == pytest.approx(cohen_kappa_score([str(v) for v in ours], [str(v) for v in theirs]), abs=1e-12)
    assert figure.low < figure.value < figure.high
    assert kappa([1.0, 1.0], [1.0, 1.0]) is None, "agreement about a constant is no agreement beyond chance"


def test_one_person_is_compared_with_most_of_the_others() -> None:
    pairs = [
        LabelledPair(id=str(n), instruction="i", output_1="a", output_2="b", labels=labels)
        for n, labels in enumerate([(1.0, 1.0, 2.0), (2.0,), (1.0, 2.0)])
    ]
    figure = people(pairs)
    # First pair: with one of the two that agree left out, the others are split; with the third left out, they say 1, not 2.
    # Last pair: each against the other.
    assert figure is not None and figure.value == pytest.approx(0 / 3)
    assert people([pairs[1]]) is None


def test_ranks_of_models_follow_the_win_rates() -> None:
    sets = [labelled([("a", "bb", 2.0)] * 10, model) for model in ("weak", "middling", "strong")]
    judged = [{str(n): Verdict(id=str(n), preference=2.0 if n < wins else 1.0) for n in range(10)} for wins in (1, 5, 9)]
    board = {"weak": 2.0, "middling": 50.0, "strong": 40.0}
    ranking = rank(sets, judged, board, "board")
    assert ranking.spearman.value == pytest.approx(0.5)
    assert rank(sets, judged, {"weak": 1.0, "middling": 2.0, "strong": 3.0}, "board").spearman.value == pytest.approx(1.0)
    assert rank(sets, judged, {"weak": 3.0, "middling": 2.0, "strong": 1.0}, "board").spearman.value == pytest.approx(-1.0)


ROWS = [
    {"instruction": f"Question {n}", "output_1": "wrong" * (n % 3 + 1), "output_2": "right", "preference": 2} for n in range(6)
]


def sees_right_first(body: dict[str, Any]) -> bool:
    text: str = body["messages"][-1]["content"]
    return text.index("right") < text.index("wrong")


def test_a_judge_at_an_endpoint_is_measured_its_card_kept_and_nothing_asked_twice(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)
    server.answer = lambda body: "Output (a)" if sees_right_first(body) else "Output (b)"
    write_jsonl(tmp_path / "people.jsonl", ROWS)
    (tmp_path / "theirs.json").write_text(
        json.dumps([{**row, "generator_1": "base", "generator_2": "model", "annotator": "gpt", "preference": 1} for row in ROWS])
    )
    asked = [
        "judge=chatgpt", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}",
        f"paths.outputs={tmp_path / 'out'}",
        "--labels", str(tmp_path / "people.jsonl"), "--annotations", str(tmp_path / "theirs.json"),
    ]  # fmt: skip
    card = measured_by([*asked, "--json"])
    assert json.loads(capsys.readouterr().out)["identity"] == card.identity
    assert (tmp_path / "out" / "judges" / f"{card.identity}.json").is_file()
    by_people, by_judge = card.measured
    assert by_people.agreement.value == 1.0 and by_judge.agreement.value == 0.0
    assert by_people.longest.value == pytest.approx((0.5 * 2 + 0 * 4) / 6), "a third is as long, the rest shorter"
    assert card.above_floor and card.ranking is None
    assert len(server.requests) == 12, "both sets hold the same pairs: they were asked about once, in both orders"
    assert len(server.probes) == 1, "one small request before, as in a run"
    again = measured_by(asked)
    assert len(server.probes) == 1 and len(server.requests) == 12 and len(again.measured) == 2


def test_a_judge_that_refuses_every_request_stops_before_the_pairs_are_asked_about(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    write_jsonl(tmp_path / "people.jsonl", ROWS)
    asked = ["judge=chatgpt", "judge.model=writer-large", f"endpoints.judge.base_url={server.url}"]
    with pytest.raises(MinilimaError, match=r"refuses the key in \$OPENAI_API_KEY"):
        measured_by([*asked, f"paths.outputs={tmp_path / 'out'}", "--labels", str(tmp_path / "people.jsonl")])
    assert server.received == 0 and len(server.probes) == 1


def test_the_reference_judge_is_measured_where_references_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_here(monkeypatch)
    rows = [{**ROWS[0], "instruction": f"Question {n}", "reference": "right"} for n in range(3)]
    write_jsonl(tmp_path / "people.jsonl", rows)
    settings = ["judge=reference", "judge.embedding_weight=0", f"paths.outputs={tmp_path / 'out'}"]
    card = measured_by([*settings, "--labels", str(tmp_path / "people.jsonl")])
    assert card.measured[0].agreement.value == 1.0
    write_jsonl(tmp_path / "without.jsonl", ROWS)
    with pytest.raises(MinilimaError, match="6 of 6 prompts have no reference answer"):
        measured_by([*settings, "--labels", str(tmp_path / "without.jsonl")])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["judge=chatgpt"], "no pairs"), (["--lables", "x"], "cannot be read"), (["--labels", "nowhere.jsonl"], "nowhere.jsonl")],
)
def test_a_mistake_is_named(arguments: list[str], named: str) -> None:
    with pytest.raises(MinilimaError) as raised:
        measured_by(arguments)
    assert named in f"{raised.value.what} {raised.value.why}"


def test_without_a_key_nothing_is_sent(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "people.jsonl", ROWS)
    with pytest.raises(MinilimaError, match="No API key"):
        measured_by(["judge=cot", "--labels", str(tmp_path / "people.jsonl"), f"paths.outputs={tmp_path / 'out'}"])
