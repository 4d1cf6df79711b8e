"""What is asked before anything is spent: is every key, model and input there, and may this much be spent?"""

from minilima import console
from minilima.config.choices import DeviceKind
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.evaluate.judge_forms import check_form
from minilima.models.budget import key_problem, missing_key
from minilima.models.engines import check_engine
from minilima.run.dry_run import check_source
from minilima.run.gpus import may_have_gpu
from minilima.run.graph import Graph
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


def check_ready(config: Config, sources: Sources, graph: Graph, store: Store) -> None:
    """Stops before anything is spent where a key or something on the hub is missing, or an input cannot be read.

    Raises:
        MinilimaError: names what is missing and the overrides that run the experiment locally, or the mistake.
    """
    check_form(config.judge)
    missing = [node for node in graph.until(config.until) if store.find(node.stage) is None]
    asked = {who for node in missing if (who := node.spec.asks(config, sources)) is not None}
    endpoints = {"generator": config.endpoints.generator, "judge": config.endpoints.judge}
    lacking = sorted({endpoints[who].api_key_env for who in asked if missing_key(endpoints[who])})
    if lacking:
        raise MinilimaError(
            f"No API key: {' and '.join('$' + name for name in lacking)} is not set.",
            "The generator or the judge of this experiment is a model behind an API; nothing was sent.",
            f"Set it (export {lacking[0]}=…), or run it on this machine with: {LOCALLY}",
        )
    for who in sorted(asked):
        if problem := key_problem(endpoints[who]):
            variable = endpoints[who].api_key_env
            what = f"The key in ${variable} cannot be sent."
            raise MinilimaError(what, f"The matter is that {problem}.", f"Set it again without that: export {variable}=…")
    names = {"generator": config.generator.model, "judge": config.judge.model}
    for who in sorted(asked):
        if not names[who] and not (who == "judge" and sources.annotators_ask_openai):
            raise MinilimaError(f"{who}.model is not set.", "An endpoint needs the name of a model.", f"Add {who}.model=…")
    if any(node.spec.uses_gpu(config, sources) for node in missing):
        _check_gpu(config)
    if missing:
        check_engine(config)
    for source in (sources.generator, sources.judge) if missing else ():
        if source is not None:
            check_source(source, trained=False)
    for node in missing:
        node.spec.check(config, sources)
    if missing and sources.missing():
        raise MinilimaError(
            f"Not on this machine: {'; '.join(sources.missing())}.",
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
            "compute.device=cuda demands one, and this process may use none; nothing was started.",
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
