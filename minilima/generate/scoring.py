"""The tools of selection for one job: models are connected when a method asks for them, and what they said is kept.

dataset.scorer ─┬─> Reader: losses, hidden states, ratings, packed        numbers kept by row in the reply cache's file
                └─> an endpoint: ratings from log-probabilities           replies kept as all others
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from minilima.config.choices import Select
from minilima.config.schema import EndpointConfig
from minilima.errors import MinilimaError
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import canonical_json, sha256_text
from minilima.formats.records import EvalPrompt, Example, OnProgress, Usage, user_text
from minilima.generate.pool import connect_generator
from minilima.generate.prompting import Prompter
from minilima.generate.quality import rate, tag
from minilima.generate.selection import shuffle
from minilima.generate.selection_methods import METHODS
from minilima.generate.tools import Numbers, Text, Tools
from minilima.models.cache import CachedModel
from minilima.models.chat import Request, Sampling, ask, counted
from minilima.models.kept import KeptNumbers
from minilima.models.openai_api import extra_fields
from minilima.prompts import render
from minilima.store.job import Job

if TYPE_CHECKING:
    from minilima.generate.warmup import WarmUp
    from minilima.models.reader import Passage, Reader

RATINGS = (1, 2, 3, 4, 5, 6)
PROMPTS = ("complexity", "quality")
_TOP = 20
WARMUP_SHARE, LEAST_WARMUP = 0.05, 32
"""LESS warms up on 5 % of the pool (Xia et al. 2024, section 5.1); of a small pool that would be no training at all."""


@dataclass(kw_only=True)
class Scoring:
    """Connects models for `Tools`; `usage` is what they took, and `read_tokens` what passed through the scorer."""

    job: Job
    on_progress: OnProgress
    examples: Sequence[Example]
    """All that will be arranged, from which a warm-up takes its share."""
    usage: Usage = field(default_factory=Usage)
    _rendered: tuple[Sequence[Example], list["Passage"]] = field(default=((), []), repr=False)
    """The conversations that were last put into tokens, which takes as long as a small model needs to read them."""

    def tools(self) -> Tools:
        """The tools of this job."""
        wanted = METHODS[self.job.config.dataset.select]
        return Tools(
            seed=self.job.config.seed,
            targets=[target for target, _ in self._targets()] if wanted.targets else (),
            embed=self.embed,
            rate=self.rate,
            tag=self.tag,
            losses=self.losses,
            states=self.states,
            ratings=self.ratings,
            influence=self.influence,
        )

    def metrics(self) -> dict[str, Any]:
        """What the scoring took, where a model on this machine scored."""
        readers: list[Reader] = [vars(self)[name] for name in ("reader", "warm_reader") if name in vars(self)]
        if not readers:
            return {}
        return {"scored_tokens": sum(reader.read_tokens for reader in readers), "scored_on": readers[0].device.type}

    def embed(self, texts: Sequence[str]) -> Numbers:
        """Vectors of the texts, kept for all of them at once: in other batches their last digits would be others."""
        from minilima.models.embedder import Embedder

        ordered = sorted(set(texts), key=lambda text: (len(text), text))
        key = f"all_minilm_l6_v2|{sha256_text(canonical_json(ordered))}"
        known = self.kept.find([key])
        if not known:
            known = {key: Embedder()(ordered).ravel()}
            self.kept.add(known)
        vectors = known[key].reshape(len(ordered), -1)
        place = {text: index for index, text in enumerate(ordered)}
        return vectors[[place[text] for text in texts]]

    def rate(self, examples: Sequence[Example]) -> list[float | None]:
        model, prompter = self._generator()
        scores = rate(examples, model, prompter, self.on_progress)
        self.usage += model.usage
        return scores

    def tag(self, examples: Sequence[Example]) -> list[frozenset[str]]:
        model, prompter = self._generator()
        tags = tag(examples, model, prompter, self.on_progress)
        self.usage += model.usage
        return tags

    def _generator(self) -> tuple[CachedModel, Prompter]:
        config = self.job.config
        return connect_generator(self.job), Prompter(generator=config.generator, data=config.data)

    @cached_property
    def kept(self) -> KeptNumbers:
        return KeptNumbers(self.job.cache)

    @cached_property
    def reader(self) -> "Reader":
        """The scorer on this machine."""
        from minilima.models.reader import Reader

        source = self.job.sources.scorer
        assert source is not None, "resolved for methods that need one"
        return Reader(
            self.job.model_location(source, "scorer"), source.identity, device=self.job.config.compute.device, kept=self.kept,
            on_progress=self.on_progress,
        )  # fmt: skip

    def losses(self, examples: Sequence[Example], text: Text) -> Numbers:
        dataset = self.job.config.dataset
        reader = self.warm_reader if dataset.select == Select.ifd and dataset.warmup_examples else self.reader
        return reader.losses(self._passages(examples, text), unit=f"losses ({text.replace('_', ' ')})")

    def states(self, examples: Sequence[Example]) -> Numbers:
        return self.reader.states(self._passages(examples, Text.conversation, with_end=True))

    def _passages(self, examples: Sequence[Example], text: Text, *, with_end: bool = False) -> list["Passage"]:
        from minilima.generate.passages import answers_alone, passages

        tokenizer, thinking = self.reader.tokenizer, self.job.config.model.thinking
        if text == Text.answer and examples is self._rendered[0]:
            return answers_alone(self._rendered[1], tokenizer, thinking)
        read = passages(examples, text, tokenizer, thinking, with_end=with_end)
        if text == Text.conversation and not with_end:
            self._rendered = (examples, read)
        return read

    def ratings(self, examples: Sequence[Example]) -> Numbers:
        """Expected complexity and quality: of the scorer's next token, among 1 to 6 (Liu et al. 2024, section 2.3)."""
        fields = [{"request": user_text(each.instruction, each.input), "output": each.output} for each in examples]
        texts = [render(f"rating/{prompt}", **own) for prompt in PROMPTS for own in fields]
        scores = self._served(texts) if self.job.sources.scorer is None else self._rated_here(texts)
        return scores.reshape(len(PROMPTS), len(examples)).T

    def _rated_here(self, texts: Sequence[str]) -> Numbers:
        from minilima.generate.passages import question

        tokenizer = self.reader.tokenizer
        digits = [tokenizer.encode(str(rating), add_special_tokens=False)[-1] for rating in RATINGS]
        thinking, longest = self.job.config.model.thinking, self.reader.longest
        logits = self.reader.next_logits([question(text, tokenizer, thinking, longest) for text in texts], digits)
        return np.array([expected(dict(zip(RATINGS, map(float, row), strict=True))) for row in logits], dtype=np.float32)

    def _served(self, texts: Sequence[str]) -> Numbers:
        model = _endpoint_model(self.job)
        sampling = Sampling(temperature=0.0, max_tokens=1, top_logprobs=_TOP)
        requests = [Request(messages=ask(text), sampling=sampling) for text in texts]
        replies = model.reply_many(requests, counted(self.on_progress, len(requests), "ratings"))
        self.usage += model.usage
        scores = np.array([expected(_of_ratings(reply.logprobs or {})) for reply in replies], dtype=np.float32)
        if np.isnan(scores).all():
            raise MinilimaError(
                f"No reply of {model.name} came with log-probabilities of the ratings 1 to 6.",
                "dataset.select=deita weighs the ratings by them, and not every server gives them.",
                "Use a server that does (vLLM, OpenAI), or a model on this machine: dataset.scorer=base.",
            )
        return scores

    def influence(self, examples: Sequence[Example]) -> Numbers:
        from minilima.generate.gradients import Influence, best_group

        targets, groups = zip(*self._targets(), strict=True)
        aims = [(aim, group) for aim, group in zip(self._readable(targets), groups, strict=True) if aim.start < aim.end]
        measure = Influence(
            reader=self.reader, how=self._warm_up(epochs=4), targets=[aim for aim, _ in aims], kept=self.kept,
            folder=self.job.scratch, on_progress=self.on_progress,
        )  # fmt: skip
        return best_group(measure(self._readable(examples)), [group for _, group in aims])

    @cached_property
    def warm_reader(self) -> "Reader":
        """The scorer after a short training."""
        from minilima.generate.warmup import warmed
        from minilima.models.reader import Reader

        reader, how = self.reader, self._warm_up(epochs=1)
        return Reader(
            reader.location, f"{reader.name}:{how.name}", device=self.job.config.compute.device, kept=self.kept,
            on_progress=self.on_progress, load=lambda: warmed(reader.location, how, reader.device, self.job.scratch),
        )  # fmt: skip

    def _warm_up(self, epochs: int) -> "WarmUp":
        from minilima.generate.warmup import WarmUp

        dataset, seed = self.job.config.dataset, self.job.config.seed
        wanted = dataset.warmup_examples or max(LEAST_WARMUP, math.ceil(WARMUP_SHARE * len(self.examples)))
        learnt = [each for each in self._readable(shuffle(self.examples, seed)[:wanted]) if each.start < each.end]
        return WarmUp(
            passages=learnt, epochs=dataset.warmup_epochs or epochs, learning_rate=dataset.warmup_learning_rate, seed=seed
        )

    def _readable(self, examples: Sequence[Example]) -> list["Passage"]:
        """The examples as they are trained on, no longer than the scorer can read."""
        return [self.reader.cut(passage) for passage in self._passages(examples, Text.conversation, with_end=True)]

    def _targets(self) -> list[tuple[Example, str]]:
        """The target tasks that have an answer, and the group of each."""
        assert self.job.sources.targets is not None, "resolved for methods that need them"
        prompts = load_eval_set(self.job.sources.targets.local_path, None)
        return [(_as_example(prompt, prompt.output), prompt.category or "") for prompt in prompts if prompt.output]


