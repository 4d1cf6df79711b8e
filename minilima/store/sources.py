"""Outside things a stage is made from, each by its content: files and models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilima.formats.alpaca_judges import OPENAI, read_annotators


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """A file and its sha256; `path` is None and `missing` says why where it is not on this machine yet."""

    name: str
    path: Path | None
    sha256: str
    """Of the content; where `listing` says how the file is read, of both."""
    missing: str | None = None
    listing: str | None = None
    """`/a/dataset_info.json:name` where an entry of such a file names `path` and describes its rows."""
    hub: str | None = None
    """`owner/name:split@commit` where `path` holds a split of a data set on the hub."""

    @property
    def local_path(self) -> Path:
        """`path` for stages, which only run where the file is there."""
        assert self.path is not None, "checked before anything runs"
        return self.path


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Weights from outside: `kind` is packaged, hub or path; `location` is what to load; `identity` enters keys."""

    kind: str
    location: str
    identity: str
    missing: str | None = None

    def recipe(self) -> dict[str, str]:
        # Packaged models were called embedded when the first keys were made.
        return {"kind": "embedded" if self.kind == "packaged" else self.kind, "identity": self.identity}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Everything external that an experiment uses. `data` is the file that tasks or a whole data set come from."""

    seeds: FileSource | None
    data: FileSource | None
    eval_set: FileSource
    base: ModelSource
    generator: ModelSource | None
    judge: ModelSource | None
    annotators: FileSource | None
    dev_set: FileSource | None
    reference: FileSource | None
    """Answers that the tuned model is judged against; None = the base model's."""
    scorer: ModelSource | None = None
    """The weights that score examples, for methods of selection that need them."""
    targets: FileSource | None = None
    """The tasks towards which examples are chosen, for methods that need them."""
    other_sets: tuple[FileSource, ...] = ()
    """Further evaluation sets of the experiment."""
    rubric: FileSource | None = None
    """What each rating means, for a judge that goes by a rubric."""

    @property
    def all_sets(self) -> tuple[FileSource, ...]:
        """Every evaluation set: what training data and dev prompts must not resemble."""
        return (self.eval_set, *self.other_sets)

    @property
    def evaluated_on(self) -> str | list[str]:
        """What the evaluation sets are to a key."""
        hashes = [one.sha256 for one in self.all_sets]
        return hashes if self.other_sets else hashes[0]

    @property
    def annotators_ask_openai(self) -> bool:
        """Whether the annotators of alpaca_eval, if there are any, ask an OpenAI-compatible endpoint."""
        if self.annotators is None or self.annotators.path is None:
            return False
        return any(
            settings.get("fn_completions", OPENAI) == OPENAI for settings in read_annotators(self.annotators.path).values()
        )

    def judge_models(self, model: str | None) -> list[str]:
        """The models that the judge asks: `model`, or else those that the annotators of alpaca_eval name."""
        if model is not None:
            return [model]
        return [str(kwargs["model_name"]) for kwargs in self._all_kwargs() if "model_name" in kwargs]

    def judge_kwargs(self) -> dict[str, Any]:
        """How the first of the annotators of alpaca_eval samples a reply; empty where there is none."""
        return next(iter(self._all_kwargs()), {})

    def _all_kwargs(self) -> list[dict[str, Any]]:
        if self.annotators is None or self.annotators.path is None:
            return []
        return [settings.get("completions_kwargs") or {} for settings in read_annotators(self.annotators.path).values()]

    def converted(self, role: str) -> ModelSource:
        """The model that the stage base, generator_base, judge_base or scorer_base converts."""
        own = {"generator_base": self.generator, "judge_base": self.judge, "scorer_base": self.scorer}
        # One of several judges has its name after the role.
        return next((model for name, model in own.items() if role.startswith(name)), None) or self.base

    def missing(self) -> list[str]:
        """What has to be reached before the experiment can run, in words."""
        parts = (self.seeds, self.data, *self.all_sets, self.base, self.generator, self.judge, self.scorer)
        return [part.missing for part in parts if part is not None and part.missing]


def answers_beside(outputs: Path) -> Path | None:
    """answers.jsonl of the store entry that a model_outputs.json lies in; None where it lies elsewhere."""
    own = outputs.parent / "answers.jsonl"
    return own if own.is_file() and (outputs.parent / "manifest.json").is_file() else None
