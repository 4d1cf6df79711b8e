"""THE page to read: one experiment, from seed tasks to a report.

    seeds ─> pool ─> dataset ─> model ─> answers ─> verdicts ─> report
             │        │          │         │  └─ reference answers: the base model's
             │        │          │         └─ eval_set
             │        │          └─ base model, sft recipe
             │        └─ size, seed
             └─ generator

`stages` is this figure in code, a line an arrow. With epoch.select=judge|dev_loss the weights of all epochs are a stage before
the model, which is chosen among them. What is in the store is reused; the rest is built in a process of its own, one stage
after the other. This process never imports torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from minilima import console
from minilima.config.choices import Until
from minilima.config.schema import Config
from minilima.evaluate.judge import draws_order
from minilima.evaluate.judge_cards import find_card
from minilima.evaluate.judge_forms import form_of
from minilima.evaluate.judged import Judged, read_judged
from minilima.evaluate.length_control_cached import length_controlled_win_rate
from minilima.evaluate.results import Results, compute_results, loss_against
from minilima.formats.records import Usage
from minilima.models.budget import spent_usd
from minilima.report.alpaca_files import as_run
from minilima.report.run_folder import Summary, write_run
from minilima.report.wandb import track
from minilima.run.graph import Graph, Node, arrow, run_name
from minilima.run.launch import run_stage
from minilima.run.plan import make_plan
from minilima.run.plan_table import show
from minilima.run.preflight import check_ready, check_still_there, confirm_spending
from minilima.run.sources import resolve
from minilima.run.stages import answers, base, choice, dataset, model, pool, verdicts
from minilima.run.stages.verdicts import judge_identity
from minilima.store.entries import Artifact, Store, reserved
from minilima.store.job import Job, Outcome
from minilima.store.sources import Sources


def stages(config: Config, sources: Sources) -> Graph:
    """The figure in code, a line an arrow; a stage or an input that the experiment does not have is None."""
    to = partial(arrow, config, sources)
    trained = to(base.BASE)
    writes = to(base.GENERATOR_BASE) if sources.generator not in (None, sources.base) else trained
    judges = (to(base.JUDGE_BASE) if sources.judge not in (None, sources.base) else None) or trained

    tasks = to(pool.POOL, generator=writes if pool.writes_here(config) else None)
    examples = to(dataset.DATASET, pool=tasks, generator=writes if dataset.rates_here(config) else None)
    epochs = to(model.EPOCHS, base=trained, dataset=examples)
    if epochs is None:
        tuned = to(model.MODEL, base=trained, dataset=examples)
    else:
        tuned = to(choice.CHOICE, epochs=epochs, dataset=examples, judge=judges if choice.judged_here(config) else None)
    opponent = to(answers.BASE_ANSWERS if sources.reference is None else answers.REFERENCES, model=trained)
    replies = to(answers.ANSWERS, model=tuned)
    judge = judges if verdicts.judges_here(config) else None
    compared = to(verdicts.VERDICTS, answers=replies, reference=opponent, judge=judge)
    return Graph(nodes=(trained, tasks, examples, epochs, tuned, opponent, replies, compared))


def run(config: Config, *, shown: bool = False, confirmed: bool = False) -> Summary:
    """Builds what is missing, reports, and returns what came out.

    Args:
        config: the experiment.
        shown: whether its plan was shown and confirmed before, as part of a sweep's.
        confirmed: whether more than `confirm_above_usd` may be spent without asking.

    Raises:
        MinilimaError: something that the user can remove stands in the way; nothing that was finished is lost.
    """
    sources = resolve(config)
    graph = stages(config, sources)
    outputs = Path(config.paths.outputs)
    store = Store(outputs / "store")
    planned = make_plan(config, sources, graph, store)
    if not shown:
        show(config, planned)
    check_ready(config, sources, graph, store)
    if not (shown or confirmed):
        confirm_spending(planned, config.confirm_above_usd)

    nodes = graph.until(config.until)
    needs = [node.stage.directory for node in graph.until(Until.report)]
    artifacts: dict[str, Artifact] = {}
    with reserved(store.root, [node.stage.directory for node in nodes]):
        check_still_there(planned, make_plan(config, sources, graph, store))
        for node in nodes:
            artifacts[node.role] = get_or_build(node, config, sources, store, needs=needs)
        judged = read_judged({role: artifact.path for role, artifact in artifacts.items()})
        results = results_of(judged, artifacts, config, sources)
        outcomes = {node.role: node.spec.outcome(artifacts[node.role].metrics) for node in nodes}
        folder = outputs / "runs" / run_name(config, graph)
        summary = write_run(folder, config, sources, artifacts, outcomes=outcomes, judged=judged, results=results)
    summary = track(summary, config)
    _show_end(summary)
    return summary


def get_or_build(node: Node, config: Config, sources: Sources, store: Store, *, needs: Sequence[str] = ()) -> Artifact:
    """One stage, with its live line. Its inputs are in the store by now; `needs` is what must be kept while it is unfinished."""
    stage = node.stage
    if existing := store.find(stage):
        return existing
    cache = (store.root.parent / "cache" / "replies.sqlite").resolve()
    with console.stage_line(node.role, lambda: spent_usd(cache, stage.account)) as line:

        def build(work: Path) -> Outcome:
            job = Job(
                kind=node.spec.kind,
                role=node.role,
                key=stage.key,
                work=work.resolve(),
                inputs={name: (store.root / source.directory).resolve() for name, source in stage.inputs.items()},
                config=config,
                sources=sources,
                cache=cache,
                account=stage.account,
                needs=tuple(needs),
            )
            return run_stage(job, line.update)

        artifact = store.get_or_build(stage, build, line.wait_for)
    seconds = artifact.manifest["seconds"]
    console.say(f"{node.role:<18} {artifact.how} in {seconds:.0f} s: {node.spec.outcome(artifact.metrics)}")
    if used := Usage(**artifact.manifest["usage"]).told():
        console.say(f"{'':<18} {used}")
    return artifact


def results_of(judged: Judged | None, artifacts: Mapping[str, Artifact], config: Config, sources: Sources) -> Results | None:
    """What the finished stages of an experiment come to; None where it stops before the verdicts."""
    if judged is None:
        return None
    results = compute_results(judged, min_coverage=config.judge.min_coverage, random_order=draws_order(config.judge))
    outputs = Path(config.paths.outputs)
    controlled = None
    if results.win_rate is not None:
        tables = Path(config.paths.length_tables).expanduser() if config.paths.length_tables else None
        run, key = as_run(config.judge, judged), artifacts["verdicts"].stage.key
        controlled = length_controlled_win_rate(run, key, tables, outputs / "cache" / "length_control")
    card = find_card(judge_identity(config, sources), form_of(config.judge), outputs / "judges")
    results = replace(results, judge_card=card, length_controlled=controlled)
    if sources.reference is None:
        return results
    other = sources.reference.name
    loss = loss_against(sources.reference.path, judged)
    return replace(results, against=f"the answers in {other}", other=other, loss_against=loss)


_TO_COPY = ("Report:", "W&B:")
"""Lines with an address or a command."""


def _show_end(summary: Summary) -> None:
    rows = [(entry.role, entry.how, f"{entry.seconds:.1f}", entry.outcome) for entry in summary.stages]
    console.show_result(rows)
    for line in summary.headlines():
        console.say(line, whole=line.startswith(_TO_COPY))
