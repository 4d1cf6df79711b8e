"""What is asked before anything is spent: is every key, model and input there, and may this much be spent?"""

from importlib.util import find_spec

from minilima import console
from minilima.config.choices import JudgeKind, Pick
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.formats.eval_sets import load_eval_set, read_references
from minilima.formats.seeds import load_seeds
from minilima.models.budget import missing_key
from minilima.models.engines import check_engine
from minilima.run.graph import Stages
from minilima.run.plan import Plan
from minilima.run.requests import endpoints_of
from minilima.store.entries import Store
from minilima.store.sources import Sources

LOCALLY = "generator=local model=smollm2_135m eval_set=minilima_100 judge=reference"
"""The overrides with which any experiment runs without keys and without the hub."""

_ASKED_BY = {"generator": "pool", "judge": "verdicts"}
"""The stage that asks an endpoint."""


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
        "Add --yes to go on without being asked, or set confirm_above_usd; an endpoint's budget.usd is a cap that holds.",
    )


def check_ready(config: Config, sources: Sources, graph: Stages, store: Store) -> None:
    """Stops before anything is spent where a key or something on the hub is missing, or an input cannot be read.

    Raises:
        MinilimaError: names what is missing and the overrides that run the experiment locally, or the mistake.
    """
    missing_stages = {role for role, stage in graph.until(config.until) if store.find(stage) is None}
    used = endpoints_of(config, sources)
    asked = {_ASKED_BY[role]: endpoint for role, (endpoint, _) in used.items()}
    if config.epoch.select == Pick.judge and "judge" in used:
        asked["model"] = used["judge"][0]
    lacking = sorted({found.api_key_env for role, found in asked.items() if role in missing_stages and missing_key(found)})
    if lacking:
        raise MinilimaError(
            f"No API key: {' and '.join('$' + name for name in lacking)} is not set.",
            "The generator or the judge of this experiment is a model behind an API; nothing was sent.",
            f"Set it (export {lacking[0]}=…), or run it on this machine with: {LOCALLY}",
        )
    for role, (_, model) in endpoints_of(config, sources).items():
        if not model and _ASKED_BY[role] in missing_stages and not sources.annotators_ask_openai:
            raise MinilimaError(f"{role}.model is not set.", "The endpoint has to be told which model.", f"Add {role}.model=…")
    if missing_stages:
        check_engine(config)
    if config.sft.quantise and find_spec("bitsandbytes") is None and missing_stages & {"epochs", "model"}:
        raise MinilimaError(
            "bitsandbytes is not installed.",
            f"sft.quantise={config.sft.quantise} keeps the frozen weights in its 4-bit form; nothing was started.",
            "Install it with: pip install 'minilima[qlora]', or choose sft=lora.",
        )
    if missing_stages and not sources.missing():
        _read_inputs(config, sources)
    if missing_stages and sources.missing():
        raise MinilimaError(
            f"Not on this machine: {'; '.join(sources.missing())}.",
            "The hub could not be reached, or HF_HUB_OFFLINE is set; nothing was started.",
            f"Fetch it with `hf download` where there is a network (HF_ENDPOINT names a mirror), or run locally with: {LOCALLY}",
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


def _read_inputs(config: Config, sources: Sources) -> None:
    """Reads the seed tasks and the evaluation set, so that a mistake in them is found before anything is spent."""
    if sources.seeds is not None and sources.seeds.path is not None:
        load_seeds(sources.seeds.path)
    prompts = load_eval_set(sources.eval_set, config.eval_set.size)
    if sources.reference is not None:
        answers = read_references(sources.reference, prompts)
        own = sum(answer.output == prompt.output for answer, prompt in zip(answers, prompts, strict=True))
        if config.judge.kind == JudgeKind.reference and own > len(prompts) / 2:
            raise MinilimaError(
                f"judge=reference cannot judge against the answers in {sources.reference.name}.",
                f"It asks which answer is closer to the set's own, and {own:,} of these {len(prompts):,} are the set's own: "
                "they cannot lose.",
                "Choose a judge that reads the answers (judge=cot, judge=local), or leave out eval.reference.",
            )
    if sources.dev_set is not None:
        load_eval_set(sources.dev_set, None)
