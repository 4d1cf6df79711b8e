"""LIMA's recipe from start to saved model: 1,000 examples, 15 epochs, through the command line; and where the seconds go.

    python benchmarks/lima_run.py --model FOLDER --json benchmarks/results/lima_run.json

The model has the shape and tokenizer of the one in FOLDER and random weights, the examples have LIMA-like lengths and
random words: speed does not depend on either. Takes compute settings (`compute=gpu compute.compile=true`) at the end.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.publish import parser, publish
from benchmarks.sft_throughput import lengths

EXAMPLES = 1000


def write_model(source: Path, folder: Path) -> None:
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def write_examples(path: Path) -> None:
    rng = random.Random(0)
    words = ["one", "the", "of", "river", "house", "light", "paper", "small", "green", "walk", "think", "count", "open"]
    rows = [
        {"instruction": " ".join(rng.choices(words, k=20)), "output": " ".join(rng.choices(words, k=max(4, size - 40)))}
        for size in lengths(EXAMPLES)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="folder of a transformers model; only its shape is used")
    arguments.add_argument("overrides", nargs="*", help="settings of the run")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_model(chosen.model, folder / "model")
        write_examples(folder / "examples.jsonl")
        command = [
            sys.executable, "-m", "minilima", "data=file", f"data.path={folder}/examples.jsonl", f"dataset.size={EXAMPLES}",
            "dataset.include_seeds=false", "data.max_similarity=1", f"model.path={folder}/model", "sft=lima", "until=model",
            "tracking=none", f"paths.outputs={folder}/outputs", *chosen.overrides,
        ]  # fmt: skip
        started = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - started
        manifests = [json.loads(path.read_text()) for path in folder.glob("outputs/store/*/manifest.json")]
    stages = {manifest["stage"]: manifest for manifest in manifests}
    metrics = stages["model"]["metrics"]
    figures = {
        "run_seconds": (round(seconds, 1), "seconds"),
        "model_stage_seconds": (stages["model"]["seconds"], "seconds"),
        "train_seconds": (metrics["train_seconds"], "seconds"),
        "steps": (metrics["steps"], "steps"),
        "examples": (stages["dataset"]["metrics"].get("examples"), "examples"),
        "tokens_per_epoch": (metrics["tokens_per_epoch"], "tokens"),
    }
    publish(figures, chosen.json, overrides=chosen.overrides)


if __name__ == "__main__":
    main()
