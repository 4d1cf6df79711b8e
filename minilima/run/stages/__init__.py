"""The stages, a module each: all that the pipeline has to know of one before it runs."""

from minilima.run.spec import Spec
from minilima.run.stages.agreement import AGREEMENT
from minilima.run.stages.answers import ANSWERS, BASE_ANSWERS, REFERENCES
from minilima.run.stages.base import BASE, GENERATOR_BASE, JUDGE_BASE, SCORER_BASE
from minilima.run.stages.benchmarks import BASE_BENCHMARK, BENCHMARK
from minilima.run.stages.choice import CHOICE
from minilima.run.stages.dataset import DATASET
from minilima.run.stages.model import EPOCHS, MODEL
from minilima.run.stages.pool import POOL
from minilima.run.stages.verdicts import VERDICTS

SPECS: tuple[Spec, ...] = (
    BASE, GENERATOR_BASE, JUDGE_BASE, SCORER_BASE, POOL, DATASET, EPOCHS, MODEL, CHOICE, BASE_ANSWERS, REFERENCES, ANSWERS,
    VERDICTS, AGREEMENT, BENCHMARK, BASE_BENCHMARK,
)  # fmt: skip


def spec_of(kind: str) -> Spec:
    """The stage of a job: what its process builds."""
    return next(spec for spec in SPECS if spec.kind == kind)
