"""The whole pipeline with a generator and a judge of every kind: what a probe finds, all stages know."""

from pathlib import Path

import pytest

from minilima.config.compose import load_config
from minilima.errors import MinilimaError
from minilima.formats.records import Progress
from minilima.pipeline import run
from minilima.run import build, dry_run
from minilima.run.stages import spec_of
from minilima.store.job import Job, Outcome
from tests.generate.test_pool import writer
from tests.personalities import PERSONALITIES, Personality, settings
from tests.server import VALID_KEY, ModelServer

SMALL = (
    "data.instructions=6", "data.requests_per_round=2", "data.instructions_per_request=3", "dataset.size=6", "sft.epochs=1",
    "sft.batch_size=2", "compute=cpu", "eval_set.size=2", "eval.max_tokens=6", "tracking=none",
)  # fmt: skip


def in_this_process(job: Job, on_progress: object) -> Outcome:
    """A stage as a worker builds it, without the seconds that a process takes to begin."""

    def ignore(progress: Progress) -> None:
        """Nobody listens."""

    return spec_of(job.kind).build(job, ignore)


def work_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages and the trial of the base model run in this process, where torch is loaded already."""
    monkeypatch.setattr(build, "run_stage", in_this_process)
    monkeypatch.setattr(dry_run, "tried", dry_run.reply_to)


def answer(body: dict[str, object]) -> str:
    return "Output (a)" if body["model"] == "writer-large" else writer(body)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all: what no endpoint writes (model, answers) is the same for each, and is built once."""
    return tmp_path_factory.mktemp("outputs")


def forget_replies(outputs: Path) -> None:
    """Removes what endpoints wrote."""
    for pattern in ("store/pool-*", "store/verdicts-*", "cache/*"):
        for path in outputs.glob(pattern):
            path.rename(outputs / f"old-{path.name}-{len(list(outputs.iterdir()))}")


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda item: f"{item.server}: {item.behaviour}")
def test_the_whole_pipeline_runs_with_every_server_that_can_work(
    personality: Personality, outputs: Path, tiny_model: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)
    work_here(monkeypatch)
    forget_replies(outputs)
    personality.play(server)
    server.answer = answer
    config = load_config([*settings(server.url), *SMALL, f"model.path={tiny_model}", f"paths.outputs={outputs}"])
    if not personality.works:
        with pytest.raises(MinilimaError):
            run(config)
        return
    summary = run(config)
    (verdicts,) = (stage for stage in summary.stages if stage.role == "verdicts")
    assert verdicts.metrics["prompts"] == 2 and not verdicts.usage["cached"]
    assert {body["model"] for body in server.probes} == {"writer-small", "writer-large"}
