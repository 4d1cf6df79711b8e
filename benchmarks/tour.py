"""Sample output and pictures of the documentation, taken from real runs, so that text and numbers never part.

    python benchmarks/tour.py --folder FOLDER --json benchmarks/results/tour.json

Builds in FOLDER/outputs what is missing there: the quickstart and the sweep of the tutorial (half an hour on two cores). What the
commands print goes into the JSON, and from there between the marks `<!-- tour: NAME -->` and `<!-- end -->` of the pages in
docs/; pages of the runs become docs/pictures/*.png. Pictures need Chromium.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.publish import parser, publish

ROOT = Path(__file__).parent.parent
DOCS, PICTURES = ROOT / "docs", ROOT / "docs" / "pictures"
MARK = re.compile(r"(<!-- tour: (\w+) -->\n).*?(<!-- end -->)", re.S)
COLUMNS, COLOURS = 100, 96

QUICKSTART = ["+experiment=quickstart"]
SWEEP = ["-m", *QUICKSTART, "dataset.size=32,64", "sft.learning_rate=5e-5,1e-4"]
COMMANDS = {
    "run": QUICKSTART,
    "change": ["plan", *QUICKSTART, "sft.learning_rate=2e-5"],
    "sweep": SWEEP,
    "compare": ["compare", "outputs/sweeps/quickstart-*"],
}
"""What is run in FOLDER, in this order."""
FIRST_LINE = {"run": r"^Win rate", "change": r"^quickstart:", "sweep": r"^dataset\.size", "compare": r""}
"""Where the part of the output begins that a page shows; the notes of a plan's inputs and of W&B are not part of it."""
LAST_LINE = {
    "run": r"^(Everything|W&B|Report)",
    "change": r"^(Times|No time|While|Training)",
    "sweep": r"^Sweep ",
    "compare": r"^$^",
}

MEMORY = {
    "Qwen3 0.6B, in full": ["model=qwen3_0_6b", "sft=full"],
    "Llama 3.2 1B, in full": ["model=llama3_1b", "sft=full"],
    "Llama 3.1 8B, LoRA": ["model=llama3_8b", "sft=lora"],
    "Llama 3.1 8B, QLoRA": ["model=llama3_8b", "sft=qlora"],
    "Llama 3.1 8B, in full with stochastic rounding": ["model=llama3_8b", "sft=full", "sft.weights=stochastic"],
    "Llama 3.1 8B, in full": ["model=llama3_8b", "sft=full"],
}
"""Whose weights, gradients and optimizer `plan` works out from the model's shape."""

SHOTS: dict[str, tuple[str, str, tuple[int, int], str]] = {
    "report": ("run", "#result", (1120, 640), "light"),
    "report_data": ("run", "#data", (1120, 760), "dark"),
    "report_answers": ("run", "#answers", (1120, 760), "light"),
    "report_phone": ("run", "#result", (390, 844), "light"),
    "sweep": ("sweep", "#result", (1120, 900), "light"),
    "sweep_charts": ("sweep", "#pictures", (1120, 860), "light"),
    "sweep_answers": ("sweep", "#answers?only=differ", (1120, 760), "light"),
}
"""Of each picture: whose page, where on it, width and height, and the colours."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, required=True, help="where the runs are, or will be")
    asked = arguments.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    shown = {name: _part(name, printed(words, asked.folder)) for name, words in COMMANDS.items()}
    shown["memory"] = _memory(asked.folder)
    publish({"runs": (len(list(asked.folder.glob("outputs/runs/*/run.json"))), "runs")}, asked.json, printed=shown)
    fill_pages(shown)
    take_pictures(asked.folder / "outputs")


def fill_pages(shown: Mapping[str, str]) -> None:
    """Writes what was shown into the pages of docs/ that have marks for it."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text, shown)) != text:
            page.write_text(filled, encoding="utf-8")


def fill(page: str, shown: Mapping[str, str]) -> str:
    """A page with what stands between its marks taken from `shown`, where it has that; tables as they are, all else as code."""

    def block(match: re.Match[str]) -> str:
        if (text := shown.get(match[2])) is None:
            return match[0]
        placed = text if text.startswith("|") else f"```text\n{text}\n```"
        return f"{match[1]}{placed}\n{match[3]}"

    return MARK.sub(block, page)


def printed(words: list[str], folder: Path) -> str:
    """What a command prints in a terminal of COLUMNS columns; shell patterns are expanded in the folder."""
    expanded = [str(path.relative_to(folder)) for word in words if "*" in word for path in sorted(folder.glob(word))]
    words = [word for word in words if "*" not in word]
    quiet = [] if words[0] == "compare" else ["tracking=none"]
    done = subprocess.run(
        [sys.executable, "-m", "minilima", *words, *expanded, *quiet], cwd=folder, env=environment(), stdout=subprocess.PIPE,
        text=True, check=True,
    )  # fmt: skip
    return done.stdout


def environment() -> dict[str, str]:
    """Of a command whose output a page shows: a terminal of COLUMNS columns without colours, this code, no W&B."""
    return {**os.environ, "COLUMNS": str(COLUMNS), "NO_COLOR": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}


def _part(name: str, output: str) -> str:
    lines = [line.rstrip() for line in output.splitlines()]
    first = next(number for number, line in enumerate(lines) if re.search(FIRST_LINE[name], line))
    last = next((number for number, line in enumerate(lines) if number > first and re.search(LAST_LINE[name], line)), len(lines))
    return "\n".join(lines[first:last]).strip("\n")


def _memory(folder: Path) -> str:
    """The plan's memory of a training that does not depend on the GPU, as a table."""
    rows = ["| model and recipe | weights | gradients | optimizer | together, GiB |", "|---|---:|---:|---:|---:|"]
    for name, overrides in MEMORY.items():
        memory = dict(json.loads(printed(["plan", "--json", *overrides], folder))["memory"])
        parts = [float(memory[part]) for part in ("weights", "gradients", "optimizer")]
        rows.append(f"| {name} | {' | '.join(f'{part:.1f}' for part in parts)} | {sum(parts):.1f} |")
    return "\n".join(rows)


def take_pictures(outputs: Path) -> None:
    """Photographs the pages of the newest quickstart of full size and of its sweep."""
    from playwright.sync_api import sync_playwright

    PICTURES.mkdir(exist_ok=True)
    sweep = next(outputs.glob("sweeps/quickstart-*/report.html"))
    pages = {"sweep": sweep, "run": quickstart(outputs)}
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*sandbox, "--disable-gpu"])
        for name, (whose, place, (width, height), colours) in SHOTS.items():
            scheme: Any = colours
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")
            page.goto(pages[whose].resolve().as_uri() + place)
            if place == "#result":
                page.evaluate("scrollTo(0, 0)")
            (PICTURES / f"{name}.png").write_bytes(_small(page.screenshot()))
            page.close()
        browser.close()


def quickstart(outputs: Path) -> Path:
    """The report of the run whose settings are the experiment's own."""
    for file in outputs.glob("runs/quickstart-*/run.json"):
        config: dict[str, Any] = json.loads(file.read_text())["config"]
        if (config["dataset"]["size"], config["sft"]["learning_rate"]) == (64, 1e-4):
            return file.with_name("report.html")
    raise SystemExit("The quickstart is not among the runs.")


def _small(picture: bytes) -> bytes:
    """With as many colours as the pages need, a third of the size."""
    from PIL import Image

    stream = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS).save(stream, "png", optimize=True)
    return stream.getvalue()


if __name__ == "__main__":
    main()
