"""Where an endpoint is: its address as it was given, copied with a path or with Azure's api-version, and a client for it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from minilima.config.schema import EndpointConfig

if TYPE_CHECKING:
    import openai

FORM = "it usually ends in /v1, without /chat/completions, as in http://localhost:8000/v1"
"""How an address looks."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where requests go: what stands before the paths, and what each of them carries."""

    base_url: str | None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def address_of(endpoint: EndpointConfig) -> Address:
    """The address of an endpoint, also where it was copied with a path of the API or with Azure's api-version."""
    url = endpoint.base_url or os.environ.get("OPENAI_BASE_URL")
    if not url:
        return Address(base_url=None)
    parts = urlsplit(url)
    path = re.sub(r"/(chat/completions|completions|models|responses)/?$", "", parts.path.rstrip("/"))
    host = (parts.hostname or "").lower()
    key = os.environ.get(endpoint.api_key_env)
    query = dict(parse_qsl(parts.query))
    azure = (host.endswith((".azure.com", ".azure.us", ".azure.cn")) or "api-version" in query) and key
    return Address(
        base_url=urlunsplit((parts.scheme, parts.netloc, path, "", "")),
        query=query,
        headers={"api-key": key} if azure and key else {},
    )


def address_text(endpoint: EndpointConfig) -> str:
    """The address of an endpoint for people, and as a name of it."""
    return address_of(endpoint).base_url or "OpenAI"


def open_client(endpoint: EndpointConfig) -> "openai.OpenAI":
    """A client for single calls that are not worth many at once."""
    key, address = os.environ.get(endpoint.api_key_env) or "none", address_of(endpoint)
    import openai  # half a second that a plan does not need

    return openai.OpenAI(
        api_key=key, base_url=address.base_url, default_query=address.query, default_headers=address.headers, max_retries=2
    )
