"""Runs the study on the cards of a machine, call after call: each goes on where the last one stopped, also on another machine.

    python experiments/which_examples/run.py --folder F --out P --minutes 9     # again and again, until it says "all done"

prepare ─> pool ─> grid ─> orders, study. Many points at once (workers.py); they build the stages of
`+experiment=which_examples +sweep=which` under the same keys as `minilima` does. After each point its weights are removed; what
is small is packed (packs.py) and restored with `--from P`.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from packs import pack, restore
from points import (
    ROOT,
    Experiment,
    Overrides,
    build_orders,
    build_point,
    build_roles,
    experiment,
    has_order,
    is_done,
    results,
)
from workers import Clock, Task, run_all

from minilima.config.sweep_grid import expand
from minilima.formats.files import read_jsonl, write_jsonl

STAGES = ("prepare", "pool", "grid", "orders", "study")
SEEDS_FILE = ROOT / "minilima" / "data" / "minilima_175.jsonl"
DEV_SET = ROOT / "minilima" / "data" / "minilima_dev_50.jsonl"
RATES = ("3e-6", "1e-5", "3e-5", "1e-4")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where it lies, and what was typed beside."""

    folder: Path
    extra: Overrides
    rate: str | None
    given: Path | None
    """A pool that is there already."""

    @property
    def own(self) -> Overrides:
        return (f"paths.outputs={self.folder}", "tracking=none", "compute.engine=transformers", *self.extra)

    @property
    def pool_file(self) -> Path:
        return self.folder / "pool.jsonl"

    def pool(self) -> Overrides:
        return ("+experiment=which_pool", *self.own)

    def points(self) -> list[Experiment]:
        """Every point of the sweep once, the first seed's first; then random choices of the human-written seed tasks."""
        fixed = [
            "+experiment=which_examples",
            f"data.path={self.pool_file}",
            f"sft.learning_rate={self.chosen_rate()}",
            *self.own,
        ]
        human = [f"data.path={SEEDS_FILE}", "dataset.select=random", "dataset.size=50,100,150"]
        sweeps = (["+sweep=which"], ["+sweep=which", "dataset.perplexity=middle", *human])
        every = [point for own in sweeps for point in expand([*fixed, *own]).points]
        # The three orders of perplexity are one and the same for other methods.
        return [
            experiment(tuple(item for item in point.overrides if not item.startswith("+sweep=")), point.config)
            for point in every
            if point.config.dataset.perplexity == "middle" or point.config.dataset.select == "perplexity"
        ]

    def grid(self) -> list[Experiment]:
        """Learning rates at a random choice of 300, on the dev set: the evaluation set decides nothing."""
        own = ["dataset.select=random", "dataset.size=300", "seed=0,1", f"sft.learning_rate={','.join(RATES)}"]
        fixed = ["+experiment=which_examples", f"data.path={self.pool_file}", "benchmarks=[]", "eval_set=file"]
        sweep = expand([*fixed, f"eval_set.path={DEV_SET}", *self.own, *own])
        return [experiment(point.overrides, point.config) for point in sweep.points]

    def chosen_rate(self) -> str:
        file = self.folder / "rate.json"
        return self.rate or (json.loads(file.read_text())["rate"] if file.is_file() else "1e-4")


def write_pool(study: Study) -> bool:
    """pool.jsonl out of the store's pool, or the one that was given; False where there is none yet."""
    if study.given is not None:
        study.pool_file.write_bytes(study.given.read_bytes())
        return True
    of = experiment(study.pool())
    if (pool := of.store.find(of.graph["pool"])) is None:
        return False
    rows = read_jsonl(pool.path / "instances.jsonl")
    write_jsonl(study.pool_file, ({name: row[name] for name in ("id", "instruction", "input", "output")} for row in rows))
    return True


def make_pool(study: Study, clock: Clock) -> bool:
    """Writes the pool in a process of its own, which is stopped when time is up: replies are kept one by one."""
    process = multiprocessing.get_context("spawn").Process(target=build_roles, args=(study.pool(), ["pool"]))
    process.start()
    process.join(max(1.0, clock.left))
    if process.is_alive():
        print("The pool is not finished; the next call goes on.")
        process.kill()
    process.join()
    return write_pool(study)


def orders(study: Study) -> tuple[list[Task], list[Task]]:
    """Those to be made first, and the rest: what most methods ask of models for one seed serves the others."""
    groups: dict[tuple[str, ...], list[Overrides]] = {}
    for of in study.points():
        if not has_order(of):
            kind = (str(of.config.data.path), of.config.dataset.select, of.config.dataset.perplexity, str(of.config.seed))
            groups.setdefault(kind, []).append(of.overrides)
    first = min((kind[3] for kind in groups), default="0")
    waves: tuple[list[Task], list[Task]] = ([], [])
    for (_, method, _, seed), points in groups.items():
        waves[seed != first and method != "less"].append(Task(call=build_orders, arguments=(points,), kind=f"order by {method}"))
    return waves


