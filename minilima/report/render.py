"""Pages that ask nothing of the network: templates, the style, the scripts and the data in one HTML file.

    page/*.html.j2 + page/style.css + page/*.js + values ─> one file, by `render`
Text that models or users wrote is hostile until proven otherwise. It reaches a page in two ways only: through the template
engine, which escapes it, or as JSON in a data block, which the scripts show as text. The policy in the page's head allows
no connection at all, and no script but the one whose hash it names.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from minilima.console import duration
from minilima.environment import PACKAGE
from minilima.evaluate.significance import p_brief, p_text
from minilima.evaluate.statistics import Estimate

FOLDER = PACKAGE / "report" / "page"

_HARMFUL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # control characters: terminals obey them
    r"|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks that turn the order of what follows
    r"|[\u2028\u2029\ufeff]|[\ud800-\udfff]"  # other ends of lines; halves of characters, which no file can hold
)


def legible(text: str) -> str:
    """`text` with its invisible characters made visible, so that a reader sees what is there and nothing is obeyed."""
    return _HARMFUL.sub(lambda match: _visible(ord(match[0])), text.replace("\r\n", "\n"))


def _visible(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)  # the pictures that Unicode has of them
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"⟨U+{code:04X}⟩"


def embed(data: object) -> Markup:
    """JSON for a data block of a page: no character in it can end the block, or begin anything else."""
    text = json.dumps(_legible(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped just above


def _legible(value: Any) -> Any:
    if isinstance(value, str):
        return legible(value)
    if isinstance(value, dict):
        return {legible(name): _legible(item) for name, item in value.items()}
    return [_legible(item) for item in value] if isinstance(value, list | tuple) else value


def render(template: str, *, scripts: tuple[str, ...] = (), data: object = None, live: bool = False, **values: Any) -> str:
    """A whole page.

    Args:
        template: the name of a file in page/.
        scripts: files in page/ that run in it.
        data: what the scripts read, from the block #rows.
        live: whether the page may ask the server that it comes from.
        values: what the template names.
    """
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in ("theme.js", *scripts))
    asking = "connect-src 'self'; " if live else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - ours
            script=Markup(script),  # noqa: S704 - ours
            policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            f"{asking}base-uri 'none'; form-action 'none'",
            data=None if data is None else embed(data),
            written=datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
            **values,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: legible(value) if type(value) is str else value,
    )
    filters: dict[str, Callable[..., Any]] = {
        "signed": lambda value, digits=3: f"{value:+.{digits}f}",
        "fixed": lambda value, digits=1: f"{value:,.{digits}f}",
        "thousands": lambda value: f"{value:,}",
        "duration": duration,
        "dollars": dollars,
        "p_value": p_text,
        "p_brief": p_brief,
    }
    environment.filters.update(filters)
    return environment


def dollars(usd: float | None) -> str:
    """A price; what is not known is said to be so."""
    if usd is None:
        return "not known"
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def interval(estimate: Estimate, low: float, high: float, neutral: float) -> dict[str, float]:
    """Percentages along an axis from `low` to `high`; at `neutral` there is no effect."""

    def along(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    start, end = along(estimate.low), along(estimate.high)
    return {"low": start, "width": round(end - start, 2), "value": along(estimate.value), "neutral": along(neutral)}
