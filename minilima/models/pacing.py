"""How fast an endpoint is asked: how many requests at once, and how long to wait after one that failed."""

import email.utils
import math
import random
import re
import time

import openai

from minilima.config.schema import EndpointConfig
from minilima.errors import MinilimaError

FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 60.0
_LONGEST_RETRY_AFTER_SECONDS = 366 * 86_400.0
"""A later day is not shown."""
_IN_WORDS = re.compile(
    r"(?:retryDelay\W+|(?:again|retry) (?:in|after) )(?:(?P<minutes>\d+)m)?(?P<value>\d+(?:\.\d+)?) ?(?P<unit>ms|s)",
    re.IGNORECASE,
)
"""`"retryDelay": "34s"`, `Please try again in 1m7.66s`, `Retry after 120ms`."""
_CUT = 0.5
_SECONDS_BETWEEN_CUTS = 1.0


def pause_after(error: Exception | None, attempt: int) -> float:
    """Seconds before the next try: what Retry-After says, else growing from half a second, spread at random.

    0 where the endpoint is well and only its reply was of no use.
    """
    if not isinstance(error, openai.OpenAIError | TimeoutError):
        return 0.0
    if isinstance(error, openai.APIStatusError):
        asked = _asked_for(error)
        if asked is not None:
            return max(0.0, asked)
    grown: float = FIRST_PAUSE_SECONDS * 2**attempt
    return min(_LONGEST_PAUSE_SECONDS, grown) * random.uniform(0.5, 1.0)


def _asked_for(error: openai.APIStatusError) -> float | None:
    """The pause that a server asks for, in seconds: in a header, or in its words (Gemini, Groq); None where it asks for none."""
    headers = error.response.headers
    if (milliseconds := headers.get("retry-after-ms", "")).replace(".", "", 1).isdecimal():
        return float(milliseconds) / 1000
    if (header := headers.get("retry-after")) is not None:
        return _seconds(header)
    said = _IN_WORDS.search(error.response.text) if error.status_code in (429, 503) else None
    return float(said["value"]) * (0.001 if said["unit"] == "ms" else 1.0) + 60 * float(said["minutes"] or 0) if said else None


def _seconds(header: str) -> float:
    """Retry-After in seconds: it is a number or an HTTP date (RFC 9110, section 10.2.3)."""
    try:
        seconds = float(header.strip().removesuffix("s"))
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return FIRST_PAUSE_SECONDS
    return min(seconds, _LONGEST_RETRY_AFTER_SECONDS) if not math.isnan(seconds) else FIRST_PAUSE_SECONDS


def too_long_a_wait(pause: float, endpoint: EndpointConfig) -> MinilimaError:
    """What to say where an endpoint asks to wait for so many seconds, which is longer than its setting allows."""
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + pause))
    return MinilimaError(
        f"{endpoint.base_url or 'OpenAI'} asks to wait {pause:,.0f} seconds, until {until}.",
        f"Its Retry-After is longer than longest_wait_seconds={endpoint.longest_wait_seconds:,.0f} of the endpoint.",
        "Run the same command again then: every reply that arrived is kept. To wait within the run, raise that setting.",
    )


class Throttle:
    """A limit between 1 and `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self._last_cut = float("-inf")

    def answered(self) -> None:
        """A reply came: one more request in flight after about `limit` of them."""
        self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def busy(self, now: float) -> None:
        """The endpoint said that it is busy: half as many, once for all requests that were refused together."""
        if now - self._last_cut >= _SECONDS_BETWEEN_CUTS:
            self.limit = max(1.0, self.limit * _CUT)
            self._last_cut = now
