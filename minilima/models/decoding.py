"""Rows of tokens that are continued together, a step a token; a GPU records the step once and replays it.

    prompts, padded on the left ─> prefill ─> step ─> step ─> … ─> the tokens written
A step of a small model is hundreds of tiny kernels, and launching each takes far longer than running it. So a step
touches nothing but tensors that stay where they are (a cache of fixed size, last token, position, random numbers, what was
written), is recorded as a CUDA graph, and is played with a single call. On a CPU the same step is simply called and reads what
the cache holds so far, and rows that are done are left out once they are half of all. There a padded token takes as long as
another: what all prompts begin with is read once, and short prompts join when the long ones are as far as they are.
"""

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from minilima.models.chat import Sampling
from minilima.models.kv_cache import RoomyCache, static_cache
from minilima.models.sampling import choose
from minilima.models.weights import context_of

LEAST_STEPS = 4
"""Recording takes three steps."""
_PREFILL_TOKENS = 32_768
"""Prompt tokens of all rows that pass through the model at once; keeps the memory of long prompts bounded."""
_LEAST_SHARED = 8
"""Tokens; what begins several texts is read with each of them where it is shorter."""
_LEAST_COLUMNS, _STAGES = 16, 8
"""On a CPU short prompts join the long ones after so many columns, in so many stages."""
_UNLIMITED = 2**31
_STEPS_UNSEEN = 16
"""Steps that a GPU takes before the host looks at what was written, which makes both wait for each other."""


def keeps_cache(model: Any) -> bool:
    """Whether rows can be padded on the left and read once: the model remembers keys and values, and no state that padding
    would enter (Mamba, RWKV, RecurrentGemma and hybrids of them). Others read a row alone, and again for each token."""
    return "past_key_values" in inspect.signature(model.forward).parameters and not model._is_stateful


