"""The only module that prints: the plan, one calm line a stage, the result, and errors as one paragraph.

On a terminal the running stage has a live line; elsewhere a plain line when it starts, when it is done, and now and then
between; in CI the first and the last alone. Text written by models or users is shown through `plain`, which takes control
characters out.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as LiveProgress
from rich.table import Column, Table
from rich.text import Text

from minilima.errors import MinilimaError
from minilima.formats.records import Progress

_out = RichConsole(highlight=False, soft_wrap=False)
_err = RichConsole(stderr=True, highlight=False, soft_wrap=True)

_STATUS_STYLE = {"reuse": "green", "reused": "green", "build": "yellow", "resume": "yellow", "built": "bold", "waited": "green"}
_LEVEL_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_PLAIN_LINE_SECONDS = 20.0
_LONGEST_PIECE = 600
_PACE_AFTER_SECONDS = 2.0
_TICK_SECONDS = 1.0
_ROOM_FOR_BARS = 100
"""Columns of a terminal with room for a long bar beside the words."""
_SPANS = ((1, "s"), (60, "min"), (3600, "h"))


def plain(text: str) -> str:
    """`text` without control characters, so that no model output can drive the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


@contextmanager
def speaking_aside() -> Iterator[None]:
    """Until the block ends, everything but `say_raw` goes to standard error: standard output is for a program that reads it."""
    global _out
    usual, _out = _out, RichConsole(stderr=True, highlight=False, soft_wrap=False)
    try:
        yield
    finally:
        _out = usual


def say(text: str = "", style: str | None = None, *, whole: bool = False) -> None:
    """One line for the user; `whole` where something in it is to be copied, so that only the terminal itself breaks it."""
    _out.print(Text(plain(text)), style=style, soft_wrap=whole)


def say_piece(text: str) -> None:
    """A piece of a text that is still being written."""
    sys.stdout.write(plain(text))
    sys.stdout.flush()


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
        if not _out.is_terminal:
            say_piece(piece)
            return
        for char in plain(piece):
            if char == "\n":
                self.end()
                say_piece(char)
                self._column = 0
            elif char == " " or cell_len(char) > 1:  # Chinese and Japanese have no spaces: each sign may begin a line
                self.end()
                self._word = char
                self.end()
            else:
                self._word += char

    def end(self) -> None:
        """Shows the word that was begun."""
        if self._column + cell_len(self._word) > _out.width and self._column:
            say_piece("\n")
            self._column, self._word = 0, self._word.lstrip(" ")
        say_piece(self._word)
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
    if not _out.is_terminal or _out.width < _COLUMNS_WIDE:
        begun: dict[int, _Words] = {}

        def follow(number: int, piece: str) -> None:
            if number not in begun:
                for words in begun.values():
                    words.end()
                say(f"{chr(10) if begun else ''}{titles[number]}:", "bold")
                begun[number] = _Words()
            begun[number].show(piece)

        yield follow
        for words in begun.values():
            words.end()
        say_piece("\n\n")
        return
    texts = [Text() for _ in titles]
    room, inside = max(3, _out.height - _AROUND_TEXTS), _out.width // len(titles) - _BESIDE_TEXT

    def ends() -> list[Text]:
        """The last lines, as many as the screen holds: what has left it cannot be drawn again."""
        return [Text("\n").join(text.wrap(_out, inside)[-room:]) for text in texts]

    with Live(_beside(titles, texts), console=_out, transient=True, refresh_per_second=8) as live:

        def append(number: int, piece: str) -> None:
            texts[number].append(plain(piece))
            live.update(_beside(titles, ends()))

        yield append
    _out.print(_beside(titles, texts))


_AROUND_TEXTS = 4
"""Lines of the screen that are not the texts': their borders, and a line for the cursor."""
_BESIDE_TEXT = 5
"""Columns of a text's border and of the gap to the next one."""


def _beside(titles: Sequence[str], texts: Sequence[Text]) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    for _ in titles:
        grid.add_column(ratio=1)
    grid.add_row(*(Panel(text, title=escape(plain(title))) for text, title in zip(texts, titles, strict=True)))
    return grid


