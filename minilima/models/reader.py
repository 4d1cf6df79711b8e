"""A model on this machine that reads given texts and writes none: their losses, their hidden states, its next token.

    passages ─> rows of many, longest first ─> one forward pass a row ─> numbers of each passage, kept at once
Passages in a row see nothing of each other (see packing.py). The rows depend on the passages alone, so a scoring that was
killed goes on with the very rows that are missing, and gives the same digits as one that was not.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from minilima.config.choices import DeviceKind
from minilima.errors import MinilimaError
from minilima.formats.records import OnProgress, Progress
from minilima.models import attention
from minilima.models.kept import KeptNumbers, Numbers
from minilima.models.local import inference_dtype, pick_device
from minilima.models.loss import token_losses
from minilima.models.packing import IGNORED, Row, make_row
from minilima.models.tokenizer import load_tokenizer
from minilima.models.traits import Traits, probe
from minilima.models.weights import load_model

MAX_TOKENS = 2048
"""Longer texts are cut at their end."""
_CPU_ROW, _GPU_ROW = 1024, 32_768
"""Tokens that pass through the model at once."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A text in tokens; `start`: the first of them whose loss counts, `end`: behind the last one."""

    ids: Sequence[int]
    start: int
    end: int


Measure = Callable[[Row], Numbers]
"""The numbers of each passage of a row, shape (passages, numbers)."""


