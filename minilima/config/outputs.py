"""Where results lie if nobody says so: $MINILIMA_OUTPUTS, else the nearest outputs/ with a store, else outputs/ here.

A command that is typed in a subfolder so finds what was built above it, and pays for nothing twice.
"""

import os
from pathlib import Path

AUTO = "auto"
VARIABLE = "MINILIMA_OUTPUTS"
_USUAL = "outputs"


def outputs_folder(chosen: str = AUTO) -> str:
    """The folder that `paths.outputs` means, relative where it was found from the current folder."""
    if chosen != AUTO:
        return chosen
    if named := os.environ.get(VARIABLE):
        return str(Path(named).expanduser())
    here = Path.cwd()
    for folder in (here, *here.parents):
        # Of a folder that others wrote, nothing is used unasked.
        if (folder / _USUAL / "store").is_dir() and os.access(folder / _USUAL, os.W_OK):
            return os.path.relpath(folder / _USUAL, here)
    return _USUAL


def store_note(outputs: Path) -> str | None:
    """What to say of a store before it is used: that it is a new one, or not the current folder's; else nothing."""
    if not (outputs / "store").is_dir():
        return (
            f"New store at {(outputs / 'store').absolute()}: nothing that was built elsewhere is reused. "
            f"Another one: paths.outputs=FOLDER, or export {VARIABLE}=FOLDER."
        )
    if outputs.absolute().resolve().parent != Path.cwd().resolve() and ".." in outputs.parts:
        return f"Results are kept in {outputs.resolve()}, above the current folder."
    return None
