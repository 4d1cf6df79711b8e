"""What prints (conversations: cli/chat_screen.py): the plan, one calm line a stage, the result, and errors as one paragraph.

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

from rich.console import Console as RichConsole
from rich.markup import escape
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


def terminal() -> RichConsole:
    """What `say` writes to, for modules that draw on it themselves."""
    return _out


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
