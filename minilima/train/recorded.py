"""Steps of small models recorded once and played again: the forward and the backward pass of a row as one CUDA graph.

    row ─> padded to whole thousands of tokens ─> the inputs of that length's graph ─> played: loss, gradients added up

A step of 8,000 tokens through 30 small layers keeps a GPU busy for a fifth of its time: to start thousands of kernels one by one
takes the rest (benchmarks/README.md). A graph starts them all at once, but always with the same shapes. So a row is filled up
with an example of its own, which has no loss and which no other example sees.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from minilima.models.packing import IGNORED
from minilima.train.recordable import FILLED, filled_up

LossOf = Callable[[dict[str, Any]], torch.Tensor]
"""From a row's fields to its summed loss."""


@dataclass(frozen=True, kw_only=True)
class FixedRow:
    """The inputs of rows of one length, which stay where they are on the device.

    Shapes: input_ids and position_ids (1, tokens); targets (tokens,): what each position should predict, IGNORED = nothing;
    ends (most examples + 2,): as a row's, then the end of what fills it up.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    targets: torch.Tensor
    ends: torch.Tensor
    places: torch.Tensor
    """0, 1, 2 …"""
    scale: torch.Tensor
    longest: int
    """Tokens that no example has more of."""

    @classmethod
    def of(cls, tokens: int, *, examples: int, longest: int, device: torch.device) -> "FixedRow":
        """For rows of at most so many tokens, so many examples and so many tokens an example."""
        places = torch.arange(tokens, device=device)
        return cls(
            input_ids=torch.zeros(1, tokens, dtype=torch.long, device=device),
            position_ids=torch.zeros(1, tokens, dtype=torch.long, device=device),
            targets=torch.zeros(tokens, dtype=torch.long, device=device),
            ends=torch.zeros(examples + 2, dtype=torch.int32, device=device),
            places=places,
            scale=torch.ones((), device=device),
            # Also of the example that fills a row up: the kernel leaves what is beyond `longest` as it finds it.
            longest=min(tokens, max(longest, FILLED)),
        )

    def fill(self, row: Mapping[str, Any], scale: float) -> None:
        """Puts a row there, and after it an example that fills the rest up."""
        tokens, ends = row["input_ids"].shape[1], len(row["ends"])
        self.input_ids.zero_()
        self.input_ids[:, :tokens] = row["input_ids"]
        self.position_ids[:, :tokens] = row["position_ids"]
        self.position_ids[:, tokens:] = 0  # a model may know fewer positions than what fills a row up has tokens
        self.targets.fill_(IGNORED)
        self.targets.index_copy_(0, row["predicting"], row["targets"])
        self.ends.fill_(len(self.places))
        self.ends[:ends] = row["ends"]
        self.scale.fill_(scale)

    def fields(self) -> dict[str, Any]:
        """Of a row, with the positions without loss among those that predict."""
        given = {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "predicting": self.places,
            "targets": self.targets,
        }
        return {**given, "ends": self.ends, "longest": self.longest}


class RecordedSteps:
    """A graph for each length of row that occurs, made when it is first wanted.

    Args:
        loss_of: runs the model.
        sums: each trained weight with the tensor to which its gradient is added.
        examples: most examples in a row.
        longest: most tokens of an example.
    """

    def __init__(
        self, loss_of: LossOf, sums: Sequence[tuple[torch.nn.Parameter, torch.Tensor]], *, examples: int, longest: int
    ) -> None:
        self._loss_of, self._examples, self._longest = loss_of, examples, longest
        self._weights, self._sums = [weight for weight, _ in sums], [added for _, added in sums]
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, FixedRow, torch.Tensor]] = {}
        # One step is played at a time, so that all graphs may use the same memory.
        self._pool = torch.cuda.graph_pool_handle()
        self.failed = ""
        """What torch said where a step could not be recorded; after that none is."""

    @property
    def lengths(self) -> list[int]:
        """Those that were recorded."""
        return sorted(self._graphs)

    def play(self, row: Mapping[str, Any], scale: float) -> torch.Tensor | None:
        """Adds the row's gradient, times `scale`, to the sums.

        Returns:
            The loss times `scale`; None, with nothing added, where such a row cannot be recorded: the model looks at its data,
            as some experts' routers do, or memory is full.
        """
        if self.failed:
            return None
        length = filled_up(row["input_ids"].shape[1])
        if length not in self._graphs:
            try:
                self._graphs[length] = self._record(length, row)
            except RuntimeError as error:
                self.failed = str(error).splitlines()[0]
                torch.cuda.synchronize()  # none may still be playing
                self._graphs.clear()  # no more is recorded: plain passes need their memory
                return None
        graph, fixed, loss = self._graphs[length]
        fixed.fill(row, scale)
        graph.replay()
        return loss.clone()

    def _record(self, length: int, row: Mapping[str, Any]) -> tuple[torch.cuda.CUDAGraph, FixedRow, torch.Tensor]:
        fixed = FixedRow.of(length, examples=self._examples, longest=self._longest, device=self._sums[0].device)
        fixed.fill(row, 0.0)
        # Another run, or this one resumed, may record elsewhere: dropout must not depend on it.
        random = torch.cuda.get_rng_state()
        try:
            return self._recorded(fixed)
        finally:
            torch.cuda.set_rng_state(random)

    def _recorded(self, fixed: FixedRow) -> tuple[torch.cuda.CUDAGraph, FixedRow, torch.Tensor]:
        now, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(now)
        with torch.cuda.stream(aside):  # libraries load their kernels, which must not happen while a graph is recorded
            self._gradients(fixed)
        now.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # What other threads do, such as NCCL's watchdog, is no part of it.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            loss, gradients = self._gradients(fixed)
            for added, gradient in zip(self._sums, gradients, strict=True):
                added.add_(gradient)
            del gradients
        return graph, fixed, loss

    def _gradients(self, fixed: FixedRow) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        # Not by `backward`: what it calls after each gradient may belong to another stream.
        loss = self._loss_of(fixed.fields()) * fixed.scale
        return loss.detach(), torch.autograd.grad(loss, self._weights)
