"""The verdicts: for each prompt, whose answer the judge prefers."""

from collections.abc import Mapping
from typing import Any

from minilima.config.choices import JudgeKind, Orders, Until
from minilima.config.schema import Config
from minilima.errors import MinilimaError
from minilima.evaluate.judge_forms import form_named, form_shown
from minilima.formats.eval_sets import load_eval_set, read_references, require_references
from minilima.formats.files import canonical_json, sha256_text
from minilima.formats.records import OnProgress
from minilima.models.packaged import PACKAGED
from minilima.run.requests import ANSWER_TOKENS, CHARACTERS_A_TOKEN, Requests, count_prompts, prompt_lengths, requests_of_judge
from minilima.run.spec import Manifest, Manifests, Spec, Work, work
from minilima.run.stages.answers import prompts
from minilima.store.job import Job, Outcome
from minilima.store.sources import FileSource, Sources

VERSION = 1


def judges_here(config: Config) -> bool:
    """Whether a model on this machine judges."""
    return config.judge.kind == JudgeKind.local


def judge_recipe(config: Config, sources: Sources) -> dict[str, Any]:
    """All of a judge that can change its verdicts; the data are not part of it."""
    judge = config.judge
    if judge.kind == JudgeKind.reference:
        files = PACKAGED["all_minilm_l6_v2"].files if judge.embedding_weight else None
        fields = {"kind": judge.kind, "embedding_weight": judge.embedding_weight, "tie_margin": judge.tie_margin}
        return {**fields, "embedding": files}
    model: Any = (sources.judge or sources.base).recipe() if judges_here(config) else judge.model
    if judge.kind == JudgeKind.alpaca_eval:
        return {"kind": judge.kind, "model": model, "annotators": sources.annotators.sha256 if sources.annotators else None}
    form = form_named(judge.prompt)
    # Each answer alone has no order, and a form without a rubric none: what is not there enters no key.
    orders = None if form.alone else judge.orders
    rubric = sources.rubric.sha256 if sources.rubric is not None else None
    recipe = {"kind": judge.kind, "orders": orders, "model": model, "rubric": rubric}
    recipe = {name: value for name, value in recipe.items() if value is not None}
    if judges_here(config) and form.letters:
        return recipe
    asked = {name: getattr(judge, name) for name in ("prompt", "max_tokens", "temperature", "top_logprobs")}
    added = {name: value for name in ("reasoning_effort", "extra_body") if (value := getattr(judge, name))}
    return {**recipe, **asked, **added}


def judge_identity(config: Config, sources: Sources) -> str:
    """16 hex digits that name a judge: what of it enters the verdicts' key, without the data. Judge cards are filed under it."""
    return sha256_text(canonical_json({"version": VERSION, **judge_recipe(config, sources)}))[:16]


def _recipe(config: Config, sources: Sources) -> dict[str, Any]:
    judge = judge_recipe(config, sources)
    return {**judge, **prompts(config, sources)} if config.judge.kind == JudgeKind.reference else judge


def describe(config: Config, sources: Sources) -> str:
    """The judge, and in which order it sees two answers."""
    judge = config.judge
    asked = {Orders.both: "both orders", Orders.random: "one random order"}[judge.orders]
    if judge.kind in (JudgeKind.openai, JudgeKind.local) and form_named(judge.prompt).alone:
        asked = "each answer alone"
    orders = {JudgeKind.reference: "symmetric", JudgeKind.alpaca_eval: "one random order"}.get(judge.kind, asked)
    kind = f"{judge.kind}'s {judge.annotators_config}" if judge.kind == JudgeKind.alpaca_eval else judge.kind
    form = f"'s {shown}" if (shown := form_shown(judge)) not in (None, "choose") else ""
    return f"judge {kind}{form}{f' ({judge.model})' if judge.model else ''}, {orders}"


