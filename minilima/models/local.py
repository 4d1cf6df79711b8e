"""Models on this machine, through transformers: replies in batches, and the likelihood of given texts.

    requests ─> drafts, longest prompt first ─> batches: 128 tokens more ─> done: passed on
                                                   └─ not done: new, full batches, 256 tokens more ─> …
The length of an answer is not known in advance. So drafts are written piece by piece, each piece twice as long as the one
before, and unfinished drafts are batched again after each piece: a short answer waits for no long one, and reading the longer
drafts again costs little beside writing them. Each request has its own random numbers (see sampling.py).
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

import torch

from minilima.config.choices import DeviceKind, Thinking
from minilima.environment import cpu_multiplies_bfloat16
from minilima.errors import MinilimaError
from minilima.formats.records import ReferenceLoss
from minilima.models.attention import use_grouped
from minilima.models.chat import Message, OnReply, Reply, Request, Sampling
from minilima.models.decoding import LEAST_STEPS, Batch, Row, Shape, common_beginning, keeps_cache
from minilima.models.drafts import Draft
from minilima.models.request_tokens import asked_ids, end_ids, open_user_turn, reply_tokens
from minilima.models.template import render
from minilima.models.tokenizer import load_tokenizer
from minilima.models.weights import context_of, load_model


def pick_device(device: DeviceKind) -> torch.device:
    """The device to compute on.

    Raises:
        MinilimaError: a GPU was asked for and there is none.
    """
    if device == DeviceKind.cuda and not torch.cuda.is_available():
        raise MinilimaError("There is no GPU.", "compute.device=cuda needs one that torch can use.", "Use compute=cpu.")
    use_gpu = device != DeviceKind.cpu and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it; elsewhere (most CPUs) it is many times slower than float32."""
    if device.type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32


_CPU_BATCH, _GPU_BATCH = 32, 256
_GROUP_BATCHES = 4
_FIRST_TOKENS = 128
_WEIGHED_TOKENS = 8192
"""Tokens of the prompts whose next ones are weighed together; more only wait for memory."""


