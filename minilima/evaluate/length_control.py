"""AlpacaEval's length-controlled win rate: what the win rate would be if both answers were equally long.

A logistic model explains each preference by the difference in length, by how hard the prompt is and by the model
(Dubois et al. 2024, arXiv:2404.04475, section 4); its prediction with the length term at 0, averaged over the prompts, is the
figure. Two things differ from alpaca_eval 0.6.6: the difficulty belongs to an *instruction*, where alpaca_eval takes it by
row number and so gives prompts each other's difficulty once a row is missing (`positional=True` does the same, for
checking; the fit of text_davinci_001, 803 rows, gives 9.0 by row number and 6.5 by instruction); and the interval resamples
prompts, where its `lc_standard_error` is only the spread of the difficulties.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from minilima.evaluate.length_control_tables import (
    BASELINE,
    HOW_TO_GET,
    JUDGE,
    Coefficients,
    Gamed,
    LengthControlled,
    NotKnown,
    Tables,
    alpaca_eval_positions,
    instruction_id,
)
from minilima.evaluate.statistics import Estimate, Matrix, Vector
from minilima.formats.annotations import Run

GAMED_WEIGHT = 0.2 / 2
"""alpaca_eval's `regularize_to_baseline_lambda`, shared by the two gamed baselines."""
STRENGTHS = np.logspace(-4, 4, 10)
"""The values of C (inverse strength of the L1 penalty) among which cross-validation chooses."""
MINIMAL_STRENGTH = 100.0
"""C of the minimal form: the penalty is only there to keep a run that won everything finite."""
FEWEST = 20
"""Verdicts to which the minimal form is fitted, at least: from six it can say 0 % beside a win rate of 50 %."""
SUPPORT = 0.1
"""Share of the pairs that must lie on either side of equal length for the minimal form."""
REFITS = 200
TOLERANCE_POINTS = 1.0
"""How far published weights may miss the win rate of the annotations they are said to describe."""


class CoefficientsFrom(StrEnum):
    """Where the coefficients come from."""

    auto = "auto"
    published = "published"
    fitted = "fitted"


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What the model sees of a run: one entry a prompt."""

    gap: Vector
    """Characters by which the baseline's answer is longer than the model's."""
    difficulty: Vector | None
    preference: Vector
    """0 to 1; NaN = unread."""


def length_controlled(
    run: Run, tables: Tables, *, method: CoefficientsFrom = CoefficientsFrom.auto, positional: bool = False, refits: int = REFITS
) -> LengthControlled | NotKnown:
    """The official length-controlled win rate, `tanh(std_delta_len) + instruction_difficulty + not_gamed_baseline - 1`.

    Args:
        run: annotations against gpt4_1106_preview on AlpacaEval's instructions, or some of them.
        tables: difficulties and gamed baselines, and published weights where they are known.
        method: `published` = the coefficients published for the model's name; `fitted` = fitted to these annotations with
            the gamed baselines; `auto` = published where they are there, fit the win rate and come from difficulties in
            their right positions, fitted otherwise.
        positional: take difficulties by row number, as alpaca_eval 0.6.6 does.
        refits: bootstrap resamples; 0 = no interval. Each resample draws prompts again, standardises the length
            differences again and refits all coefficients at the strength of penalty chosen for the whole sample. The
            interval of a value from published weights is that of our fit, moved by the difference between both values.

    Returns:
        NotKnown where the baseline, an instruction, or what the method needs is unknown.
    """
    rows = _official_rows(run, tables, positional)
    if isinstance(rows, NotKnown):
        return rows
    published = _published(run, rows, tables)
    if isinstance(published, NotKnown) and method == CoefficientsFrom.published:
        return published
    # The weights published for an incomplete run come from a fit with misplaced difficulties: better to fit again.
    misplaced = not positional and _positions(run) != list(range(len(run.annotations)))
    wanted = method == CoefficientsFrom.fitted
    fitted = isinstance(published, NotKnown) or wanted or (method == CoefficientsFrom.auto and misplaced)
    if isinstance(published, NotKnown) or (fitted and (tables.gamed or wanted)):
        if tables.gamed is None:
            return NotKnown(reason=f"the gamed baselines that anchor the fit (df_gamed.csv) are missing. {HOW_TO_GET}")
        return _fitted(rows, tables.gamed, refits)
    how = "published weights, fitted with misplaced difficulties" if misplaced else "published weights"
    return _with_published(published, rows, tables.gamed, how, refits)


def own_length_controlled(run: Run) -> LengthControlled | None:
    """The value that alpaca_eval itself left in a file as `glm_preference`; None unless every row has one."""
    own = [row.glm_preference for row in run.annotations if row.glm_preference is not None]
    if len(own) < len(run.annotations):
        return None
    return LengthControlled(value=float(np.mean(own) * 100), interval=None, weights=None, how="the file's own glm_preference")


def _with_published(weights: Coefficients, rows: _Rows, gamed: Gamed | None, how: str, refits: int) -> LengthControlled:
    value, interval = _predict(weights, rows), None
    ours = _fitted(rows, gamed, refits) if gamed is not None and refits else None
    if ours is not None and ours.interval is not None:
        move = value - ours.value
        interval = Estimate(value=value, low=ours.interval.low + move, high=ours.interval.high + move)
    return LengthControlled(value=value, interval=interval, weights=weights, how=how)


def minimal_length_controlled(run: Run, *, refits: int = REFITS) -> LengthControlled | NotKnown:
    """A length-controlled win rate for any evaluation set: `tanh(std_delta_len) + 1`, fitted to these annotations alone.

    It knows no difficulty and no gamed baselines, so it is not comparable with AlpacaEval's figure (for vicuna-13b-v1.5, whose
    answers are longer in 7 % of the pairs, it says 15.2 where AlpacaEval says 10.5). It is refused where fewer than one pair in
    ten is longer, or shorter: equal length then lies at the edge of the data. The interval refits in every resample.
    """
    rows = _rows(run, None)
    if (missing := _too_little(rows)) is not None:
        return missing
    if (read := int((~np.isnan(rows.preference)).sum())) < FEWEST:
        return NotKnown(reason=f"only {read} verdicts could be read; below {FEWEST} a fit follows single prompts")
    longer, shorter = float((rows.gap < 0).mean()), float((rows.gap > 0).mean())
    if min(longer, shorter) < SUPPORT:
        return NotKnown(
            reason=f"the answers are longer than the baseline's in {longer:.0%} of the pairs and shorter in {shorter:.0%}; "
            f"without {SUPPORT:.0%} of each, what happens at equal length would be a guess"
        )
    weights = _fit(rows, None, MINIMAL_STRENGTH)
    return LengthControlled(
        value=_predict(weights, rows),
        interval=_interval(rows, None, MINIMAL_STRENGTH, _predict(weights, rows), refits),
        weights=weights,
        how="minimal form, without AlpacaEval's tables",
    )


def _positions(run: Run) -> list[int | None]:
    """The position of each row's instruction in AlpacaEval's order; None for an instruction that is not AlpacaEval's."""
    return [alpaca_eval_positions().get(instruction_id(row.instruction)) for row in run.annotations]


