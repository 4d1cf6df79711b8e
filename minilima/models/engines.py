"""Which engine writes for a model whose weights are at hand: transformers, vLLM in this process, or a server that holds them.

The choice is about how, not what: the cache and the stages know the model by its weights, whoever runs it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from minilima.config.choices import Engine, Precision, Thinking
from minilima.config.schema import BudgetConfig, ComputeConfig, Config, EndpointConfig
from minilima.errors import MinilimaError, options
from minilima.models.chat import ChatModel, OnReply, Reply, Request

if TYPE_CHECKING:
    from minilima.models.endpoint import EndpointModel


def check_engine(config: Config) -> None:
    """Stops where vLLM is asked for and is not installed.

    Raises:
        MinilimaError: says how to install it, and what else there is.
    """
    if config.compute.engine == Engine.vllm and find_spec("vllm") is None:
        raise MinilimaError(
            "vLLM is not installed.",
            "generator=vllm without an address, or compute.engine=vllm, runs it in this process.",
            "Install it (pip install 'minilima[vllm]'), name a server with endpoints.generator.base_url=…, or leave it to "
            "transformers: generator=local compute.engine=transformers.",
        )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast an engine writes."""

    start_up_seconds: float
    tokens_per_second: float

    def seconds(self, tokens: int) -> float:
        """To write so many tokens, from the first request on."""
        return self.start_up_seconds + tokens / self.tokens_per_second


PACES = {
    Engine.transformers: Pace(start_up_seconds=1.1, tokens_per_second=13_990),
    Engine.vllm: Pace(start_up_seconds=88.4, tokens_per_second=12_882),
}
"""Sampled answers of 1 to 1,024 tokens by a model of 1B on one H100 (benchmarks/results/generation_1b_5_17.json and
generation_1b_vllm.json)."""


def faster(tokens: int, paces: dict[Engine, Pace] = PACES) -> Engine:
    """The engine that writes so many tokens sooner, its start included."""
    return min(paces, key=lambda engine: paces[engine].seconds(tokens))


def explain_choice(tokens: int) -> str:
    """Which engine compute.engine=auto takes for so many tokens, and why."""
    chosen = faster(tokens)
    other = Engine.vllm if chosen == Engine.transformers else Engine.transformers
    return (
        f"compute.engine=auto takes {chosen} for up to {tokens:,} tokens: {PACES[chosen].seconds(tokens):,.0f} s, {other} "
        f"{PACES[other].seconds(tokens):,.0f} s, start included (a model of 1B on an H100)."
    )


def load_writer(
    location: str, name: str, compute: ComputeConfig, group: int | None = None, *, tokens: int | None = None
) -> ChatModel:
    """The model, loaded by the engine that was chosen.

    Args:
        location: folder, or owner/name@commit.
        name: enters the reply cache's keys; stands for the weights.
        compute: device, batch and engine.
        group: as LocalModel's.
        tokens: the most that will be written; None = not known, and not so many that vLLM's start would be worth it.
    """
    from minilima.models.local import LocalModel, pick_device

    chosen = compute.engine
    if chosen == Engine.auto and find_spec("vllm") is not None and pick_device(compute.device).type == "cuda":
        chosen = faster(tokens or 0)
    if chosen == Engine.vllm:
        from minilima.models.vllm import VllmModel

        return VllmModel(location, name, device=compute.device)
    exact = compute.precision == Precision.float32
    return LocalModel(location, name, device=compute.device, batch=compute.generation_batch, group=group, exact=exact)


class ServedModel:
    """Weights of ours at a server: the cache knows them by `name`, the server by a name of its own."""

    def __init__(self, name: str, endpoint_model: "EndpointModel", *, thinks: bool = False) -> None:
        self.name = name
        self.database = endpoint_model.database
        self._thinks = thinks
        self._model = endpoint_model

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """Asks the server.

        Raises:
            MinilimaError: the server cannot answer, or cannot do what a request asks.
        """
        if any(request.sampling.repetition_penalty is not None for request in requests):
            raise MinilimaError(
                "A server cannot hold to eval.repetition_penalty.",
                "Servers count the prompt among the repeated tokens, or have no such setting; the answers would not be the same.",
                "Add eval.repetition_penalty=null, or leave out compute.served_at.",
            )
        if self._thinks:  # else the server would ask its template for reasoning, which an answer on this machine does not have
            requests = [replace(request, thinking=request.thinking or Thinking.off) for request in requests]
        return self._model.reply_many(requests, on_reply)


def _thinks(location: str) -> bool:
    """Whether the chat template of a folder can be asked for reasoning."""
    files = [Path(location) / name for name in ("chat_template.jinja", "tokenizer_config.json")]
    return any("enable_thinking" in file.read_text(encoding="utf-8") for file in files if file.is_file())


def _line(location: str, own: str) -> str:
    if Path(location).is_dir():
        return shlex.join(["minilima", "serve", location, "--port", "8001"])
    return f"vllm serve {location.replace('@', ' --revision ')} --served-model-name {own}"


def find_served(location: str, name: str, compute: ComputeConfig, cache: Path, stage: str) -> ServedModel:
    """The model at the first of the servers in `compute.served_at` that offers it under the name of its folder.

    Raises:
        MinilimaError: none does, or one cannot be reached.
    """
    import openai

    from minilima.models.address import open_client
    from minilima.models.budget import Budget
    from minilima.models.endpoint import EndpointModel
    from minilima.models.refusals import explain

    # A folder's last part, or the name on the hub without its commit.
    own = Path(location).name if Path(location).is_dir() else location.partition("@")[0]
    offered: list[str] = []
    for address in compute.served_at:
        endpoint = EndpointConfig(base_url=address, api_key_env="VLLM_API_KEY", concurrency=64, timeout_seconds=600.0)
        try:
            with open_client(endpoint) as client:
                names = [model.id for model in client.models.list()]
        except openai.OpenAIError as error:
            raise explain(error, own, endpoint) from None
        for known in names:
            if own in (known, Path(known).name):
                budget = Budget(cache, stage, BudgetConfig(), None)
                return ServedModel(name, EndpointModel(known, endpoint, budget), thinks=_thinks(location))
        offered += names
    raise MinilimaError(
        f"No server of compute.served_at offers {own}.",
        f"They offer: {options(offered) or 'nothing'}.",
        f"Serve it too ({_line(location, own)}) and add its address, or leave the setting out.",
    )
