"""The verb `view`: one page over all runs and sweeps of a folder, live while something is built."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser
from minilima.config.outputs import outputs_folder
from minilima.errors import MinilimaError

if TYPE_CHECKING:
    import argparse


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "view",
        summary="a page over all runs and sweeps of a folder, live while something is built",
        description="Serves a page on this machine alone: what is being built with its rate, cost and loss, a table of all "
        "finished runs that sorts and compares, and each run's report. Ctrl-C ends it.",
        examples=("view", "view outputs --port 8099"),
    )
    parser.add_argument(
        "outputs", nargs="?", type=Path, metavar="FOLDER", help="where results lie (default: as paths.outputs=auto)"
    )
    parser.add_argument("--port", type=int, default=8090, metavar="N", help="the port (default: 8090; 0 = a free one)")
    parser.add_argument("--open", dest="opened", action="store_true", help="open the page in the browser")
    parser.set_defaults(handler=handle)


def handle(*, outputs: Path | None, port: int, opened: bool) -> int:
    """Serves until Ctrl-C.

    Raises:
        MinilimaError: there is no such folder, or the port is taken.
    """
    from minilima.report.view_server import open_server

    outputs = outputs or Path(outputs_folder())
    if not outputs.is_dir():
        raise MinilimaError(
            f"There is no folder {outputs}.", "Results are looked for in it.", "Run something first, or name its folder."
        )
    with open_server(outputs, port) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        console.say(f"{address} shows {outputs}. Ctrl-C ends it.", whole=True)
        if opened:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.say("")
    return 0
