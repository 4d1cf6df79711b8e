"""The process in which one stage is built: it reads a job, does the work, and reports in JSON lines.

    python -m minilima.worker JOB.json          # started by launch.py; under torchrun for several training processes

Standard output carries only events (`{"progress": …}`, `{"outcome": …}`, `{"error": …}`); whatever libraries print goes
to the stage's log. When the parent dies, standard input closes and the worker stops, so two never build in one place.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock
from omegaconf import OmegaConf

from minilima.config import Config
from minilima.errors import MinilimaError, explain
from minilima.records import Tell
from minilima.sources import BASES, FileSource, ModelSource, Sources
from minilima.store import SCRATCH, Outcome

RANK = int(os.environ.get("RANK", "0"))


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker has to build. `role` is the stage's place in the experiment, e.g. reference_answers."""

    role: str
    key: str
    work: Path
    inputs: dict[str, Path]
    config: Config
    sources: Sources
    cache: Path
    account: str | None = None
    """Under which is booked what the stage asks of an endpoint; None = its key."""

    @property
    def scratch(self) -> Path:
        """For notes and checkpoints; not part of the result."""
        return self.work / SCRATCH

    @property
    def trains(self) -> bool:
        """Whether this is the training itself, for which several processes may work together."""
        return self.role == "epochs" or (self.role == "model" and "epochs" not in self.inputs)

    def model_location(self, source: ModelSource, role: str) -> str:
        """What to load for an outside model: its converted form where it is embedded, else where it is."""
        return str(self.inputs[role]) if source.kind == "embedded" else source.location

    def to_json(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["config"] = OmegaConf.to_container(OmegaConf.structured(self.config), enum_to_str=True)
        values["sources"] = asdict(self.sources)
        return json.dumps(values, default=str)

    @classmethod
    def from_json(cls, text: str) -> "Job":
        values = json.loads(text)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values["config"]))
        assert isinstance(config, Config)
        return cls(
            role=values["role"],
            key=values["key"],
            work=Path(values["work"]),
            inputs={role: Path(path) for role, path in values["inputs"].items()},
            config=config,
            sources=_sources(values["sources"]),
            cache=Path(values["cache"]),
            account=values["account"],
        )


def _sources(values: dict[str, Any]) -> Sources:
    def file(item: dict[str, Any] | None) -> FileSource | None:
        return FileSource(**{**item, "path": Path(item["path"]) if item["path"] else None}) if item else None

    def model(item: dict[str, Any] | None) -> ModelSource | None:
        return ModelSource(**item) if item else None

    files = ("seeds", "data", "eval_set", "annotators", "dev_set", "reference")
    parts: dict[str, Any] = {name: file(values[name]) for name in files}
    return Sources(**parts, **{name: model(values[name]) for name in ("base", "generator", "judge")})  # type: ignore[arg-type]


def _builder(job: Job) -> Callable[[Job, Tell], Outcome]:
    """The function that builds a stage; imported here so that a worker loads only what it needs."""
    role = job.role
    if role in BASES:
        from minilima.train.base import build_base

        return build_base
    if role == "pool":
        from minilima.construct.pool import build_pool

        return build_pool
    if role == "dataset":
        from minilima.construct.dataset import build_dataset

        return build_dataset
    if job.trains:
        from minilima.train.sft import build_model

        return build_model
    if role == "model":
        from minilima.train.choose import choose_epoch

        return choose_epoch
    if role in ("answers", "reference_answers"):
        from minilima.evaluate.answers import build_answers

        return build_answers
    if role == "agreement":
        from minilima.evaluate.agreement import build_agreement

        return build_agreement
    from minilima.evaluate.judge import build_verdicts

    return build_verdicts


def main(job_file: str) -> int:
    """Builds the job's stage; returns the exit status (1: an error that the user can mend was reported)."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_stop_with_parent, daemon=True).start()

    def emit(kind: str, value: object) -> None:
        if RANK == 0:
            content = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            _write_line(events, {kind: content})

    job = Job.from_json(Path(job_file).read_text(encoding="utf-8"))
    try:
        if RANK == 0:
            # An orphaned worker may need a moment to notice that its parent has died.
            FileLock(job.scratch / "worker.lock").acquire(timeout=60)
        outcome = _builder(job)(job, lambda progress: emit("progress", progress))
    except Exception as error:
        if (mistake := explain(error)) is None:
            raise
        emit("error", {"what": mistake.what, "why": mistake.why, "fix": mistake.fix})
        return 1
    emit("outcome", outcome)
    return 0


def _write_line(events: TextIO, event: dict[str, object]) -> None:
    events.write(json.dumps(event, ensure_ascii=False) + "\n")
    events.flush()


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def parse_error(values: dict[str, str]) -> MinilimaError:
    return MinilimaError(values["what"], values["why"], values["fix"])


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stderr.flush()
    # Skips the interpreter's tear-down, in which torch and DeepSpeed may abort a finished process.
    os._exit(status)
