"""THE page to read: one experiment, from seed tasks to a report.

    seeds ─> pool ─> dataset ─> model ─> answers ─> verdicts ─> report
             │        │          │         │  └─ reference answers: the base model's
             │        │          │         └─ eval_set
             │        │          └─ base model, sft recipe
             │        └─ size, seed
             └─ generator

With epoch.select=judge|dev_loss the weights of all epochs are a stage before the model, which is chosen among them.
Each arrow is a stage. What is in the store is reused; the rest is built in a process of its own, one after the other.
This process never imports torch.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from minilima import console
from minilima.config.choices import Until
from minilima.config.schema import Config
from minilima.evaluate.judge import draws_order
from minilima.evaluate.judge_cards import find_card, form_of
from minilima.evaluate.length_control_cached import length_controlled_win_rate
from minilima.evaluate.results import Results, compute_results, loss_against
from minilima.formats.records import Usage
from minilima.models.budget import spent_usd
from minilima.report.alpaca_files import as_run
from minilima.report.run_folder import Summary, write_run
from minilima.report.wandb import track
from minilima.run.describe import describe_outcome
from minilima.run.graph import judge_identity, run_name, stages
from minilima.run.launch import run_stage
from minilima.run.plan import make_plan
from minilima.run.plan_table import show
from minilima.run.preflight import check_ready, check_still_there, confirm_spending
from minilima.run.sources import resolve
from minilima.store.entries import Artifact, Store, reserved
from minilima.store.job import Job, Outcome, Stage
from minilima.store.sources import Sources


def run(config: Config, *, shown: bool = False, confirmed: bool = False) -> Summary:
    """Builds what is missing, reports, and returns what came out.

    Args:
        config: the experiment.
        shown: whether its plan was shown and confirmed before, as part of a sweep's.
        confirmed: whether more than `confirm_above_usd` may be spent without asking.

    Raises:
        MinilimaError: something the user can mend stands in the way; nothing that was finished is lost.
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

    folder = outputs / "runs" / run_name(config, graph)
    artifacts: dict[str, Artifact] = {}
    with reserved(store.root, [stage.directory for _, stage in graph.until(config.until)]):
        check_still_there(planned, make_plan(config, sources, graph, store))
        for role, stage in graph.until(config.until):
            artifacts[role] = get_or_build(role, stage, config, sources, store)
        results = results_of(artifacts, config, sources)
        summary = write_run(folder, config, artifacts, results)
    summary = track(summary, config)
    _show_end(summary)
    return summary


def get_or_build(role: str, stage: Stage, config: Config, sources: Sources, store: Store) -> Artifact:
    """One stage, with its live line. Its inputs are in the store by now."""
    if found := store.find(stage):
        return found
    cache = (store.root.parent / "cache" / "replies.sqlite").resolve()
    with console.stage_line(role, lambda: spent_usd(cache, stage.account)) as line:

        def build(work: Path) -> Outcome:
            inputs = {name: (store.root / source.directory).resolve() for name, source in stage.inputs.items()}
            job = Job(
                role=role,
                key=stage.key,
                work=work.resolve(),
                inputs=inputs,
                config=config,
                sources=sources,
                cache=cache,
                account=stage.account,
            )
            return run_stage(job, line.update)

        artifact = store.get_or_build(stage, build, line.wait_for)
    seconds = artifact.manifest["seconds"]
    console.say(f"{role:<18} {artifact.how} in {seconds:.0f} s: {describe_outcome(role, artifact.metrics)}")
    if used := Usage(**artifact.manifest["usage"]).told():
        console.say(f"{'':<18} {used}")
    return artifact


def results_of(artifacts: Mapping[str, Artifact], config: Config, sources: Sources) -> Results | None:
    """What the finished stages of an experiment come to; None where it stops before the verdicts."""
    if config.until not in (Until.verdicts, Until.report):
        return None
    results = compute_results(
        verdicts=artifacts["verdicts"].path,
        answers=artifacts["answers"].path,
        reference=artifacts["reference_answers"].path,
        min_coverage=config.judge.min_coverage,
        random_order=draws_order(config.judge),
    )
    outputs = Path(config.paths.outputs)
    controlled = None
    if results.win_rate is not None:
        tables = Path(config.paths.length_tables).expanduser() if config.paths.length_tables else None
        run, key = as_run(config, artifacts), artifacts["verdicts"].stage.key
        controlled = length_controlled_win_rate(run, key, tables, outputs / "cache" / "length_control")
    card = find_card(judge_identity(config, sources), form_of(config.judge), outputs / "judges")
    results = replace(results, judge_card=card, length_controlled=controlled)
    if sources.reference is None:
        return results
    other = sources.reference.name
    loss = loss_against(sources.reference.path, artifacts["answers"].path)
    return replace(results, against=f"the answers in {other}", other=other, loss_against=loss)


_TO_COPY = ("Report:", "W&B:")
"""Lines with an address or a command."""


def _show_end(summary: Summary) -> None:
    rows = [
        (entry.role, entry.how, f"{entry.seconds:.1f}", describe_outcome(entry.role, entry.metrics)) for entry in summary.stages
    ]
    console.show_result(rows)
    for line in summary.headlines():
        console.say(line, whole=line.startswith(_TO_COPY))
