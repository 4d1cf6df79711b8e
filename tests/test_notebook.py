"""The notebook in docs: it is what its script says, and every cell runs on the committed results."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook_build", FOLDER / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["notebook_build"] = module
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_built_from_its_script_and_every_cell_runs() -> None:
    built = builder().build((FOLDER / "runs.py").read_text(encoding="utf-8"))
    kept = json.loads((FOLDER / "runs.ipynb").read_text(encoding="utf-8"))
    assert [cell["source"] for cell in kept["cells"]] == [cell["source"] for cell in built["cells"]]
    texts = [[output["data"].get("text/plain") for output in cell.get("outputs", [])] for cell in kept["cells"]]
    assert texts == [[output["data"].get("text/plain") for output in cell.get("outputs", [])] for cell in built["cells"]]
    pictures = [output for cell in built["cells"] for output in cell.get("outputs", []) if "image/png" in output["data"]]
    assert len(pictures) == 2