def read_key(question: str, keys: Sequence[str]) -> str | None:
    """Asks for one of the keys: a press on a terminal, the first letter of a line from a pipe; None where the input ended."""
    say_piece(question)
    while True:
        pressed = _pressed() if sys.stdin.isatty() else sys.stdin.readline()
        if not pressed or pressed in ("\x03", "\x04"):
            say_piece("\n")
            return None
        key = pressed.lower() if sys.stdin.isatty() else pressed.strip()[:1].lower()
        if key in keys:
            say_piece(f"{key}\n")
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


def say_raw(text: str) -> None:
    """Text as it is, without wrapping: for output that other programs read."""
    sys.stdout.write(text + "\n")


def complain(error: MinilimaError) -> None:
    """The user's mistake or obstacle: what, why, what to type next."""
    _err.print(f"[bold red]{escape(plain(error.what))}[/] {escape(plain(error.why))} [bold]{escape(plain(error.fix))}[/]")


def warn(text: str) -> None:
    """A line beside the result that must not be taken for a part of it."""
    _err.print(Text(plain(text)), style="dim")


_WIDE = 130
"""Columns of a terminal that has room for the names of store entries too."""


def width() -> int:
    """Columns of the terminal, 80 where there is none."""
    return _out.width


def show_plan(title: str, figures: Sequence[str], rows: Sequence[tuple[str, str, str, Sequence[str], str]]) -> None:
    """The plan: (stage, status, what it is, a cell for each of `figures`, store entry) a row."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("what", overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    wide = _out.width >= _WIDE
    if wide:
        table.add_column("store entry", no_wrap=True)
    for stage, status, what, cells, directory in rows:
        parts: list[str | Text] = [stage, Text(status, style=_STATUS_STYLE.get(status, "")), plain(what), *cells]
        table.add_row(*parts, *([Text(directory, style="dim")] if wide else []), style="bold" if stage == "in all" else "")
    _out.print(table)


def show_result(rows: Sequence[tuple[str, str, str]]) -> None:
    """What was not built just now: (stage, reused or waited for, what came out) a row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", header_style="dim")
    table.add_column("", header_style="dim")
    table.add_column("what came out", header_style="dim", overflow="fold")
    for stage, how, what in rows:
        table.add_row(stage, Text(how, style=_STATUS_STYLE.get(how, "")), plain(what))
    _out.print()
    _out.print(table)


def show_facts(facts: Sequence[tuple[str, str]], *, whole: Sequence[str] = (), bold: str | None = None) -> None:
    """A name and a text a line, texts below each other; those named in `whole` are to be copied and stay unbroken."""
    room = max((len(name) for name, _ in facts), default=0) + 2
    for name, text in facts:
        style = "bold" if name and name == bold else None
        if name in whole:
            say(f"{name:<{room}}{text}", style, whole=True)
            continue
        grid = Table.grid()
        grid.add_column(width=room)
        grid.add_column(overflow="fold")
        grid.add_row(plain(name), plain(text), style=style)
        _out.print(grid)


def show_table(headings: Sequence[str], rows: Sequence[Sequence[Any]], *, figures_from: int | None = None) -> None:
    """A plain table; columns from `figures_from` on stand to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if figures_from is None or number < figures_from else "right", overflow="fold")
    for row in rows:
        table.add_row(*(plain(str(cell)) for cell in row), style="bold" if row[0] == "in all" else "")
    _out.print(table)


def show_finding(level: str, name: str, says: str, fix: str) -> None:
    """One line of `doctor`, and below it what to do."""
    _out.print(Text(f"{level:<6}", style=_LEVEL_STYLE[level]) + Text(f"{name:<19}{plain(says)}"), soft_wrap=True)
    if fix:
        _out.print(Text(f"{'':<25}{plain(fix)}", style="bold"), soft_wrap=True)


def confirm(question: str) -> bool | None:
    """Asks on the terminal, no being the default; None where there is nobody to ask."""
    if not (sys.stdin.isatty() and _out.is_terminal):
        return None
    try:
        return _out.input(f"[bold]{escape(plain(question))}[/] \\[y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def in_ci() -> bool:
    """True where $CI is set, as all common services do: stages then have a line at their start and end alone."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


@contextmanager
def stage_line(name: str, spent_usd: Callable[[], float | None] = lambda: None) -> Iterator["StageLine"]:
    """The display of one running stage; `spent_usd` is asked for what it has cost so far."""
    line = StageLine(name, spent_usd)
    try:
        with line.live:
            yield line
    finally:
        line.finish()


