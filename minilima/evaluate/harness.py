"""Tasks of lm-evaluation-harness (Gao et al.) through our own engines and reply cache: killed, a run goes on where it was.

the harness's requests ─> HarnessModel ─> texts to continue, likelihoods of continuations ─> reply cache ─> the harness's figures
Prompts are rendered by the chat template as answers are. Tasks, prompts, filters and figures are the harness's own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from minilima.errors import MinilimaError
from minilima.evaluate.answers import for_losses, load_engine
from minilima.evaluate.benchmark_scores import ITEMS
from minilima.evaluate.harness_tasks import check_task, folders_of
from minilima.evaluate.likelihoods import Likelihoods
from minilima.formats.files import write_atomic, write_jsonl
from minilima.formats.records import OnProgress
from minilima.models.cache import CachedModel
from minilima.models.chat import Request, Sampling, all_came, continue_text, counted
from minilima.models.template import prompt_text
from minilima.models.tokenizer import load_tokenizer
from minilima.store.job import Job, Outcome

REPLY_TOKENS = 256
"""Longest reply where a task says none, as in the harness."""


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A model of ours as the harness sees one."""

    def __init__(self, job: Job, location: str, name: str, on_progress: OnProgress) -> None:
        super().__init__()
        self.tokenizer = load_tokenizer(location)
        self._thinking = job.config.model.thinking
        self._on_progress = on_progress
        writer = load_engine(job, location, name)
        self.replies = CachedModel(writer, job.cache)
        self._context = getattr(writer, "context", None)

        def local() -> Any:
            return for_losses(writer, location, name, job.config.compute)

        self.likelihoods = CachedModel(Likelihoods(name, local, self._pair_ids), job.cache)

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return int(bos) if bos is not None else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        return self.replies.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        begun = add_special_tokens is None and string.startswith(self.tokenizer.decode(self.prefix_token_id))
        given = {"add_special_tokens": False if begun else add_special_tokens} if begun or add_special_tokens is not None else {}
        ids: list[int] = self.tokenizer.encode(string, **given)
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        if add_generation_prompt:
            return prompt_text(self.tokenizer, chat_history, self._thinking)
        return str(
            self.tokenizer.apply_chat_template(
                chat_history, tokenize=False, add_generation_prompt=False, continue_final_message=True
            )
        )

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        asked = [self._request(*request.args) for request in requests]
        replies = all_came(self.replies.reply_many(asked, counted(self._on_progress, len(asked), "replies")))
        return [reply.text for reply in replies]

    def _request(self, context: str, given: Mapping[str, Any]) -> Request:
        ways = normalize_gen_kwargs(dict(given), REPLY_TOKENS)
        tokens = int(ways["max_gen_toks"])
        sampling = Sampling(
            temperature=float(ways["temperature"]) if ways["do_sample"] else 0.0,
            top_p=float(ways.get("top_p", 1.0)),
            max_tokens=tokens,
            stop=tuple(text for text in ways["until"] if text) or None,
        )
        return Request(messages=continue_text(self._fitting(context, tokens)), sampling=sampling)

    def _fitting(self, context: str, tokens: int) -> str:
        """The text without a beginning that its tokenization adds by itself, cut on the left where the context is too short."""
        ids = self.tok_encode(context)
        if self._context is not None and len(ids) + tokens > self._context:
            context = str(self.tokenizer.decode(ids[-max(1, self._context - tokens) :]))
        begins = str(self.tokenizer.bos_token or "")
        adds = bool(begins) and self.tokenizer.encode("a")[:1] == [self.tokenizer.bos_token_id]
        return context.removeprefix(begins) if adds else context

    def _pair_ids(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As the harness divides a text: the tokens that are given, and those whose likelihood is asked for."""
        if context:
            given, asked = self._encode_pair(context, continuation)
            return list(given), list(asked)
        ids = self.tok_encode(continuation, add_special_tokens=False)
        return ([self.prefix_token_id], ids) if ids[0] != self.prefix_token_id else (ids[:1], ids[1:])

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._likely([request.args for request in requests])

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        return self._likely([texts for texts, _given, _asked in requests])

    def _likely(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """How likely each continuation is after its text, from the cache where it is there."""
        sampling = Sampling(temperature=0.0, max_tokens=0)
        asked = [Request(messages=continue_text(text), prefill=continuation, sampling=sampling) for text, continuation in pairs]
        replies = self.likelihoods.reply_many(asked, counted(self._on_progress, len(asked), "continuations"))
        return [Likelihoods.read(reply) for reply in replies]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        raise MinilimaError(
            "This task measures the perplexity of whole texts.",
            "minilima runs tasks that ask for replies or choose among continuations.",
            "Leave it out of benchmarks=[…].",
        )


def run_task(job: Job, task: str, location: str, name: str, on_progress: OnProgress) -> Outcome:
    """Writes items.jsonl, with the harness's score of each row, and results.json, its own figures.

    Raises:
        MinilimaError: the harness has no such task, or its data is neither on the hub nor here.
    """
    import langdetect
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    langdetect.DetectorFactory.seed = 0  # else it guesses a language differently from run to run
    check_task(task)
    settings, manager = job.config.benchmark, TaskManager(include_path=folders_of(task), include_defaults=False)
    model = HarnessModel(job, location, name, on_progress)
    with _data_of(task, settings.data):
        results = simple_evaluate(
            model=model, tasks=[task], num_fewshot=settings.shots, limit=settings.size, bootstrap_iters=0,
            apply_chat_template=bool(model.tokenizer.chat_template), fewshot_as_multiturn=True, task_manager=manager,
        )  # fmt: skip
    rows = item_rows(results["samples"])
    figures = {**results["results"], **results.get("groups", {})}[task]
    numbers = {key.removesuffix(",none"): float(value) for key, value in figures.items() if _is_figure(key, value)}
    write_jsonl(job.work / ITEMS, rows)
    kept = {part: results[part] for part in ("results", "groups", "versions", "n-shot", "n-samples") if part in results}
    write_atomic(job.work / "results.json", json.dumps(kept, indent=1, default=str))
    usage = model.replies.usage + model.likelihoods.usage
    return Outcome(metrics={"items": len(rows), "figures": numbers, **model.replies.arithmetic}, usage=usage)


def _is_figure(key: str, value: Any) -> bool:
    return "," in key and "_stderr" not in key and isinstance(value, int | float)


def item_rows(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each item: the scores that are one number from 0 to 1 an item, by the names of the harness's figures."""
    rows: dict[str, dict[str, Any]] = {}
    for part, of_part in samples.items():
        for sample in of_part:
            row = rows.setdefault(f"{part}/{sample['doc_id']}", {"id": f"{part}/{sample['doc_id']}", "scores": {}})
            beside = "" if sample["filter"] == "none" else f",{sample['filter']}"
            for metric in sample["metrics"]:
                if isinstance(sample[metric], int | float):
                    row["scores"][metric + beside] = float(sample[metric])
            row.setdefault("output", sample["filtered_resps"][0] if isinstance(sample["filtered_resps"][0], str) else None)
    # The log-likelihood of a perplexity is no score: it has no place among percentages.
    others = {figure for row in rows.values() for figure, score in row["scores"].items() if not 0 <= score <= 1}
    scored = [{figure: score for figure, score in row["scores"].items() if figure not in others} for row in rows.values()]
    return [{**row, "scores": scores} for row, scores in zip(rows.values(), scored, strict=True)]


@contextmanager
def _data_of(task: str, folder: str | None) -> Iterator[None]:
    """Lets the harness read its data sets from FOLDER/owner/name where they are there; else from the hub or its cache."""
    import datasets

    loads = datasets.load_dataset

    def load(path: str, *arguments: Any, **named: Any) -> Any:
        copy = Path(folder).expanduser() / path if folder else None
        try:
            return loads(str(copy) if copy is not None and copy.is_dir() else path, *arguments, **named)
        except (OSError, ValueError) as error:
            raise MinilimaError(
                f"The data of {task} could not be read ({path}).",
                " ".join(str(error).split())[:300],
                f"Fetch it where there is a network (hf download --repo-type dataset {path}; HF_ENDPOINT names a mirror), or "
                f"put a copy into FOLDER/{path} and name the folder with benchmark.data=FOLDER.",
            ) from None

    datasets.load_dataset = load
    try:
        yield
    finally:
        datasets.load_dataset = loads
