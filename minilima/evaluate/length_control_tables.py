"""Reads what AlpacaEval's length control needs beyond the annotations: difficulties, gamed baselines, published weights.

None of it is packaged: the tables belong to AlpacaEval's data, which are licensed CC BY-NC 4.0, while minilima is
Apache-2.0. They are read from a folder of the user's (or Hugging Face's cache). Packaged is only the order of AlpacaEval's
805 instructions, as hashes without any text: the published tables know an instruction by its position in that order.
"""

import csv
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from minilima.errors import MinilimaError
from minilima.evaluate.statistics import Estimate, Vector
from minilima.formats.files import DATA

JUDGE, BASELINE = "weighted_alpaca_eval_gpt4_turbo", "gpt4_1106_preview"
"""What the difficulties, the gamed baselines and the published weights were fitted on."""

HOW_TO_GET = (
    "Fetch the tables once with `hf download tatsu-lab/alpaca_eval df_gamed.csv instruction_difficulty.csv --repo-type dataset`, "
    "or give a folder that holds them with --length-control FOLDER."
)


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """Coefficients of the logistic model, on the log-odds that the model's answer wins."""

    length: float
    """Of tanh((baseline's length - model's length) / its standard deviation)."""
    difficulty: float
    model: float
    """Of `not_gamed_baseline`: how good the model is where lengths are equal and the difficulty is 0."""


@dataclass(frozen=True, kw_only=True)
class Gamed:
    """Judgments of two variants of the baseline that were asked to be verbose or concise; they anchor the fit."""

    preference: Vector
    """0 to 1."""
    standard_length: Vector
    difficulty: Vector
    surrogate: bool
    """Whether the preferences were reconstructed, not published."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What is known of AlpacaEval's set; a part is None or empty where its file is not there."""

    difficulty: Vector | None
    """By position in AlpacaEval's order; None where there are no tables."""
    gamed: Gamed | None
    weights: Mapping[str, Coefficients]
    """Published coefficients by model."""


@dataclass(frozen=True, kw_only=True)
class LengthControlled:
    """A length-controlled win rate in percent."""

    value: float
    interval: Estimate | None
    """95 % bootstrap interval over prompts, the model refitted in each resample; None where it cannot be refitted."""
    weights: Coefficients | None
    """None where the value was read from the file."""
    how: str
    """`published weights`, `fitted`, `minimal` or `the file's own`, with what a reader should know."""

    def text(self, form: str = ".1f") -> str:
        """The value with its interval, as `Estimate.text`; alone where it has none."""
        return self.interval.text(form, " %") if self.interval else f"{self.value:{form}} %"


@dataclass(frozen=True, kw_only=True)
class NotKnown:
    """Why there is no length-controlled win rate."""

    reason: str


NO_TABLES = Tables(difficulty=None, gamed=None, weights={})


def load_tables(folder: Path) -> Tables:
    """The tables in a folder: `*instruction_difficulty*.csv`, `*df_gamed*.csv`, `*baseline_gpt4_1106_preview.csv`.

    Raises:
        MinilimaError: the folder holds neither difficulties nor gamed baselines, or a table cannot be understood.
    """
    if not folder.is_dir():
        raise MinilimaError(f"There is no folder {folder}.", "The tables for length control are read from it.", HOW_TO_GET)
    difficulty = _one(folder, "*instruction_difficulty*.csv")
    gamed = _one(folder, "*df_gamed*.csv")
    weights = _one(folder, f"*baseline_{BASELINE}.csv")
    if difficulty is None and gamed is None:
        raise MinilimaError(
            f"{folder} holds no table for length control.",
            "Neither *instruction_difficulty*.csv nor *df_gamed*.csv is directly in it.",
            HOW_TO_GET,
        )
    values = _difficulty(difficulty) if difficulty else None
    if gamed is not None and values is None:
        values = _difficulty(gamed)
    return Tables(difficulty=values, gamed=_gamed(gamed) if gamed else None, weights=_weights(weights) if weights else {})


def cached_tables() -> Tables:
    """The tables that alpaca_eval or `hf download` left in Hugging Face's cache; empty where there are none."""
    folder = cached_folder()
    return NO_TABLES if folder is None else load_tables(folder)


def cached_folder() -> Path | None:
    """Where in Hugging Face's cache the tables lie; None where there are none."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("df_gamed.csv", "instruction_difficulty.csv"):
        file = try_to_load_from_cache("tatsu-lab/alpaca_eval", name, repo_type="dataset")
        if isinstance(file, str):
            return Path(file).parent
    return None


@lru_cache(maxsize=1)
def alpaca_eval_positions() -> Mapping[str, int]:
    """The position of each of AlpacaEval's instructions in its order, by `instruction_id`."""
    ids = (DATA / "alpaca_eval_order.txt").read_text(encoding="ascii").split()
    return {identity: position for position, identity in enumerate(ids)}


def instruction_id(instruction: str) -> str:
    """The first 16 hex digits of the text's SHA-256."""
    return hashlib.sha256(instruction.encode()).hexdigest()[:16]


def _one(folder: Path, pattern: str) -> Path | None:
    matching = sorted(folder.glob(pattern))
    if len(matching) > 1:
        raise MinilimaError(
            f"{folder} holds {len(matching)} tables named {pattern}.",
            f"They are: {', '.join(file.name for file in matching)}.",
            "Keep one of them in the folder.",
        )
    return matching[0] if matching else None


def _difficulty(path: Path) -> Vector:
    values: dict[int, float] = {}
    try:
        for row in _rows(path):
            values.setdefault(int(row.get("index") or row[""]), float(row["instruction_difficulty"]))
        ordered = np.array([values[position] for position in range(len(values))], dtype=np.float64)
    except (KeyError, ValueError) as error:
        raise _bad_table(path, error) from None
    if len(ordered) != len(alpaca_eval_positions()):
        raise MinilimaError(
            f"{path} holds {len(ordered)} difficulties.",
            f"AlpacaEval has {len(alpaca_eval_positions())} instructions, and the table names them by their positions.",
            HOW_TO_GET,
        )
    return ordered


def _gamed(path: Path) -> Gamed:
    columns = ("preference", "std_delta_len", "instruction_difficulty")
    try:
        rows = [[float(row[column] or "nan") for column in columns] for row in _rows(path)]
    except (KeyError, ValueError) as error:
        raise _bad_table(path, error) from None
    # Rows without a preference take no part in alpaca_eval's fit either.
    preference, length, difficulty = np.array([row for row in rows if not math.isnan(row[0])], dtype=np.float64).T
    surrogate = "surrogate" in path.name
    return Gamed(preference=preference, standard_length=length, difficulty=difficulty, surrogate=surrogate)


def _weights(path: Path) -> dict[str, Coefficients]:
    try:
        return {
            row[""]: Coefficients(
                length=float(row["np.tanh(std_delta_len)"]),
                difficulty=float(row["instruction_difficulty"]),
                model=float(row["not_gamed_baseline.astype(float)"]),
            )
            for row in _rows(path)
        }
    except (KeyError, ValueError) as error:
        raise _bad_table(path, error) from None


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _bad_table(path: Path, error: Exception) -> MinilimaError:
    return MinilimaError(
        f"{path} cannot be understood as a table for length control.",
        f"A column or number is missing or wrong: {error}.",
        HOW_TO_GET,
    )