_STARTING = "starting"


class StageLine:
    """Shows how long a stage has taken, how far it is, how fast, and what it has cost: live on a terminal, as a plain line now
    and then elsewhere; also while nothing is reported, as while a model is loaded."""

    def __init__(self, name: str, spent_usd: Callable[[], float | None] = lambda: None) -> None:
        self.name = name
        self._spent_usd = spent_usd
        self._is_live = _out.is_terminal and not in_ci()
        self.live = LiveProgress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20 if _out.width >= _ROOM_FOR_BARS else 8),
            TimeElapsedColumn(),
            # One line, cut at its end: a second one would flicker.
            TextColumn("{task.fields[said]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=_out,
            transient=True,
            expand=True,
            disable=not self._is_live,
        )
        self._task = self.live.add_task(name, total=None, said=_STARTING)
        self._printed = self._began = self._started = time.monotonic()
        self._first: Progress | None = None
        self._said = _STARTING
        self._ended = threading.Event()
        if not self._is_live:
            say(f"{name}: started")
        if not self._is_live and not in_ci():
            threading.Thread(target=self._tick, daemon=True).start()

    def update(self, progress: Progress) -> None:
        """Takes over a worker's progress."""
        if progress.shown:
            _out.print(masked(progress.shown))
        now = time.monotonic()
        if self._first is None or progress.unit != self._first.unit or progress.done < self._first.done:
            # A stage may count one thing after another, and a resumed one does not begin at zero.
            self._first, self._began = progress, now
        parts = [*pace(progress, progress.done - self._first.done, now - self._began)]
        if usd := self._spent_usd():
            parts.append(f"{usd:,.2f} USD")
        self._said = ", ".join(filter(None, [counted(progress), *parts, progress.note]))
        self.live.update(self._task, completed=progress.done, total=progress.total, said=escape(plain(self._said)))
        if not self._is_live and not in_ci() and now - self._printed > _PLAIN_LINE_SECONDS:
            self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        say(f"{self.name}: {duration(self._printed - self._started)}, {self._said}")

    def _tick(self) -> None:
        """A line now and then while the stage itself reports nothing."""
        while not self._ended.wait(_TICK_SECONDS):
            if time.monotonic() - self._printed > _PLAIN_LINE_SECONDS:
                self._print()

    def wait_for(self, holder: str) -> None:
        """Says who builds the stage just now."""
        say(f"{self.name}: waiting for {holder}, which is building it", style="dim")

    def finish(self) -> None:
        self._ended.set()
        self.live.stop()


def counted(progress: Progress) -> str:
    """`3 of 6 instructions`; nothing before there is anything to count."""
    if progress.total:
        return f"{progress.done:,} of {progress.total:,} {progress.unit}"
    return f"{progress.done:,} {progress.unit}" if progress.done else ""


def masked(pieces: Sequence[tuple[str, bool]]) -> Text:
    """An example as it is trained: what has loss in green, and in double angle brackets where there is no colour."""
    text = Text("the first example, as it is trained (green or between ⟪ ⟫: has loss)\n", style="dim")
    for piece, trained in pieces:
        half = _LONGEST_PIECE // 2
        shown = plain(piece if len(piece) <= _LONGEST_PIECE else f"{piece[:half]} … {piece[-half:]}")
        bare = trained and not _out.is_terminal
        text.append(f"⟪{shown}⟫" if bare else shown, style="not dim green" if trained else "dim")
    return text


def pace(progress: Progress, done: int, seconds: float) -> tuple[str, ...]:
    """How fast, and how long it will take from here: `("4.2/s", "3 min left")`; nothing before there is something to go by."""
    if done <= 0 or seconds < _PACE_AFTER_SECONDS:
        return ()
    each_second = done / seconds
    span, unit = next((span, unit) for span, unit in _SPANS if each_second * span >= 1 or unit == "h")
    parts = f"{each_second * span:.3g}/{unit}"
    if not progress.total or progress.total <= progress.done:
        return (parts,)
    return parts, f"{duration((progress.total - progress.done) / each_second)} left"


def duration(seconds: float) -> str:
    """A span of time for people: `40 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def count(number: int, noun: str) -> str:
    """`1 stage`, `2 stages`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
