"""How the generator is asked; the only module that distinguishes chat models from base models.

    step (a prompt file), demonstrations with answers, the task at hand ─> messages
A chat model sees each demonstration as an earlier turn of the conversation; a base model continues one document.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minilima.config.choices import GeneratorKind, Style
from minilima.config.schema import DataConfig, GeneratorConfig
from minilima.models.chat import Message, Request, Sampling, ask, continue_text
from minilima.prompts import render

BLOCK_END = "\n###"
"""Ends a block of a completion prompt, and thereby the reply."""

_WEIGHED = 20
"""How many of the likeliest first tokens are read."""

Demonstration = tuple[Mapping[str, Any], str]
"""The fields of a task, and its right reply."""


@dataclass(frozen=True, kw_only=True)
class Prompter:
    """What the requests of one pool have in common."""

    generator: GeneratorConfig
    data: DataConfig

    @property
    def is_chat(self) -> bool:
        return self.generator.style != Style.completion

    @property
    def wants_json(self) -> bool:
        """Whether lists are requested by a JSON schema. The prompts are the same, since some endpoints ignore a schema."""
        return self.generator.json_schema and self.is_chat

    @property
    def weighs_kinds(self) -> bool:
        """Whether the kind of a task is read from token probabilities, as for local models that do not answer as an assistant."""
        return self.generator.kind == GeneratorKind.local and self.generator.style != Style.chat

    @property
    def prompts(self) -> str:
        """Folder of the prompt files."""
        return "pool/chat" if self.is_chat else "pool/completion"

    def sampling(self, max_tokens: int, *, temperature: float | None = None) -> Sampling:
        """The generator's sampling, without the settings that this kind of model does not have."""
        generator, local = self.generator, self.generator.kind == GeneratorKind.local
        return Sampling(
            # An endpoint that is sent no temperature takes none in the steps that would be greedy either.
            temperature=generator.temperature if temperature is None or generator.temperature is None else temperature,
            top_p=generator.top_p,
            max_tokens=max_tokens,
            repetition_penalty=generator.repetition_penalty if local else None,
            presence_penalty=None if local else generator.presence_penalty,
            stop=None if self.is_chat else (BLOCK_END,),
        )

    def greedy(self, max_tokens: int) -> Sampling:
        """For replies of a few tokens that are no matter of taste; a reasoning model has room to think before them."""
        generator = self.generator
        if generator.kind == GeneratorKind.local:
            return Sampling(temperature=0.0, max_tokens=max_tokens)
        reasons = generator.temperature is None or generator.reasoning_effort is not None
        return Sampling(
            temperature=None if generator.temperature is None else 0.0,
            top_p=None if generator.top_p is None else 1.0,
            max_tokens=max_tokens + (self.data.instance_tokens if reasons else 0),
        )

    def instance_sampling(self) -> Sampling:
        return self.sampling(self.data.instance_tokens, temperature=self.data.instance_temperature)

    def weigh(self, step: str, shown: Sequence[Demonstration], **fields: Any) -> Request:
        """A request for the likeliest first tokens after a document of tasks with their kind."""
        text = render(f"pool/completion/{step}", shown=[{**demo, "answer": answer} for demo, answer in shown], **fields)
        sampling = Sampling(temperature=0.0, max_tokens=1, top_logprobs=_WEIGHED)
        return Request(messages=continue_text(text), sampling=sampling)

    def list_request(self, step: str, sample: int, max_tokens: int, begin: str, schema: str, **fields: Any) -> Request:
        """A request for a list, by `schema` or numbered; a local chat model's numbered reply is made to begin with `begin`."""
        text = render(f"{self.prompts}/{step}", **fields)
        sampling = self.sampling(max_tokens)
        if not self.is_chat:
            return Request(messages=continue_text(text), sampling=sampling, sample=sample)
        if self.wants_json:
            return Request(messages=ask(text), sampling=sampling, sample=sample, schema=schema)
        return Request(messages=ask(text), sampling=sampling, sample=sample, prefill=begin)

    def request(
        self,
        step: str,
        shown: Sequence[Demonstration],
        sampling: Sampling,
        sample: int = 0,
        *,
        schema: str | None = None,
        **fields: Any,
    ) -> Request:
        """A request for one reply to the task with these fields, after demonstrations of the same step."""
        messages = self._messages(step, shown, fields)
        if not self.is_chat:
            sampling = replace(sampling, stop=(BLOCK_END,))
        return Request(messages=messages, sampling=sampling, sample=sample, schema=schema)

    def _messages(self, step: str, shown: Sequence[Demonstration], fields: Mapping[str, Any]) -> tuple[Message, ...]:
        prompt = f"{self.prompts}/{step}"
        if not self.is_chat:
            return continue_text(render(prompt, shown=[{**demo, "answer": answer} for demo, answer in shown], **fields))
        turns = [text for demo, answer in shown for text in (render(prompt, **demo), answer)]
        return ask(*turns, render(prompt, **fields))