def reread(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The scores of the next token, (rows, vocabulary), of a model that reads everything again."""
    given = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    scores: torch.Tensor = model(input_ids=ids, **given).logits[:, -1]
    return scores


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a recorded step is made for. `slots` is the length of the cache: prompt, padding and new tokens."""

    rows: int
    slots: int
    steps: int
    sampling: Sampling

    def serves(self, other: "Shape") -> bool:
        """Whether what is recorded for this shape does for the other, at little waste."""
        return (
            self.sampling == other.sampling
            and other.rows <= self.rows <= 1.25 * other.rows
            and other.slots <= self.slots <= 1.5 * other.slots
            and other.steps <= self.steps
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tokens to continue: the prompt and what was `written` after it; `draws` has a random number for each step.

    `take` is handed the new tokens as they come, and says whether more are wanted.
    """

    prompt: list[int]
    written: list[int]
    draws: list[float]
    take: Callable[[list[int]], bool]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.written)


def common_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, the last one of each left out; 0 where that is not worth a pass of its own."""
    columns = zip(*(row[:-1] for row in rows), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda tokens: len(set(tokens)) == 1, columns))
    return shared if len(rows) > 1 and shared >= _LEAST_SHARED else 0


def _stages(pads: list[int], shared: int, width: int) -> list[tuple[int, int, int]]:
    """(rows, first column, end) of what is left to be read after `shared` tokens, of rows that are padded so, longest first."""
    columns = max(_LEAST_COLUMNS, -(-(width - shared) // _STAGES))
    joins = [shared + pad // columns * columns for pad in pads]
    firsts = sorted(set(joins))
    return [(sum(join <= first for join in joins), first, end) for first, end in zip(firsts, [*firsts[1:], width], strict=True)]


class Batch:
    """The tensors of one shape. `fixed`: they stay where they are, so that a GPU can record the step."""

    def __init__(self, model: Any, shape: Shape, *, fixed: bool) -> None:
        self.shape = shape
        self.model = model
        self.device = model.device
        self.fixed = fixed
        self._graph: Any = None
        self._length = 0
        self._last_position = (context_of(model) or _UNLIMITED) - 1
        rows, vocabulary = shape.rows, model.get_output_embeddings().weight.shape[0]
        self.cached, self._takes = keeps_cache(model), set(inspect.signature(model.forward).parameters)
        self._read = torch.empty(rows, 0, dtype=torch.long, device=self.device)
        self._cache: Any = static_cache(model, shape.slots) if fixed else RoomyCache(model, rows, shape.slots)
        self._shown = torch.ones(rows, shape.slots, dtype=torch.long, device=self.device)
        self._token = torch.zeros(rows, 1, dtype=torch.long, device=self.device)
        self._position = torch.zeros(rows, 1, dtype=torch.long, device=self.device)
        self._step_number = torch.zeros(1, dtype=torch.long, device=self.device)
        self._draws = torch.zeros(rows, shape.steps, device=self.device)
        self._out = torch.zeros(rows, shape.steps, dtype=torch.long, device=self.device)
        penalised = shape.sampling.repetition_penalty is not None
        self._written = torch.zeros(rows, vocabulary if penalised else 0, dtype=torch.bool, device=self.device)

    @torch.inference_mode()
    def write(self, rows: Sequence[Row]) -> None:
        """Continues at most `shape.rows` rows, longest first, each by as many tokens as it has draws, until none wants more."""
        self._choose(self._prefill(self._load(rows)))
        if self.fixed and self._graph is None and self.device.type == "cuda":
            self._record()
            self._choose(self._prefill(self._load(rows)))
        active, seen = list(rows), 0
        for count in self._steps(len(rows[0].draws)):
            fresh = self._out[:, seen:count].tolist()
            seen = count
            keep = [index for index, row in enumerate(active) if row.take(fresh[index])]
            if not keep:
                return
            if not self.fixed and 2 * len(keep) <= len(active):
                self._narrow(keep)
                active = [active[index] for index in keep]

    def _steps(self, most: int) -> Iterator[int]:
        """Takes steps, and yields how many tokens there are each time that they are to be looked at."""
        yield 1
        pause = _STEPS_UNSEEN if self.fixed else 1
        for count in range(2, most + 1):
            if self._graph is None:
                self._step()
            else:
                self._graph.replay()
            if count % pause == 0 or count == most:
                yield count

    def _load(self, rows: Sequence[Row]) -> torch.Tensor:
        """Fills the tensors for a new batch; surplus rows repeat the last one. Returns the prompts, (rows, longest)."""
        filled = [*rows, *[rows[-1]] * (self.shape.rows - len(rows))]
        width = max(row.length for row in rows)
        pads = torch.tensor([width - row.length for row in filled])
        ids = torch.tensor([[0] * (width - row.length) + row.prompt + row.written for row in filled])
        self._cache.reset()
        self._read = self._read[:, :0]
        self._length = 0
        self._shown.copy_((torch.arange(self.shape.slots) >= pads[:, None]).long())
        self._position.copy_((width - pads)[:, None])
        self._step_number.zero_()
        self._draws[:, : len(rows[0].draws)] = torch.tensor([row.draws for row in filled]).to(self.device)
        self._written.zero_()
        if self._written.shape[1]:
            places = [(number, token) for number, row in enumerate(filled) for token in row.written]
            if places:
                self._written[tuple(torch.tensor(places, device=self.device).T)] = True
        return ids.to(self.device)

    @torch.inference_mode()
    def first_scores(self, rows: Sequence[Row]) -> torch.Tensor:
        """Scores (rows, vocabulary) of the token that would come after each of at most `shape.rows` rows, longest first."""
        return self._prefill(self._load(rows))[: len(rows)]

    def _prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """Reads the prompts; the scores of the tokens after them."""
        rows, width = ids.shape
        # The position of a row's first token is 0, whatever padding stands before it.
        positions = (torch.arange(width, device=self.device) - (width - self._position)).clamp(min=0)
        logits = torch.empty(0)
        apart, stages = self.cached and not self.fixed and self._cache.divisible, [(rows, 0, width)]
        if apart:
            pads = (width - self._position[:, 0]).tolist()
            stages = _stages(pads, self._read_beginning(ids, positions, pads), width)
        for active, first, end in stages:
            if apart:
                self._length = first
                self._cache.turn_to(active, first)
            stride = max(1, _PREFILL_TOKENS // active)
            for start in range(first, end, stride):
                span = slice(start, min(end, start + stride))
                logits = self._forward(ids[:active, span], positions[:active, span])
        return logits

    def _read_beginning(self, ids: torch.Tensor, positions: torch.Tensor, pads: list[int]) -> int:
        """Reads what all rows begin with, once for all of them; how many tokens it is."""
        shared = common_beginning([row[pad:] for row, pad in zip(ids.tolist(), pads, strict=True)])
        if shared:
            self._cache.turn_to(1, 0)
            self._forward(ids[:1, :shared], positions[:1, :shared])
            self._cache.repeat_first(shared, pads)
        return shared

    def _step(self) -> None:
        self._choose(self._forward(self._token, self._position.clamp(max=self._last_position)))
        self._position.add_(1)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Scores of the next token, (rows, vocabulary)."""
        if not self.cached:
            self._read = torch.cat([self._read, ids], dim=1)
            return reread(self.model, self._read)
        self._length += ids.shape[1]
        shown = self._shown if self.fixed else self._shown[: len(ids), : self._length]
        given = {
            "input_ids": ids, "attention_mask": shown, "position_ids": positions, "past_key_values": self._cache,
            "use_cache": True, "logits_to_keep": 1,
        }  # fmt: skip
        output = self.model(**{name: value for name, value in given.items() if name in self._takes})
        scores: torch.Tensor = output.logits[:, -1]
        return scores

    def _choose(self, scores: torch.Tensor) -> None:
        sampling = self.shape.sampling
        drawn = self._draws.index_select(1, self._step_number)
        chosen = choose(scores, sampling, self._written, drawn)
        self._token.copy_(chosen)
        self._out.index_copy_(1, self._step_number, chosen)
        self._step_number.add_(1)
        if sampling.repetition_penalty is not None:
            self._written.scatter_(1, chosen, True)

    def _narrow(self, keep: list[int]) -> None:
        """Goes on with some of the rows alone."""
        places = torch.tensor(keep, device=self.device)
        self._cache.reorder_cache(places)
        for name in ("_shown", "_token", "_position", "_draws", "_out", "_written"):
            setattr(self, name, getattr(self, name)[places])

    def _record(self) -> None:
        """Takes two steps, so that libraries set themselves up, and records a third; what they wrote is thrown away."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step()
