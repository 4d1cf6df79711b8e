"""The verb `serve`: a run's tuned model, or a model's folder, behind an OpenAI-compatible endpoint, by vLLM or by transformers.

It hands over: the server's process replaces this one, so that its messages and Ctrl-C are its own. transformers serve
lists only what lies in a cache of the hub's form, so it gets one that holds links to this model alone.
"""

import json
import os
import shlex
import shutil
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser
from minilima.errors import MinilimaError

if TYPE_CHECKING:
    import argparse


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "serve",
        summary="serve a tuned model with OpenAI's protocol",
        description="Serves the tuned model of a finished run, or the model in a folder, such as the base model of the store, "
        "which answers too where compute.served_at is set: with vLLM where it is installed and there is a GPU, else with "
        "transformers serve. It shows a curl line, and the setting with which minilima itself asks the server.",
        examples=("serve outputs/runs/quickstart-0123abcd", "serve outputs/runs/quickstart-0123abcd --port 9000"),
    )
    parser.add_argument(
        "run", metavar="RUN", help="a finished run: its folder, or how its name in outputs/runs begins; or a model's folder"
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="who may connect (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="the port (default: 8000)")
    parser.add_argument("--engine", choices=("vllm", "transformers"), metavar="vllm|transformers", help="the server's program")
    parser.set_defaults(handler=handle)


def handle(*, run: str, host: str, port: int, engine: str | None) -> int:
    """Shows how to ask, then becomes the server.

    Raises:
        MinilimaError: there is no such run, no server is installed, or the port cannot be used.
    """
    from minilima.report.finished import open_run

    opened = None if (Path(run) / "config.json").is_file() else open_run(run)
    model = opened.model if opened else Path(run).resolve()
    chosen = engine or ("vllm" if find_spec("vllm") is not None and shutil.which("nvidia-smi") is not None else "transformers")
    program = _program(chosen)
    _check_port(host, port)
    name = model.name if chosen == "vllm" else f"{_OWNER}/{model.name}"
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    shown = f"[{shown}]" if ":" in shown else shown
    console.say(f"Serving {name} with {chosen}. Ctrl-C ends it. When it is ready:")
    console.say_raw(curl_line(name, shown, port))
    # A server has no such penalty as the run's evaluation may have had.
    penalised = opened is not None and opened.settings.get("eval.repetition_penalty") is not None
    console.say(f"With minilima: {setting(shown, port)}{' eval.repetition_penalty=null' if penalised else ''}", whole=True)
    sys.stdout.flush()
    arguments = command(chosen, program, model, host, port)
    environment = dict(os.environ)
    if chosen == "transformers":
        environment |= {"HF_HUB_CACHE": str(linked_cache(model)), "HF_HUB_OFFLINE": "1"}
    become(arguments[0], arguments, environment)
    return 0


def _check_port(host: str, port: int) -> None:
    """Refuses before a server loads the model for half a minute, and then finds the port taken.

    Raises:
        MinilimaError: something else listens there, or the address is not this machine's.
    """
    fix = f"Choose another one, as in: minilima serve RUN --port {8001 if port == 8000 else 8000}"
    if not 0 < port < 65536:
        raise MinilimaError(f"{port} is no port.", "A port is a number from 1 to 65535.", fix)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise MinilimaError(
            f"The port {port} of {host} cannot be used.", f"{getattr(error, 'strerror', None) or error}.", fix
        ) from None


def become(program: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Replaces this process by the program."""
    os.execve(program, arguments, environment)  # noqa: S606 - the point of the verb


def _program(engine: str) -> str:
    """The server's program, beside this Python or on the path.

    Raises:
        MinilimaError: it, or what it needs, is not installed.
    """
    if engine == "transformers" and (lacking := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]):
        raise MinilimaError(
            "No server is installed.",
            f"transformers serve needs {' and '.join(lacking)}; vLLM would be used where it is installed and there is a GPU.",
            "Install one: pip install 'minilima[serve]', or pip install 'minilima[vllm]'",
        )
    beside = Path(sys.executable).parent / engine
    program = str(beside) if beside.is_file() else shutil.which(engine)
    if program is None:
        raise MinilimaError(
            f"The program {engine} is not installed.",
            "It is neither beside this Python nor on the path.",
            f"Install it: pip install 'minilima[{'vllm' if engine == 'vllm' else 'serve'}]'",
        )
    return program


def command(engine: str, program: str, model: Path, host: str, port: int) -> list[str]:
    """What becomes the server."""
    address = ["--host", host, "--port", str(port)]
    if engine == "vllm":
        return [program, "serve", str(model), "--served-model-name", model.name, *address]
    return [program, "serve", f"{_OWNER}/{model.name}", *address]


_OWNER = "minilima"
"""Before the slash, where a server wants a name as on the hub."""


def linked_cache(model: Path) -> Path:
    """A cache in the hub's form with links to the model's files, beside the packaged models; the same for the same model."""
    from minilima.models.packaged import user_cache

    cache = user_cache() / "served" / model.name
    repository = cache / f"models--{_OWNER}--{model.name}"
    snapshot = repository / "snapshots" / _REVISION
    snapshot.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(_REVISION, encoding="utf-8")
    for file in model.resolve().iterdir():
        link = snapshot / file.name
        if link.is_symlink():
            link.unlink()
        if file.is_file():
            link.symlink_to(file)
    return cache


_REVISION = "0" * 40


def setting(host: str, port: int) -> str:
    """What makes minilima ask the server; in quotes, since brackets mean something to zsh, and those of an address to Hydra."""
    address = f"http://{host}:{port}/v1"
    return shlex.quote(f"compute.served_at=[{json.dumps(address) if '[' in host else address}]")


def curl_line(name: str, host: str, port: int) -> str:
    """One request, to be copied."""
    body = {"model": name, "messages": [{"role": "user", "content": "Name three rivers."}], "max_tokens": 64}
    sent = shlex.quote(json.dumps(body))
    return f"curl http://{host}:{port}/v1/chat/completions -H 'Content-Type: application/json' -d {sent}"
