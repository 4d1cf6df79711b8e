"""Any OpenAI-compatible endpoint: one asynchronous client, many requests in flight, fail fast on what waiting cannot mend."""

import asyncio
import os
from collections.abc import Sequence

import openai
from openai.types.chat import ChatCompletionMessageParam

from minilima.config import EndpointConfig
from minilima.errors import MinilimaError, options
from minilima.llm.chat import OnReply, Reply, Request


class EndpointModel:
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(self, model: str, endpoint: EndpointConfig) -> None:
        self.name = model
        self.endpoint = endpoint

    def reply_many(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        """Sends all requests, at most `endpoint.concurrency` at once.

        Raises:
            MinilimaError: the key or the model is refused, or the endpoint stays unreachable after all retries.
        """
        try:
            return asyncio.run(self._reply_all(requests, on_reply))
        except BaseExceptionGroup as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if not isinstance(first, openai.OpenAIError):
                raise first from None
            raise self._explain(first) from None

    async def _reply_all(self, requests: Sequence[Request], on_reply: OnReply) -> list[Reply]:
        gate = asyncio.Semaphore(self.endpoint.concurrency)
        async with self._client() as client:

            async def one(index: int, request: Request) -> Reply:
                async with gate:
                    reply = await self._reply(client, request)
                on_reply(index, reply)
                return reply

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(index, request)) for index, request in enumerate(requests)]
        return [task.result() for task in tasks]

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=os.environ.get(self.endpoint.api_key_env) or "none",
            base_url=self.endpoint.base_url,
            timeout=self.endpoint.timeout_seconds,
            max_retries=self.endpoint.max_retries,
        )

    async def _reply(self, client: openai.AsyncOpenAI, request: Request) -> Reply:
        sampling = request.sampling
        messages: list[ChatCompletionMessageParam] = [
            {"role": message.role, "content": message.content}  # type: ignore[misc]
            for message in request.messages
        ]
        completion = await client.chat.completions.create(
            model=self.name,
            messages=messages,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_completion_tokens=sampling.max_tokens,
        )
        choice = completion.choices[0]
        usage = completion.usage
        return Reply(
            text=choice.message.content or "",
            finish=str(choice.finish_reason),
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
        )

    def _explain(self, error: openai.OpenAIError) -> MinilimaError:
        address = self.endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or "OpenAI"
        variable = self.endpoint.api_key_env
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return MinilimaError(
                f"{address} refuses the key in ${variable}.",
                "The key is wrong, expired, or may not use this model.",
                f"Set a valid one (export {variable}=…) and run the same command again; what was answered is kept.",
            )
        if isinstance(error, openai.NotFoundError):
            return MinilimaError(
                f"{address} has no model {self.name!r}.",
                f"It offers: {self._offered()}.",
                "Choose one of them with generator.model=… or judge.model=…",
            )
        return MinilimaError(
            f"{address} did not answer, after {self.endpoint.max_retries} retries.",
            f"The last error was {type(error).__name__}: {error}.",
            "Run the same command again later: every reply that arrived is kept and not asked for again.",
        )

    def _offered(self) -> str:
        try:
            with openai.OpenAI(
                api_key=os.environ.get(self.endpoint.api_key_env) or "none", base_url=self.endpoint.base_url, max_retries=0
            ) as client:
                return options(model.id for model in client.models.list()) or "nothing"
        except openai.OpenAIError:
            return "a list it does not give out"
