"""Models on this machine, through transformers: replies in batches, and the likelihood of given texts.

Sampling is by inverse transform with one random number a token, drawn from a generator of the request's own, so a reply
does not depend on its neighbours in the batch, nor on what was answered before an interruption.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from minilima.config import Device
from minilima.errors import MinilimaError
from minilima.llm.chat import TEXT, Message, OnReply, Reply, Request, Sampling
from minilima.records import ReferenceLoss

# For models that come without a template. End of turn is the tokenizer's own end token: no new one has to be learned.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def pick_device(device: Device) -> torch.device:
    """The device to compute on.

    Raises:
        MinilimaError: a GPU was asked for and there is none.
    """
    if device == Device.cuda and not torch.cuda.is_available():
        raise MinilimaError("There is no GPU.", "compute.device=cuda needs one that torch can use.", "Use compute=cpu.")
    use_gpu = device != Device.cpu and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it; elsewhere (most CPUs) it is many times slower than float32."""
    if device.type == "cuda":
        return torch.bfloat16
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


def split_location(location: str) -> tuple[str, str]:
    """(folder or hub name, revision) of a location; a folder's name may hold an @ of its own."""
    if Path(location).is_dir():
        return location, "main"
    name, _, revision = location.partition("@")
    return name, revision or "main"


