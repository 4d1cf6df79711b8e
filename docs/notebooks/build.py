"""Builds runs.ipynb from runs.py: each cell is executed, and its value and its figures are kept.

    python docs/notebooks/build.py
runs.py is cut at lines with `# %%`; a cell with [markdown] is text. No notebook server is needed.
"""

import ast
import base64
import io
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE, NOTEBOOK = HERE / "runs.py", HERE / "runs.ipynb"
_MARK = "# %%"


def cells(source: str) -> list[tuple[bool, str]]:
    """(whether it is text, what is in it) of each cell."""
    parts = source.split(f"{_MARK}")[1:]
    parsed = []
    for part in parts:
        head, _, body = part.partition("\n")
        is_text = "[markdown]" in head
        lines = [line.removeprefix("# ").removeprefix("#") if is_text else line for line in body.strip().split("\n")]
        parsed.append((is_text, "\n".join(lines)))
    return parsed


def build(source: str) -> dict[str, Any]:
    """The notebook as its file holds it."""
    import matplotlib as mpl

    mpl.use("Agg")
    names: dict[str, Any] = {}
    made = []
    for number, (is_text, body) in enumerate(cells(source)):
        cell: dict[str, Any] = {"cell_type": "markdown" if is_text else "code", "id": f"cell-{number}", "metadata": {}}
        cell["source"] = body.splitlines(keepends=True)
        if not is_text:
            cell |= {"execution_count": None, "outputs": _outputs(body, names)}
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _outputs(body: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Executes a cell: its last value, where it is an expression, and the figures that it drew."""
    import matplotlib.pyplot as plt

    tree = ast.parse(body)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, SOURCE.name, "exec"), names)  # noqa: S102 - our own file
    value = eval(compile(last, SOURCE.name, "eval"), names) if last is not None else None  # noqa: S307 - the same
    outputs: list[dict[str, Any]] = []
    if value is not None and not hasattr(value, "canvas") and hasattr(value, "to_html"):
        data = {
            "text/html": value.to_html(border=0).splitlines(keepends=True),
            "text/plain": str(value).splitlines(keepends=True),
        }
        outputs.append({"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": data})
    for figure in map(plt.figure, plt.get_fignums()):
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=80, metadata={"Software": None})
        picture = {"image/png": base64.b64encode(stream.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "metadata": {}, "data": picture})
    plt.close("all")
    return outputs


if __name__ == "__main__":
    NOTEBOOK.write_text(
        json.dumps(build(SOURCE.read_text(encoding="utf-8")), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
