"""vLLM in this process: the same requests and the same meaning of every setting as in local.py, from another engine.

    requests ─> its queue ─> a step of whatever is in flight ─> finished ones are passed on at once
Only this module imports vLLM, and only engines.py imports this module. How a token is chosen is ours, as a logits processor: the
repetition penalty is about what was written, as in LIMA, where vLLM counts the prompt too, and random numbers are the request's.
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
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from minilima.config.choices import DeviceKind
from minilima.models.chat import Message, OnReply, Reply, Request
from minilima.models.checkpoint import context_tokens
from minilima.models.drafts import Draft
from minilima.models.local import inference_dtype, pick_device
from minilima.models.request_tokens import asked_ids, end_ids, open_user_turn, reply_tokens
from minilima.models.sampling import GREEDY, draws, sample
from minilima.models.tokenizer import load_tokenizer, split_location

_SAMPLING = "minilima"
_LEAST_NUMBERS = 128


class OwnSampling(LogitsProcessor):  # type: ignore[misc]
    """Penalty, temperature, nucleus and draw of sampling.py for all rows of a step at once, with each request's own numbers.

    vLLM would draw for each row with a seed by itself, and count the prompt among the repeated tokens. So every request is a
    greedy one to it, and what was chosen here gets the highest score. What a row has written stands as marks on the device, one
    for each token of the vocabulary; a step adds the newest token of each row, and moves rows as vLLM moves them.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        rows, vocabulary = vllm_config.scheduler_config.max_num_seqs, vllm_config.model_config.get_vocab_size()
        self._marks = torch.zeros(rows, vocabulary, dtype=torch.bool, device=device)
        self._penalties, self._top_ps = torch.ones(rows, 1, device=device), torch.ones(rows, 1, device=device)
        self._temperatures = torch.full((rows, 1), GREEDY, device=device)
        self._numbers = torch.zeros(rows, _LEAST_NUMBERS, device=device)
        self._pinned = is_pin_memory
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
            self._take(row, **(params.extra_args or {}).get(_SAMPLING, {}))
            if params.extra_args:
                self._written[row], self._marked[row] = written, 0
        for source, target, direction in batch_update.moved:
            pair = [source, target]
            for kept in (self._written, self._marked):
                here, there = kept.pop(source, None), kept.pop(target, None)
                if here is not None:
                    kept[target] = here  # type: ignore[assignment]
                if there is not None and direction == MoveDirectionality.SWAP:
                    kept[source] = there  # type: ignore[assignment]
            for tensor in self._tensors:
                tensor[pair] = tensor[pair[::-1]]

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Gives each row's next token the highest of its scores (rows, vocabulary)."""
        if not self._written:
            return logits
        count = len(logits)
        rows, tokens, steps = [], [], [0] * count
        for row, written in self._written.items():
            # A step may be begun before the last one is read: what is not known yet stands there as -1. Of a row that is done
            # and has yet to be removed, no number is left.
            steps[row] = min(len(written), self._numbers.shape[1] - 1)
            fresh = list(takewhile(lambda token: token >= 0, written[self._marked[row] :]))
            rows += [row] * len(fresh)
            tokens += fresh
            self._marked[row] += len(fresh)
        if rows:
            self._marks[self._on_device([rows, tokens]).unbind()] = True
        drawn = self._numbers[:count].gather(1, self._on_device([steps]).T)
        marks, penalties, temperatures, top_ps = (tensor[:count] for tensor in self._tensors[:4])
        chosen = sample(logits, marks[:, : logits.shape[1]], penalties, temperatures, top_ps, drawn)
        return logits.scatter_(1, chosen, torch.inf)

    @property
    def _tensors(self) -> tuple[torch.Tensor, ...]:
        return self._marks, self._penalties, self._temperatures, self._top_ps, self._numbers

    def _on_device(self, values: list[list[int]]) -> torch.Tensor:
        made = torch.tensor(values, pin_memory=self._pinned)
        return made.to(self._marks.device, non_blocking=True)

    def _take(
        self, row: int, key: str = "", tokens: int = 1, temperature: float = 0.0, top_p: float = 1.0, penalty: float = 1.0
    ) -> None:
        """Of a request: what its numbers are drawn from, how many tokens it may have, and how they are chosen."""
        missing = tokens - self._numbers.shape[1]
        if missing > 0:
            self._numbers = torch.nn.functional.pad(self._numbers, (0, max(missing, self._numbers.shape[1])))
        self._marks[row] = False
        self._penalties[row], self._top_ps[row], self._temperatures[row] = penalty, top_p, temperature or GREEDY
        numbers = draws(key, 0, tokens) if temperature else [0.0] * tokens
        self._numbers[row, :tokens] = torch.tensor(numbers, pin_memory=self._pinned)

    def _forget(self, row: int) -> None:
        self._written.pop(row, None)
        self._marked.pop(row, None)


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
                logits_processors=[OwnSampling], disable_log_stats=True,
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
        way = {
            "key": draft.key, "tokens": draft.limit, "temperature": chosen.temperature,
            "top_p": 1.0 if chosen.top_p is None else chosen.top_p,
            "penalty": 1.0 if chosen.repetition_penalty is None else chosen.repetition_penalty,
        }  # fmt: skip
        plain = not chosen.temperature and chosen.repetition_penalty is None
        return SamplingParams(
            temperature=0.0,
            max_tokens=draft.limit,
            stop=list(chosen.stop or ()),
            stop_token_ids=self._end_ids,
            extra_args=None if plain else {_SAMPLING: way},
            logprobs=chosen.top_logprobs,
            structured_outputs=StructuredOutputsParams(json=json.loads(schema)) if schema else None,
            # Texts are made here, once a reply is whole, but where vLLM has to look for a text, or names tokens.
            detokenize=bool(chosen.stop or chosen.top_logprobs),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """The likeliest first tokens with their log-probabilities, where they were asked for."""
    return {str(top.decoded_token): float(top.logprob) for top in logprobs[0].values()} if logprobs else None