def _as_example(prompt: EvalPrompt, output: str) -> Example:
    return Example(id=prompt.id, instruction=prompt.instruction, input="", output=output, source="file")


def expected(logprobs: Mapping[int, float]) -> float:
    """The mean rating by the probabilities of the ratings that are there, divided by their sum; NaN where there are none."""
    if not logprobs:
        return math.nan
    highest = max(logprobs.values())
    weights = {rating: math.exp(value - highest) for rating, value in logprobs.items()}
    return sum(rating * weight for rating, weight in weights.items()) / sum(weights.values())


def _of_ratings(logprobs: Mapping[str, float]) -> dict[int, float]:
    """Log-probabilities of the ratings among the likeliest tokens; of two spellings of one, the likelier."""
    scores: dict[int, float] = {}
    for token, value in logprobs.items():
        if (word := token.strip()) in {str(rating) for rating in RATINGS}:
            scores[int(word)] = max(value, scores.get(int(word), -math.inf))
    return scores


def _endpoint_model(job: Job) -> CachedModel:
    """The generator or the judge at its endpoint, as dataset.scorer names it."""
    from minilima.models.endpoint import connect

    config = job.config
    if config.dataset.scorer == "judge":
        return connect("judge.model", config.judge.model, config.endpoints.judge, job.cache, job.key, extra_fields(config.judge))
    endpoint: EndpointConfig = config.endpoints.generator
    generator = config.generator
    return connect("generator.model", generator.model, endpoint, job.cache, job.account or job.key, extra_fields(generator))
