"""Exact near-duplicates by the index that data sets use, beside all pairs in blocks and beside rouge_score.

    python benchmarks/dedupe.py --json benchmarks/results/dedupe.json
    python benchmarks/dedupe.py --sizes 1000000 --index --json benchmarks/results/dedupe_1m.json

`block` compares each text with all kept ones, 256 at once. Texts are sentences from the documentation strings of the
installed packages; beyond the 100,000 that are read, the front of one is joined to the back of another. rouge_score is timed on
every k-th candidate of the same greedy pass and scaled by the number of pairs. Times are CPU seconds of one process.
"""

import functools
import random
import re
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import scipy
from rouge_score import rouge_scorer

from benchmarks.publish import parser, publish
from minilima.generate.near_duplicates import first_near_duplicates
from minilima.rouge import BLOCK, Vocabulary, above

LIMIT = 0.7
REAL = 100_000
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
COMPARED = {100: 1, 200: 2, 500: 5, 1000: 10, 2000: 40, 4000: 100, 8000: 400}
"""Sizes at which rouge_score runs beside ours, and k: it is timed on every k-th candidate."""


def texts(count: int) -> list[str]:
    """`count` sentences; beyond those there are, the front of one is joined to the back of another."""
    real = sentences()
    rng = random.Random(0)
    rng.shuffle(real)
    while len(real) < count:
        front, back = rng.choice(real).split(), rng.choice(real).split()
        real.append(" ".join(front[: len(front) // 2 + 1] + back[len(back) // 2 :]))
    return real[:count]


@functools.cache
def _sentences() -> tuple[str, ...]:
    found: dict[str, None] = {}
    for file in sorted(Path(scipy.__file__).parent.parent.rglob("*.py")):
        for documentation in _DOCSTRING.findall(file.read_text(encoding="utf-8", errors="replace")):
            for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", documentation):
                words = sentence.split()
                if 8 <= len(words) <= 60:
                    found[" ".join(words)] = None
        if len(found) > REAL:
            break
    return tuple(found)


def sentences() -> list[str]:
    """Distinct sentences of 8 to 60 words from the documentation strings of the installed packages."""
    return list(_sentences())


def by_blocks(candidates: list[str], limit: float) -> list[tuple[int, float] | None]:
    """What `first_near_duplicates` decides, from all pairs."""
    vocabulary = Vocabulary()
    encoded = [vocabulary.encode(text) for text in candidates]
    kept: list[int] = []
    nearest: list[tuple[int, float] | None] = []
    for start in range(0, len(encoded), BLOCK):
        block = encoded[start : start + BLOCK]
        before = above(block, [encoded[index] for index in kept], limit)
        inside = above(block, block, limit)
        fresh: list[int] = []
        for row in range(len(block)):
            near = [(kept[index], score) for index, score in before[row]]
            near += [(start + index, score) for index, score in inside[row] if start + index in fresh]
            nearest.append(max(near, key=lambda item: (item[1], -item[0])) if near else None)
            if not near:
                fresh.append(start + row)
        kept += fresh
    return nearest


def reference_seconds(candidates: list[str], decisions: list[tuple[int, float] | None], every: int) -> tuple[float, int]:
    """(CPU seconds of rouge_score for the whole pass, wrong decisions of ours among the candidates that were timed)."""
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    kept: list[str] = []
    pairs = timed_pairs = wrong = 0
    seconds = 0.0
    for place, text in enumerate(candidates):
        pairs += len(kept)
        if place % every == every - 1:
            started = time.process_time()
            scores = [scorer.score(other, text)["rougeL"].fmeasure for other in kept]
            seconds += time.process_time() - started
            timed_pairs += len(kept)
            wrong += (max(scores, default=0.0) > LIMIT) != (decisions[place] is not None)
        if decisions[place] is None:
            kept.append(text)
    return seconds * pairs / timed_pairs, wrong


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[*COMPARED, 16_000, 52_000])
    arguments.add_argument("--index", action="store_true", help="the index alone, without the block comparison")
    chosen = arguments.parse_args()
    figures: dict[str, tuple[float | None, str]] = {}
    for size in chosen.sizes:
        sample = texts(size)
        decisions = None
        for name, method in (("block", by_blocks), ("index", first_near_duplicates)):
            if chosen.index and name == "block":
                continue
            started, wall = time.process_time(), time.monotonic()
            found = method(sample, LIMIT)
            figures[f"{name}_{size}"] = (round(time.process_time() - started, 3), "cpu_seconds")
            figures[f"{name}_{size}_wall"] = (round(time.monotonic() - wall, 3), "seconds")
            if decisions is not None:
                same = [item is None for item in found] == [item is None for item in decisions]
                assert same, "the index decides otherwise than the block comparison"
            decisions = found
        assert decisions is not None
        figures[f"duplicates_{size}"] = (sum(item is not None for item in decisions), "texts")
        if size in COMPARED and not chosen.index:
            seconds, wrong = reference_seconds(sample, decisions, COMPARED[size])
            figures[f"rouge_score_{size}"] = (round(seconds, 1), "cpu_seconds")
            figures[f"speedup_{size}"] = (round(seconds / (figures[f"block_{size}"][0] or 1)), "times")
            figures[f"wrong_{size}"] = (wrong, "decisions")
    figures["peak_memory"] = (round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "MiB")
    words = sum(len(text.split()) for text in texts(1000)) / 1000
    publish(figures, chosen.json, limit=LIMIT, mean_words=round(words, 1), compared_every=COMPARED)


if __name__ == "__main__":
    main()