def _outcome(metrics: Mapping[str, Any]) -> str:
    counts = f"{metrics['wins']} won, {metrics['losses']} lost, {metrics['ties']} tied"
    return f"{metrics['judged']:,} of {metrics['prompts']:,} judged: {counts}"


def _build(job: Job, on_progress: OnProgress) -> Outcome:
    from minilima.evaluate.judge import build_verdicts

    return build_verdicts(job, on_progress)


def _check(config: Config, sources: Sources) -> None:
    """judge=reference needs the set's own answers, and answers that are the set's own cannot lose against it."""
    given = sources.reference
    if config.judge.kind != JudgeKind.reference or sources.eval_set.path is None:
        return
    asked = load_eval_set(sources.eval_set.local_path, config.eval_set.size)
    require_references({prompt.id: prompt.output for prompt in asked})
    if given is None:
        return
    answers = read_references(given.local_path, given.name, asked)
    own = sum(answer.output == prompt.output for answer, prompt in zip(answers, asked, strict=True))
    if own > len(asked) / 2:
        raise MinilimaError(
            f"judge=reference cannot judge against the answers in {given.name}.",
            f"It asks which answer is closer to the set's own, and {own:,} of these {len(asked):,} are the set's own: "
            "they cannot lose.",
            "Choose a judge that reads the answers (judge=cot, judge=local), or leave out eval.reference.",
        )


def asks(config: Config, sources: Sources) -> str | None:
    """`judge` where it is a model at an endpoint."""
    return "judge" if config.judge.kind == JudgeKind.openai or sources.annotators_ask_openai else None


def _requests(config: Config, sources: Sources) -> Requests | None:
    if asks(config, sources) is None:
        return None
    return judging(config, sources, sources.eval_set, config.eval_set.size, rounds=1)


def judging(config: Config, sources: Sources, asked: FileSource, size: int | None, *, rounds: int) -> Requests | None:
    """What judging the answers to a set of prompts `rounds` times will ask; None where the prompts are not known here."""
    lengths = prompt_lengths(asked, size)
    if not rounds or lengths is None:
        return None
    answers = 2 * CHARACTERS_A_TOKEN * min(ANSWER_TOKENS, config.eval.max_tokens)
    if config.judge.kind != JudgeKind.alpaca_eval and form_named(config.judge.prompt).each_turn and asked.path is not None:
        turns = [len(prompt.asked) for prompt in load_eval_set(asked.path, size)]
        lengths = tuple(length for length, number in zip(lengths, turns, strict=True) for _ in range(number))
    return requests_of_judge(config, sources, [length + answers for length in lengths] * rounds)


def _planned(config: Config, sources: Sources, inputs: Manifests) -> Work | None:
    judge = config.judge
    own = (sources.judge or sources.base).recipe() if judges_here(config) else judge.model
    number = count_prompts(sources.eval_set, config.eval_set.size)
    asked = own if judge.kind != JudgeKind.reference else None
    return work(number * _orders(judge.orders) if number else None, "verdicts", judge.kind, asked)


def _finished(manifest: Manifest, inputs: Manifests) -> Work | None:
    judge = manifest["recipe"]
    number = manifest["metrics"]["prompts"] * _orders(judge.get("orders"))
    return work(number, "verdicts", judge["kind"], judge.get("model"))


def _orders(orders: str | None) -> int:
    return 1 if orders == Orders.random else 2


VERDICTS = Spec(
    kind="verdicts",
    stage="verdicts",
    version=VERSION,
    until=Until.verdicts,
    recipe=_recipe,
    describe=describe,
    outcome=_outcome,
    build=_build,
    check=_check,
    examples=lambda config, sources: count_prompts(sources.eval_set, config.eval_set.size),
    counted=("prompts",),
    asks=asks,
    requests=_requests,
    planned_work=_planned,
    finished_work=_finished,
    uses_gpu=lambda config, sources: judges_here(config),
    files=("annotators", "rubric"),
)
