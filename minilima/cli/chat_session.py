"""A conversation in the terminal: lines in, streamed answers out, and the commands that begin with a slash.

a line ─┬─ /system /temperature /save /reset /help /quit ─> the talk's state
        └─ anything else ─> each speaker's answer, which enters its own history
On a terminal prompt_toolkit reads the lines, with a history and an editor; from a pipe they are read as they are.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from minilima import console
from minilima.cli import chat_screen
from minilima.errors import MinilimaError, options
from minilima.formats.files import write_atomic
from minilima.models.chat import Message, Sampling


class Streamed(Protocol):
    """What a conversation needs of a model."""

    def fitting(self, messages: Sequence[Message], max_tokens: int) -> list[Message]:
        """The conversation without the turns that do not fit."""

    def stream(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Iterator[str]:
        """The pieces of a reply."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """A model with the name under which it speaks."""

    name: str
    model: Streamed


@dataclass(kw_only=True)
class Talk:
    """A conversation as it stands."""

    sampling: Sampling
    system: str | None = None
    histories: dict[str, list[Message]] = field(default_factory=dict)
    turns: int = 0

    def messages(self, speaker: str) -> list[Message]:
        """What this speaker has heard and said."""
        system = [Message(role="system", content=self.system)] if self.system else []
        return [*system, *self.histories.get(speaker, [])]

    def reset(self) -> None:
        """Forgets what was said; the system message and the temperature stay."""
        self.histories.clear()
        self.turns = 0


def converse(speakers: Sequence[Speaker], sampling: Sampling) -> None:
    """Reads lines and answers them until the input ends."""
    talk = Talk(sampling=sampling)
    console.say(f"{' and '.join(speaker.name for speaker in speakers)}. /help lists the commands; /quit or Ctrl-D ends.", "dim")
    for line in lines("you> "):
        try:
            if line.startswith("/"):
                if obey(talk, line):
                    return
                continue
            talk.turns += 1
            _answer(talk, speakers, line)
        except MinilimaError as error:
            console.complain(error)


def _answer(talk: Talk, speakers: Sequence[Speaker], line: str) -> None:
    """The answer of each speaker; those of two beside each other where there is room."""
    if len(speakers) == 1:
        with chat_screen.text_wrapped() as show:
            text = spoken(talk, speakers[0], line, show)
        console.say_piece("\n" if text.endswith("\n") else "\n\n")
        return
    with chat_screen.texts_beside([speaker.name for speaker in speakers]) as show:
        for number, speaker in enumerate(speakers):
            spoken(talk, speaker, line, partial(show, number))


def spoken(talk: Talk, speaker: Speaker, line: str, show: Callable[[str], None]) -> str:
    """The speaker's answer, each piece shown as it comes; Ctrl-C ends it, and what was said until then is kept."""
    heard = [*talk.messages(speaker.name), Message(role="user", content=line)]
    heard = speaker.model.fitting(heard, talk.sampling.max_tokens)
    pieces: list[str] = []
    try:
        with chat_screen.keys_unseen(), closing(speaker.model.stream(heard, talk.sampling, talk.turns)) as stream:  # type: ignore[type-var]
            for piece in stream:
                pieces.append(piece)
                show(piece)
    except KeyboardInterrupt:
        show(" …")
    text = "".join(pieces)
    said = [Message(role="user", content=line), Message(role="assistant", content=text)]
    talk.histories.setdefault(speaker.name, []).extend(said)
    return text


_HELP = {
    "/system TEXT": "set the system message and begin again; without TEXT: none",
    "/temperature N": "0 = always the likeliest word; higher = more varied",
    "/save FILE": "write the conversation as JSON, also the other model's",
    "/reset": "begin again",
    "/help": "this list",
    "/quit": "end",
}


def obey(talk: Talk, line: str) -> bool:
    """Carries out a command; True where the talk ends.

    Raises:
        MinilimaError: there is no such command, or what follows it is wrong.
    """
    command, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    if command == "/quit":
        return True
    if command == "/help":
        console.show_table(("command", "meaning"), list(_HELP.items()))
        console.say("Alt-Enter, or \\ at the end of a line, begins a new line in the same message.")
    elif command == "/reset":
        talk.reset()
        console.say("The conversation begins again.", "dim")
    elif command == "/system":
        talk.system = rest or None
        talk.reset()
        console.say("The system message is set; the conversation begins again." if rest else "No system message.", "dim")
    elif command == "/temperature":
        talk.sampling = replace(talk.sampling, temperature=_temperature(rest))
        console.say(f"The temperature is {talk.sampling.temperature:g}.", "dim")
    elif command == "/save":
        _save(talk, rest)
    else:
        raise MinilimaError(
            f"There is no command {command}.",
            f"The commands are: {options(name.partition(' ')[0] for name in _HELP)}.",
            "A message that begins with a slash can be sent with a space before it.",
        )
    return False


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise MinilimaError(f"{text!r} is no temperature.", "It is a number from 0 to 2.", "For example: /temperature 0.7")
    return value


def _save(talk: Talk, name: str) -> None:
    if not name:
        raise MinilimaError("/save names no file.", "The conversation is written into one.", "For example: /save talk.json")
    said = {
        speaker: [{"role": message.role, "content": message.content} for message in talk.messages(speaker)]
        for speaker in talk.histories
    }
    record = {"temperature": talk.sampling.temperature, "conversations": said}
    try:
        write_atomic(Path(name).expanduser(), json.dumps(record, ensure_ascii=False, indent=2) + "\n")
    except OSError as error:
        fix = "Name another file: /save talk.json"
        raise MinilimaError(f"{name} cannot be written.", f"{error.strerror or error}.", fix) from None
    console.say(f"Wrote {name}.", "dim")


def lines(prompt: str) -> Iterator[str]:
    """Messages of the user, each of one line or several, until the input ends; empty ones are passed over."""
    read = _terminal_reader(prompt) if sys.stdin.isatty() else _pipe_reader()
    while (line := read()) is not None:
        if line.strip():
            yield line


def _pipe_reader() -> Callable[[], str | None]:
    def read() -> str | None:
        parts: list[str] = []
        while line := sys.stdin.readline():
            text = line.rstrip("\n")
            if not text.endswith("\\"):
                return "\n".join([*parts, text])
            parts.append(text[:-1])
        return "\n".join(parts) if parts else None

    return read


def _terminal_reader(prompt: str) -> Callable[[], str | None]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from minilima.models.packaged import user_cache

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    user_cache().mkdir(parents=True, exist_ok=True)
    history = FileHistory(str(user_cache() / "chat_history"))
    session: PromptSession[str] = PromptSession(history=history, key_bindings=keys, multiline=True)

    def read() -> str | None:
        try:
            return session.prompt(prompt)
        except EOFError:
            return None
        except KeyboardInterrupt:
            return ""

    return read
