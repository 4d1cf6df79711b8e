"""A blind comparison in the terminal: two answers without names, a key for the better one, a win rate with its interval.

prompt ─> both models, in an order drawn for each prompt ─> a key ─> a row of the labels' file ─> win rate over its rows
The rows are labelled pairs as `agreement` reads them, with the names that `score` needs; each is written when it is chosen.
"""

import json
import random
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minilima import console
from minilima.cli import chat_screen
from minilima.cli.chat_session import Speaker, Talk, lines, spoken
from minilima.cli.options import plain_line
from minilima.errors import MinilimaError
from minilima.evaluate.statistics import win_rate
from minilima.formats.files import read_jsonl
from minilima.formats.records import TIE, EvalPrompt, shown_turns
from minilima.models.chat import Sampling

_KEYS = {"a": "A is better", "b": "B is better", "t": "no difference", "s": "skip", "q": "end"}
_LETTERS = ("A", "B")
ANNOTATOR = "me, blind"


def labels_file(run: Path, other: str) -> Path:
    """Where the pairs of a run and another model are kept: outputs/labels/RUN_against_OTHER.jsonl, from where the user is."""
    here, run = Path.cwd(), run.resolve()
    file = run.parent.parent / "labels" / f"{run.name}_against_{other.replace('/', '_')}.jsonl"
    return file.relative_to(here) if file.is_relative_to(here) else file


def compare_blind(tuned: Speaker, other: Speaker, sampling: Sampling, *, prompts: Path | None, labels: Path) -> None:
    """Compares until the prompts or the input end, then shows the win rate over all rows of the file.

    Raises:
        MinilimaError: the prompts cannot be read, or the labels' file belongs to other models.
    """
    names = (other.name, tuned.name)
    _check_labels(labels, names)
    console.say(f"Two models answer each prompt, A and B in an order that is drawn. Pairs: {labels}", "dim")
    done = {row["instruction"] for row in _rows(labels)}
    for prompt in _prompts(prompts, done):
        try:
            if not _compare_one(prompt, tuned, other, sampling, labels):
                break
        except MinilimaError as error:  # a prompt that is longer than a model's context, for example
            console.complain(error)
    show_win_rate(labels, names)


def _prompts(file: Path | None, done: set[str]) -> Iterator[EvalPrompt]:
    """Typed ones, or those of the file that are not labelled yet."""
    if file is None:
        yield from (EvalPrompt(id="", instruction=prompt) for prompt in lines("prompt> "))
        return
    from minilima.formats.eval_sets import load_eval_set

    left = [prompt for prompt in load_eval_set(file, None) if prompt.instruction not in done]
    for number, prompt in enumerate(left, start=1):
        console.say(f"\nprompt {number} of {len(left)}: {prompt.instruction}", "bold")
        yield prompt


def _compare_one(prompt: EvalPrompt, tuned: Speaker, other: Speaker, sampling: Sampling, labels: Path) -> bool:
    """Shows both answers and keeps the choice; False where the comparison ends."""
    # The order must not follow from the prompt alone: a second look at it would show the same sides.
    order = [0, 1]
    random.SystemRandom().shuffle(order)
    speakers = (other, tuned)
    answers = [""] * 2
    with chat_screen.texts_beside(_LETTERS) as show:
        for number, which in enumerate(order):
            talk = Talk(sampling=sampling)
            for turn in prompt.asked:
                show(number, f"\n\n> {turn}\n\n" if talk.histories else "")
                spoken(talk, speakers[which], turn, partial(show, number))
            said = [message.content for message in talk.histories[speakers[which].name] if message.role == "assistant"]
            answers[which] = shown_turns(said)
    key = chat_screen.read_key(", ".join(f"{key} = {meaning}" for key, meaning in _KEYS.items()) + "? ", tuple(_KEYS))
    if key in (None, "q"):
        return False
    if key == "s":
        return True
    preference = TIE if key == "t" else 1.0 + order["ab".index(key)]
    row: dict[str, Any] = {
        "instruction": prompt.instruction, "output_1": answers[0], "generator_1": other.name, "output_2": answers[1],
        "generator_2": tuned.name, "annotator": ANNOTATOR, "preference": preference, "shown_first": order[0] + 1,
    }  # fmt: skip
    if prompt.output:
        row["reference"] = prompt.output  # which judge=reference needs, when it is measured on these pairs
    labels.parent.mkdir(parents=True, exist_ok=True)
    with labels.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return True


def _rows(labels: Path) -> list[Mapping[str, Any]]:
    return list(read_jsonl(labels)) if labels.is_file() else []


def _check_labels(labels: Path, names: tuple[str, str]) -> None:
    """Refuses to mix the pairs of other models into one win rate."""
    for row in _rows(labels):
        if (row.get("generator_1"), row.get("generator_2")) != names:
            raise MinilimaError(
                f"{labels} holds pairs of other models.",
                f"They are of {row.get('generator_2')} against {row.get('generator_1')}.",
                "Name another file: --labels FILE",
            )


def show_win_rate(labels: Path, names: tuple[str, str]) -> None:
    """The win rate of the second model over all pairs of the file, and what reads the file."""
    rate = win_rate([row["preference"] for row in _rows(labels)])
    if rate is None:
        console.say("\nNo pair was labelled.")
        return
    console.say(
        f"\nWin rate of {names[1]} against {names[0]}: {rate.win_rate.text('.1f', ' %')} "
        f"({rate.wins} won, {rate.losses} lost, {rate.ties} tied; {console.count(rate.judged, 'pair')}).", "bold"
    )  # fmt: skip
    console.say(plain_line("score", str(labels)), whole=True)
    console.say(f"{plain_line('agreement', '--labels', str(labels))} judge=…", whole=True)
