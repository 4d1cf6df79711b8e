"""Whether an endpoint's key is there; apart from the client, so that a plan need not import it."""

import os

from minilima.config import EndpointConfig


def missing_key(endpoint: EndpointConfig) -> bool:
    """True where the endpoint needs a key (OpenAI's own does) and the named variable is empty."""
    own_server = endpoint.base_url or os.environ.get("OPENAI_BASE_URL")
    return not own_server and not os.environ.get(endpoint.api_key_env)
