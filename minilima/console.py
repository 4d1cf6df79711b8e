"""The only module that prints: the plan, one calm line a stage, the result, and errors as one paragraph.

On a terminal the running stage has a live line; elsewhere (a log, CI) each stage prints one line when it starts and one
when it is done. Text written by models or users is shown through `plain`, which takes control characters out.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as LiveProgress
from rich.table import Table
from rich.text import Text

from minilima.errors import MinilimaError
from minilima.records import Progress

_out = RichConsole(highlight=False, soft_wrap=False)
_err = RichConsole(stderr=True, highlight=False, soft_wrap=True)

_STATUS_STYLE = {"reuse": "green", "reused": "green", "build": "yellow", "resume": "yellow", "built": "bold", "waited": "green"}
_LEVEL_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_PLAIN_LINE_SECONDS = 20.0


def plain(text: str) -> str:
    """`text` without control characters, so that no model output can drive the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def say(text: str = "", style: str | None = None) -> None:
    """One line for the user."""
    _out.print(Text(plain(text)), style=style)


def say_raw(text: str) -> None:
    """Text as it is, without wrapping: for output that other programs read."""
    sys.stdout.write(text + "\n")


def complain(error: MinilimaError) -> None:
    """The user's mistake or obstacle: what, why, what to type next."""
    _err.print(f"[bold red]{escape(plain(error.what))}[/] {escape(plain(error.why))} [bold]{escape(plain(error.fix))}[/]")


def show_plan(title: str, rows: Sequence[tuple[str, str, str, str]], notes: Sequence[str]) -> None:
    """The plan: (stage, status, directory, what it is) a row."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in ("stage", "", "store entry", "what"):
        table.add_column(heading, header_style="dim", overflow="fold")
    for stage, status, directory, what in rows:
        table.add_row(stage, Text(status, style=_STATUS_STYLE.get(status, "")), Text(directory, style="dim"), plain(what))
    _out.print(table)
    for note in notes:
        say(note, style="dim")
    _out.print()


def show_result(rows: Sequence[tuple[str, str, str, str]]) -> None:
    """The end of a run: (stage, built or reused, seconds, what came out) a row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", header_style="dim")
    table.add_column("", header_style="dim")
    table.add_column("seconds", header_style="dim", justify="right")
    table.add_column("what came out", header_style="dim", overflow="fold")
    for stage, how, seconds, what in rows:
        table.add_row(stage, Text(how, style=_STATUS_STYLE.get(how, "")), seconds, plain(what))
    _out.print()
    _out.print(table)


def show_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A plain table."""
    table = Table(*headings, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        table.add_row(*(plain(str(cell)) for cell in row))
    _out.print(table)


def show_finding(level: str, name: str, says: str, fix: str) -> None:
    """One line of `doctor`, and below it what to do."""
    _out.print(Text(f"{level:<6}", style=_LEVEL_STYLE[level]) + Text(f"{name:<19}{plain(says)}"), soft_wrap=True)
    if fix:
        _out.print(Text(f"{'':<25}{plain(fix)}", style="bold"), soft_wrap=True)


@contextmanager
def stage_line(name: str) -> Iterator["StageLine"]:
    """The display of one running stage."""
    line = StageLine(name)
    try:
        with line.live:
            yield line
    finally:
        line.finish()


class StageLine:
    """Shows how far a stage is: live on a terminal, and as a plain line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.live = LiveProgress(
            TextColumn("[bold]{task.description:<18}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=_out,
            transient=True,
            disable=not _out.is_terminal,
        )
        self._task = self.live.add_task(name, total=None, count="", note="")
        self._printed = time.monotonic()
        if not _out.is_terminal:
            say(f"{name}: started")

    def update(self, progress: Progress) -> None:
        """Takes over a worker's progress."""
        count = f"{progress.done:,}" + (f"/{progress.total:,}" if progress.total else "") + f" {progress.unit}"
        self.live.update(
            self._task, completed=progress.done, total=progress.total, count=count, note=escape(plain(progress.note))
        )
        if not _out.is_terminal and time.monotonic() - self._printed > _PLAIN_LINE_SECONDS:
            self._printed = time.monotonic()
            say(f"{self.name}: {count} {progress.note}".rstrip())

    def wait_for(self, holder: str) -> None:
        """Says who builds the stage just now."""
        say(f"{self.name}: waiting for {holder}, which is building it", style="dim")

    def finish(self) -> None:
        self.live.stop()
