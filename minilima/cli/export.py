"""The verb `export`: writes a finished data set or model into a folder, in the forms that other tools read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilima import console
from minilima.cli.options import Parser, add_overrides, plain_line
from minilima.errors import MinilimaError

if TYPE_CHECKING:
    import argparse

    from minilima.config.schema import Config
    from minilima.report.export_dataset import Exported
    from minilima.run.graph import Graph
    from minilima.store.entries import Artifact, Store
    from minilima.store.sources import Sources

_STAGES = {"data": "dataset", "alpaca_eval": "model"}
"""What can be exported, and the stage that has to be built."""


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "export",
        summary="write a finished data set or model for other tools",
        description="data writes the data set for datasets, LLaMA-Factory and others, with a data card; alpaca_eval writes the "
        "config with which alpaca_eval runs the tuned model.",
        examples=("export data FOLDER +experiment=quickstart", "export alpaca_eval FOLDER +experiment=quickstart"),
    )
    parser.add_argument("kind", choices=tuple(_STAGES), metavar="|".join(_STAGES), help="what to write, and for whom")
    parser.add_argument("folder", metavar="FOLDER", help="a new or empty folder")
    add_overrides(parser)
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="with data: upload it to a private repository too")
    parser.set_defaults(handler=handle)


def handle(*, kind: str, folder: str, overrides: list[str], config_dir: str | None, push_to_hub: str | None) -> int:
    """Writes the folder and says what to do with it."""
    from minilima.config.compose import load_config

    if "=" in folder or (push_to_hub is not None and kind != "data"):
        raise MinilimaError(
            "This export command cannot be read.",
            f"{folder} is a setting, not a folder." if "=" in folder else "--push-to-hub belongs to export data.",
            "For example: minilima export data FOLDER +experiment=quickstart",
        )
    wanted = [*(item for item in overrides if not item.startswith("until=")), f"until={_STAGES[kind]}"]
    command = plain_line(*wanted, config_dir=config_dir)
    config = load_config(overrides, config_dir=config_dir)
    if kind == "data":
        _write_data(config, Path(folder), command, push_to_hub)
    else:
        _write_model(config, Path(folder), command)
    return 0


def _write_data(config: "Config", folder: Path, command: str, repository: str | None) -> None:
    from minilima.report.export_dataset import check_repository, push

    if repository is not None:
        check_repository(repository)
    exported = data_of(config, folder, command)
    console.say(f"Wrote {exported.examples:,} examples to {folder}:")
    console.show_table(("file", "bytes"), [(name, f"{size:,}") for name, size in exported.files.items()])
    console.say("Read README.md and state a licence in its header before you pass the data on.")
    if repository is not None:
        console.say(f"Uploaded to {push(folder, repository)}")


def _write_model(config: "Config", folder: Path, command: str) -> None:
    files = model_of(config, folder, command)
    console.say(f"Wrote {folder}:")
    console.show_table(("file", "bytes"), [(name, f"{size:,}") for name, size in files.items()])
    from minilima.report.export_model import ADDRESS

    served, location = config.compute.served_at, _location(folder)
    console.say("Two commands run alpaca_eval on the model; the judge needs its own key.")
    if not served:
        console.say(f"vllm serve {location} --served-model-name {Path(location).name}   # at {ADDRESS}", whole=True)
    command = f"alpaca_eval evaluate_from_model --model_configs {folder.absolute() / 'configs.yaml'} --annotators_config chatgpt"
    console.say(command, whole=True)


def _location(folder: Path) -> str:
    """Where the exported model lies."""
    from omegaconf import OmegaConf

    local: Any = OmegaConf.to_container(OmegaConf.load(folder / "configs_local.yaml"))
    return str(next(iter(local.values()))["completions_kwargs"]["model_name"])


def data_of(config: "Config", folder: Path, build_command: str) -> "Exported":
    """Writes the experiment's data set into a new folder.

    Args:
        config: the experiment.
        folder: must not be there yet, or be empty.
        build_command: what to type where the data set is not built; part of the error.

    Raises:
        MinilimaError: the data set is not in the store, or the folder holds something.
    """
    from minilima.report.export_dataset import export_data

    sources, graph, store = _entries(config)
    dataset = _built(graph, "dataset", store, sources, build_command)
    return export_data(config, sources, dataset, store.find(graph["pool"]), folder)


def model_of(config: "Config", folder: Path, build_command: str) -> dict[str, int]:
    """Writes the experiment's model config for alpaca_eval into a new folder; arguments and errors as in `data_of`.

    Returns:
        The files written, with their sizes in bytes.
    """
    from minilima.evaluate.judged import opponent
    from minilima.report.export_model import export_model

    sources, graph, store = _entries(config)
    model = _built(graph, "model", store, sources, build_command)
    answers, others = store.find(graph["answers"]), store.find(opponent(graph.by_role()).stage)
    return export_model(config, model, answers, others, folder)


def _entries(config: "Config") -> "tuple[Sources, Graph, Store]":
    from minilima.pipeline import stages
    from minilima.run.sources import resolve
    from minilima.store.entries import Store

    sources = resolve(config)
    return sources, stages(config, sources), Store(Path(config.paths.outputs) / "store")


def _built(graph: "Graph", role: str, store: "Store", sources: "Sources", build_command: str) -> "Artifact":
    if (artifact := store.find(graph[role])) is not None:
        return artifact
    missing = f"; {' and '.join(sources.missing())} could not be identified" if sources.missing() else ""
    raise MinilimaError(
        f"This experiment's {role} is not built yet.",
        f"There is no {graph[role].directory} in {store.root}{missing}.",
        f"Build it: {build_command}",
    )
