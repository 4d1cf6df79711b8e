"""A reply while it is written by a model on this machine: where it stands, what may come next, and when it is done."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from minilima.models.chat import TEXT, Reply, Request, Sampling
from minilima.models.decoding import Row
from minilima.models.reasoning import CLOSE, OPEN, without_reasoning
from minilima.models.sampling import draws

_LAST_TOKENS = 12
"""Enough for a mark of reasoning that the tokenizer does not know as one token."""


@dataclass(kw_only=True)
class Draft:
    """A reply while it is written. `limit` is the most tokens it may have; `finish` is empty until it is done."""

    index: int
    request: Request
    key: str
    prompt: list[int]
    limit: int
    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]
    written: list[int] = field(default_factory=list)
    finish: str = ""
    kept: int | None = None
    """Tokens of a reply that is there already. Its row only takes its place, so that its neighbours are computed as they were
    beside it; what stands in it does not matter to them."""

    @property
    def way(self) -> Sampling:
        """How to choose its tokens; replies of different limits and stops can be written together."""
        return replace(self.request.sampling, max_tokens=0, stop=None)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.written)

    def row(self, steps: int) -> Row:
        """What is written so far, with random numbers for so many steps more."""
        numbers = draws(self.key, len(self.written), steps)
        return Row(prompt=self.prompt, written=list(self.written), draws=numbers, take=self.take)

    def take(self, tokens: Sequence[int]) -> bool:
        """Adds tokens up to the end of the turn, a text to stop at, or the limit; whether more are wanted."""
        if self.finish:
            return False
        if self.kept is not None:
            self.written.extend(tokens[: self.kept - len(self.written)])
            self.finish = "kept" if len(self.written) >= self.kept else ""
            return not self.finish
        fresh = tokens[: self.limit - len(self.written)]
        if self.request.sampling.stop is None and self.end_ids.isdisjoint(fresh):
            self.written.extend(fresh)
        else:
            self._take_each(fresh)
        if len(self.written) == self.limit and not self.finish:
            self.finish = "length"
        return not self.finish

    def _take_each(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self.written.append(token)
            if token in self.end_ids or self._stop() is not None:
                self.finish = "stop"
                return

    def reply(self) -> Reply:
        text = self._text()
        whole = (self.request.prefill or "") + text[: self._stop()]
        reply = Reply(text=whole, finish=self.finish, prompt_tokens=len(self.prompt), completion_tokens=len(self.written))
        return reply if self.request.messages[0].role == TEXT else without_reasoning(reply, self.request, opened=self._opened())

    def _opened(self) -> bool:
        """Whether the prompt ends with an open block of reasoning."""
        return str(self.tokenizer.decode(self.prompt[-_LAST_TOKENS:])).rstrip().endswith(OPEN)

    def _text(self) -> str:
        ends = bool(self.written) and self.written[-1] in self.end_ids
        return _decoded(self.tokenizer, self.written[:-1] if ends else self.written)

    def _stop(self) -> int | None:
        """Where in the text the first of the stop texts stands."""
        stops = self.request.sampling.stop
        if not stops:
            return None
        text = self._text()
        return min((offset for stop in stops if (offset := text.find(stop)) >= 0), default=None)


def _decoded(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of tokens without special ones, but with marks of reasoning, which are special in some tokenizers."""
    known = {tokenizer.convert_tokens_to_ids(mark) for mark in (OPEN, CLOSE)} - {tokenizer.unk_token_id}
    marks = known.intersection(tokens)
    if not marks:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))
    runs = itertools.groupby(tokens, key=marks.__contains__)
    return "".join(str(tokenizer.decode(list(run), skip_special_tokens=not marked)) for marked, run in runs)
