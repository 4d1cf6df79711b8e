"""The command `minilima`, also `python -m minilima`: runs what `cli/commands.py` reads, and turns its end into an exit status."""

import sys
from collections.abc import Sequence

from minilima import console
from minilima.cli.commands import execute
from minilima.cli.options import show_stopped
from minilima.errors import explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 for what the user can fix, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return execute(arguments)
    except KeyboardInterrupt:
        show_stopped(arguments)
        return 130
    except Exception as error:
        if (mistake := explain(error)) is None:
            raise
        console.complain(mistake)
        return 1


if __name__ == "__main__":
    sys.exit(main())
