"""Reads what run.py packed, and writes the study's results: each point, each method against random, a table and a picture.

    python experiments/which_examples/gather.py PACKS  # ─> results.json and table.md beside this file, the picture in docs/

Everything follows from manifests: verdicts ─> answers ─> model ─> data set (method, size, seed) ─> pool. A method is compared
with random at the same size over the same prompts; both the prompts and the seeds could have been others, and the interval of
the difference holds both (minilima/evaluate/over_seeds.py). Holm's correction is over all methods of that size.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from packs import restore

from minilima.config.schema import JudgeConfig
from minilima.evaluate.judged import read_judged
from minilima.evaluate.length_control import minimal_length_controlled
from minilima.evaluate.length_control_tables import LengthControlled
from minilima.evaluate.over_seeds import OverSeeds, compare_over_seeds
from minilima.evaluate.significance import holm
from minilima.formats.files import read_jsonl
from minilima.formats.records import ReferenceLoss
from minilima.report.alpaca_files import as_run

HERE = Path(__file__).resolve().parent
PICTURE = ROOT / "docs" / "pictures" / "which_examples.png"
RANDOM, HUMAN = "random", "written by people"
FIGURES = {"win_rate": "win rate", "loss": "loss on reference answers", "verifiable": "verifiable prompts, strict"}

MEANS = ("win_rate", "length_controlled", "loss", "base_loss", "verifiable", "words", "trained_on_words")

Points = Sequence[Mapping[str, Any]]


def read_points(folder: Path) -> list[dict[str, Any]]:
    """Each finished point of the study: how it was made, its figures, and what they are by prompt."""
    manifests = {
        path.parent.name: (path.parent, json.loads(path.read_text()))
        for place in ("store", "models")
        for path in (folder / place).glob("*/manifest.json")
    }
    pools = [name for name, (_, manifest) in manifests.items() if manifest["stage"] == "pool"]
    written = {name for name in pools if manifests[name][1]["metrics"].get("rows") != _human(manifests[name][0])}
    checks = {manifest["inputs"]["model"]: path for path, manifest in manifests.values() if manifest["stage"] == "benchmark"}
    points = []
    for path, manifest in manifests.values():
        if manifest["stage"] != "verdicts" or manifest["inputs"]["answers"] not in manifests:
            continue
        answers = manifests[manifest["inputs"]["answers"]]
        model = answers[1]["inputs"]["model"]
        if model not in checks or model not in manifests:  # a point of the grid, or one that was not finished
            continue
        trained = manifests[model][1]
        data = manifests[trained["inputs"]["dataset"]][1]
        folders = {"verdicts": path, "answers": answers[0], "base_answers": manifests[manifest["inputs"]["reference"]][0]}
        points.append(_point(trained, data, folders, checks[model], of_pool=data["inputs"]["pool"] in written))
    return sorted(points, key=lambda point: (point["method"], point["size"], point["seed"]))


def _human(pool: Path) -> int:
    """The rows of a pool that holds the packaged seed tasks, or -1."""
    rows, seeds = read_jsonl(pool / "instances.jsonl"), read_jsonl(ROOT / "minilima" / "data" / "minilima_175.jsonl")
    return len(rows) if {row["instruction"] for row in rows} == {row["instruction"] for row in seeds} else -1


def _point(
    trained: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path], checks: Path, *, of_pool: bool
) -> dict[str, Any]:
    recipe = data["recipe"]
    order = (recipe.get("scoring") or {}).get("perplexity")
    judged = read_judged(folders)
    assert judged is not None
    controlled = minimal_length_controlled(as_run(JudgeConfig(), judged), refits=0)
    by_prompt: dict[str, dict[str, Any]] = {
        "win_rate": {prompt.id: prompt.verdict.preference for prompt in judged.prompts},
        "loss": {loss.id: loss.nats / loss.tokens for loss in judged.tuned_losses},
        "verifiable": {row["id"]: row["scores"]["strict"] for row in read_jsonl(checks / "items.jsonl")},
    }
    preferences = [value for value in by_prompt["win_rate"].values() if value is not None]
    return {
        "method": f"perplexity {order}" if order else str(recipe["select"]) if of_pool else HUMAN,
        "size": data["metrics"]["examples"],
        "seed": recipe["seed"],
        "learning_rate": trained["recipe"]["learning_rate"],
        "win_rate": 100 * (sum(preferences) / len(preferences) - 1),
        "length_controlled": controlled.value if isinstance(controlled, LengthControlled) else None,
        "loss": _nats_a_token(judged.tuned_losses),
        "base_loss": _nats_a_token(judged.reference_losses),
        "verifiable": 100 * sum(by_prompt["verifiable"].values()) / len(by_prompt["verifiable"]),
        "words": sum(len(prompt.tuned.output.split()) for prompt in judged.prompts) / len(judged.prompts),
        "trained_on_words": data["metrics"]["output_words"]["mean"],
        "by_prompt": by_prompt,
    }


def _nats_a_token(losses: Sequence[ReferenceLoss]) -> float:
    return sum(loss.nats for loss in losses) / sum(loss.tokens for loss in losses)


def compared(points: Points) -> list[dict[str, Any]]:
    """Each method against random at the same size, by each figure."""
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for point in points:
        groups[point["size"], point["method"]].append(point)
    rows = []
    for size in sorted({size for size, _ in groups}):
        methods = [method for at, method in groups if at == size and method != RANDOM]
        if (size, RANDOM) not in groups:
            continue
        for figure in FIGURES:
            both = {method: _of_the_same_seeds(groups[size, method], groups[size, RANDOM]) for method in methods}
            pairs = {method: _against(*sides, figure) for method, sides in both.items() if sides[0]}
            corrected = holm([pair.p_value for pair in pairs.values()])
            for (method, pair), p_value in zip(pairs.items(), corrected, strict=True):
                found = asdict(pair) | {"p_holm": p_value, "seeds": len(both[method][0])}
                rows.append({"size": size, "method": method, "figure": figure, "difference": found.pop("estimate"), **found})
    return rows


def _of_the_same_seeds(ours: Points, others: Points) -> tuple[Points, Points]:
    """The points of both whose seed both have: a study that is not finished compares like with like."""
    shared = {point["seed"] for point in ours} & {point["seed"] for point in others}
    return [point for point in ours if point["seed"] in shared], [point for point in others if point["seed"] in shared]


def _against(ours: Points, others: Points, figure: str) -> OverSeeds:
    """Shares are compared in points, losses in nats a token."""
    sides = [[point["by_prompt"][figure] for point in side] for side in (ours, others)]
    every = [values for side in sides for values in side]
    shared = [name for name in every[0] if all(values.get(name) is not None for values in every)]
    unit = 1 if figure == "loss" else 100
    first, second = (unit * np.array([[values[name] for name in shared] for values in side]) for side in sides)
    return compare_over_seeds(first, second)


def means(points: Points) -> list[dict[str, Any]]:
    """What each method reaches at each size, over its seeds; the highest win rate of a size first."""
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for point in points:
        groups[point["size"], point["method"]].append(point)
    rows = []
    for (size, method), group in groups.items():
        row: dict[str, Any] = {"size": size, "method": method, "seeds": len(group)}
        for name in MEANS:
            known = [point[name] for point in group if point[name] is not None]
            # A mean over some of the seeds would stand beside means over all.
            row[name] = sum(known) / len(known) if len(known) == len(group) else None
        row["spread"] = float(np.std([point["win_rate"] for point in group], ddof=1)) if len(group) > 1 else None
        rows.append(row)
    return sorted(rows, key=lambda row: (row["size"], -row["win_rate"]))


def table(groups: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over seeds, and the difference from random with its interval and corrected p-value, as Markdown."""
    found = {(row["size"], row["method"], row["figure"]): row for row in rows}
    heads = ["examples", "method", "seeds", "win rate", "spread", "length-controlled", "against random, points (p after Holm)"]
    lines = [[*heads, "detectable", "loss", "verifiable", "words"]]
    lines.append(["---"] * len(lines[0]))
    for group in groups:
        row = found.get((group["size"], group["method"], "win_rate"))
        against = "-" if row is None else "{value:+.1f} ({low:+.1f} to {high:+.1f})".format(**row["difference"])
        against += "" if row is None else ", p < 0.001" if row["p_holm"] < 0.001 else f", p = {row['p_holm']:.3f}"
        detectable = "-" if row is None else f"{row['minimum_detectable']:.1f}"
        known = [f"{value:.1f}" if value is not None else None for value in (group["spread"], group["length_controlled"])]
        figures = [f"{group['win_rate']:.1f}", known[0] or "-", known[1] or "not known", against, detectable]
        figures += [f"{group['loss']:.3f}", f"{group['verifiable']:.1f}", f"{group['words']:.0f}"]
        lines.append([f"{group['size']:,}", group["method"], str(group["seeds"]), *figures])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each size: how far each method is from random, with its interval; filled where Holm's correction leaves it."""
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row["figure"] == "win_rate"]
    sizes = sorted({row["size"] for row in shown})
    names = sorted(
        {row["method"] for row in shown}, key=lambda name: sum(r["difference"]["value"] for r in shown if r["method"] == name)
    )
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(2.2 + 2.3 * len(sizes), 0.9 + 0.27 * len(names)), sharex=True, sharey=True, squeeze=False
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        for row in (row for row in shown if row["size"] == size):
            place, found = names.index(row["method"]), row["difference"]
            colour = "#b3261e" if found["value"] < 0 else "#1b6e3c"
            sure = row["p_holm"] < 0.05
            axes.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=1.2, alpha=1 if sure else 0.45)
            axes.plot(found["value"], place, "o", color=colour, markerfacecolor=colour if sure else "white", markersize=5)
        axes.axvline(0, color="#888888", linewidth=0.8)
        axes.set_title(f"{size:,} examples", fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("points of win rate more than random examples\n95 % interval; filled: p < 0.05 after Holm", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", type=Path, help="the folder with all packs of run.py")
    parser.add_argument("--out", type=Path, default=HERE, help="where the results are put")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where the picture is put")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        restore(Path(folder), sorted(chosen.packs.glob("pack-*.xz")))
        points = read_points(Path(folder))
    if not points:
        raise SystemExit(f"No finished point of the study is in {chosen.packs}.")
    rows = compared(points)
    chosen.out.mkdir(parents=True, exist_ok=True)
    groups = means(points)
    slim = [{name: value for name, value in point.items() if name != "by_prompt"} for point in points]
    (chosen.out / "results.json").write_text(
        json.dumps({"means": groups, "against_random": rows, "points": slim}, indent=1) + "\n"
    )
    (chosen.out / "table.md").write_text(table(groups, rows))
    if rows:
        draw(rows, chosen.picture)
    print(table(groups, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
