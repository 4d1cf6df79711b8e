"""How likely a model finds continuations of given texts, as replies that the cache can keep: multiple choice without writing.

a request: a text, the continuation as `prefill` ─> batches of rows ─> Reply.logprobs {sum, greedy}
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch

from minilima.models.chat import OnReply, Reply, Request
from minilima.models.local import LocalModel

_CPU_TOKENS, _GPU_TOKENS = 2048, 16384
"""Tokens of a batch, padding included: its logits are the vocabulary times as many numbers."""

Ids = tuple[list[int], list[int]]
"""The tokens that are given, and those whose likelihood is asked for."""


class Likelihoods:
    """A chat model that writes nothing: its replies say how likely the given continuations are.

    Args:
        name: stands for the weights in the reply cache's keys.
        load: the model in transformers, loaded when the first likelihood is not in the cache.
        ids: the tokens of a text and its continuation.
    """

    def __init__(self, name: str, load: Callable[[], LocalModel], ids: Callable[[str, str], Ids]) -> None:
        self.name = name
        self._load = load
        self._ids = ids

    @cached_property
    def _local(self) -> LocalModel:
        return self._load()

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """The likelihoods, longest texts first; what does not fit into the context loses its beginning, as in the harness."""
        pairs = [self._ids(request.messages[0].content, request.prefill or "") for request in requests]
        replies: dict[int, Reply] = {}
        for batch in self._batches(pairs):
            for index, (nats, greedy) in zip(batch, self._read([pairs[index] for index in batch]), strict=True):
                given, asked = pairs[index]
                replies[index] = Reply(
                    text="", finish="stop", prompt_tokens=len(given) + len(asked), completion_tokens=0,
                    logprobs={"sum": nats, "greedy": float(greedy)},
                )  # fmt: skip
                on_reply(index, replies[index])
        return [replies[index] for index in range(len(requests))]

    @staticmethod
    def read(reply: Reply) -> tuple[float, bool]:
        """The log-likelihood in nats, and whether each token was the likeliest."""
        assert reply.logprobs is not None, "written so just above"
        return reply.logprobs["sum"], bool(reply.logprobs["greedy"])

    def _batches(self, pairs: Sequence[Ids]) -> Iterator[list[int]]:
        room = _GPU_TOKENS if self._local.device.type == "cuda" else _CPU_TOKENS
        batch: list[int] = []
        for index in sorted(range(len(pairs)), key=lambda index: -sum(map(len, pairs[index]))):
            if batch and (len(batch) + 1) * sum(map(len, pairs[batch[0]])) > room:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    @torch.inference_mode()
    def _read(self, pairs: Sequence[Ids]) -> Iterator[tuple[float, bool]]:
        local = self._local
        longest = local.context + 1 if local.context is not None else None
        rows = [([*given, *asked][-longest:] if longest else [*given, *asked])[:-1] for given, asked in pairs]
        width = max(map(len, rows))
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        padded = {"attention_mask": mask.to(local.device)} if len(set(map(len, rows))) > 1 else {}
        logits = local.model(input_ids=ids.to(local.device), **padded).logits
        for index, (row, (_, asked)) in enumerate(zip(rows, pairs, strict=True)):
            target = torch.tensor(asked, device=logits.device)
            scores = logits[index, len(row) - len(asked) : len(row)].float().log_softmax(-1)
            nats = scores.gather(1, target[:, None]).sum()
            yield float(nats), bool((scores.argmax(-1) == target).all())
