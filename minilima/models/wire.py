"""One request to an endpoint at a time, and the text that comes back; what goes wrong is one of openai's errors.

openai's client says what stands in the headers, where requests go and whom to trust; aiohttp sends them. The client's own `post`
and the layer of httpx below it copy options, headers and address for each request and each reply, which took two thirds of the
CPU time. Where a proxy stands between or the server redirects, that layer does it: it knows how.
"""

import asyncio
import gc
import json
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self
from urllib.request import getproxies, proxy_bypass

import aiohttp
import openai
from yarl import URL

from minilima.config.schema import EndpointConfig
from minilima.models.address import address_of
from minilima.models.refusals import RedirectedError, refuse_redirect

_ALLOCATIONS = 20_000
"""Objects that are made, less those that are gone, from one look for cyclic garbage to the next; Python's default is 700."""
_CONNECTIONS = 1000
"""As many as openai's client opens at most."""
_OF_EACH_REQUEST = {"host", "content-length"}
_OF_THE_BODY = {"content-encoding", "content-length"}
"""Of a reply as it was sent, not as it was read."""
_ENCODINGS = "gzip, deflate"
"""What aiohttp decodes wherever it is installed."""


class Wire:
    """The connections to one endpoint; open within `async with`."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        address = address_of(endpoint)
        self._query = address.query
        key = os.environ.get(endpoint.api_key_env) or "none"
        self._http = openai.DefaultAioHttpClient(
            timeout=endpoint.timeout_seconds, event_hooks={"response": [refuse_redirect]}, verify=_trust()
        )  # takes a third less CPU than openai's own choice
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=address.base_url, default_query=address.query, default_headers=address.headers,
            max_retries=0, http_client=self._http,
        )  # fmt: skip
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=endpoint.timeout_seconds,
            sock_connect=endpoint.timeout_seconds,
            sock_read=endpoint.timeout_seconds,
        )
        self._headers: dict[str, str] = {}
        self._urls: dict[str, URL] = {}
        self._session: aiohttp.ClientSession | None = None
        self._direct = True

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        given = {name: value for name, value in self._client.default_headers.items() if isinstance(value, str)}
        self._headers = {"Authorization": f"Bearer {self._client.api_key}", **given}
        asked = self._request("/", b"")
        if not _through_proxy(asked.url.host):
            whole = {name: value for name, value in asked.headers.items() if name not in _OF_EACH_REQUEST}
            connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=_trust())
            headers = {**whole, "accept-encoding": _ENCODINGS}
            self._session = aiohttp.ClientSession(connector=connector, headers=headers, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
        await self._client.__aexit__(kind, error, traceback)

    async def post(self, path: str, body: Mapping[str, Any]) -> str:
        """What comes back, whatever it is.

        Raises:
            openai.APIStatusError: the server refuses.
            openai.APIConnectionError: there is no answer; its cause says why.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        if self._session is None or not self._direct:
            return await self._by_client(path, content)
        if (url := self._urls.get(path)) is None:
            url = self._urls[path] = URL(str(self._request(path, b"").url), encoded=True)
        try:
            async with self._session.post(url, data=content, allow_redirects=False) as answer:
                raw = await answer.read()
        except Exception as error:
            raise openai.APIConnectionError(request=self._request(path, content)) from error
        if 200 <= answer.status < 300:
            return _text(raw, answer.charset)
        if answer.status in (307, 308):
            self._direct = False
            return await self._by_client(path, content)  # it follows; nothing was done with the request yet
        request = self._request(path, content)
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _OF_THE_BODY]
        response = _http_library().Response(answer.status, headers=kept, content=raw, request=request)
        try:
            await refuse_redirect(response)
        except RedirectedError as error:
            raise openai.APIConnectionError(request=request) from error
        raise _refused(response)

    def _request(self, path: str, content: bytes) -> Any:
        whole = f"{str(self._client.base_url).rstrip('/')}{path}"
        return self._http.build_request("POST", whole, params=self._query or None, content=content, headers=self._headers)

    async def _by_client(self, path: str, content: bytes) -> str:
        request = self._request(path, content)
        try:
            response = await self._http.send(request)
        except Exception as error:  # errors of several libraries, none of which is this module's to know
            raise openai.APIConnectionError(request=request) from error
        if response.is_success:
            return _text(response.content, response.charset_encoding)
        raise _refused(response)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop, which takes less CPU for a request; asyncio's own where it is not installed (Windows)."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return new_loop


@contextmanager
def rare_collection() -> Iterator[None]:
    """Python looks for cyclic garbage less often within, and not among what is there already: requests leave hardly any, and to
    look through all that waits to be sent takes long."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _through_proxy(host: str) -> bool:
    """Whether the environment, or the system, names a proxy for this host."""
    return bool(set(getproxies()) - {"no"}) and not proxy_bypass(host)


def _http_library() -> Any:
    """The library that openai's client is made with: httpx, or httpx2 in later versions."""
    return import_module(openai.DefaultAioHttpClient.__mro__[-2].__module__.partition(".")[0])


def _trust() -> ssl.SSLContext:
    """Whose certificates are trusted."""
    return _read_trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _read_trust(*named: str | None) -> ssl.SSLContext:
    """Once for all clients of a process: to read the certificates takes a tenth of a second."""
    context: ssl.SSLContext = _http_library().create_ssl_context()
    return context


def _text(raw: bytes, charset: str | None) -> str:
    """The body, which is UTF-8 as all JSON (RFC 8259), whatever the headers call it; else what they do call it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    try:
        return raw.decode(charset or "utf-8", "replace")
    except LookupError:  # no encoding is called so
        return raw.decode("utf-8", "replace")


def _refused(response: Any) -> openai.APIStatusError:
    """As openai's client raises it."""
    status, text = response.status_code, _text(response.content, response.charset_encoding).strip()
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    said = body.get("error", body) if isinstance(body, Mapping) else body
    kind = openai.RateLimitError if status == 429 else openai.InternalServerError if status >= 500 else openai.APIStatusError
    return kind(f"Error code: {status}", response=response, body=said)
