"""Penalty, temperature, nucleus and draw of a step as one kernel for GPUs, a program a row; the meaning is sampling.py's.

The nucleus is looked for without sorting: of all probabilities, in parts of the highest, the mass above seven thresholds is
summed at a time, which leaves an eighth of the interval in which the smallest probability of the nucleus lies.
"""

import torch
import triton
import triton.language as tl

BLOCK, WARPS = 2048, 8
"""Scores of a row that are read at once, and by how many warps."""
_ROUNDS = 8
"""Eighths of eighths: 24 bits, the precision of a float32's fraction."""


def sample_fused(
    scores: torch.Tensor,
    written: torch.Tensor,
    penalty: float | torch.Tensor,
    temperature: float | torch.Tensor,
    top_p: float | torch.Tensor,
    drawn: torch.Tensor,
) -> torch.Tensor:
    """`sampling.sample` of scores on a GPU: the same arguments, of the same shapes, and the same tokens (rows, 1)."""
    rows, vocabulary = scores.shape
    chosen = torch.empty(rows, 1, dtype=torch.long, device=scores.device)
    marks = written.view(torch.uint8) if written.shape[1] else scores  # never read without a penalty
    by_row = isinstance(top_p, torch.Tensor)
    _sample[(rows,)](
        scores, scores.stride(0), marks, marks.stride(0), drawn, drawn.stride(0), chosen, penalty, 1 / temperature, top_p,
        vocabulary, by_row=by_row, penalised=bool(written.shape[1]), rounds=_ROUNDS if by_row or top_p < 1 else 0, block=BLOCK,
        num_warps=WARPS,
    )  # fmt: skip
    return chosen


@triton.jit  # type: ignore[untyped-decorator]
def _penalised(scores, written, places, vocabulary, penalty, penalised: tl.constexpr):  # type: ignore[no-untyped-def]
    """Scores at some places of a row."""
    values = tl.load(scores + places, mask=places < vocabulary, other=-float("inf")).to(tl.float32)
    if penalised:
        marked = tl.load(written + places, mask=places < vocabulary, other=0) != 0
        values = tl.where(marked, tl.where(values < 0, values * penalty, values / penalty), values)
    return values


@triton.jit  # type: ignore[untyped-decorator]
def _sample(  # type: ignore[no-untyped-def]
    all_scores, scores_stride, all_written, written_stride, drawn, drawn_stride, chosen, penalty, sharpness, top_p,
    vocabulary: tl.constexpr, by_row: tl.constexpr, penalised: tl.constexpr, rounds: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    if by_row:
        penalty = tl.load(penalty + row)
        sharpness = tl.load(sharpness + row)
        top_p = tl.load(top_p + row)
    scores = all_scores + row * scores_stride
    written = all_written + row * written_stride
    best = tl.full((block,), -float("inf"), tl.float32)
    for first in range(0, vocabulary, block):
        best = tl.maximum(best, _penalised(scores, written, first + tl.arange(0, block), vocabulary, penalty, penalised))
    highest = tl.max(best, axis=0)

    # Weights are probabilities in parts of the highest one. Tokens above `most` make up less than top_p, those above `least`
    # do not.
    least = 0.0
    most = 1.0
    if rounds > 0:
        sums = tl.zeros((block,), tl.float32)
        for first in range(0, vocabulary, block):
            values = _penalised(scores, written, first + tl.arange(0, block), vocabulary, penalty, penalised)
            sums += tl.exp((values - highest) * sharpness)
        # A nucleus of everything has no smallest probability to be looked for.
        enough = tl.where(top_p < 1, tl.sum(sums, axis=0) * top_p, float("inf"))
        for _ in range(rounds):
            step = (most - least) / 8
            above_1 = tl.zeros((block,), tl.float32)
            above_2 = tl.zeros((block,), tl.float32)
            above_3 = tl.zeros((block,), tl.float32)
            above_4 = tl.zeros((block,), tl.float32)
            above_5 = tl.zeros((block,), tl.float32)
            above_6 = tl.zeros((block,), tl.float32)
            above_7 = tl.zeros((block,), tl.float32)
            for first in range(0, vocabulary, block):
                values = _penalised(scores, written, first + tl.arange(0, block), vocabulary, penalty, penalised)
                weights = tl.exp((values - highest) * sharpness)
                above_1 += tl.where(weights > least + step, weights, 0.0)
                above_2 += tl.where(weights > least + 2 * step, weights, 0.0)
                above_3 += tl.where(weights > least + 3 * step, weights, 0.0)
                above_4 += tl.where(weights > least + 4 * step, weights, 0.0)
                above_5 += tl.where(weights > least + 5 * step, weights, 0.0)
                above_6 += tl.where(weights > least + 6 * step, weights, 0.0)
                above_7 += tl.where(weights > least + 7 * step, weights, 0.0)
            # The mass shrinks with the threshold: the number of thresholds above which there is enough says which eighth it is.
            passed = (tl.sum(above_1, axis=0) >= enough).to(tl.int32) + (tl.sum(above_2, axis=0) >= enough).to(tl.int32)
            passed += (tl.sum(above_3, axis=0) >= enough).to(tl.int32) + (tl.sum(above_4, axis=0) >= enough).to(tl.int32)
            passed += (tl.sum(above_5, axis=0) >= enough).to(tl.int32) + (tl.sum(above_6, axis=0) >= enough).to(tl.int32)
            passed += (tl.sum(above_7, axis=0) >= enough).to(tl.int32)
            most = tl.where(passed == 7, most, least + (passed + 1) * step)
            least = least + passed * step

    mass = 0.0
    for first in range(0, vocabulary, block):
        values = _penalised(scores, written, first + tl.arange(0, block), vocabulary, penalty, penalised)
        weights = tl.exp((values - highest) * sharpness)
        mass += tl.sum(tl.where(weights > least, weights, 0.0), axis=0)
    # Inverse transform: the first token up to which there is as much mass as was drawn.
    wanted = tl.maximum(tl.load(drawn + row * drawn_stride) * mass, 1e-30)
    before = 0.0
    begin = 0
    end_mass = 0.0
    for first in range(0, vocabulary, block):
        values = _penalised(scores, written, first + tl.arange(0, block), vocabulary, penalty, penalised)
        weights = tl.exp((values - highest) * sharpness)
        here = tl.sum(tl.where(weights > least, weights, 0.0), axis=0)
        follows = (end_mass < wanted) & (here > 0)
        before = tl.where(follows, end_mass, before)
        begin = tl.where(follows, first, begin)
        end_mass += here
    places = begin + tl.arange(0, block)
    values = _penalised(scores, written, places, vocabulary, penalty, penalised)
    weights = tl.exp((values - highest) * sharpness)
    kept = tl.where(weights > least, weights, 0.0)
    reached = before + tl.cumsum(kept, axis=0)
    # Summed in another order, the last token may fall short of the mass by a rounding: then it is the last one kept.
    first_reached = tl.min(tl.where((reached >= wanted) & (kept > 0), places, vocabulary), axis=0)
    last_kept = tl.max(tl.where(kept > 0, places, 0), axis=0)
    tl.store(chosen + row, tl.where(first_reached < vocabulary, first_reached, last_kept).to(tl.int64))
