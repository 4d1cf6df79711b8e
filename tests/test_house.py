"""The house stands: a package imports only from floors below its own, so there is no circle; stages meet in files alone."""

import ast
from pathlib import Path

import minilima
from minilima.run.stages import SPECS

FOLDER = Path(minilima.__file__).parent
FLOORS = (
    {"errors", "environment", "prompts", "data"},
    {"config", "formats"},
    {"models", "store", "console", "rouge"},
    {"generate", "train", "evaluate"},
    {"run", "report"},
    {"pipeline"},
    {"cli"},
    {"__main__", "__init__"},
)


def rooms() -> dict[str, list[Path]]:
    """The modules of each package, and each flat module by itself."""
    found: dict[str, list[Path]] = {}
    for file in sorted(FOLDER.rglob("*.py")):
        found.setdefault(file.relative_to(FOLDER).with_suffix("").parts[0], []).append(file)
    return found


ROOMS = {name for floor in FLOORS for name in floor}


def names_of(node: ast.ImportFrom) -> list[str]:
    """What is imported, but for the version, which every room may ask for."""
    return [item.name for item in node.names if item.name != "__version__"]


def imports_of(file: Path) -> set[str]:
    """The rooms that a module imports from, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module == "minilima":
            # A name that is no room is defined in __init__, which stands on the top floor.
            names = [f"minilima.{name}" if name in ROOMS else "minilima.__init__" for name in names_of(node)]
        if isinstance(node, ast.Import):
            names = [item.name for item in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("minilima.")}
    return found


def test_every_room_stands_on_one_floor() -> None:
    assert sorted(rooms()) == sorted(name for floor in FLOORS for name in floor if name != "data")
    assert len(FLOORS) <= 8
    assert len(rooms()) <= 21


def test_a_room_imports_only_from_floors_below_its_own() -> None:
    floor_of = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    upward = [
        f"{file.relative_to(FOLDER)} imports {other}"
        for room, files in rooms().items()
        for file in files
        for other in sorted(imports_of(file) - {room})
        if floor_of[other] >= floor_of[room]
    ]
    assert upward == []


def test_only_the_stages_modules_ask_which_stage_it_is() -> None:
    names = {spec.name for spec in SPECS} | {spec.kind for spec in SPECS}
    asked = [
        f"{file.relative_to(FOLDER)}:{node.lineno}"
        for file in sorted(FOLDER.rglob("*.py"))
        if "stages" not in file.parts
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare) and names_a_stage(node, names)
    ]
    assert asked == [], "what the pipeline has to know of a stage stands in its Spec"


def names_a_stage(node: ast.Compare, names: set[str]) -> bool:
    """`….role == "pool"` or `… in ("model", "epochs")`, by a name that says that it is a stage's."""
    left = ast.unparse(node.left)
    constants = {item.value for item in ast.walk(node) if isinstance(item, ast.Constant)}
    return left.endswith((".role", "['role']", ".kind", "role")) and bool(constants & names)
