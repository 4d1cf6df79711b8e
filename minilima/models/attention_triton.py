"""Attention of one new token a row as one kernel for GPUs, a program for each row and key head.

torch's kernels for a mask read every slot that there is room for. This one looks at the mask first, and reads what lies between
the first and the last slot that a row sees: neither the padding before its text nor the room for what is still to come.
"""

import torch
import triton
import triton.language as tl

BLOCK, WARPS, STAGES = 64, 4, 3
"""Slots that are read at once, by how many warps, and how many of these reads are under way, where that fits into _SHARED."""
_SHARED = 65_536
"""Bytes of keys and values that a program holds in shared memory; GPUs have from 99 KiB on (compute capability 8.6) for each."""
_LEAST_SIDE = 16
"""Of a matrix product; the query heads of a key head are filled up to it."""
_LEAST_SLOTS = 1024


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shown: torch.Tensor, scale: float) -> torch.Tensor:
    """Softmax attention of one token a row.

    Args:
        query: (rows, heads, 1, d), on a GPU, of any floating type; heads are a multiple of the key heads.
        key: (rows, key heads, slots, d).
        value: (rows, key heads, slots, e).
        shown: (rows or 1, 1, 1, slots), bool: what each row sees, in every head alike.
        scale: scores are multiplied by it.

    Returns:
        (rows, heads, 1, e). A row that sees nothing gets zeros.
    """
    rows, heads, _, width = query.shape
    shared, slots, value_width = key.shape[1], key.shape[2], value.shape[3]
    out = query.new_empty(rows, heads, 1, value_width)
    marks = shown.expand(rows, 1, 1, slots).view(torch.uint8)
    group = heads // shared
    sizes = {"heads_block": group, "width_block": width, "value_block": value_width}
    sides = {name: max(_LEAST_SIDE, triton.next_power_of_2(size)) for name, size in sizes.items()}
    a_slot = (sides["width_block"] + sides["value_block"]) * key.element_size()
    block = max(_LEAST_SIDE, min(BLOCK, _SHARED // a_slot))
    _attend[(rows, shared)](
        query, *query.stride()[:2], query.stride(3), key, *key.stride(), value, *value.stride(), marks, marks.stride(0),
        marks.stride(3), out, *out.stride()[:2], scale, slots, width, value_width, group,
        **sides, all_slots=max(_LEAST_SLOTS, triton.next_power_of_2(slots)), block=block,
        precision="ieee" if query.dtype == torch.float32 else "tf32", num_warps=WARPS,
        num_stages=max(1, min(STAGES, _SHARED // (block * a_slot))),
    )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    query, query_row, query_head, query_item, key, key_row, key_head, key_slot, key_item, value, value_row, value_head,
    value_slot, value_item, shown, shown_row, shown_slot, out, out_row, out_head, scale, slots, width, value_width, group,
    heads_block: tl.constexpr, all_slots: tl.constexpr, width_block: tl.constexpr, value_block: tl.constexpr,
    block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    shown += row * shown_row
    everywhere = tl.arange(0, all_slots)
    seen = tl.load(shown + everywhere * shown_slot, mask=everywhere < slots, other=0) != 0
    first = tl.min(tl.where(seen, everywhere, slots), axis=0)
    end = tl.max(tl.where(seen, everywhere + 1, 0), axis=0)

    heads = tl.arange(0, heads_block)
    items, value_items = tl.arange(0, width_block), tl.arange(0, value_block)
    asked = tl.load(
        query + row * query_row + (head * group + heads)[:, None] * query_head + items[None, :] * query_item,
        mask=(heads < group)[:, None] & (items < width)[None, :], other=0.0,
    )  # fmt: skip
    keys = key + row * key_row + head * key_head
    values = value + row * value_row + head * value_head
    highest = tl.full((heads_block,), -float("inf"), tl.float32)
    total = tl.zeros((heads_block,), tl.float32)
    summed = tl.zeros((heads_block, value_block), tl.float32)
    for start in range(first // block * block, end, block):
        places = start + tl.arange(0, block)
        inside = places < slots
        visible = tl.load(shown + places * shown_slot, mask=inside, other=0) != 0
        known = tl.load(
            keys + places[None, :] * key_slot + items[:, None] * key_item,
            mask=inside[None, :] & (items < width)[:, None], other=0.0,
        )  # fmt: skip
        scores = tl.where(visible[None, :], tl.dot(asked, known, input_precision=precision) * scale, -float("inf"))
        # The first block has a visible slot, so that there is always a highest score.
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        kept = tl.exp(highest - higher)
        weights = tl.exp(scores - higher[:, None])
        said = tl.load(
            values + places[:, None] * value_slot + value_items[None, :] * value_item,
            mask=inside[:, None] & (value_items < value_width)[None, :], other=0.0,
        )  # fmt: skip
        total = total * kept + tl.sum(weights, axis=1)
        summed = summed * kept[:, None] + tl.dot(weights.to(said.dtype), said, input_precision=precision)
        highest = higher
    mean = summed / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(
        out + row * out_row + (head * group + heads)[:, None] * out_head + value_items[None, :], mean.to(out.dtype.element_ty),
        mask=(heads < group)[:, None] & (value_items < value_width)[None, :],
    )  # fmt: skip
