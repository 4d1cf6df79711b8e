"""What a conversation shows on the terminal, and reads from it: texts that are still being written, and single keys."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.cells import cell_len
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from minilima import console


@contextmanager
def text_wrapped() -> Iterator[Callable[[str], None]]:
    """A text that is being written, shown by calling what this yields with each piece; on a terminal lines end between words."""
    words = _Words()
    try:
        yield words.show
    finally:
        words.end()


class _Words:
    """Shows a growing text word by word: one that does not fit into the terminal's line begins the next line."""

    def __init__(self) -> None:
        self._column = 0
        self._word = ""

    def show(self, piece: str) -> None:
        if not console.terminal().is_terminal:
            console.say_piece(piece)
            return
        for char in console.plain(piece):
            if char == "\n":
                self.end()
                console.say_piece(char)
                self._column = 0
            elif char == " " or cell_len(char) > 1:  # Chinese and Japanese have no spaces: each sign may begin a line
                self.end()
                self._word = char
                self.end()
            else:
                self._word += char

    def end(self) -> None:
        """Shows the word that was begun."""
        if self._column + cell_len(self._word) > console.terminal().width and self._column:
            console.say_piece("\n")
            self._column, self._word = 0, self._word.lstrip(" ")
        console.say_piece(self._word)
        self._column, self._word = self._column + cell_len(self._word), ""


@contextmanager
def keys_unseen() -> Iterator[None]:
    """Until the block ends, what is typed is kept for whoever reads next and does not appear in the text being written."""
    if not sys.stdin.isatty():
        yield
        return
    import termios

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


_COLUMNS_WIDE = 90
"""Columns of a terminal in which two texts can stand beside each other."""


@contextmanager
def texts_beside(titles: Sequence[str]) -> Iterator[Callable[[int, str], None]]:
    """Texts that are being written, beside each other on a wide terminal, one after another elsewhere.

    Yields:
        What to call with the number of a text and its next piece; a text is ended before the next one begins.
    """
    if not console.terminal().is_terminal or console.terminal().width < _COLUMNS_WIDE:
        begun: dict[int, _Words] = {}

        def follow(number: int, piece: str) -> None:
            if number not in begun:
                for words in begun.values():
                    words.end()
                console.say(f"{chr(10) if begun else ''}{titles[number]}:", "bold")
                begun[number] = _Words()
            begun[number].show(piece)

        yield follow
        for words in begun.values():
            words.end()
        console.say_piece("\n\n")
        return
    texts = [Text() for _ in titles]
    room, inside = max(3, console.terminal().height - _AROUND_TEXTS), console.terminal().width // len(titles) - _BESIDE_TEXT

    def ends() -> list[Text]:
        """The last lines, as many as the screen holds: what has left it cannot be drawn again."""
        return [Text("\n").join(text.wrap(console.terminal(), inside)[-room:]) for text in texts]

    with Live(_beside(titles, texts), console=console.terminal(), transient=True, refresh_per_second=8) as live:

        def append(number: int, piece: str) -> None:
            texts[number].append(console.plain(piece))
            live.update(_beside(titles, ends()))

        yield append
    console.terminal().print(_beside(titles, texts))


_AROUND_TEXTS = 4
"""Lines of the screen that are not the texts': their borders, and a line for the cursor."""
_BESIDE_TEXT = 5
"""Columns of a text's border and of the gap to the next one."""


def _beside(titles: Sequence[str], texts: Sequence[Text]) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    for _ in titles:
        grid.add_column(ratio=1)
    grid.add_row(*(Panel(text, title=escape(console.plain(title))) for text, title in zip(texts, titles, strict=True)))
    return grid


def read_key(question: str, keys: Sequence[str]) -> str | None:
    """Asks for one of the keys: a press on a terminal, the first letter of a line from a pipe; None where the input ended."""
    console.say_piece(question)
    while True:
        pressed = _pressed() if sys.stdin.isatty() else sys.stdin.readline()
        if not pressed or pressed in ("\x03", "\x04"):
            console.say_piece("\n")
            return None
        key = pressed.lower() if sys.stdin.isatty() else pressed.strip()[:1].lower()
        if key in keys:
            console.say_piece(f"{key}\n")
            return key


def _pressed() -> str:
    """One key, without Enter; what was typed before it was asked for is dropped. An arrow sends several characters at once, whose
    last is a letter: they come as one, which is no key of ours."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        return os.read(terminal, 64).decode(errors="replace")
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
