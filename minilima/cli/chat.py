"""The verb `chat`: a conversation with a run's tuned model, alone or beside another model, open or blind."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minilima.cli.options import Parser
from minilima.errors import MinilimaError

if TYPE_CHECKING:
    import argparse

    from minilima.cli.chat_session import Speaker
    from minilima.report.finished import OpenedRun


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "chat",
        summary="talk to a tuned model, or compare it blind with another one",
        description="A conversation with the tuned model of a finished run. Enter sends; a line that ends in \\ goes on in the "
        "next one; /help lists the commands. With --against both models answer. With --blind their names are hidden, a key "
        "chooses the better answer, and the choices become a file of labelled pairs that agreement and score read.",
        examples=("chat outputs/runs/quickstart-0123abcd", "chat outputs/runs/quickstart-0123abcd --against base --blind"),
    )
    parser.add_argument("run", metavar="RUN", help="a finished run: its folder, or how its name in outputs/runs begins")
    parser.add_argument("--against", metavar="base|OTHER", help="base, another run, or a model's folder or hub name")
    parser.add_argument("--blind", action="store_true", help="with --against: hide the names, choose the better answer by a key")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="with --blind: ask the prompts of an evaluation set in turn")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="where --blind adds its pairs (default: outputs/labels/)")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="most tokens of an answer (default: 512)")
    parser.set_defaults(handler=handle)


def handle(*, run: str, against: str | None, blind: bool, prompts: Path | None, labels: Path | None, max_tokens: int) -> int:
    """Talks until the input ends or /quit."""
    from minilima.cli.chat_blind import compare_blind, labels_file
    from minilima.cli.chat_session import converse
    from minilima.models.chat import Sampling
    from minilima.report.finished import open_run

    if ((option := "--prompts" if prompts else "--labels" if labels else "") and not blind) or (blind and against is None):
        raise MinilimaError(
            "This chat command cannot be read.",
            f"{option} belongs to --blind." if option and not blind else "--blind needs --against.",
            "For example: minilima chat outputs/runs/quickstart-0123abcd --against base --blind",
        )
    if max_tokens < 1:
        fix = "For example: minilima chat outputs/runs/quickstart-0123abcd --max-tokens 256"
        raise MinilimaError("This chat command cannot be read.", f"--max-tokens is {max_tokens}; it must be 1 or more.", fix)
    opened = open_run(run)
    setting = opened.settings.get
    sampling = Sampling(
        temperature=setting("eval.temperature", 0.0),
        top_p=setting("eval.top_p", 1.0),
        repetition_penalty=setting("eval.repetition_penalty"),
        max_tokens=max_tokens,
    )
    found = _Found(name=opened.name, location=str(opened.model), run=opened)
    against_it = _other(against, opened) if against else None
    if against_it is not None and Path(against_it.location).resolve() == Path(found.location).resolve():
        raise MinilimaError(
            "A model cannot be compared with itself.", f"{against} is the model of {opened.name}.",
            "Name another one: --against base, or another run.",
        )  # fmt: skip
    tuned, other = _speaker(found), _speaker(against_it) if against_it else None
    if not blind or other is None:
        converse([tuned, *([other] if other else [])], sampling)
        return 0
    compare_blind(tuned, other, sampling, prompts=prompts, labels=labels or labels_file(opened.folder, other.name))
    return 0


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A model before it is loaded: its name, a folder or owner/name@commit, and the run whose settings hold for it."""

    name: str
    location: str
    run: "OpenedRun | None" = None


def _other(against: str, run: "OpenedRun") -> _Found:
    """The model named by --against.

    Raises:
        MinilimaError: it is neither base, nor a run, nor a model.
    """
    from minilima.models.packaged import PACKAGED
    from minilima.report.finished import open_run

    if against in ("base", run.base.name):
        if not run.base.location:
            raise MinilimaError(
                f"The base model of {run.name} is no longer in the store.",
                f"It is the packaged model {run.base.name}, which the stage base unpacks.",
                "Run its command again, which builds what is missing.",
            )
        return _Found(name=run.base.name, location=run.base.location, run=run)
    if (Path(against) / "config.json").is_file():
        return _Found(name=Path(against).resolve().name, location=against)
    try:
        other = open_run(against)
    except MinilimaError:
        if against.count("/") == 1 and not Path(against).exists() and against not in PACKAGED:
            return _Found(name=against, location=against)
        raise
    # Folders of results that were copied hold runs of the same name.
    return _Found(name=against if other.name == run.name else other.name, location=str(other.model), run=other)


def _speaker(found: _Found) -> "Speaker":
    from transformers.utils import logging

    from minilima.cli.chat_session import Speaker
    from minilima.models.streaming import StreamedModel

    logging.disable_progress_bar()

    thinking = found.run.settings.get("model.thinking") if found.run else None
    return Speaker(name=found.name, model=StreamedModel(found.location, thinking=thinking))
