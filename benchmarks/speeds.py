"""What plans tell before anything was built on a machine: seconds for each unit of work, from committed results.

python benchmarks/speeds.py      # benchmarks/results/quickstart*.json ─> minilima/data/speeds.json
"""

import json
from pathlib import Path
from typing import Any

from minilima.config.compose import load_config
from minilima.pipeline import stages
from minilima.run.sources import resolve
from minilima.run.speed import TABLE

RESULTS = Path(__file__).parent / "results"
MEASURED = {"bfloat16": "quickstart.json", "float32": "quickstart_float32.json"}
"""In what CPUs of the kind multiply, and what was measured on one of them."""


def table() -> dict[str, Any]:
    """The table as it is committed."""
    return {precision: speeds(precision, name) for precision, name in MEASURED.items()}


def speeds(precision: str, name: str) -> dict[str, Any]:
    """By kind of work, the mean over the stages of that kind."""
    result = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    config = load_config(["+experiment=quickstart"])
    sources = resolve(config)
    paces: dict[str, list[float]] = {}
    for role, node in stages(config, sources).by_role().items():
        if (work := node.spec.planned_work(config, sources, {})) is not None:
            paces.setdefault(work.kind, []).append(result["stage_seconds"][role] / work.units)
    machine = f"{result['machine']['cores']} cores of an {result['machine']['processor']} that multiply in {precision}"
    means = {kind: float(f"{sum(values) / len(values):.3g}") for kind, values in sorted(paces.items())}
    return {"source": f"benchmarks/results/{name}", "machine": machine, "seconds_per_unit": means}


if __name__ == "__main__":
    TABLE.write_text(json.dumps(table(), indent=2) + "\n", encoding="utf-8")
