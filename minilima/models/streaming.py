"""A model on this machine that writes its reply piece by piece, for a conversation in the terminal.

conversation ─> template ─> the oldest turns left out until it fits ─> generate in a thread ─> pieces of text
Replies of stages come from `local.py`, in batches and from a cache; this is for one reader who waits for each word.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from threading import Event, Thread
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from minilima.config.choices import DeviceKind, Thinking
from minilima.errors import MinilimaError
from minilima.models.chat import Message, Sampling
from minilima.models.local import inference_dtype, pick_device
from minilima.models.request_tokens import end_ids
from minilima.models.template import prompt_ids
from minilima.models.tokenizer import load_tokenizer
from minilima.models.weights import context_of, load_model


class _Stopped(StoppingCriteria):  # type: ignore[misc]
    """Ends a reply between two tokens."""

    def __init__(self, stopped: Event) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._stopped.is_set(), dtype=torch.bool, device=input_ids.device)


class StreamedModel:
    """A causal language model in this process, for one conversation at a time.

    Args:
        location: folder, or owner/name@commit.
        thinking: `model.thinking` of its run.
    """

    def __init__(self, location: str, *, thinking: str | None = None, device: DeviceKind = DeviceKind.auto) -> None:
        self._device = pick_device(device)
        self._tokenizer = load_tokenizer(location)
        self._model = load_model(location, inference_dtype(self._device), self._device).eval()
        self._thinking = Thinking(thinking) if thinking else None
        self._ends = end_ids(self._tokenizer, self._model.generation_config)
        self._context = context_of(self._model)

    def fitting(self, messages: Sequence[Message], max_tokens: int) -> list[Message]:
        """The conversation without its oldest turns, so that a reply of `max_tokens` fits; the system message stays.

        Raises:
            MinilimaError: not even the last message fits.
        """
        system = [message for message in messages[:1] if message.role == "system"]
        turns = list(messages[len(system) :])
        while self._context is not None and len(self._ids([*system, *turns])) + max_tokens > self._context:
            if len(turns) <= 2:
                raise MinilimaError(
                    "The message does not fit into the model's context.",
                    f"Its context is {self._context:,} tokens, of which the reply may take {max_tokens:,}.",
                    "Write less, or start again with a lower --max-tokens.",
                )
            turns = turns[2:]
        return [*system, *turns]

    def stream(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Iterator[str]:
        """The reply's pieces as they are written; whoever closes the iterator ends the reply."""
        ids = torch.tensor([self._ids(messages)], device=self._device)
        streamer = TextIteratorStreamer(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
        stopped = Event()
        failures: list[BaseException] = []

        def write() -> None:
            try:
                torch.manual_seed(seed)
                with torch.inference_mode():
                    self._model.generate(
                        input_ids=ids, attention_mask=torch.ones_like(ids), streamer=streamer, eos_token_id=self._ends,
                        pad_token_id=self._ends[0], stopping_criteria=StoppingCriteriaList([_Stopped(stopped)]),
                        **_generation(sampling),
                    )  # fmt: skip
            except BaseException as error:
                failures.append(error)
                streamer.end()

        thread = Thread(target=write, daemon=True)
        thread.start()
        try:
            yield from streamer
        finally:
            stopped.set()
            thread.join()
        if failures:
            raise failures[0]

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        return prompt_ids(self._tokenizer, [asdict(message) for message in messages], self._thinking)


def _generation(sampling: Sampling) -> dict[str, Any]:
    """transformers' names of the sampling; what a model's own generation config says of it does not hold."""
    chosen: dict[str, Any] = {"max_new_tokens": sampling.max_tokens, "do_sample": bool(sampling.temperature)}
    if sampling.temperature:
        chosen |= {"temperature": sampling.temperature, "top_p": sampling.top_p or 1.0, "top_k": 0}
    else:
        chosen |= {"temperature": None, "top_p": None, "top_k": None}
    return chosen | {"repetition_penalty": sampling.repetition_penalty or 1.0}
