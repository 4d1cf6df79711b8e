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
"""What is exported by an experiment's settings, and the stage that has to be built."""
_KINDS = ("model", *_STAGES)
_GGUF = ("q8_0", "q4_k_m")


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "export",
        summary="write a finished data set or model for other people and tools",
        description="model RUN FOLDER writes the tuned model of a finished run with a model card, also as a GGUF file for "
        "llama.cpp and Ollama; data FOLDER writes the data set for datasets, LLaMA-Factory and others, with a data card; "
        "alpaca_eval FOLDER writes the config with which alpaca_eval runs the tuned model.",
        examples=("export model outputs/runs/quickstart-0123abcd FOLDER", "export data FOLDER +experiment=quickstart"),
        paths=1,
    )
    parser.add_argument("kind", choices=_KINDS, metavar="|".join(_KINDS), help="what to write, and for whom")
    parser.add_argument("folder", metavar="FOLDER", help="a new or empty folder; with model: the run, and then the folder")
    add_overrides(parser)
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload it to a private repository too")
    parser.add_argument(
        "--linked-to", metavar="OWNER/NAME", help="name the model's data set, or the data set's model, in the card"
    )
    parser.add_argument("--adapter", action="store_true", help="with model: the LoRA adapters alone")
    parser.add_argument(
        "--gguf",
        nargs="?",
        const=_GGUF[0],
        choices=_GGUF,
        metavar="|".join(_GGUF),
        help="with model: a GGUF file and a Modelfile too",
    )
    parser.set_defaults(handler=handle)


def handle(
    *, kind: str, folder: str, overrides: list[str], config_dir: str | None, push_to_hub: str | None, linked_to: str | None,
    adapter: bool, gguf: str | None,
) -> int:  # fmt: skip
    """Writes the folder and says what to do with it."""
    words = [folder, *(item for item in overrides if "=" not in item and not item.startswith("~"))]
    _check(kind, words, {"--adapter": adapter, "--gguf": gguf is not None})
    for option, name in (("--push-to-hub", push_to_hub), ("--linked-to", linked_to)):
        if name is not None:
            _check_name(name, option, kind)
    if kind == "model":
        from minilima.cli.export_model import write_model

        write_model(*words, adapter=adapter, gguf=gguf, repository=push_to_hub, data_set=linked_to)
        return 0
    from minilima.config.compose import load_config

    wanted = [*(item for item in overrides if not item.startswith("until=")), f"until={_STAGES[kind]}"]
    command = plain_line(*wanted, config_dir=config_dir)
    config = load_config(overrides, config_dir=config_dir)
    if kind == "data":
        _write_data(config, Path(folder), command, push_to_hub, linked_to)
    else:
        _write_model(config, Path(folder), command)
    return 0


def _check(kind: str, words: list[str], options: dict[str, bool]) -> None:
    """Refuses what does not go together."""
    if kind == "model" and len(words) == 1:
        why, fix = "It names a run or a folder, and needs both.", "export model outputs/runs/quickstart-0123abcd FOLDER"
    elif kind != "model" and len(words) > 1:
        why, fix = f"{words[1]!r} is not a setting.", f"export {kind} FOLDER +experiment=quickstart"
    elif setting := next((word for word in words if "=" in word), None):
        why, fix = f"{setting} is a setting, not a folder.", f"export {kind} FOLDER +experiment=quickstart"
    elif kind != "model" and (option := next((name for name, given in options.items() if given), None)):
        why, fix = f"{option} belongs to export model.", "export model outputs/runs/quickstart-0123abcd FOLDER"
    elif all(options.values()):
        why, fix = "A GGUF file holds a whole model, not adapters alone.", "export model outputs/runs/quickstart-0123abcd FOLDER"
    else:
        return
    raise MinilimaError("This export command cannot be read.", why, f"For example: minilima {fix}")


def _check_name(name: str, option: str, kind: str) -> None:
    from minilima.report.hub import check_repository

    if kind == "alpaca_eval":
        raise MinilimaError(
            "This export command cannot be read.",
            f"{option} belongs to export model and export data.",
            "For example: minilima export data FOLDER +experiment=quickstart",
        )
    check_repository(name, option)


def _write_data(config: "Config", folder: Path, command: str, repository: str | None, model: str | None) -> None:
    from minilima.report.hub import open_repository, push

    if repository is not None:
        open_repository(repository, "dataset")
    exported = data_of(config, folder, command, model)
    console.say(f"Wrote {exported.examples:,} examples to {folder}:")
    console.show_table(("file", "bytes"), [(name, f"{size:,}") for name, size in exported.files.items()])
    console.say("Read README.md and state a licence in its header before you pass the data on.")
    if repository is not None:
        console.say(f"Uploaded to {push(folder, repository, 'dataset')}", whole=True)


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


def data_of(config: "Config", folder: Path, build_command: str, model: str | None = None) -> "Exported":
    """Writes the experiment's data set into a new folder.

    Args:
        config: the experiment.
        folder: must not be there yet, or be empty.
        build_command: what to type where the data set is not built; part of the error.
        model: the name on the hub of a model that was trained on it, to which the card links.

    Raises:
        MinilimaError: the data set is not in the store, or the folder holds something.
    """
    from minilima.report.export_dataset import export_data

    sources, graph, store = _entries(config)
    dataset = _built(graph, "dataset", store, sources, build_command)
    return export_data(config, sources, dataset, store.find(graph["pool"]), folder, model)


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
