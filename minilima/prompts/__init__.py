"""Prompts are files: `render("pool/instructions", tasks=[…])` fills minilima/prompts/pool/instructions.j2."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent


@cache
def _environment() -> Environment:
    # Not HTML: prompts are sent as they are.
    return Environment(  # noqa: S701
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )


def render(name: str, **values: Any) -> str:
    """The text of a prompt file with its values filled in."""
    return _environment().get_template(f"{name}.j2").render(**values).strip()