def load_tokenizer(location: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model (folder, or owner/name@commit), with a chat template and a padding token of its own.

    Padding must differ from the end of the turn, or a model learns never to stop.
    """
    name, revision = split_location(location)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, revision=revision)
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        spare = next(
            (token for token in (tokenizer.unk_token, tokenizer.bos_token) if token not in (None, tokenizer.eos_token)), None
        )
        if spare is None:
            raise MinilimaError(
                f"The tokenizer of {name} has no token for padding.", "Padding with the end token would untrain it.",
                "Give it a pad_token in tokenizer_config.json.",
            )  # fmt: skip
        tokenizer.pad_token = spare
    return tokenizer


def load_model(location: str, dtype: torch.dtype, device: torch.device) -> Any:
    """The weights, from safetensors only; no code that comes with a model is run."""
    name, revision = split_location(location)
    model = AutoModelForCausalLM.from_pretrained(
        name, revision=revision, dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    return model.to(device)


class LocalModel:
    """A causal language model in this process.

    Args:
        location: folder, or owner/name@commit.
        name: enters the reply cache's keys; stands for the weights.
        batch: replies written at once.
    """

    def __init__(self, location: str, name: str, *, device: Device, batch: int) -> None:
        self.name = name
        self.batch = batch
        self.device = pick_device(device)
        self.tokenizer = load_tokenizer(location)
        self.model = load_model(location, inference_dtype(self.device), self.device).eval()

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """Answers in batches of similar length, longest first; each reply is passed on when its batch is done."""
        prompts = [self._prompt_ids(request.messages, request.prefill) for request in requests]
        replies: dict[int, Reply] = {}
        for group in self._groups(requests, prompts):
            texts = self._generate([requests[index] for index in group], [prompts[index] for index in group])
            for index, reply in zip(group, texts, strict=True):
                replies[index] = reply
                on_reply(index, reply)
        return [replies[index] for index in range(len(requests))]

    def _groups(self, requests: Sequence[Request], prompts: Sequence[list[int]]) -> Iterator[list[int]]:
        """Positions in batches: one sampling setting each, longest prompts first."""
        by_sampling: dict[Sampling, list[int]] = {}
        for index, request in enumerate(requests):
            by_sampling.setdefault(request.sampling, []).append(index)
        for members in by_sampling.values():
            members.sort(key=lambda index: -len(prompts[index]))
            yield from (members[start : start + self.batch] for start in range(0, len(members), self.batch))

    def _prompt_ids(self, messages: Sequence[Message], prefill: str | None = None) -> list[int]:
        if messages[0].role == TEXT:
            text: list[int] = self.tokenizer.encode(messages[0].content)
            return text
        turns = [asdict(message) for message in messages]
        ids: list[int] = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        return ids + (self.tokenizer.encode(prefill, add_special_tokens=False) if prefill else [])

    def open_user_turn(self, turns: Sequence[Message]) -> str:
        """The conversation as the template renders it, up to where the user would go on."""
        mark = "\ufffc"
        rendered = self.tokenizer.apply_chat_template([*map(asdict, turns), {"role": "user", "content": mark}], tokenize=False)
        return str(rendered).partition(mark)[0]

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a turn."""
        ids = self.model.generation_config.eos_token_id
        known = ids if isinstance(ids, list) else [ids]
        return sorted({token for token in (*known, self.tokenizer.eos_token_id) if token is not None})

    @torch.inference_mode()
    def _generate(self, requests: Sequence[Request], prompts: Sequence[list[int]]) -> list[Reply]:
        sampling = requests[0].sampling
        batch = self.tokenizer.pad({"input_ids": list(prompts)}, padding_side="left", return_tensors="pt").to(self.device)
        width = batch["input_ids"].shape[1]
        room = self.model.config.max_position_embeddings - width
        if room < 1:
            raise MinilimaError(
                f"A prompt of {width:,} tokens does not fit into {self.name}.",
                f"Its context is {self.model.config.max_position_embeddings:,} tokens.",
                "Use fewer or shorter demonstrations, or a model with a longer context.",
            )
        settings = GenerationConfig(
            max_new_tokens=min(sampling.max_tokens, room),
            do_sample=False,
            repetition_penalty=1.0,
            eos_token_id=self.end_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            stop_strings=list(sampling.stop) if sampling.stop else None,
        )
        processors = self._processors(sampling, width, [request.key(self.name) for request in requests])
        written = self.model.generate(**batch, generation_config=settings, logits_processor=processors, tokenizer=self.tokenizer)[
            :, width:
        ].tolist()
        return [self._reply(request, len(prompt), row) for request, prompt, row in zip(requests, prompts, written, strict=True)]

    def _processors(self, sampling: Sampling, prompt_width: int, keys: Sequence[str]) -> LogitsProcessorList:
        chain = LogitsProcessorList()
        if sampling.repetition_penalty is not None:
            chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty, prompt_ignore_length=prompt_width))
        if sampling.temperature > 0:
            chain.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                chain.append(TopPLogitsWarper(sampling.top_p))
            chain.append(_SeededSampling(keys))
        return chain

    def _reply(self, request: Request, prompt_tokens: int, row: list[int]) -> Reply:
        end = next((position for position, token in enumerate(row) if token in self.end_ids), None)
        ids = row if end is None else row[:end]
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        stops = [place for stop in request.sampling.stop or () if (place := text.find(stop)) >= 0]
        return Reply(
            text=(request.prefill or "") + text[: min(stops, default=len(text))],
            finish="length" if end is None and not stops else "stop",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(ids) + (end is not None),
        )

    @torch.inference_mode()
    def reference_losses(self, prompts: Sequence[tuple[str, str, str]]) -> Iterator[ReferenceLoss]:
        """How surprising given answers are: negative log-likelihood in nats of the answer and its end of turn.

        Args:
            prompts: (id, instruction, answer) of each.
        """
        for identity, instruction, answer in prompts:
            prompt = self._prompt_ids([Message(role="user", content=instruction)])
            target = [*self.tokenizer.encode(answer, add_special_tokens=False), self.tokenizer.eos_token_id]
            ids = torch.tensor([prompt + target], device=self.device)
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=len(target) + 1).logits[0, :-1].float()
            nats = torch.nn.functional.cross_entropy(logits, ids[0, -len(target) :], reduction="sum")
            yield ReferenceLoss(id=identity, nats=float(nats), tokens=len(target))

    @torch.inference_mode()
    def log_odds(self, messages: Sequence[Message], first: str, second: str, prefill: str = "") -> float:
        """log p(first) - log p(second) for the first token of two possible replies, in nats."""
        ids = torch.tensor([self._prompt_ids(messages, prefill)], device=self.device)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
        one, two = (self.tokenizer.encode(word, add_special_tokens=False)[0] for word in (first, second))
        return float(logits[one] - logits[two])


class _SeededSampling(LogitsProcessor):  # type: ignore[misc]
    """Draws each row's next token with that row's own random numbers and leaves only it possible."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.generators = [random.Random(key) for key in keys]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        draws = torch.tensor([[generator.random()] for generator in self.generators], device=scores.device)
        cumulated = torch.softmax(scores.float(), dim=-1).cumsum(dim=-1)
        chosen = torch.searchsorted(cumulated, draws * cumulated[:, -1:]).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)
