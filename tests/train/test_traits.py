"""Whether examples may share a row is asked of the loaded model: leaks are found, and rounding is taken for none."""

from pathlib import Path

import pytest
import torch

from minilima.models.traits import probe
from minilima.models.weights import load_model
from tests.conformance.families import build, named

ONE, OTHER = list(range(20, 50)), [20, 21, 77, *range(90, 120)]


@pytest.mark.parametrize(
    ("name", "packs", "plain"),
    [
        ("SmolLM2", True, True),
        ("Granite", True, False),
        ("Phi-2", True, False),
        ("GPT-2", True, True),
        ("LFM2", False, True),
        ("Falcon", False, True),
        ("BLOOM", False, True),
        ("OPT", False, True),
        ("Mamba", False, True),
        ("RecurrentGemma", False, False),
    ],
)
def test_a_model_shows_whether_examples_stay_apart_and_what_its_logits_are(
    name: str, packs: bool, plain: bool, tmp_path: Path
) -> None:
    model = load_model(str(build(named(name), tmp_path)), torch.float32, torch.device("cpu")).eval()
    traits = probe(model, [ONE, OTHER])
    assert (traits.packs, traits.plain_head) == (packs, plain)


@pytest.mark.parametrize(
    ("name", "packs"),
    [("Qwen3", True), ("SmolLM2", True), ("Gemma 3 (model=gemma3_1b)", True), ("BLOOM", False), ("OPT", False)],
)
def test_rounded_weights_show_the_same_whichever_two_examples_are_asked_about(name: str, packs: bool, tmp_path: Path) -> None:
    model = load_model(str(build(named(name), tmp_path)), torch.bfloat16, torch.device("cpu")).eval()
    draw = torch.Generator().manual_seed(0)
    pairs = [torch.randint(20, 120, (2, 40), generator=draw).tolist() for _ in range(12)]
    assert [probe(model, [first, second[: 25 + n]]).packs for n, (first, second) in enumerate(pairs)] == [packs] * 12


def test_a_set_of_one_example_or_of_equal_ones_can_be_asked_about(tmp_path: Path) -> None:
    model = load_model(str(build(named("LFM2"), tmp_path)), torch.float32, torch.device("cpu")).eval()
    assert not probe(model, [ONE]).packs
    assert not probe(model, [ONE, ONE]).packs
    assert not probe(model, [[5]]).packs