def _official_rows(run: Run, tables: Tables, positional: bool) -> _Rows | NotKnown:
    if run.baseline != BASELINE:
        return NotKnown(reason=f"the baseline is {run.baseline or 'not named'}; difficulties are known against {BASELINE} only")
    positions = _positions(run)
    known = [position for position in positions if position is not None]
    if len(known) < len(positions):
        return NotKnown(reason=f"{len(positions) - len(known):,} of {len(positions):,} instructions are not AlpacaEval's")
    if tables.difficulty is None:
        return NotKnown(reason=f"the instructions' difficulties are missing. {HOW_TO_GET}")
    if positional and len(known) > len(tables.difficulty):
        return NotKnown(reason=f"there are {len(known):,} rows and {len(tables.difficulty):,} difficulties")
    rows = _rows(run, tables.difficulty[list(range(len(known))) if positional else known])
    return _too_little(rows) or rows


def _rows(run: Run, difficulty: Vector | None) -> _Rows:
    lengths = [len(row.output_1) - len(row.output_2) for row in run.annotations]
    preferences = [np.nan if value is None else value - 1 for value in run.preferences]
    return _Rows(
        gap=np.array(lengths, dtype=np.float64), difficulty=difficulty, preference=np.array(preferences, dtype=np.float64)
    )


def _too_little(rows: _Rows) -> NotKnown | None:
    if int((~np.isnan(rows.preference)).sum()) < 2:
        return NotKnown(reason="fewer than two verdicts could be read")
    return None if rows.gap.std() > 0 else NotKnown(reason="all pairs differ by the same length, so its effect is not known")


def _published(run: Run, rows: _Rows, tables: Tables) -> Coefficients | NotKnown:
    """The published coefficients, if they belong to these annotations: same judge, and they predict the same win rate.

    Coefficients are looked up by the model's name, and names are not unique; without this check a user's own `alpaca-7b` would
    be given the published model's figure whatever its answers.
    """
    if run.judge != JUDGE:
        return NotKnown(reason=f"the judge is {run.judge or 'not named'}; published weights are of {JUDGE}")
    if (weights := tables.weights.get(run.generator)) is None:
        return NotKnown(reason=f"no weights are published for {run.generator}, or their file is not there")
    read = ~np.isnan(rows.preference)
    predicted = expit(_design(rows) @ np.array([weights.length, weights.difficulty, weights.model]))
    miss = abs(float((predicted - rows.preference)[read].mean())) * 100
    if miss > TOLERANCE_POINTS:
        return NotKnown(reason=f"the weights published for {run.generator} miss these annotations' win rate by {miss:.1f} points")
    return weights


