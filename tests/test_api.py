"""The Python API as docs/reference/python.md imports it, in a fresh process."""

import subprocess
import sys
from pathlib import Path

from minilima.formats.files import write_jsonl

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "python.md"


def test_the_documented_import_plans_and_runs_whatever_was_imported_before(tmp_path: Path, tiny_model: Path) -> None:
    (line,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("from minilima import")]
    write_jsonl(tmp_path / "rows.jsonl", [{"instruction": f"Name {number} fruits.", "output": "Plums."} for number in range(9)])
    settings = ["data=file", "data.path=rows.jsonl", f"model.path={tiny_model}", "until=pool", "tracking=none"]
    code = (
        f"{line}\nimport minilima, minilima.run.plan\n"
        f"config = load_config({settings!r})\n"
        "assert plan(config).to_build == ['pool'], plan(config).to_build\n"
        "summary = run(config)\n"
        "assert summary.score is None and plan(config).to_build == []\n"
        "assert minilima.run(config).folder == summary.folder and len(to_frame([{'a': 1}])) == 1\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