class LocalModel:
    """A causal language model in this process.

    Args:
        location: folder, or owner/name@commit.
        name: enters the reply cache's keys; stands for the weights.
        batch: most replies written at once; None = 32 on a CPU, 256 on a GPU. Fewer where memory does not suffice.
        group: most replies begun before others are ended; None = four batches, and a GPU takes no fewer.
        exact: whether it multiplies in float32 whatever the hardware does faster.
    """

    def __init__(
        self, location: str, name: str, *, device: DeviceKind, batch: int | None, group: int | None = None, exact: bool = False
    ) -> None:
        self.name = name
        self.device = pick_device(device)
        self.batch = batch or (_GPU_BATCH if self.device.type == "cuda" else _CPU_BATCH)
        full = _GROUP_BATCHES * self.batch
        self.group = full if group is None else max(group, full) if self.device.type == "cuda" else group
        self.tokenizer = load_tokenizer(location)
        dtype = torch.float32 if exact else inference_dtype(self.device)
        self.model = load_model(location, dtype, self.device).eval()
        if self.device.type == "cuda":
            use_grouped(self.model)
        self.context = context_of(self.model)
        self._takes = set(signature(self.model.forward).parameters)
        self.cached = keeps_cache(self.model)
        self.batch = self.batch if self.cached else 1
        self.fixed = self.cached and self.device.type == "cuda"
        self._tensors: Batch | None = None
        self._shape: Shape | None = None
        """What the tensors of the present group are made for, whether they are there or its first batches were all kept."""
        self._end_ids: list[int] | None = None

    @property
    def arithmetic(self) -> dict[str, Any]:
        """All that the last digits of its arithmetic depend on, beside the requests: the same gives the same replies."""
        gpu = self.device.type == "cuda"
        device = torch.cuda.get_device_name(self.device) if gpu else f"CPU, {torch.get_num_threads()} threads"
        dtype = str(self.model.dtype).removeprefix("torch.")
        engine = {"engine": "transformers", "device": device, "dtype": dtype}
        return {**engine, "batch": self.batch, "group": self.group, "torch": torch.__version__}

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """Answers all requests; each reply is passed on when the piece that ends it is written.

        Raises:
            MinilimaError: a prompt does not fit into the model's context.
        """
        return self.reply_beside(requests, {}, on_reply)

    def reply_beside(self, requests: Sequence[Request], kept: Mapping[int, Reply], on_reply: OnReply) -> list[Reply]:
        """Answers the requests that are not `kept` (by index), in the groups and batches of all of them.

        The last digits of a row depend on the shape of its batch, and a near tie on them. So kept replies take their places, and
        the others come out as they would have without an interruption.

        Raises:
            MinilimaError: a prompt does not fit into the model's context.
        """
        replies = dict(kept)
        weighed = [index for index, request in enumerate(requests) if request.sampling.top_logprobs]
        wanted = [index not in kept for index in weighed]
        for number, reply in self._first_tokens([requests[index] for index in weighed], wanted):
            replies[weighed[number]] = reply
            on_reply(weighed[number], reply)
        written = [index for index, request in enumerate(requests) if not request.sampling.top_logprobs]
        drafts = [self._draft(index, requests[index], kept.get(index)) for index in written]
        for group in self._groups(drafts):
            tokens, self._shape = _FIRST_TOKENS, None
            while any(draft.kept is None for draft in group):
                unfinished = []
                for draft in self._continued(group, tokens):
                    if not draft.finish:
                        unfinished.append(draft)
                    elif draft.kept is None:
                        replies[draft.index] = draft.reply()
                        on_reply(draft.index, replies[draft.index])
                group, tokens = unfinished, 2 * tokens
        return [replies[index] for index in range(len(requests))]

    @torch.inference_mode()
    def _first_tokens(self, requests: Sequence[Request], wanted: Sequence[bool]) -> Iterator[tuple[int, Reply]]:
        """The likeliest first tokens of each wanted reply, with its number.

        All prompts are batched alike whichever are wanted: the last digits depend on what is read together.
        """
        if not any(wanted):
            return
        prompts = [self._prompt_ids(request.messages, request.prefill, request.thinking) for request in requests]
        waiting = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
        while waiting:
            longest = len(prompts[waiting[0]])
            size = max(1, min(self.batch, _WEIGHED_TOKENS // longest))
            chunk, waiting = waiting[:size], waiting[size:]
            if not any(wanted[number] for number in chunk):
                continue
            rows = [Row(prompt=prompts[number], written=[], draws=[0.0], take=lambda _: False) for number in chunk]
            shape = Shape(rows=len(rows), slots=longest, steps=1, sampling=requests[chunk[0]].sampling)
            scores = Batch(self.model, shape, fixed=False).first_scores(rows).float().log_softmax(-1)
            for number, row in zip(chunk, scores, strict=True):
                if wanted[number]:
                    yield number, self._weighed(requests[number], len(prompts[number]), row)

    def _weighed(self, request: Request, prompt_tokens: int, scores: torch.Tensor) -> Reply:
        """The likeliest first token as a reply, with the others beside it."""
        best = scores.topk(request.sampling.top_logprobs or 1)
        tops = {self.tokenizer.decode([int(token)]): round(float(value), 4) for value, token in zip(*best, strict=True)}
        return Reply(text=next(iter(tops)), finish="length", prompt_tokens=prompt_tokens, completion_tokens=1, logprobs=tops)

    def _draft(self, index: int, request: Request, kept: Reply | None) -> Draft:
        prompt = self._prompt_ids(request.messages, request.prefill, request.thinking)
        limit = reply_tokens(request, prompt, self.context, self.name)
        return Draft(
            index=index, request=request, key=request.key(self.name), prompt=prompt, limit=limit, tokenizer=self.tokenizer,
            end_ids=frozenset(self.end_ids), kept=kept.completion_tokens if kept is not None else None,
        )  # fmt: skip

    def _groups(self, drafts: Sequence[Draft]) -> Iterator[list[Draft]]:
        """One way to sample each, longest prompts first; not too many at once, for a kill loses what is unfinished."""
        by_sampling: dict[Sampling, list[Draft]] = {}
        for draft in drafts:
            by_sampling.setdefault(draft.way, []).append(draft)
        for members in by_sampling.values():
            members.sort(key=lambda draft: -len(draft.prompt))
            yield from (members[start : start + self.group] for start in range(0, len(members), self.group))

    def _continued(self, drafts: Sequence[Draft], tokens: int) -> Iterator[Draft]:
        """The drafts, each with at most `tokens` more, in full batches; in smaller ones once memory does not suffice."""
        waiting, batch = sorted(drafts, key=lambda draft: -draft.length), self.batch
        while waiting:
            size = math.ceil(len(waiting) / math.ceil(len(waiting) / batch))
            if self._write(waiting[:size], tokens):
                yield from waiting[:size]
                waiting = waiting[size:]
            elif size > 1:
                batch = size // 2
            else:
                raise MinilimaError(
                    f"{self.name} does not fit into the GPU's memory.",
                    f"Not even one reply of {waiting[0].length + tokens:,} tokens could be written.",
                    "Stop what else runs on the GPU, use shorter replies, or a smaller model.",
                )

    def _write(self, drafts: Sequence[Draft], tokens: int) -> bool:
        """Continues the drafts together; False if there was not enough memory (what was written until then is kept)."""
        fixed, shape = self.fixed, self._shape_of(drafts, tokens)
        steps = shape.steps
        if self._shape is None or not fixed or not self._shape.serves(shape):
            self._shape = shape
        if all(draft.kept is not None for draft in drafts):
            for draft in drafts:
                draft.take([0] * steps)
            return True
        try:
            if self._tensors is None or not fixed or self._tensors.shape != self._shape:
                self._tensors = None  # frees the old ones before there are new ones
                self._tensors = Batch(self.model, self._shape, fixed=fixed)
            self._tensors.write([draft.row(steps) for draft in drafts])
        except torch.OutOfMemoryError:
            self._tensors = self._shape = None
        except RuntimeError as error:
            if not (self.fixed and "capture" in str(error)):
                raise
            self.fixed, self._tensors, self._shape = False, None, None  # steps of this model cannot be recorded (ALiBi)
            return self._write(drafts, tokens)
        if self._tensors is None:
            torch.cuda.empty_cache()
        return self._tensors is not None

    def _shape_of(self, drafts: Sequence[Draft], tokens: int) -> Shape:
        """What the tensors must have room for, to continue these drafts by at most `tokens`."""
        steps = min(tokens, max(draft.limit - len(draft.written) for draft in drafts))
        steps = max(steps, LEAST_STEPS) if self.fixed else steps
        return Shape(
            rows=_up(len(drafts), 8 if self.fixed else 1),
            slots=_up(max(draft.length for draft in drafts) + steps, 128 if self.fixed else 1),
            steps=steps,
            sampling=drafts[0].way,
        )

    def _prompt_ids(self, messages: Sequence[Message], prefill: str | None = None, thinking: str | None = None) -> list[int]:
        return asked_ids(self.tokenizer, messages, prefill, thinking)

    def open_user_turn(self, turns: Sequence[Message]) -> str:
        """The conversation as the template renders it, up to where the user's next turn begins."""
        return open_user_turn(self.tokenizer, turns)

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a turn."""
        if self._end_ids is None:
            self._end_ids = end_ids(self.tokenizer, self.model.generation_config)
        return self._end_ids

    @torch.inference_mode()
    def reference_losses(
        self, prompts: Sequence[tuple[str, str, str]], thinking: Thinking | None = None
    ) -> Iterator[ReferenceLoss]:
        """How surprising given answers are: negative log-likelihood in nats of what a training on them would learn, the
        answer and its end of turn.

        Args:
            prompts: (id, instruction, answer) of each; what does not fit into the model's context is left out.
            thinking: `model.thinking`.

        Raises:
            MinilimaError: the chat template does not render an answer as it is.
        """
        rows: list[tuple[str, list[int], int]] = []
        for identity, instruction, answer in prompts:
            turns = [{"role": "user", "content": instruction}, {"role": "assistant", "content": answer}]
            rendered = render(self.tokenizer, turns, thinking, f"evaluation prompt {identity}")
            start, end = rendered.answers[-1]
            rows.append((identity, rendered.ids[: min(end, self.context or end)], start))
        shared = common_beginning([ids[:start] for _, ids, start in rows]) if self.cached else 0
        read = None
        if shared:
            beginning = torch.tensor([rows[0][1][:shared]], device=self.device)
            read = self.model(input_ids=beginning, use_cache=True, logits_to_keep=1).past_key_values
        for identity, ids, start in rows:
            target = torch.tensor(ids[start:], dtype=torch.long, device=self.device)
            # A copy, since a cache grows while it is used, and not every kind can be cut again.
            cache = {"past_key_values": copy.deepcopy(read)} if shared else {}
            logits = self._logits(torch.tensor([ids[shared:]], device=self.device), len(target) + 1, **cache)[:-1]
            nats = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
            yield ReferenceLoss(id=identity, nats=float(nats), tokens=len(target))

    def _logits(self, ids: torch.Tensor, last: int, **cache: Any) -> torch.Tensor:
        """The logits (tokens, vocabulary) at the last so many places of one row, after what a cache holds."""
        given = {"input_ids": ids, "use_cache": bool(cache), "logits_to_keep": last, **cache}
        output = self.model(**{name: value for name, value in given.items() if name in self._takes})
        logits: torch.Tensor = output.logits[0, -last:].float()
        return logits

    @torch.inference_mode()
    def log_odds(self, messages: Sequence[Message], first: str, second: str, prefill: str = "") -> float:
        """log p(first) - log p(second) for the first token of two possible replies, in nats."""
        ids = torch.tensor([self._prompt_ids(messages, prefill)], device=self.device)
        logits = self._logits(ids, 1)[-1]
        one, two = (self._first_token_of(word, prefill) for word in (first, second))
        return float(logits[one] - logits[two])

    def _first_token_of(self, word: str, before: str) -> int:
        """The first token of a word that follows a text: some tokenizers have another one for a word that stands alone."""
        whole, begun = (self.tokenizer.encode(text, add_special_tokens=False) for text in (before + word, before))
        alone: list[int] = self.tokenizer.encode(word, add_special_tokens=False)
        return int(whole[len(begun)]) if whole[: len(begun)] == begun and len(whole) > len(begun) else alone[0]


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
