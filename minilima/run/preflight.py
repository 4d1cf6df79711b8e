"""What is asked before anything is spent: is every key, model and input there, and may this much be spent?"""

from collections.abc import Sequence

from minilima import console
from minilima.config.choices import DeviceKind, Until
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.evaluate.judge_forms import check_form
from minilima.models.budget import key_problem, missing_key
from minilima.models.engines import check_engine
from minilima.run.dry_run import check_source
from minilima.run.gpus import may_have_gpu
from minilima.run.graph import Graph, Node
from minilima.run.plan import Plan
from minilima.store.entries import Store
from minilima.store.sources import Sources

LOCALLY = "generator=local model=smollm2_135m eval_set=minilima_100 judge=reference"
"""The overrides with which any experiment runs without keys and without the hub."""


def confirm_spending(plan: Plan, limit_usd: float | None) -> None:
    """Asks before a plan is carried out that may cost more than `limit_usd` (None: never); raises as `confirm_usd`."""
    confirm_usd(plan.needs.usd, limit_usd)


def confirm_usd(usd: float | None, limit_usd: float | None) -> None:
    """Asks before more than `limit_usd` may be spent (None: never).

    Raises:
        MinilimaError: the answer is no, or there is nobody to ask.
    """
    if limit_usd is None or usd is None or usd <= limit_usd:
        return
    answer = console.confirm(f"This may cost about {usd:,.2f} USD (more than confirm_above_usd={limit_usd:g}). Go on?")
    if answer:
        return
    raise MinilimaError(
        f"Nothing was started: about {usd:,.2f} USD is more than confirm_above_usd={limit_usd:g}."
        if answer is None
        else "Nothing was started.",
        "There is no terminal to ask at." if answer is None else "You said no.",
        "Add --yes to start without being asked, or set confirm_above_usd; an endpoint's budget.usd is a cap that holds.",
    )


def check_inputs(config: Config, graph: Graph, store: Store) -> None:
    """Reads the inputs that are at hand, of stages that are to be built; for a plan too.

    Raises:
        MinilimaError: one of them cannot be read, or a stage cannot succeed with it.
    """
    for node in _missing(config, graph, store):
        node.spec.check(node.config, node.sources)


def obstacles(config: Config, sources: Sources, graph: Graph, store: Store) -> tuple[str, ...]:
    """Why this machine could not run what is planned, in one sentence; a plan may be made for another one."""
    try:
        _check_machine(config, sources, graph, _missing(config, graph, store))
    except MinilimaError as error:
        return (f"A run on this machine would stop before its first stage. {error}",)
    return ()


def check_ready(config: Config, sources: Sources, graph: Graph, store: Store) -> None:
    """Stops before anything is spent where a key or something on the hub is missing, or an input cannot be read.

    Raises:
        MinilimaError: names what is missing and the overrides that run the experiment locally, or the mistake.
    """
    missing = _missing(config, graph, store)
    for node in missing:
        node.spec.check(node.config, node.sources)
    _check_machine(config, sources, graph, missing)
    for node in missing:
        node.spec.try_out(node.config, node.sources)


def _missing(config: Config, graph: Graph, store: Store) -> list[Node]:
    return [node for node in graph.until(config.until) if store.find(node.stage) is None]


def _check_machine(config: Config, sources: Sources, graph: Graph, missing: Sequence[Node]) -> None:
    """Whether keys, models, GPU, engine and files are here."""
    for node in graph.until(Until.report):
        check_form(node.config.judge)
    asked = {(who, id(node.config)): node for node in missing if (who := node.spec.asks(node.config, node.sources)) is not None}
    endpoints = {key: getattr(node.config.endpoints, key[0]) for key, node in asked.items()}
    lacking = sorted({endpoint.api_key_env for endpoint in endpoints.values() if missing_key(endpoint)})
    if lacking:
        raise MinilimaError(
            f"No API key: {' and '.join('$' + name for name in lacking)} is not set.",
            "The generator or the judge of this experiment is a model behind an API; nothing was sent.",
            f"Set it (export {lacking[0]}=…), or run it on this machine with: {LOCALLY}",
        )
    for endpoint in endpoints.values():
        if problem := key_problem(endpoint):
            variable = endpoint.api_key_env
            what = f"The key in ${variable} cannot be sent."
            raise MinilimaError(what, f"The matter is that {problem}.", f"Set it again without that: export {variable}=…")
    for (who, _), node in asked.items():
        if not getattr(node.config, who).model and not (who == "judge" and node.sources.annotators_ask_openai):
            raise MinilimaError(f"{who}.model is not set.", "An endpoint needs the name of a model.", f"Add {who}.model=…")
    if any(node.spec.uses_gpu(node.config, node.sources) for node in missing):
        _check_gpu(config)
    if missing:
        check_engine(config)
    for source in dict.fromkeys((sources.generator, *(node.sources.judge for node in missing)) if missing else ()):
        if source is not None:
            check_source(source, trained=False)
    absent = list(dict.fromkeys(what for node in missing for what in (*sources.missing(), *node.sources.missing())))
    if absent:
        raise MinilimaError(
            f"Not on this machine: {'; '.join(absent)}.",
            "The hub could not be reached, or HF_HUB_OFFLINE is set; nothing was started.",
            "Fetch it where there is a network (`minilima plan` for data, `hf download` for models; $HF_ENDPOINT: a mirror). "
            f"Or run locally with: {LOCALLY}",
        )


def _check_gpu(config: Config) -> None:
    """Stops where a GPU is demanded and this machine has none; other machines are asked when they start."""
    elsewhere = config.compute.nodes != 1 or config.compute.hostfile is not None
    if config.compute.device == DeviceKind.cuda and not elsewhere and not may_have_gpu():
        raise MinilimaError(
            "There is no GPU.",
            "compute.device=cuda (as in compute=gpu) demands one, and this process may use none.",
            "Use compute=cpu, or compute=auto, which takes a GPU where there is one.",
        )


def check_still_there(shown: Plan, now: Plan) -> None:
    """Stops where something that the plan said would be reused was removed before the run could reserve it.

    Raises:
        MinilimaError: the run would build, and perhaps pay for, more than was shown.
    """
    if gone := sorted(set(now.to_build) - set(shown.to_build)):
        raise MinilimaError(
            f"No longer in the store: {', '.join(gone)}.",
            "Something was removed after the plan was shown; nothing was started.",
            "Run the same command again, it shows what is to be built now.",
        )
