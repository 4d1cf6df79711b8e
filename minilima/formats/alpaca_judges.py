"""Finds and reads judges of the alpaca-eval package (its evaluators_configs), or files in their format.

The package itself is not imported: a plan reads them too.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from minilima.errors import MinilimaError, options

OPENAI = "openai_completions"
"""`fn_completions` of annotators that ask an OpenAI-compatible endpoint."""


RETIRED = (
    "gpt-3.5-turbo", "gpt-3.5-turbo-0125", "gpt-3.5-turbo-0301", "gpt-3.5-turbo-16k-0613", "gpt-4", "gpt-4-0613",
    "gpt-4-1106-preview", "gpt-4-turbo", "gpt-4-turbo-2024-04-09", "gpt-4o-2024-05-13", "gpt-4.1-nano", "o1", "o3-mini",
    "o4-mini",
)  # fmt: skip
"""Models, most of them asked by judges of alpaca_eval 0.6.6, that OpenAI does not offer any more: the last were shut down on
2026-10-23 (https://developers.openai.com/api/docs/deprecations)."""


def find_annotators(name: str | None) -> Path:
    """The configs.yaml of a judge.

    Args:
        name: of a judge in the package, or a configs.yaml or its folder; None is refused.

    Raises:
        MinilimaError: there is none of that name, or the package is not installed.
    """
    spec = find_spec("alpaca_eval")
    if spec is None or not spec.submodule_search_locations:
        raise MinilimaError(
            "alpaca_eval is not installed.", "judge=alpaca_eval runs the real package.", "Install it: pip install alpaca-eval"
        )
    packaged = Path(spec.submodule_search_locations[0]) / "evaluators_configs"
    for path in (packaged / (name or " "), Path(name or " ").absolute()):
        file = path / "configs.yaml" if path.is_dir() else path
        if file.is_file():
            return file
    known = options(sorted(folder.parent.name for folder in packaged.glob("*/configs.yaml")))
    raise MinilimaError(
        f"judge.annotators_config={name} does not exist.",
        f"The package has: {known}.",
        "Name one of them, or a configs.yaml of your own.",
    )


def read_annotators(file: Path) -> dict[str, dict[str, Any]]:
    """The annotators in a configs.yaml, by name, each with the text of its prompt instead of its path.

    Raises:
        MinilimaError: it is no such file, or a prompt is missing.
    """
    try:
        parsed = OmegaConf.to_container(OmegaConf.load(file))
    except (OmegaConfBaseException, OSError, ValueError) as error:
        raise _unreadable(file, str(error).splitlines()[0]) from None
    if not isinstance(parsed, dict) or not all(isinstance(item, dict) and "prompt_template" in item for item in parsed.values()):
        raise _unreadable(file, "it is not a mapping of names to annotators with a prompt_template")
    annotators = {}
    for name, annotator in parsed.items():
        # Relative to the folder of all annotators, as in the package.
        prompt = file.parent.parent / str(annotator["prompt_template"])
        if not prompt.is_file():
            raise _unreadable(file, f"its prompt {prompt} is not there")
        annotators[str(name)] = {**annotator, "prompt_template": prompt.read_text(encoding="utf-8")}
    return annotators


def _unreadable(file: Path, why: str) -> MinilimaError:
    return MinilimaError(
        f"{file} cannot be read as annotators of alpaca_eval.", f"{why.rstrip('.')}.", "Correct it, or name another."
    )
