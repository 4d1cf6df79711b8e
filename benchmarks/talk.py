"""The conversations in the documentation, recorded from a terminal in which a script types to `minilima chat`.

    python benchmarks/talk.py --folder FOLDER --json benchmarks/results/talk.json

Builds the quickstart in FOLDER/outputs where it is missing. What the terminal shows goes into the JSON, and from there between
the marks of the pages in docs/, as with `tour.py`. The terminal has no cursor (TERM=dumb), so what it shows is plain text.
"""

import os
import re
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import tour
from benchmarks.publish import parser, publish

PROMPTS = """\
{"instruction": "Name three things that float on water.", "output": "Wood, ice and a rubber duck."}
{"instruction": "Rewrite more politely: Send me the file now.", "output": "Could you send me the file, please?"}
{"instruction": "What is the opposite of generous?", "output": "Stingy."}
"""
TALKS: dict[str, tuple[list[str], list[tuple[str, str]]]] = {
    "chat": (
        ["--max-tokens", "60"],
        [
            ("you> ", "Give me three tips for sleeping well.\r"),
            ("you> ", "/system You answer in one short sentence.\r"),
            ("you> ", "/temperature 0.7\r"),
            ("you> ", "Why do leaves fall in autumn?\r"),
            ("you> ", "/save talk.json\r"),
            ("you> ", "/quit\r"),
        ],
    ),
    "chat_blind": (
        ["--against", "base", "--blind", "--prompts", "my_prompts.jsonl", "--max-tokens", "60"],
        [("q = end? ", "a"), ("q = end? ", "b"), ("q = end? ", "t")],
    ),
}
"""Of each conversation: the options, and what is typed after which end of the screen."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, required=True, help="where the quickstart is, or will be")
    asked = arguments.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    tour.printed(tour.QUICKSTART, asked.folder)
    run = tour.quickstart(asked.folder / "outputs").parent.relative_to(asked.folder)
    (asked.folder / "my_prompts.jsonl").write_text(PROMPTS)
    for labels in (asked.folder / "outputs" / "labels").glob(f"{run.name}_against_*.jsonl"):
        labels.unlink()  # of an earlier recording, which this one would continue
    printed = {}
    for name, (options, typed) in TALKS.items():
        words = ["chat", str(run), *options]
        printed[name] = f"$ {' '.join(['minilima', *words])}\n{recorded(words, typed, asked.folder)}"
    publish({"conversations": (len(printed), "recordings")}, asked.json, printed=printed)
    tour.fill_pages(printed)


def recorded(words: Sequence[str], typed: Sequence[tuple[str, str]], folder: Path) -> str:
    """What a terminal shows of a command while somebody types: each text once the screen ends in what it answers."""
    controller, terminal = os.openpty()
    environment = {**tour.environment(), "TERM": "dumb", "LINES": "40"}
    command = subprocess.Popen(
        [sys.executable, "-m", "minilima", *words], cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    screen, left = "", list(typed)
    while piece := _read(controller):
        screen += piece
        if left and screen.endswith(left[0][0]):
            while termios.tcgetattr(controller)[3] & termios.ICANON:
                time.sleep(0.05)  # what is typed before the command waits for keys is dropped
            os.write(controller, left.pop(0)[1].encode())
    if command.wait() != 0 or left:
        raise SystemExit(f"minilima {' '.join(words)} ended before all was typed:\n{screen}")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", screen)  # the cursor is shown and hidden even here
    return "\n".join(line.rstrip() for line in plain.splitlines()).strip("\n")


def _read(controller: int) -> str:
    """What is shown next; empty where the command has ended, which Linux says by an error."""
    try:
        return os.read(controller, 65536).decode()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
