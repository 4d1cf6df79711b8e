"""vLLM in this process: the same requests and the same meaning of every setting as in local.py, from another engine.

    requests ─> its queue ─> a step of whatever is in flight ─> finished ones are passed on at once
Only this module imports vLLM, and only engines.py imports this module. vLLM counts the prompt in its repetition penalty; ours
is about what was written, as in LIMA, so it comes as a logits processor.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import takewhile
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from minilima.config.choices import DeviceKind
from minilima.models.chat import Message, OnReply, Reply, Request
from minilima.models.checkpoint import context_tokens
from minilima.models.drafts import Draft
from minilima.models.local import inference_dtype, pick_device
from minilima.models.request_tokens import asked_ids, end_ids, open_user_turn, reply_tokens
from minilima.models.sampling import penalise
from minilima.models.tokenizer import load_tokenizer, split_location

_PENALTY = "written_penalty"
_SEED_DIGITS = 8


class WrittenPenalty(LogitsProcessor):  # type: ignore[misc]
    """The repetition penalty of each request over the tokens that it has written, for all rows of a step at once.

    What a row has written stands as marks on the device, one for each token of the vocabulary; a step adds the newest token of
    each row, and moves marks as vLLM moves its rows.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        rows, vocabulary = vllm_config.scheduler_config.max_num_seqs, vllm_config.model_config.get_vocab_size()
        self._marks = torch.zeros(rows, vocabulary, dtype=torch.bool, device=device)
        self._penalties = torch.ones(rows, 1, device=device)
        self._written: dict[int, list[int]] = {}
        """Row -> the tokens of its request; vLLM's own list, which grows."""
        self._marked: dict[int, int] = {}
        """Row -> how many of them are marked."""

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follows what vLLM removed, added and moved, in this order, as it asks."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._forget(row)
        for row, params, _, written in batch_update.added:
            self._forget(row)
            penalty = (params.extra_args or {}).get(_PENALTY)
            if penalty is not None:
                self._marks[row] = False
                self._penalties[row] = penalty
                self._written[row], self._marked[row] = written, 0
        for source, target, direction in batch_update.moved:
            pair = [source, target]
            for kept in (self._written, self._marked):
                here, there = kept.pop(source, None), kept.pop(target, None)
                if here is not None:
                    kept[target] = here  # type: ignore[assignment]
                if there is not None and direction == MoveDirectionality.SWAP:
                    kept[source] = there  # type: ignore[assignment]
            for tensor in (self._marks, self._penalties):
                tensor[pair] = tensor[pair[::-1]]
            if direction == MoveDirectionality.UNIDIRECTIONAL:
                self._forget(source)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Lowers the scores (rows, vocabulary) of what was written."""
        if not self._written:
            return logits
        rows, tokens = [], []
        for row, written in self._written.items():
            # A step may be begun before the last one is read: what is not known yet stands there as -1.
            fresh = list(takewhile(lambda token: token >= 0, written[self._marked[row] :]))
            rows += [row] * len(fresh)
            tokens += fresh
            self._marked[row] += len(fresh)
        if rows:
            self._marks[torch.tensor([rows, tokens], device=self._marks.device).unbind()] = True
        count = len(logits)
        return penalise(logits, self._marks[:count, : logits.shape[1]], self._penalties[:count])

    def _forget(self, row: int) -> None:
        if self._written.pop(row, None) is not None:
            del self._marked[row]
            self._marks[row] = False
            self._penalties[row] = 1.0


class VllmModel:
    """A causal language model in vLLM. It is loaded at the first request, and takes most of a GPU's memory until `close`.

    Args:
        location: folder, or owner/name@commit.
        name: enters the reply cache's keys; stands for the weights.
    """

    def __init__(self, location: str, name: str, *, device: DeviceKind) -> None:
        self.name = name
        self.tokenizer = load_tokenizer(location)
        self._folder, self._revision = split_location(location)
        settings = AutoConfig.from_pretrained(self._folder, revision=self._revision)
        self._context = context_tokens(settings.to_dict())
        self._device = pick_device(device)
        self._dtype = str(inference_dtype(self._device)).removeprefix("torch.")
        try:
            generation = GenerationConfig.from_pretrained(self._folder, revision=self._revision)
        except OSError:  # the folder has none
            generation = GenerationConfig()
        self._end_ids = end_ids(self.tokenizer, generation)
        self._engine: Any = None

    @property
    def arithmetic(self) -> dict[str, Any]:
        """For a manifest, as LocalModel's; a reply also depends on what vLLM computes beside it, which is not known."""
        device = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "CPU"
        return {"engine": "vllm", "device": device, "dtype": self._dtype, "vllm": version("vllm"), "torch": torch.__version__}

    def open_user_turn(self, turns: Sequence[Message]) -> str:
        """The conversation as the template renders it, up to where the user's next turn begins."""
        return open_user_turn(self.tokenizer, turns)

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """Answers all requests; each reply is passed on the moment it is done.

        Raises:
            MinilimaError: a prompt does not fit into the model's context.
        """
        drafts = [self._draft(index, request) for index, request in enumerate(requests)]
        params = [self._params(draft) for draft in drafts]
        engine = self._started()
        for draft, chosen in zip(drafts, params, strict=True):
            engine.add_request(str(draft.index), {"prompt_token_ids": draft.prompt}, chosen)
        replies: dict[int, Reply] = {}
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    draft = drafts[int(output.request_id)]
                    draft.take(output.outputs[0].token_ids)
                    replies[draft.index] = replace(draft.reply(), logprobs=_first_token(output.outputs[0].logprobs))
                    on_reply(draft.index, replies[draft.index])
        return [replies[index] for index in range(len(requests))]

    def close(self) -> None:
        """Gives the memory back; the next request loads the model again."""
        if self._engine is not None:
            self._engine.engine_core.shutdown()
            self._engine = None

    def _started(self) -> Any:
        if self._engine is None:
            arguments = EngineArgs(
                model=self._folder, revision=self._revision, tokenizer=self._folder, dtype=self._dtype,
                logits_processors=[WrittenPenalty], disable_log_stats=True,
            )  # fmt: skip
            self._engine = LLMEngine.from_engine_args(arguments)
        return self._engine

    def _draft(self, index: int, request: Request) -> Draft:
        prompt = asked_ids(self.tokenizer, request.messages, request.prefill, request.thinking)
        return Draft(
            index=index, request=request, key=request.key(self.name), prompt=prompt, tokenizer=self.tokenizer,
            limit=reply_tokens(request, prompt, self._context, self.name), end_ids=frozenset(self._end_ids),
        )  # fmt: skip

    def _params(self, draft: Draft) -> Any:
        chosen, schema = draft.request.sampling, draft.request.schema
        return SamplingParams(
            temperature=chosen.temperature,
            top_p=chosen.top_p,
            max_tokens=draft.limit,
            seed=int(draft.key[:_SEED_DIGITS], 16),
            stop=list(chosen.stop or ()),
            stop_token_ids=self._end_ids,
            extra_args={_PENALTY: chosen.repetition_penalty} if chosen.repetition_penalty is not None else None,
            logprobs=chosen.top_logprobs,
            structured_outputs=StructuredOutputsParams(json=json.loads(schema)) if schema else None,
        )


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """The likeliest first tokens with their log-probabilities, where they were asked for."""
    return {str(top.decoded_token): float(top.logprob) for top in logprobs[0].values()} if logprobs else None