def _fitted(rows: _Rows, gamed: Gamed, refits: int) -> LengthControlled:
    strength = _choose_strength(rows, gamed)
    weights = _fit(rows, gamed, strength)
    value = _predict(weights, rows)
    how = "fitted, gamed baselines reconstructed" if gamed.surrogate else "fitted"
    return LengthControlled(
        value=value, interval=_interval(rows, gamed, strength, value, refits), weights=weights, how=f"{how}; C={strength:.4g}"
    )


def _predict(weights: Coefficients, rows: _Rows) -> float:
    """The win rate in percent with the length term at 0."""
    difficulty = np.zeros_like(rows.gap) if rows.difficulty is None else rows.difficulty
    return float(expit(weights.model + weights.difficulty * difficulty).mean() * 100)


def _design(rows: _Rows) -> Matrix:
    """The columns tanh(length), difficulty (0 where it is not known) and 1."""
    # ddof=1 as pandas has it; over all rows, also unread ones, as alpaca_eval does.
    spread = rows.gap.std(ddof=1)
    length = np.tanh(rows.gap / spread) if spread > 0 else np.zeros_like(rows.gap)
    difficulty = np.zeros_like(length) if rows.difficulty is None else rows.difficulty
    return np.column_stack([length, difficulty, np.ones_like(length)])


def _training(rows: _Rows, gamed: Gamed | None) -> tuple[Matrix, Vector, Vector]:
    """Design, preference and weight of every training row: the gamed baselines' first, as in alpaca_eval."""
    read = ~np.isnan(rows.preference)
    design, target = _design(rows)[read], rows.preference[read]
    if gamed is None:
        return design, target, np.ones_like(target)
    theirs = np.column_stack([np.tanh(gamed.standard_length), gamed.difficulty, np.zeros_like(gamed.preference)])
    weight = np.concatenate([np.full(len(theirs), GAMED_WEIGHT), np.ones_like(target)])
    return np.vstack([theirs, design]), np.concatenate([gamed.preference, target]), weight


def _fit(rows: _Rows, gamed: Gamed | None, strength: float) -> Coefficients:
    length, difficulty, model = _regress(*_training(rows, gamed), strength)
    return Coefficients(length=length, difficulty=difficulty, model=model)


def _regress(design: Matrix, target: Vector, weight: Vector, strength: float) -> Sequence[float]:
    """L1-penalised logistic regression on preferences between 0 and 1: each row counts as a win and as a loss, in parts."""
    regression = LogisticRegression(
        C=strength, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=123, max_iter=100
    )
    labels = np.repeat([1, 0], len(target))
    parts = np.concatenate([target, 1 - target]) * np.concatenate([weight, weight])
    with warnings.catch_warnings():
        # alpaca_eval stops after 100 steps too; where a run won everything, there is no end to converge to.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(np.vstack([design, design]), labels, sample_weight=parts)
    return [float(value) for value in regression.coef_[0]]


def _choose_strength(rows: _Rows, gamed: Gamed) -> float:
    """C by five-fold cross-validation on the weighted log-loss, with the folds that alpaca_eval's GroupKFold makes."""
    design, target, weight = _training(rows, gamed)
    count = len(target)
    groups = np.tile(np.arange(count), 2)
    scores = np.zeros(len(STRENGTHS))
    for train, test in GroupKFold(n_splits=5).split(groups, groups=groups):
        # A row and its mirror image share a fold, so the first half of the indices says it all.
        fit, held = train[train < count], test[test < count]
        for number, strength in enumerate(STRENGTHS):
            coefficients = _regress(design[fit], target[fit], weight[fit], float(strength))
            odds = design[held] @ np.array(coefficients)
            loss = target[held] * np.logaddexp(0, -odds) + (1 - target[held]) * np.logaddexp(0, odds)
            scores[number] += float((loss * weight[held]).mean())
    return float(STRENGTHS[scores.argmin()])


def _interval(rows: _Rows, gamed: Gamed | None, strength: float, value: float, refits: int) -> Estimate | None:
    """The 95 % percentile interval of the value over resampled prompts, all coefficients refitted in each."""
    if refits < 2:
        return None
    rng = np.random.default_rng(0)
    values = []
    for _ in range(refits):
        drawn = rng.integers(len(rows.gap), size=len(rows.gap))
        difficulty = None if rows.difficulty is None else rows.difficulty[drawn]
        resample = _Rows(gap=rows.gap[drawn], difficulty=difficulty, preference=rows.preference[drawn])
        # A resample without a verdict says nothing; it needs a run of which hardly any was read.
        if not np.isnan(resample.preference).all():
            values.append(_predict(_fit(resample, gamed, strength), resample))
    low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high))
