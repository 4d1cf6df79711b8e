"""Selection: each formula against numbers worked out here, and orders that hold all examples, whatever the order they come in."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minilima.config.choices import Perplexity, Select
from minilima.config.compose import load_config
from minilima.config.schema import DatasetConfig
from minilima.errors import MinilimaError
from minilima.formats.files import DATA, read_jsonl
from minilima.formats.records import Example, Progress
from minilima.formats.seeds import load_seeds
from minilima.generate import gradients, orders
from minilima.generate.dataset import build_dataset
from minilima.generate.gradients import Projection, adam_step, best_group, weighted
from minilima.generate.passages import passages, question
from minilima.generate.pool import build_pool
from minilima.generate.quality import parse_tags
from minilima.generate.scoring import Scoring, expected
from minilima.generate.selection import ORDERS, arrange
from minilima.generate.selection_methods import METHODS
from minilima.generate.tools import Text, Tools, mean_losses
from minilima.generate.warmup import (
    BATCH,
    WarmUp,
    adapter_weights,
    load_adapters,
    passage_losses,
    together,
    warm_up,
    with_adapters,
)
from minilima.models.kept import KeptNumbers
from minilima.models.reader import Passage, Reader
from minilima.models.tokenizer import load_tokenizer
from minilima.models.weights import load_model
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.run.stages.dataset import DATASET
from minilima.store.job import Job
from tests.server import VALID_KEY, ModelServer

SEEDS = [
    Example(id=task.id, instruction=task.instruction, input=task.input, output=task.output, source="file")
    for task in load_seeds(DATA / "minilima_175.jsonl")
][:14]


def rows(n: int) -> list[Example]:
    return [Example(id=f"r{i}", instruction=f"Do {i}", input="", output=f"Done {i}", source="file") for i in range(n)]


def silent(progress: Progress) -> None:
    """Nobody listens."""


def reader(folder: Path, cache: Path | None = None, row_tokens: int = 300) -> Reader:
    kept = KeptNumbers(cache) if cache is not None else None
    device = load_config([]).compute.device
    return Reader(str(folder), "tiny", device=device, kept=kept, on_progress=silent, row_tokens=row_tokens)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A tiny model gains nothing from threads, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilima.models.reader.inference_dtype", lambda device: torch.float32)
    monkeypatch.setattr("minilima.generate.warmup.inference_dtype", lambda device: torch.float32)


# What a model reads: against transformers' own loss on one text at a time, as the authors' code computes it.


def own_loss(folder: Path, ids: Sequence[int], start: int, end: int) -> float:
    """Mean nats by transformers' loss with labels."""
    model = load_model(str(folder), torch.float32, torch.device("cpu")).eval()
    labels = torch.tensor([[token if start <= place < end else -100 for place, token in enumerate(ids)]])
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([list(ids)]), labels=labels).loss)


