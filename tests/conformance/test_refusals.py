"""What cannot be right is refused in one paragraph before anything is paid for: by doctor, and by the checks before a run."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from minilima.cli.doctor_checks import check_model, check_trial
from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.files import canonical_json
from minilima.models.weights import load_model
from minilima.run import dry_run
from minilima.run.dry_run import check_base, request_of, trial
from minilima.run.sources import model_source, resolve
from tests.conformance.families import build, named


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(named("SmolLM2"), tmp_path_factory.mktemp("sound"))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINILIMA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A model of one's own to spoil."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, **values}))


def quantise(method: str, folder: Path) -> None:
    change(folder / "config.json", quantization_config={"quant_method": method})


def drop_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def classifier(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    config.pad_token_id = 0
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


def point(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def lose_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    files = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "a Git LFS pointer": (point, "Git LFS pointer"),
    "a cut download": (cut, "is not whole"),
    "a missing shard": (lose_shard, "1 of 2 files of weights are missing"),
    "pickles only": (only_pickles, r"no \*\.safetensors.*pytorch_model\.bin"),
    "no tokenizer": (no_tokenizer, "no tokenizer"),
    "a classifier": (classifier, "no causal language model"),
    "BERT": (lambda folder: change(folder / "config.json", model_type="bert", architectures=["BertForMaskedLM"]), "no causal"),
    "an encoder-decoder": (
        lambda folder: change(folder / "config.json", is_encoder_decoder=True, architectures=["T5ForConditionalGeneration"]),
        "encoder-decoder",
    ),
    "a vision wrapper": (
        lambda folder: change(
            folder / "config.json", vision_config={"hidden_size": 8}, architectures=["Gemma3ForConditionalGeneration"]
        ),
        "wrapper for pictures",
    ),
    **{
        method: (partial(quantise, method), rf"quantised \({method}\)")
        for method in ("gptq", "awq", "bitsandbytes", "compressed-tensors")
    },
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_folder_that_is_no_whole_causal_model_is_refused(name: str, folder: Path) -> None:
    spoil, words = SPOILT[name]
    spoil(folder)
    source = model_source(None, None, str(folder), "main")
    with pytest.raises(MinilimaError, match=words):
        check_base(*experiment(folder))
    found = check_model("model", source)
    assert found.level == "fail" and found.fix


def experiment(folder: Path, *overrides: str) -> tuple[Any, Any]:
    config = load_config([f"model.path={folder}", "dataset.include_seeds=false", *overrides])
    return config, resolve(config)


def tried(folder: Path, *overrides: str) -> list[str]:
    """What a trial says, in this process."""
    return trial(json.loads(canonical_json(request_of(*experiment(folder, "eval_set.size=20", *overrides)))))


def test_a_missing_tensor_is_refused_before_the_run_and_when_it_is_loaded(folder: Path) -> None:
    drop_tensor(folder)
    with pytest.raises(MinilimaError, match=r"1 missing \(model\.layers\.1\.mlp\.up_proj\.weight\)"):
        check_base(*experiment(folder))
    with pytest.raises(MinilimaError, match="at random"):
        load_model(str(folder), torch.float32, torch.device("cpu"))
    (found,) = check_trial(*experiment(folder))
    assert found.level == "fail" and "missing" in found.says


def test_a_sound_model_passes_and_is_asked_once(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_base(*experiment(sound)) == ()
    assert [found.level for found in check_trial(*experiment(sound))] == ["ok"]
    (memory,) = (tmp_path / "cache" / "checked").iterdir()
    whole = memory.read_text()
    monkeypatch.setattr(dry_run, "tried", dry_run.reply_to)
    for damaged in ("", "{", "[1]", "null"):
        memory.write_text(damaged)
        dry_run._asked.cache_clear()
        assert check_base(*experiment(sound)) == () and memory.read_text() == whole, "what cannot be read is made again"


def test_an_over_long_evaluation_prompt_is_named(sound: Path, write_jsonl_file: Callable[..., Path]) -> None:
    prompts = write_jsonl_file(
        "eval.jsonl", {"id": "short", "instruction": "Hi"}, {"id": "long-one", "instruction": "word " * 400}
    )
    with pytest.raises(MinilimaError, match=r"Evaluation prompt long-one has [\d,]+ tokens.*at most 256"):
        check_base(*experiment(sound, f"eval_set.path={prompts}"))


def test_a_row_that_the_template_does_not_render_is_named(sound: Path, write_jsonl_file: Callable[..., Path]) -> None:
    rows = write_jsonl_file(
        "rows.jsonl", {"instruction": "a", "output": "b"}, {"instruction": "c", "output": "<think>because</think>d"}
    )
    with pytest.raises(MinilimaError, match=r"holds reasoning \(row .*model\.thinking=off"):
        tried(sound, "data=file", f"data.path={rows}")
    assert tried(sound, "data=file", f"data.path={rows}", "model.thinking=off") == []


def test_examples_without_a_token_to_learn_are_told_and_refused_above_a_share(
    sound: Path, write_jsonl_file: Callable[..., Path]
) -> None:
    short = [{"instruction": f"Say {n}", "output": "Yes."} for n in range(60)]
    long = [{"instruction": f"{n} " + "word " * 300, "output": "Yes."} for n in range(8)]
    some = write_jsonl_file("some.jsonl", *short, *long[:1])
    notes = tried(sound, "data=file", f"data.path={some}")
    assert any("1 of 61 known examples keep no token to learn" in note for note in notes)
    assert any("1 of 61 known examples reach 256 tokens (all that the model reads)" in note for note in notes)
    many = write_jsonl_file("many.jsonl", *short, *long)
    with pytest.raises(MinilimaError, match="8 of 68 examples have nothing to learn"):
        tried(sound, "data=file", f"data.path={many}")


def test_a_token_beyond_the_embeddings_is_refused(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer.json").read_text())
    for token in settings["added_tokens"]:
        if token["content"] == "<|im_end|>":
            token["id"] = 900
    settings["model"]["vocab"]["<|im_end|>"] = 900
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(MinilimaError, match="beyond the model's embeddings"):
        tried(folder)


def test_limas_dropout_on_blocks_that_are_named_otherwise_is_refused(tmp_path: Path) -> None:
    for name, fits in (("GPT-2", True), ("Pythia", True), ("BLOOM", False), ("Mamba", False), ("OPT", False)):
        folder = build(named(name), tmp_path / name)
        if fits:
            assert tried(folder, "sft=lima") == []
        else:
            with pytest.raises(MinilimaError, match=r"sft\.residual_dropout does not fit"):
                tried(folder, "sft=lima")


def test_adapters_that_an_architecture_has_none_of_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MinilimaError, match="sft=full"):
        tried(build(named("Mamba"), tmp_path / "m"), "sft=lora")


def test_a_template_that_ends_no_answer_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    with pytest.raises(MinilimaError, match="does not end a turn"):
        tried(folder)
