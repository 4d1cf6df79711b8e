"""THE page to read: one experiment, from seed tasks to a report.

    seeds ─> pool ─> dataset ─> model ─> answers ─> verdicts ─> report
             │        │          │         │  └─ base answers
             │        │          │         └─ eval_set, or each of several
             │        │          ├─ base model, sft recipe
             │        │          └─> benchmarks: tuned model and base model
             │        └─ size, seed, scorer
             └─ generator

`stages` is this figure in code, a line an arrow. With epoch.select=judge|dev_loss the weights of all epochs are a stage before
the model, which is chosen among them. What is in the store is reused; the rest is built in a process of its own, one stage
after the other. This process never imports torch.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.config.choices import Until
from minilima.config.outputs import store_note
from minilima.config.schema import Config
from minilima.models.database import cache_file
from minilima.run.build import get_or_build
from minilima.run.graph import Graph, arrow, run_name
from minilima.run.plan import Plan, make_plan
from minilima.run.plan_table import show
from minilima.run.preflight import check_inputs, check_ready, check_still_there, confirm_spending, obstacles
from minilima.run.sources import resolve
from minilima.run.speed import read_manifests
from minilima.run.stages import answers, base, benchmarks, choice, dataset, model, pool, verdicts
from minilima.run.views import View, every_view, of_judges, of_sets
from minilima.store.entries import Artifact, Store, reserved
from minilima.store.sources import Sources

if TYPE_CHECKING:
    from minilima.report.panel import Asked
    from minilima.report.summary import Summary


def stages(config: Config, sources: Sources) -> Graph:
    """The figure in code, a line an arrow; a stage or an input that the experiment does not have is None."""
    to = partial(arrow, config, sources)
    trained = to(base.BASE)
    writes = to(base.GENERATOR_BASE) if sources.generator not in (None, sources.base) else trained
    judges = View(config=config, sources=sources).weights(trained)

    tasks = to(pool.POOL, generator=writes if pool.writes_here(config) else None)
    scorer = {sources.judge: judges, sources.generator: writes, sources.base: trained}.get(sources.scorer) or to(base.SCORER_BASE)
    rates = writes if dataset.rates_here(config) else None
    examples = to(dataset.DATASET, pool=tasks, generator=rates, scorer=scorer if sources.scorer is not None else None)
    epochs = to(model.EPOCHS, base=trained, dataset=examples)
    if epochs is None:
        tuned = to(model.MODEL, base=trained, dataset=examples)
    else:
        tuned = to(choice.CHOICE, epochs=epochs, dataset=examples, judge=judges if choice.judged_here(config) else None)
    sets, both = of_sets(config, sources), (trained, tuned)
    answered = []
    for each in sets:
        opponent = each.to(answers.BASE_ANSWERS if each.sources.reference is None else answers.REFERENCES, model=trained)
        answered.append((opponent, each.to(answers.ANSWERS, model=tuned)))
    checks = [to(spec, model=one) for pair in benchmarks.pairs(config) for spec, one in zip(pair, both, strict=True)]
    compared = []
    for each, (opponent, replies) in zip(sets, answered, strict=True):
        for one in of_judges(each):
            judge = one.weights(trained) if verdicts.judges_here(one.config) else None
            compared.append(one.to(verdicts.VERDICTS, answers=replies, reference=opponent, judge=judge))
    every = [node for pair in answered for node in pair]
    return Graph(nodes=(trained, tasks, examples, epochs, tuned, *every, *checks, *compared))


def plan(config: Config) -> Plan:
    """What `run` would build, reuse and cost, without doing it.

    Raises:
        MinilimaError: a source that the config names does not exist, or no stage could be built from it.
    """
    sources = resolve(config)
    graph, store = stages(config, sources), Store(Path(config.paths.outputs) / "store")
    check_inputs(config, graph, store)
    planned = make_plan(config, sources, graph, store)
    return planned.here(store_note(Path(config.paths.outputs)), obstacles(config, sources, graph, store))


def run(config: Config, *, shown: bool = False, confirmed: bool = False) -> "Summary":
    """Builds what is missing, reports, and returns what came out.

    Args:
        config: the experiment.
        shown: whether its plan was shown and confirmed before, as part of a sweep's.
        confirmed: whether more than `confirm_above_usd` may be spent without asking.

    Raises:
        MinilimaError: the run met a problem that the user can fix; nothing that was finished is lost.
    """
    sources = resolve(config)
    graph = stages(config, sources)
    outputs = Path(config.paths.outputs)
    store = Store(outputs / "store")
    planned = make_plan(config, sources, graph, store)
    if not shown:
        show(config, planned)
        if note := store_note(outputs):
            console.say(note)
    check_ready(config, sources, graph, store)
    if not (shown or confirmed):
        confirm_spending(planned, config.confirm_above_usd)

    nodes = graph.until(config.until)
    needs = [node.stage.directory for node in graph.until(Until.report)]
    artifacts: dict[str, Artifact] = {}
    # Figures need numpy and pages a template engine; a plan and a refusal need neither.
    from minilima.report.headlines import show_end
    from minilima.report.run_folder import StageNote, write_run
    from minilima.report.wandb import track

    with reserved(store.root, [node.stage.directory for node in nodes]):
        check_still_there(planned, make_plan(config, sources, graph, store))
        if missing := [node for node in nodes if store.find(node.stage) is None]:
            from minilima.run.probe import probe_missing  # brings the client of endpoints, which nothing else here needs

            probe_missing(missing, cache_file(outputs))
        for node in nodes:
            artifact = get_or_build(node, store, needs=needs)
            if missing:
                node.spec.accept(artifact.manifest, partial(read_manifests, store.root))
            artifacts[node.role] = artifact
        notes = {
            node.role: StageNote(outcome=node.spec.outcome(artifacts[node.role].metrics), files=node.spec.files) for node in nodes
        }
        folder = outputs / "runs" / run_name(config, graph)
        identity, every = verdicts.judge_identity(config, sources), asked(config, sources)
        summary = write_run(folder, config, sources, artifacts, notes=notes, judge_identity=identity, asked=every)
    summary = track(summary, config)
    show_end(summary, until=config.until, in_sweep=shown)
    return summary


def asked(config: Config, sources: Sources) -> "list[Asked]":
    """Every judge on every evaluation set, as the report is to read them."""
    from minilima.report.panel import Asked

    return [
        Asked(
            set=view.set, judge=view.judge, roles=view.roles, config=view.config, sources=view.sources,
            identity=verdicts.judge_identity(view.config, view.sources),
        )
        for view in every_view(config, sources)
    ]  # fmt: skip
