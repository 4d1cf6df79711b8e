"""Step 2 with the embedded model: which of our 175 seed tasks does it take for classification tasks?

    python benchmarks/classification.py --json benchmarks/results/classification.json

The seeds are divided into two halves by their ids. The model judges each half after demonstrations from the other one, on which
the limit is set too. `answered` is what it answers in words, as large models are asked; `weighed` is by probabilities, as
small ones are. Nothing is taken from the reply cache.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.publish import parser, publish
from minilima.config.choices import DeviceKind
from minilima.config.compose import load_config
from minilima.formats.files import DATA, sha256_text
from minilima.formats.records import SeedTask
from minilima.formats.seeds import load_seeds
from minilima.generate.instances import Instances
from minilima.generate.instructions import Instruction
from minilima.generate.prompting import Prompter
from minilima.models.cache import CachedModel
from minilima.models.local import LocalModel
from minilima.pipeline import stages
from minilima.run.build import get_or_build
from minilima.run.sources import resolve
from minilima.store.entries import Store

SEEDS = (0,)
"""Of experiments: they draw the demonstrations. Figures are means over them."""


def judged(writer: Instances, asked: Sequence[SeedTask]) -> dict[str, list[bool]]:
    """For each way to ask: whether the model takes each of the tasks for a classification."""
    tasks = [
        Instruction(
            id=task.id, instruction=task.instruction, round=0, parents=(), request="", nearest_id=None, nearest_rouge=None
        )
        for task in asked
    ]  # fmt: skip
    ways = {"answered": writer.kinds_answered, "weighed": writer.kinds_weighed}
    return {name: [bool(kind) for kind in way(tasks)] for name, way in ways.items()}


def main() -> None:
    tasks = sorted(load_seeds(DATA / "minilima_175.jsonl"), key=lambda task: sha256_text(task.id))
    halves = (tasks[::2], tasks[1::2])
    arguments = parser(__doc__).parse_args()
    counts = {name: [0, 0, 0, 0] for name in ("answered", "weighed")}
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(["+experiment=embedded_200", f"paths.outputs={folder}"])
        sources = resolve(config)
        base = stages(config, sources).by_role()["base"]
        location = get_or_build(base, Store(Path(folder) / "store")).path
        local = LocalModel(str(location), "packaged", device=DeviceKind.cpu, batch=None)
        model, prompter = (
            CachedModel(local, Path(folder) / "replies.sqlite"),
            Prompter(generator=config.generator, data=config.data),
        )
        for seed in SEEDS:
            for known, asked in (halves, halves[::-1]):
                writer = Instances(known, model, prompter, seed, lambda progress: None)
                for name, kinds in judged(writer, asked).items():
                    for kind, task in zip(kinds, asked, strict=True):
                        counts[name][2 * task.is_classification + kind] += 1
    figures: dict[str, tuple[float | None, str]] = {
        "tasks": (len(tasks), "tasks"),
        "classification_tasks": (sum(task.is_classification for task in tasks), "tasks"),
    }
    for name, (no_no, no_yes, yes_no, yes_yes) in counts.items():
        figures[f"{name}_accuracy"] = (round((no_no + yes_yes) / sum(counts[name]), 3), "share")
        figures[f"{name}_recall"] = (round(yes_yes / (yes_no + yes_yes), 3), "share")
        figures[f"{name}_precision"] = (round(yes_yes / (no_yes + yes_yes), 3) if no_yes + yes_yes else None, "share")
    publish(figures, arguments.json)


if __name__ == "__main__":
    main()
