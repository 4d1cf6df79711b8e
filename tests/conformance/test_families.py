"""Each family is right end to end: what is trained, what is asked, what is saved and what is measured are one rendering."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch

from minilima.config.choices import DeviceKind
from minilima.config.compose import load_config
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.formats.files import write_jsonl
from minilima.formats.records import Example
from minilima.models import local
from minilima.models.chat import Request, Sampling, ask
from minilima.models.decoding import reread
from minilima.models.local import LocalModel
from minilima.models.packing import IGNORED
from minilima.models.tokenizer import load_tokenizer
from minilima.models.weights import load_model
from minilima.run.sources import resolve
from minilima.store.job import Job
from minilima.train.sft import build_model
from minilima.train.tokenize import TokenizedExample, tokenize_example
from tests.conformance.families import FAMILIES, Family, build, named

NAMES = [family.name for family in FAMILIES]
ANSWERS = ("Paris.", "In France, on the Seine.", "About two million.")
EXAMPLES = [
    Example(id=f"row-{n}", instruction=question, input="", output=answer, source="file")
    for n, (question, answer) in enumerate(zip(("Name a city.", "Where is it?", "How many live there?"), ANSWERS, strict=True))
]
DIALOGUE = Example(
    id="dialogue", instruction="How many live there?", input="", output=ANSWERS[2], source="file",
    history=(("Name a city.", ANSWERS[0]), ("Where is it?", ANSWERS[1])),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """float32, and one thread: with models this small, others only wait for each other."""
    monkeypatch.setattr(local, "inference_dtype", lambda device: torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Builds each family's model once."""
    return cache(lambda name: build(named(name), tmp_path_factory.mktemp("family")))


@pytest.fixture(params=FAMILIES, ids=NAMES)
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


@pytest.fixture
def folder(family: Family, folder_of: Any) -> Path:
    made: Path = folder_of(family.name)
    return made


def trained(example: TokenizedExample, tokenizer: Any) -> list[str]:
    """The runs of tokens with loss, as texts."""
    pairs = zip(example.input_ids, example.labels, strict=True)
    runs = groupby(pairs, key=lambda pair: pair[1] != IGNORED)
    return [tokenizer.decode([token for token, _ in run]) for has_loss, run in runs if has_loss]


@cache
def composed(*overrides: str) -> Config:
    """The settings of a training; which model it trains is put in afterwards."""
    fixed = ("compute=cpu", "compute.precision=float32", "sft.batch_size=3", "sft.warmup_ratio=0", "sft.max_grad_norm=1")
    return load_config([*fixed, *overrides])


def job_of(base: Path, folder: Path, *overrides: str) -> Job:
    config = composed(*overrides)
    config = replace(config, model=replace(config.model, path=str(base)))
    dataset, work = folder / "dataset", folder / "work"
    dataset.mkdir(parents=True)
    work.mkdir()
    write_jsonl(dataset / "dataset.jsonl", EXAMPLES)
    return Job(
        kind="model", role="model", key="0", work=work, inputs={"dataset": dataset}, config=config, sources=resolve(config),
        cache=folder / "cache.sqlite",
    )  # fmt: skip


def test_the_mask_covers_exactly_the_answers_and_their_ends(family: Family, folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    for example, answers in ((DIALOGUE, ANSWERS), (EXAMPLES[1], ANSWERS[1:2])):
        made = tokenize_example(example, tokenizer, 512)
        texts = trained(made, tokenizer)
        assert [text.removesuffix(family.ends).strip() for text in texts] == list(answers)
        assert all(text.endswith(family.ends) for text in texts)
        assert tokenizer.bos_token_id is None or made.input_ids[:2] != [tokenizer.bos_token_id] * 2


def test_the_model_is_asked_with_the_prompt_it_was_trained_on(family: Family, folder: Path) -> None:
    model = LocalModel(str(folder), "tiny", device=DeviceKind.cpu, batch=2)
    made = tokenize_example(EXAMPLES[0], model.tokenizer, 512)
    prompt = model._prompt_ids(ask(EXAMPLES[0].instruction))
    first = next(place for place, label in enumerate(made.labels) if label != IGNORED)
    assert made.input_ids[:first] == prompt
    begins = model.tokenizer.bos_token_id if family.adds_bos else None
    assert begins is None or prompt[0] == begins


def test_the_reference_loss_is_the_loss_of_the_same_text_in_training(folder: Path) -> None:
    model = LocalModel(str(folder), "tiny", device=DeviceKind.cpu, batch=2)
    (loss,) = model.reference_losses([("a", EXAMPLES[1].instruction, EXAMPLES[1].output)])
    made = tokenize_example(EXAMPLES[1], model.tokenizer, 512)
    weights = load_model(str(folder), torch.float32, torch.device("cpu")).eval()
    with torch.no_grad():
        logits = weights(input_ids=torch.tensor([made.input_ids])).logits[0, :-1]
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(made.labels[1:]), ignore_index=IGNORED, reduction="sum")
    assert loss.tokens == sum(label != IGNORED for label in made.labels)
    assert loss.nats == pytest.approx(float(nats), rel=1e-4)