def test_losses_after_the_question_and_alone_are_those_of_the_same_answer_tokens(tiny_model: Path) -> None:
    tokenizer, example = load_tokenizer(str(tiny_model)), SEEDS[0]
    answer = tokenizer(example.output, add_special_tokens=False)["input_ids"]
    asked = f"<|im_start|>user\n{example.messages()[0]['content']}<|im_end|>\n"
    before = tokenizer(asked + "<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    header = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    found = reader(tiny_model)
    for text, head in ((Text.conversation, before), (Text.answer, header)):
        (passage,) = passages([example], text, tokenizer)
        assert list(passage.ids) == [*head, *answer]
        mean = mean_losses(found.losses([passage]))[0]
        assert mean == pytest.approx(own_loss(tiny_model, [*head, *answer], len(head), len(head) + len(answer)), rel=1e-5)


def test_without_a_template_the_text_is_superfilterings(tiny_model: Path) -> None:
    """Instruction, line break, input, line break, answer; alone, the first token of the answer has nothing before it."""
    tokenizer = load_tokenizer(str(tiny_model))
    example = replace(SEEDS[0], instruction="Add up.", input="1 2", output="It is three.")
    (plain,), (alone,) = passages([example], Text.plain, tokenizer), passages([example], Text.plain_answer, tokenizer)
    assert tokenizer.decode(plain.ids) == "Add up.\n1 2\nIt is three."
    assert tokenizer.decode(plain.ids[plain.start :]) == "It is three." == tokenizer.decode(alone.ids)
    nats, tokens = reader(tiny_model).losses([alone])[0]
    assert tokens == len(alone.ids) - 1
    assert nats / tokens == pytest.approx(own_loss(tiny_model, alone.ids, 0, len(alone.ids)), rel=1e-5)


def test_texts_in_a_row_are_read_as_if_alone_and_in_any_order(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    texts = passages(SEEDS, Text.conversation, tokenizer)
    together, alone = reader(tiny_model), reader(tiny_model, row_tokens=1)
    digits = [5, 9, 11]
    for measure in (Reader.losses, Reader.states, lambda own, given: own.next_logits(given, digits)):
        packed = measure(together, texts)
        np.testing.assert_allclose(packed, measure(alone, texts), rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(measure(together, texts[::-1])[::-1], packed, rtol=2e-4, atol=2e-5)


def test_states_are_means_weighted_by_position(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    (passage,) = passages(SEEDS[:1], Text.conversation, tokenizer, with_end=True)
    model = load_model(str(tiny_model), torch.float32, torch.device("cpu")).eval()
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([list(passage.ids)]), output_hidden_states=True).hidden_states[-1][0]
    weights = torch.arange(1, len(passage.ids) + 1) / sum(range(1, len(passage.ids) + 1))
    mean = (hidden * weights.unsqueeze(1)).sum(dim=0)
    np.testing.assert_allclose(reader(tiny_model).states([passage])[0], (mean / mean.norm()).numpy(), atol=1e-5)


def test_the_next_token_is_asked_for_after_the_question(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_model))
    passage = question("Rate this from 1 to 6.", tokenizer, None, 512)
    assert tokenizer.decode(passage.ids).endswith("from 1 to 6.<|im_end|>\n<|im_start|>assistant\n")
    cut = question("Rate this from 1 to 6: " + "very long " * 300, tokenizer, None, 61)
    assert len(cut.ids) == cut.end == 61 and "Rate this" in tokenizer.decode(cut.ids)
    assert tokenizer.decode(cut.ids).endswith("<|im_end|>\n<|im_start|>assistant\n")
    model = load_model(str(tiny_model), torch.float32, torch.device("cpu")).eval()
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([list(passage.ids)])).logits[0, -1, [7, 30]].numpy()
    np.testing.assert_allclose(reader(tiny_model).next_logits([passage], [7, 30])[0], wanted, rtol=1e-4, atol=1e-5)


def test_a_scoring_that_was_killed_reads_only_the_rows_that_are_missing_and_ends_with_the_same_digits(
    tiny_model: Path, tmp_path: Path
) -> None:
    texts = passages(SEEDS, Text.conversation, load_tokenizer(str(tiny_model)))
    whole = reader(tiny_model, tmp_path / "whole.sqlite")
    wanted = whole.losses(texts)
    broken = reader(tiny_model, tmp_path / "broken.sqlite")
    seen = 0

    def kill(progress: Progress) -> None:
        nonlocal seen
        seen = progress.done
        if progress.done >= 5:
            raise KeyboardInterrupt

    broken._on_progress = kill
    with pytest.raises(KeyboardInterrupt):
        broken.losses(texts)
    again = reader(tiny_model, tmp_path / "broken.sqlite")
    np.testing.assert_array_equal(again.losses(texts), wanted)
    assert broken.read_tokens > 0 and broken.read_tokens + again.read_tokens == whole.read_tokens
    third = reader(tiny_model, tmp_path / "broken.sqlite")
    np.testing.assert_array_equal(third.losses(texts), wanted)
    assert third.read_tokens == 0 and "model" not in vars(third), "nothing is missing, so no model is loaded"


def test_a_text_too_long_for_the_model_is_cut_and_an_answer_that_is_cut_off_has_no_loss(tiny_model: Path) -> None:
    own = reader(tiny_model)
    assert own.longest == 512
    long = Passage(ids=[5] * 700, start=600, end=700)
    cut = own.cut(long)
    assert (len(cut.ids), cut.start, cut.end) == (512, 512, 512)
    assert np.isnan(mean_losses(own.losses([long, Passage(ids=[5, 6, 7], start=1, end=3)]))).tolist() == [True, False]


# The formulas, by hand.


def losses_tools(table: dict[Text, list[tuple[float, int]]]) -> Tools:
    """A scorer that says what is in the table, for rows r0, r1, …"""

    def losses(examples: Sequence[Example], text: Text) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.array([table[text][int(example.id[1:])] for example in examples], dtype=np.float32)

    return Tools(losses=losses, embed=lambda texts: np.eye(len(texts), 8, dtype=np.float32))


def test_ifd_is_the_ratio_of_mean_losses_below_one_from_the_highest() -> None:
    given = [(8.0, 4), (9.0, 3), (1.0, 2), (0.0, 0), (6.6, 3)]  # means 2, 3, 0.5, none, 2.2
    alone = [(10.0, 4), (6.0, 3), (5.0, 2), (0.0, 0), (6.0, 3)]  # means 2.5, 2, 2.5, none, 2
    tools = losses_tools({Text.conversation: given, Text.answer: alone})
    ordered = arrange(rows(5), DatasetConfig(select=Select.ifd), 0, tools)
    assert [(each.id, each.score) for each in ordered] == [("r0", 0.8), ("r2", 0.2), ("r4", 1.1), ("r1", 1.5), ("r3", None)]
    assert ordered[0].scores == {"loss": 2.0, "loss_alone": 2.5}


def test_superfiltering_is_the_ratio_of_perplexities() -> None:
    given, alone = [(2.0, 2), (3.0, 2)], [(4.0, 2), (4.0, 2)]  # e^1 / e^2 and e^1.5 / e^2
    ordered = arrange(
        rows(2), DatasetConfig(select=Select.superfiltering), 0, losses_tools({Text.plain: given, Text.plain_answer: alone})
    )
    assert [each.id for each in ordered] == ["r1", "r0"]
    assert [each.score for each in ordered] == pytest.approx([math.exp(-0.5), math.exp(-1)], abs=1e-6)
    assert ordered[1].scores == pytest.approx({"perplexity": math.e, "perplexity_alone": math.exp(2)}, abs=1e-5)


def test_a_foreign_template_is_named() -> None:
    tools = losses_tools({Text.conversation: [(3.0, 1)] * 10, Text.answer: [(2.0, 1)] * 9 + [(4.0, 1)]})
    with pytest.raises(MinilimaError, match=r"9 of 10 questions make their answers less likely") as raised:
        arrange(rows(10), DatasetConfig(select=Select.ifd), 0, tools)
    assert "template" in raised.value.why and "dataset.select=superfiltering" in raised.value.fix


@pytest.mark.parametrize(("which", "wanted"), [("low", "r0 r3 r2 r4 r1"), ("high", "r1 r4 r2 r3 r0"), ("middle", "r2")])
def test_perplexity_comes_low_high_or_from_the_middle(which: str, wanted: str) -> None:
    tools = losses_tools({Text.conversation: [(1.0, 1), (9.0, 1), (3.0, 1), (2.0, 1), (5.0, 1)]})
    data = DatasetConfig(select=Select.perplexity, perplexity=Perplexity(which))
    ordered = [each.id for each in arrange(rows(5), data, 0, tools)]
    assert " ".join(ordered).startswith(wanted)
    if which == "middle":
        assert set(ordered[1:3]) == {"r3", "r4"} and set(ordered[3:]) == {"r0", "r1"}


def test_a_rating_is_its_expectation_over_the_probabilities_of_the_digits() -> None:
    assert expected({1: math.log(0.2), 6: math.log(0.3)}) == pytest.approx((1 * 0.2 + 6 * 0.3) / 0.5)
    assert expected(dict.fromkeys(range(1, 7), -50.0)) == pytest.approx(3.5)
    assert math.isnan(expected({}))


def test_deita_multiplies_and_puts_near_copies_of_kept_rows_last() -> None:
    ratings = np.array([[6, 6], [6, 5], [2, 2], [5, 4], [3, math.nan]], dtype=np.float32)
    angles = {"r0": 0.0, "r1": 20.0, "r2": 90.0, "r3": 40.0, "r4": 180.0}  # cos 20° = 0.94, cos 40° = 0.77

    def embed(texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        degrees = [math.radians(angles["r" + text.split()[1]]) for text in texts]
        return np.array([[math.cos(each), math.sin(each)] for each in degrees], dtype=np.float32)

    tools = Tools(embed=embed, ratings=lambda examples: ratings[[int(each.id[1:]) for each in examples]])
    ordered = arrange(rows(5), DatasetConfig(select=Select.deita), 0, tools)
    # r1 is near r0, which is kept. r3 is near r1, which is not.
    assert [(each.id, each.score) for each in ordered] == [("r0", 36.0), ("r3", 20.0), ("r2", 4.0), ("r4", None), ("r1", 30.0)]
    assert ordered[1].scores == {"complexity": 5.0, "quality": 4.0}


def test_targets_choose_in_turn_what_is_closest_and_not_chosen_yet() -> None:
    cosines = np.array([[0.9, 0.8], [0.7, 0.9], [0.8, 0.1], [0.1, 0.85]], dtype=np.float32)
    assert orders.targets_in_turn(cosines) == [0, 1, 2, 3]
    assert orders.targets_in_turn(cosines[:, :1]) == [0, 2, 1, 3]
    assert orders.targets_in_turn(cosines[:, ::-1]) == [1, 0, 3, 2]


def test_the_facility_location_is_greedy() -> None:
    vectors = np.random.default_rng(3).normal(size=(30, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = np.maximum(vectors @ vectors.T, 0)
    chosen: list[int] = []
    for _ in range(len(vectors)):
        rest = [index for index in range(30) if index not in chosen]
        chosen.append(max(rest, key=lambda index: (round(float(similar[[*chosen, index]].max(axis=0).sum()), 4), -index)))
    order = orders.most_covering_first(vectors)
    assert sorted(order) == list(range(30)) and order[:8] == chosen[:8]


def test_near_copies_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept: list[int] = []
    for index in range(40):
        if not kept or (vectors[kept] @ vectors[index]).max() <= 0.9:
            kept.append(index)
    monkeypatch.setattr(orders, "_BLOCK", 3)
    found, skipped = orders.apart_first(range(40), vectors, 0.9)
    assert found == kept and sorted(found + skipped) == list(range(40)) and skipped == sorted(skipped)


def test_tags_come_most_first_and_bring_something_new_in_each_round() -> None:
    tags = [frozenset("ab"), frozenset("abc"), frozenset("c"), frozenset("d"), frozenset(), frozenset("ad")]
    assert orders.tags_in_turn(tags) == [1, 5, 0, 2, 3, 4]
    assert parse_tags("1. Cooking, - food safety\nfood safety; a very long tag with words") == {"cooking", "food safety"}


def test_adams_step_is_less_s() -> None:
    gradient, first, second = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0])
    wanted = [(0.9 * 1 + 0.1 * 2) / math.sqrt(0.999 * 4 + 0.001 * 4 + 1e-8), -0.1 / math.sqrt(0.001 * 1 + 1e-8)]
    assert adam_step(gradient, first, second).tolist() == pytest.approx(wanted)


def test_cosines_are_weighted_by_learning_rates_and_the_best_group_counts() -> None:
    first, second = np.array([[1.0, 0.0]], dtype=np.float32), np.array([[0.0, 0.4]], dtype=np.float32)
    assert weighted([first, second], [3.0, 1.0])[0].tolist() == pytest.approx([0.75, 0.1])
    cosines = np.array([[0.2, 0.4, 0.5], [0.9, 0.1, 0.2]], dtype=np.float32)
    assert best_group(cosines, ["a", "a", "b"]).tolist() == pytest.approx([0.5, 0.5])


def test_a_projection_by_random_signs_keeps_cosines_and_is_the_same_each_time() -> None:
    gradients_ = torch.randn(3, 5000, generator=torch.Generator().manual_seed(1))
    gradients_[1] = gradients_[0] + 0.5 * gradients_[2]
    projected = Projection()(gradients_)
    assert projected.shape == (3, gradients.DIMENSIONS) and torch.equal(projected, Projection()(gradients_))
    exact, kept = (torch.nn.functional.normalize(each, dim=1) for each in (gradients_, projected))
    assert float((exact @ exact.T - kept @ kept.T).abs().max()) < 0.05
    signs = Projection(dimensions=64)._signs(0, 100, torch.device("cpu"))
    assert set(signs.flatten().tolist()) == {-1.0, 1.0} and abs(float(signs.mean())) < 0.05


# A warm-up, and gradients of a real model.


def _loss(model: Any, passage: Passage) -> float:
    return float(passage_losses(model, [passage])[0].detach())


def test_gradients_of_a_padded_batch_are_those_of_each_passage_alone(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = passages(SEEDS[:5], Text.conversation, load_tokenizer(str(tiny_model)), with_end=True)
    texts = [*texts, Passage(ids=[5, 6, 7], start=3, end=3)]  # nothing to learn
    model = with_adapters(load_model(str(tiny_model), torch.float32, torch.device("cpu"))).eval()
    load_adapters(
        model,
        torch.randn(sum(weight.numel() for weight in adapter_weights(model)), generator=torch.Generator().manual_seed(3)) / 10,
    )
    alone = []
    for passage in texts[:5]:
        model.zero_grad()
        torch.autograd.backward(passage_losses(model, [passage]))
        alone.append(torch.cat([weight.grad.flatten() for weight in adapter_weights(model) if weight.grad is not None]))
    model.zero_grad()
    monkeypatch.setattr(gradients, "together", lambda passages, device: [[3, 5, 1, 0], [4, 2]])
    found = gradients.per_passage(model, texts)
    torch.testing.assert_close(found[:5], torch.stack(alone), rtol=1e-4, atol=1e-6)
    assert bool(found[5].isnan().all()) and len(set(map(float, found[:5].abs().sum(1)))) == 5


def test_passages_of_like_length_pass_through_a_gpu_together_and_alone_through_a_cpu() -> None:
    texts = [Passage(ids=range(length), start=1, end=length) for length in (10, 1000, 900, 3000, 20)]
    assert together(texts, torch.device("cpu")) == [[3], [1], [2], [4], [0]]
    assert together(texts, torch.device("cuda")) == [[3], [1, 2], [4, 0]]


def test_a_warm_up_lowers_the_loss_and_its_checkpoints_can_be_loaded(tiny_model: Path) -> None:
    texts = passages(SEEDS[: BATCH + 1], Text.conversation, load_tokenizer(str(tiny_model)), with_end=True)
    how = WarmUp(passages=texts, epochs=3, learning_rate=1e-2, seed=0)
    model = with_adapters(load_model(str(tiny_model), torch.float32, torch.device("cpu"))).eval()
    before = _loss(model, texts[0])
    checkpoints = list(warm_up(model, how))
    after = _loss(model, texts[0])
    assert after < before - 0.05
    assert [len(how.rates(epoch)) for epoch in range(3)] == [2, 2, 2] and how.rates(0)[0] == 1e-2 and how.rates(2)[1] > 0
    load_adapters(model, checkpoints[0].adapters)
    first = _loss(model, texts[0])
    load_adapters(model, checkpoints[-1].adapters)
    assert first != after and _loss(model, texts[0]) == pytest.approx(after)
    parameters = sum(weight.numel() for weight in adapter_weights(model))
    assert {len(part) for part in vars(checkpoints[0]).values()} == {parameters}


# Whole data sets.


def job(folder: Path, model: Path, *overrides: str) -> Job:
    config = load_config([f"model.path={model}", "data=file", "dataset.include_seeds=false", "compute=cpu", *overrides])
    work = folder / "work"
    (work / "scratch").mkdir(parents=True, exist_ok=True)
    return Job(
        kind="dataset", role="dataset", key="k", work=work, inputs={"pool": folder.parent / "pool" / "work"}, config=config,
        sources=resolve(config), cache=folder.parent / "cache.sqlite",
    )  # fmt: skip


@pytest.mark.parametrize(
    "select", ["ifd", "superfiltering", "superfiltering_diverse", "perplexity", "deita", "rds", "less", "ifd warm"]
)
def test_a_tiny_model_arranges_a_pool(tiny_model: Path, tmp_path: Path, select: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows stand in order.jsonl, smaller data sets inside larger ones, whatever the order of the pool."""
    monkeypatch.setattr("minilima.generate.selection.FOREIGN", 2.0)  # a random model's ratios are about 1
    monkeypatch.setattr("minilima.generate.scoring.Scoring.embed", lambda self, texts: _letters(texts))
    settings = [f"dataset.select={select.split(maxsplit=1)[0]}"]
    settings += ["dataset.warmup_examples=8", "dataset.warmup_epochs=2"] if select in ("less", "ifd warm") else []
    if select == "less":
        targets = tmp_path / "targets.jsonl"
        targets.write_text("".join(json.dumps({"instruction": f"Aim {n}.", "output": f"Hit {n}."}) + "\n" for n in range(3)))
        settings.append(f"dataset.targets={targets}")
    chosen = {}
    for size, way in ((6, 1), (3, -1)):
        data = tmp_path / f"data{size}.jsonl"
        data.write_text("".join(json.dumps({"id": each.id, "instruction": each.instruction, "input": each.input,
                                            "output": each.output}) + "\n" for each in SEEDS[::way]))  # fmt: skip
        overrides = (f"data.path={data}", f"dataset.size={size}", *settings)
        folder = tmp_path / str(size)
        build_pool(job(folder / "pool", tiny_model, *overrides), silent)
        outcome = build_dataset(job(folder / "dataset", tiny_model, *overrides), silent)
        order = read_jsonl(folder / "dataset" / "work" / "order.jsonl")
        assert len(order) == len(SEEDS) and [row["rank"] for row in order] == list(range(1, len(SEEDS) + 1))
        assert len({row["id"] for row in order}) == len(SEEDS)
        written = read_jsonl(folder / "dataset" / "work" / "dataset.jsonl")
        assert all(isinstance(row["score"], float) for row in written)
        chosen[size] = [row["instruction"] for row in written]
        assert outcome.metrics["scored_tokens"] > 0 and outcome.metrics["scored_on"] == "cpu"
    if select not in ("less", "ifd warm"):  # whose warm-up takes the same rows by their ids, and gives them in another order
        assert set(chosen[3]) <= set(chosen[6])


def _letters(texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    counts = np.array([[1 + text.lower().count(letter) for letter in "aeiourst"] for text in texts], dtype=np.float32)
    unit: np.ndarray[tuple[int, int], np.dtype[np.float32]] = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    return unit


def test_a_served_judge_rates_by_log_probabilities(
    tiny_model: Path, tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)
    monkeypatch.setattr("minilima.generate.scoring.Scoring.embed", lambda self, texts: _letters(texts))
    server.answer = lambda body: "5"
    server.logprobs = lambda body: {"5": math.log(0.5), " 1": math.log(0.25), "Well": math.log(0.2), "1": math.log(0.05)}
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"instruction": f"Task {n}", "output": f"Answer {n}"}) + "\n" for n in range(3)))
    overrides = (
        f"data.path={data}", "dataset.select=deita", "dataset.scorer=judge", "judge=chatgpt", "judge.model=writer-small",
        f"endpoints.judge.base_url={server.url}",
    )  # fmt: skip
    made = job(tmp_path / "dataset", tiny_model, *overrides)
    assert made.sources.scorer is None and DATASET.asks(made.config, made.sources) == "judge"
    asked = DATASET.requests(made.config, made.sources)
    assert asked is not None and (asked.requests, asked.completion_tokens) == (6, 6)
    build_pool(job(tmp_path / "pool", tiny_model, *overrides), silent)
    outcome = build_dataset(made, silent)
    rating = (5 * 0.5 + 1 * 0.25) / 0.75
    (first, *_) = read_jsonl(made.work / "dataset.jsonl")
    assert first["scores"] == pytest.approx({"complexity": rating, "quality": rating}, abs=1e-5)
    assert first["score"] == pytest.approx(rating**2, abs=1e-4) and outcome.usage.calls == 6


# Settings.


def test_targets_are_never_the_evaluation_set_nor_overlap_with_it(tiny_model: Path, tmp_path: Path) -> None:
    chosen = ["data=file", f"model.path={tiny_model}", f"data.path={DATA / 'minilima_175.jsonl'}", "dataset.select=rds"]
    with pytest.raises(MinilimaError, match="is the evaluation set"):
        resolve(load_config([*chosen, "dataset.targets=minilima_100"]))
    mine = tmp_path / "mine.jsonl"
    leaked = read_jsonl(DATA / "minilima_100.jsonl")[7]
    mine.write_text("\n".join(map(json.dumps, ({"instruction": "Something of its own", "output": "Yes."}, leaked))))
    config = load_config([*chosen, f"dataset.targets={mine}"])
    with pytest.raises(MinilimaError, match=r"is a prompt of the evaluation set, or nearly so") as raised:
        DATASET.check(config, resolve(config))
    assert leaked["id"] in raised.value.what + raised.value.why
    mine.write_text(json.dumps({"instruction": "Something of its own"}))
    config = load_config([*chosen, f"dataset.targets={mine}"])
    with pytest.raises(MinilimaError, match="has an answer"):
        DATASET.check(config, resolve(config))
    config = load_config(chosen)
    DATASET.check(config, resolve(config))


def test_only_what_changes_the_scores_enters_the_key(tiny_model: Path) -> None:
    def recipe(*overrides: str) -> str:
        config = load_config(["data=file", f"model.path={tiny_model}", f"data.path={DATA / 'minilima_175.jsonl'}", *overrides])
        return json.dumps(DATASET.recipe(config, resolve(config)), sort_keys=True, default=str)

    assert '"scoring": null' in recipe() == recipe("dataset.perplexity=low", "dataset.warmup_examples=9", "dataset.scorer=x")
    by_ifd = recipe("dataset.select=ifd")
    assert by_ifd == recipe("dataset.select=ifd", "dataset.perplexity=low", "dataset.scorer=base", "dataset.warmup_epochs=2")
    different = ["ifd", "perplexity", "rds", "less"]
    assert len({recipe(f"dataset.select={name}") for name in different}) == len(different)
    other: tuple[list[str], ...] = ([], ["dataset.warmup_epochs=2"], ["dataset.warmup_learning_rate=1e-3"])
    assert len({recipe("dataset.select=less", *more) for more in other}) == len(other)
    assert by_ifd != recipe("dataset.select=ifd", "dataset.warmup_examples=9")


def test_a_plan_says_what_scoring_costs(tiny_model: Path) -> None:
    def planned(select: str, *more: str) -> tuple[float, str]:
        config = load_config(["data=file", f"model.path={tiny_model}", f"data.path={DATA / 'minilima_175.jsonl'}",
                              "dataset.include_seeds=false", f"dataset.select={select}", *more])  # fmt: skip
        sources = resolve(config)
        found = DATASET.planned_work(config, sources, {})
        assert found is not None
        return found.units, DATASET.describe(config, sources)

    once, described = planned("perplexity")
    assert "1 forward pass of the scorer over 175 rows" in described
    assert planned("ifd")[0] == planned("deita")[0] == 2 * once
    assert "2 forward passes of the scorer" in planned("ifd")[1]
    assert planned("less")[0] == 4 * once and planned("less", "dataset.warmup_epochs=2")[0] == 2 * once
    assert "gradients after each of 2 passes" in planned("less", "dataset.warmup_epochs=2")[1]
    assert planned("random") == (1, "all examples that pass the filters")


def test_a_scorer_that_cannot_be_read_is_refused(tiny_model: Path) -> None:
    config = load_config(["data=file", f"model.path={tiny_model}", f"data.path={DATA / 'minilima_175.jsonl'}",
                          "dataset.select=ifd", "dataset.scorer=judge"])  # fmt: skip
    with pytest.raises(MinilimaError, match=r"dataset\.scorer=judge cannot score"):
        resolve(config)


@pytest.mark.parametrize("select", ["tags", "quality", "deita"])
def test_a_generator_on_this_machine_rates_the_rows_of_a_file(select: str, tiny_model: Path) -> None:
    given = ["data=file", f"data.path={DATA / 'minilima_175.jsonl'}", f"dataset.select={select}"]
    config = load_config([*given, f"generator.model={tiny_model}"])
    sources = resolve(config)
    rates = sources.scorer or sources.generator
    assert rates is not None and rates.location == str(tiny_model.resolve()) != sources.base.location
    used = stages(config, sources)["dataset"].inputs
    assert set(used) == {"pool"}, "a folder is no stage, and the base model is not asked"
    alone = resolve(load_config(given))
    assert (alone.scorer or alone.base) == alone.base, "where no generator is named, the base model rates as before"


@pytest.mark.parametrize("select", list(Select))
def test_each_method_names_its_source(select: Select) -> None:
    assert METHODS[select].source and select in ORDERS


def test_vectors_are_kept_for_all_orders_of_the_same_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[list[str]] = []

    class Counting:
        def __call__(self, texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
            embedded.append(list(texts))
            return _letters(texts)

    monkeypatch.setattr("minilima.models.embedder.Embedder", Counting)
    job: Any = SimpleNamespace(cache=tmp_path / "replies.sqlite")
    texts = ["cat", "a", "bee", "a"]
    for order in (texts, texts[::-1]):
        scoring = Scoring(job=job, on_progress=lambda progress: None, examples=())
        np.testing.assert_array_equal(scoring.embed(order), _letters(order))
    assert embedded == [["a", "bee", "cat"]]
