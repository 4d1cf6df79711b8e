"""One request to an endpoint at a time, and the text that comes back; what goes wrong is one of openai's errors.

openai's client says what stands in the headers and opens the connections (proxies, certificates, redirects). Its own `post`
copies options, headers and address for each request, which took a third of the CPU time; here they are made once.
"""

import json
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import openai

from minilima.config.schema import EndpointConfig
from minilima.models.address import address_of
from minilima.models.refusals import refuse_redirect


class Wire:
    """The connections to one endpoint; open within `async with`."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        address = address_of(endpoint)
        self._query = address.query
        key = os.environ.get(endpoint.api_key_env) or "none"
        self._http = openai.DefaultAioHttpClient(
            timeout=endpoint.timeout_seconds, event_hooks={"response": [refuse_redirect]}
        )  # takes a third less CPU than openai's own choice
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=address.base_url, default_query=address.query, default_headers=address.headers,
            max_retries=0, http_client=self._http,
        )  # fmt: skip
        self._headers: dict[str, str] = {}
        self._urls: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        given = {name: value for name, value in self._client.default_headers.items() if isinstance(value, str)}
        self._headers = {"Authorization": f"Bearer {self._client.api_key}", **given}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    async def post(self, path: str, body: Mapping[str, Any]) -> str:
        """What comes back, whatever it is.

        Raises:
            openai.APIStatusError: the server refuses.
            openai.APIConnectionError: there is no answer; its cause says why.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        if (url := self._urls.get(path)) is None:
            whole = f"{str(self._client.base_url).rstrip('/')}{path}"
            # Parsed once: an address costs as much as the rest of a request.
            asked = self._http.build_request("POST", whole, params=self._query or None)
            url = self._urls[path] = asked.url
        request = self._http.build_request("POST", url, content=content, headers=self._headers)
        try:
            response = await self._http.send(request)
        except Exception as error:  # errors of several libraries, none of which is this module's to know
            raise openai.APIConnectionError(request=request) from error
        if response.is_success:
            return response.text
        raise _refused(response)


def _refused(response: Any) -> openai.APIStatusError:
    """As openai's client raises it."""
    status, text = response.status_code, response.text.strip()
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    said = body.get("error", body) if isinstance(body, Mapping) else body
    kind = openai.RateLimitError if status == 429 else openai.InternalServerError if status >= 500 else openai.APIStatusError
    return kind(f"Error code: {status}", response=response, body=said)