class Reader:
    """A causal language model, loaded when the first number is missing.

    Args:
        location: folder, or owner/name@commit.
        name: enters the keys of what is kept; stands for the weights.
        kept: where numbers are looked up and kept; None = nowhere.
        row_tokens: tokens that pass through the model at once; None = 1,024 on a CPU, 32,768 on a GPU.
        load: gives the model; None = it is read from `location`.
    """

    def __init__(
        self,
        location: str,
        name: str,
        *,
        device: DeviceKind,
        kept: KeptNumbers | None,
        on_progress: OnProgress,
        row_tokens: int | None = None,
        load: Callable[[], Any] | None = None,
    ) -> None:
        self.name, self.device = name, pick_device(device)
        self.read_tokens = 0
        """Tokens that passed through the model since it was loaded."""
        self.tokenizer = load_tokenizer(location)
        self.location, self._kept, self._on_progress = location, kept, on_progress
        self._row_tokens = row_tokens or (_GPU_ROW if self.device.type == "cuda" else _CPU_ROW)
        self._traits: Traits | None = None
        self._load = load or (lambda: load_model(location, inference_dtype(self.device), self.device))

    @cached_property
    def model(self) -> Any:
        """The model; its weights take no gradients."""
        return self._load().eval().requires_grad_(requires_grad=False)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest text that is read."""
        from transformers import AutoConfig

        from minilima.models.checkpoint import context_tokens
        from minilima.models.tokenizer import split_location

        name, revision = split_location(self.location)
        return min(MAX_TOKENS, context_tokens(AutoConfig.from_pretrained(name, revision=revision).to_dict()) or MAX_TOKENS)

    def losses(self, passages: Sequence[Passage], unit: str = "losses") -> Numbers:
        """Negative log-likelihood in nats, summed over the tokens that count, and their number; shape (passages, 2)."""
        return self._measured(passages, "loss", self._losses_of, unit)

    def states(self, passages: Sequence[Passage], unit: str = "vectors") -> Numbers:
        """The last hidden states of all tokens, averaged with the weights 1, 2, 3, … by their position; unit length."""
        return self._measured(passages, "states", self._states_of, unit)

    def next_logits(self, passages: Sequence[Passage], tokens: Sequence[int], unit: str = "ratings") -> Numbers:
        """The logits of these tokens after the whole of each passage; shape (passages, tokens)."""
        wanted = torch.tensor(list(tokens), device=self.device)
        return self._measured(passages, f"next:{list(tokens)}", lambda row: self._next_of(row, wanted), unit)

    def key(self, passage: Passage, what: str) -> str:
        """Under which a number of this passage is kept."""
        digest = hashlib.sha256(f"{self.name}|{what}|{passage.start}|{passage.end}|".encode())
        digest.update(np.asarray(passage.ids, dtype="<i4").tobytes())
        return digest.hexdigest()

    def _measured(self, passages: Sequence[Passage], what: str, measure: Measure, unit: str) -> Numbers:
        passages = [self.cut(passage) for passage in passages]
        keys = [self.key(passage, what) for passage in passages]
        known = self._kept.find(keys) if self._kept is not None else {}
        done = 0
        for row in self._rows(passages):
            if any(keys[index] not in known for index in row):
                values = self._read([passages[index] for index in row], measure)
                fresh = {keys[index]: numbers for index, numbers in zip(row, values, strict=True) if keys[index] not in known}
                if self._kept is not None:
                    self._kept.add(fresh)
                known |= fresh
            done += len(row)
            self._on_progress(Progress(done=done, total=len(passages), unit=unit))
        return np.stack([known[key] for key in keys])

    def cut(self, passage: Passage) -> Passage:
        """The passage, no longer than the model can read."""
        length = self.longest
        if len(passage.ids) <= length:
            return passage
        return Passage(ids=passage.ids[:length], start=min(passage.start, length), end=min(passage.end, length))

    def _rows(self, passages: Sequence[Passage]) -> list[list[int]]:
        """Positions of the passages of each row, the longest first."""
        rows: list[list[int]] = []
        room = 0
        for index in sorted(range(len(passages)), key=lambda index: -len(passages[index].ids)):
            if len(passages[index].ids) > room:
                rows.append([])
                room = self._row_tokens
            rows[-1].append(index)
            room -= len(passages[index].ids)
        return rows

    def _read(self, passages: Sequence[Passage], measure: Measure) -> Numbers:
        """The numbers of the passages, in one row or, where the model or the memory does not allow that, in smaller ones."""
        if self._traits is None:
            self._traits = self._prepare([passage.ids for passage in passages])
        if len(passages) > 1 and not self._traits.packs:
            return np.concatenate([self._read([passage], measure) for passage in passages])
        row = make_row([{"input_ids": np.asarray(each.ids), "labels": _labels(each)} for each in passages])
        self.read_tokens += row.input_ids.shape[1]
        try:
            with torch.inference_mode():
                return measure(row)
        except torch.OutOfMemoryError:
            if len(passages) == 1:
                raise MinilimaError(
                    f"{self.name} does not fit into the GPU's memory.",
                    f"Not even one text of {row.input_ids.shape[1]:,} tokens could be read.",
                    "Stop what else runs on the GPU, or score with a smaller model: dataset.scorer=…",
                ) from None
        torch.cuda.empty_cache()
        half = len(passages) // 2
        return np.concatenate([self._read(passages[:half], measure), self._read(passages[half:], measure)])

    def _prepare(self, examples: Sequence[Sequence[int]]) -> Traits:
        """What the model can do; its output layer passes hidden states on where losses are computed from them."""
        traits = probe(self.model, examples)
        longest = max(len(ids) for ids in examples)
        if self.device.type == "cuda" and traits.packs and attention.is_available() and attention.fits(self.model, longest):
            attention.use_varlen(self.model)
        if traits.plain_head:
            self.model.get_output_embeddings().forward = lambda hidden: hidden
        return traits

    def _output(self, row: Row, keep: torch.Tensor | int, **settings: Any) -> Any:
        traits = self._traits or Traits()
        given = {
            "input_ids": row.input_ids.to(self.device),
            "position_ids": row.position_ids.to(self.device),
            "use_cache": False,
            "logits_to_keep": keep,
        }
        given = {name: value for name, value in given.items() if name in traits.takes}
        if self.model.config._attn_implementation == attention.NAME:
            given |= attention.boundaries({**vars(row), "ends": row.ends.to(self.device)})
        return self.model(**given, **settings)

    def _outputs_at(self, row: Row, places: torch.Tensor) -> torch.Tensor:
        """The output layer's results (places, d or vocabulary): hidden states where that layer passes them on."""
        traits, places = self._traits or Traits(), places.to(self.device)
        kept: torch.Tensor = self._output(row, places).logits[0]
        return kept if "logits_to_keep" in traits.takes else kept[places]

    def _losses_of(self, row: Row) -> Numbers:
        targets = row.targets.to(self.device)
        passage_of = torch.bucketize(row.predicting, row.ends[1:-1].long(), right=True)
        counts = torch.bincount(passage_of, minlength=len(row.ends) - 1)
        if len(targets):
            outputs = self._outputs_at(row, row.predicting)
            if (self._traits or Traits()).plain_head:
                each = token_losses(outputs, self.model.get_output_embeddings().weight, targets)
            else:
                each = torch.nn.functional.cross_entropy(outputs.float(), targets, reduction="none")
            sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, passage_of, each.double().cpu())
        else:
            sums = torch.zeros(len(counts), dtype=torch.float64)
        return np.stack([sums.numpy(), counts.numpy()], axis=1).astype(np.float32)

    def _states_of(self, row: Row) -> Numbers:
        if (self._traits or Traits()).plain_head:
            hidden = self._output(row, 0).logits[0]
        else:
            hidden = self._output(row, 1, output_hidden_states=True).hidden_states[-1][0]
        positions, count = row.position_ids[0].to(self.device) + 1, len(row.ends) - 1
        lengths = row.ends.diff().long().to(self.device)
        passage_of = torch.repeat_interleave(torch.arange(count, device=self.device), lengths)
        weighted = hidden.float() * positions.unsqueeze(1)
        sums = torch.zeros(count, hidden.shape[1], device=self.device).index_add_(0, passage_of, weighted)
        # To divide by the sum of the weights would not change the direction.
        vectors: Numbers = torch.nn.functional.normalize(sums, dim=-1).cpu().numpy()
        return vectors

    def _next_of(self, row: Row, tokens: torch.Tensor) -> Numbers:
        outputs = self._outputs_at(row, row.ends[1:].long() - 1)
        if (self._traits or Traits()).plain_head:
            outputs = outputs @ self.model.get_output_embeddings().weight[tokens].T
        else:
            outputs = outputs[:, tokens]
        logits: Numbers = outputs.float().cpu().numpy()
        return logits


def _labels(passage: Passage) -> np.ndarray[Any, np.dtype[np.int64]]:
    labels = np.full(len(passage.ids), IGNORED, dtype=np.int64)
    labels[passage.start : passage.end] = passage.ids[passage.start : passage.end]
    return labels