def first_loss(folder: Path, base: Path, *overrides: str) -> tuple[float, bool]:
    outcome = build_model(job_of(base, folder, "sft.epochs=1", "sft.learning_rate=1e-6", *overrides), lambda progress: None)
    return outcome.metrics["first_loss"], outcome.metrics["packed"]


def test_answers_in_a_batch_are_those_of_a_model_that_reads_everything_again(folder: Path) -> None:
    asked = [Request(messages=ask("word " * n + "?"), sampling=Sampling(temperature=0.0, max_tokens=10)) for n in (1, 40, 4, 15)]
    model = LocalModel(str(folder), "tiny", device=DeviceKind.cpu, batch=4)
    replies = model.reply_many(asked, lambda index, reply: None)
    for request, reply in zip(asked, replies, strict=True):
        ids = model._prompt_ids(request.messages)
        begin = len(ids)
        while len(ids) < begin + 10 and (len(ids) == begin or ids[-1] not in model.end_ids):
            ids.append(int(reread(model.model, torch.tensor([ids])).argmax()))
        assert reply.completion_tokens == len(ids) - begin
        assert reply.text == model.tokenizer.decode(ids[begin:], skip_special_tokens=True)
    if model.cached:
        recordable = LocalModel(str(folder), "tiny", device=DeviceKind.cpu, batch=4)
        recordable.fixed = True  # the form that a GPU records
        assert recordable.reply_many(asked, lambda index, reply: None) == replies


def test_packed_examples_have_the_loss_of_each_alone(
    folder: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    together, packed = first_loss(tmp_path / "packed", folder)
    record_property("cell", "yes" if packed else "one a row")
    alone, _ = first_loss(tmp_path / "alone", folder, "compute.micro_batch_tokens=1")
    model = LocalModel(str(folder), "tiny", device=DeviceKind.cpu, batch=2)
    losses = list(model.reference_losses([(item.id, item.instruction, item.output) for item in EXAMPLES]))
    expected = sum(loss.nats for loss in losses) / sum(loss.tokens for loss in losses)
    assert together == pytest.approx(alone, rel=1e-4)
    assert together == pytest.approx(expected, rel=1e-3)


def test_a_trained_model_says_its_answers_without_debris_and_stops(family: Family, folder: Path, tmp_path: Path) -> None:
    job = job_of(folder, tmp_path / "run", "sft.epochs=80", "sft.learning_rate=2e-2")
    outcome = build_model(job, lambda progress: None)
    assert outcome.metrics["last_loss"] < 0.1
    model = LocalModel(str(job.work), "tuned", device=DeviceKind.cpu, batch=2)
    asked = [Request(messages=ask(item.instruction), sampling=Sampling(temperature=0.0, max_tokens=60)) for item in EXAMPLES]
    replies = model.reply_many(asked, lambda index, reply: None)
    assert [reply.finish for reply in replies] == ["stop"] * 3
    assert [reply.text.strip() for reply in replies] == list(ANSWERS)
    written = model.model.generation_config.eos_token_id
    end = model.tokenizer.convert_tokens_to_ids(family.ends)
    assert end in (written if isinstance(written, list) else [written]), "other programs stop there too"


def test_merged_adapters_give_the_logits_of_the_model_with_adapters(
    family: Family, folder: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("cell", "yes" if family.adapters else "no adapters in peft")
    job = job_of(folder, tmp_path / "run", "sft=lora", "sft.epochs=10", "sft.learning_rate=1e-2", "sft.batch_size=3",
                 "sft.lora_dropout=0")  # fmt: skip
    if not family.adapters:
        with pytest.raises(MinilimaError, match="sft=full"):
            build_model(job, lambda progress: None)
        return
    outcome = build_model(job, lambda progress: None)  # refuses to save a merged model that differs from its adapters
    assert outcome.metrics["last_loss"] < outcome.metrics["first_loss"]
    tuned = load_model(str(job.work), torch.float32, torch.device("cpu"))
    base = load_model(str(folder), torch.float32, torch.device("cpu"))
    assert set(tuned.state_dict()) == set(base.state_dict())


def test_no_date_and_no_chance_changes_a_rendering(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    assert "strftime_now(" not in str(tokenizer.chat_template)
    once, again = (tokenize_example(DIALOGUE, tokenizer, 512) for _ in range(2))
    assert asdict(once) == asdict(again)