def choose_rate(study: Study) -> None:
    """The rate with the highest mean win rate on the dev set."""
    rates: dict[str, list[float]] = {}
    for of in study.grid():
        (verdicts,) = results(of)
        if not is_done(of):  # it failed, and failed.txt says why
            continue
        read = [row["preference"] for row in read_jsonl(of.store.root / verdicts.stage.directory / "verdicts.jsonl")]
        win_rate = 100 * sum(value - 1 for value in read) / len(read)
        rates.setdefault(f"{of.config.sft.learning_rate:g}", []).append(win_rate)
    means = {rate: sum(values) / len(values) for rate, values in rates.items()}
    if not means:
        raise SystemExit(f"No point of the grid has a result; {study.folder / 'failed.txt'} says why.")
    best = max(means, key=lambda rate: means[rate])
    (study.folder / "rate.json").write_text(json.dumps({"rate": best, "win_rates": rates}))
    print(f"Learning rate {best}: win rates on the dev set {rates}")


def undone(points: Sequence[Experiment]) -> list[Task]:
    return [
        Task(call=build_point, arguments=(of.overrides,), kind=f"{of.config.dataset.size} examples")
        for of in points
        if not is_done(of)
    ]


def prepare(study: Study) -> list[Task]:
    """Converted models, and what the base model answers for each seed."""
    tasks: list[Task] = []
    seen: set[str] = set()
    for points, roles in ((study.points(), ["base_answers", "minilima_verifiable_base"]), (study.grid(), ["base_answers"])):
        for of in points:
            keys = {of.graph[role].directory for role in roles}
            there = all((of.store.root / key / "manifest.json").is_file() for key in keys)
            if keys - seen and not there:
                tasks.append(Task(call=build_roles, arguments=(of.overrides, roles), kind="prepare"))
            seen |= keys
    return tasks


def go_on(study: Study, wanted: Sequence[str], clock: Clock, workers: int) -> str | None:
    """The stages in their order; returns the first that is not finished."""
    study.folder.mkdir(parents=True, exist_ok=True)
    if not write_pool(study) and not ("pool" in wanted and make_pool(study, clock)):
        return "pool"
    if "prepare" in wanted and not run_all(prepare(study), clock, workers, study.folder):
        return "prepare"
    if "grid" in wanted and not (study.folder / "rate.json").is_file():
        if not run_all(undone(study.grid()), clock, workers, study.folder):
            return "grid"
        choose_rate(study)
    points = study.points()
    first, second = orders(study) if "orders" in wanted else ((), ())
    ready = [of for of in points if has_order(of)]
    # The points of less come first: its orders are made from the start, and those of the others after the points that are ready.
    waiting = sorted((of for of in points if not has_order(of)), key=lambda of: of.config.dataset.select != "less")
    now, then = (undone(ready), undone(waiting)) if "study" in wanted else ([], [])
    if run_all([*first, *now, *second, *then], clock, workers, study.folder):
        return None
    return "orders" if not all(map(has_order, points)) else "study"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", help=f"{', '.join(STAGES)} (default: all); settings are added to every experiment")
    parser.add_argument("--folder", type=Path, required=True, help="store and caches of the study")
    parser.add_argument("--out", type=Path, required=True, help="where packs are put")
    parser.add_argument("--from", dest="packs", type=Path, help="folder of earlier packs, which are restored first")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call")
    parser.add_argument("--workers", type=int, default=6, help="points at once, on all cards; one takes 9 to 16 GB")
    parser.add_argument("--pool", type=Path, help="a pool that is there already")
    parser.add_argument("--rate", help="learning rate, instead of the grid's")
    chosen = parser.parse_intermixed_args()
    clock = Clock(ends=time.monotonic() + 60 * chosen.minutes - 30)
    extra = tuple(word for word in chosen.stages if "=" in word)
    study = Study(folder=chosen.folder.resolve(), rate=chosen.rate, given=chosen.pool, extra=extra)
    if chosen.packs is not None:
        files = sorted(file for file in chosen.packs.glob("*.xz"))
        print(f"{restore(study.folder, files)} entries came out of {len(files)} packs.")
        if (file := chosen.packs / "rate.json").is_file():
            (study.folder / "rate.json").write_bytes(file.read_bytes())
    unfinished = None
    try:
        unfinished = go_on(study, [word for word in chosen.stages if word in STAGES] or STAGES, clock, chosen.workers)
    finally:
        for file in pack(study.folder, chosen.out, with_cache=unfinished in ("pool", "prepare", "orders")):
            print(f"{file} {file.stat().st_size / 1e6:.1f} MB")
        if (study.folder / "rate.json").is_file():
            (chosen.out / "rate.json").write_bytes((study.folder / "rate.json").read_bytes())
    print("all done" if unfinished is None else f"{unfinished} is not finished: run the same command again")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
