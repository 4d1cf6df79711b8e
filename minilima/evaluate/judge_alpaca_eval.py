"""The judges of the real alpaca-eval package (0.6.6), run on local files alone; its cache lies in the stage's scratch folder.

    judge.annotators_config ─> a copy with judge.model ─> PairwiseAnnotator, 1 and then a few pairs at a time ─> verdicts
What the package drops is a verdict that could not be read, and so is a reply that was cut; a refusal of the endpoint stops the
stage. The package keeps what it judged when it has judged all that it was given: it is given as many pairs as may be in flight,
and a kill loses no more.
"""

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any

import openai
from omegaconf import OmegaConf

from minilima.config.schema import EndpointConfig
from minilima.errors import MinilimaError
from minilima.formats.alpaca_judges import OPENAI, read_annotators
from minilima.formats.files import remembered, write_atomic
from minilima.formats.records import Answer, OnProgress, Progress, Usage, Verdict
from minilima.models.address import address_of, address_text
from minilima.models.database import open_database
from minilima.models.dialects import Dialects
from minilima.models.in_flight import in_flight, is_stopping
from minilima.models.masking import masked
from minilima.models.refusals import explain
from minilima.store.job import Job

_MARKUP = re.compile(r"<\|(im_start|im_end)\|>")
_CUT = "(cut)"
"""In the place of a reply that was cut."""
_MISSING = -1
"""How its cache marks a pair whose reply had no verdict; such pairs are asked about again."""


def judge_with_alpaca_eval(
    job: Job, pairs: Sequence[tuple[Answer, Answer]], on_progress: OnProgress
) -> tuple[list[Verdict], Usage]:
    """Has the package judge (reference model's, tuned model's) answers.

    Raises:
        MinilimaError: the endpoint refuses, a cap is set (the package knows none), or the package fails.
    """
    budget = job.config.endpoints.judge.budget
    if any(cap is not None for cap in (budget.usd, budget.tokens, budget.requests)):
        raise MinilimaError(
            "judge=alpaca_eval cannot keep a cap.",
            "The requests are sent by alpaca_eval's own client, which counts nothing beforehand.",
            "Leave endpoints.judge.budget out, or use judge=gpt4_turbo_weighted, which keeps it.",
        )
    verdicts: list[Verdict] = []
    cut: list[str] = []
    try:
        annotator = _annotator(job, cut)
        for chunk in _chunks(pairs, job.config.endpoints.judge.concurrency):
            base, tuned = ([_row(pair[side]) for pair in chunk] for side in (0, 1))
            with in_flight():
                judged = {row["instruction"]: row for row in annotator.annotate_head2head(outputs_1=base, outputs_2=tuned)}
            if is_stopping():
                raise KeyboardInterrupt
            verdicts += [_verdict(pair[1], judged[plain(pair[1].instruction)], cut) for pair in chunk]
            on_progress(Progress(done=len(verdicts), total=len(pairs), unit="verdicts"))
    except openai.OpenAIError as error:
        raise explain(error, job.config.judge.model or "of the annotators_config", job.config.endpoints.judge) from None
    except Exception as error:
        variable = job.config.endpoints.judge.api_key_env
        sys.stderr.write(masked(traceback.format_exc(), variable))  # for the stage's log
        raise MinilimaError(
            f"alpaca_eval failed after {len(verdicts):,} of {len(pairs):,} pairs.",
            f"{type(error).__name__}: {masked(' '.join(str(error).split()), variable)[:300]}.",
            "The stage's log has the rest. What was judged is kept: run the same command again to continue.",
        ) from error
    unread = sum(verdict.preference is None for verdict in verdicts)
    asked = sum(base.text != tuned.text for base, tuned in pairs)
    return verdicts, Usage(calls=asked, faults={"unusable": unread} if unread else {})


def _chunks(pairs: Sequence[tuple[Answer, Answer]], size: int) -> Iterator[list[tuple[Answer, Answer]]]:
    """The first pair, which finds a wrong key, then up to `size` at a time, after each of which the package writes its cache.

    The package joins by instruction: none may occur twice in a chunk.
    """
    chunk: list[tuple[Answer, Answer]] = []
    limit = 1
    for pair in pairs:
        if len(chunk) == limit or any(other[1].instruction == pair[1].instruction for other in chunk):
            yield chunk
            chunk, limit = [], size
        chunk.append(pair)
    yield chunk


def _annotator(job: Job, cut: list[str]) -> Any:
    """The package's annotator, with our model and endpoint, that reads and writes nothing outside the stage's folder."""
    from alpaca_eval.annotators import PairwiseAnnotator

    assert job.sources.annotators is not None and job.sources.annotators.path is not None, "resolved for this judge"
    configured = read_annotators(job.sources.annotators.path)
    folder = job.scratch / "annotators"
    folder.mkdir(parents=True, exist_ok=True)
    for number, settings in enumerate(configured.values()):
        write_atomic(folder / f"prompt_{number}.txt", settings["prompt_template"])
        settings["prompt_template"] = f"{folder.name}/prompt_{number}.txt"
        if job.config.judge.model is not None:
            settings["completions_kwargs"] = {**settings.get("completions_kwargs", {}), "model_name": job.config.judge.model}
    write_atomic(folder / "configs.yaml", OmegaConf.to_yaml(OmegaConf.create(configured)))
    cache = job.scratch / "alpaca_eval.json"
    _forget_missing(cache)
    annotator = PairwiseAnnotator(annotators_config=str((folder / "configs.yaml").absolute()), caching_path=str(cache))
    for name, settings in configured.items():
        if settings.get("fn_completions", OPENAI) == OPENAI:
            single = annotator.annotators[name]
            # Here and not in the file: a key is written nowhere.
            single.fn_completions = _without_cut(single.fn_completions, cut)
            given = single.completions_kwargs
            single.completions_kwargs = {**_connection(job.config.endpoints.judge), **given, **_learned(job, given)}
    return annotator


def _learned(job: Job, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the probe before the run showed that the model does not take: the package leaves out what is None."""
    endpoint = job.config.endpoints.judge
    with closing(open_database(job.cache)) as database:
        dialect = Dialects(database).load(address_text(endpoint), str(given.get("model_name")))
    usual = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 2048}
    asked = {**usual, **{name: value for name, value in given.items() if name in usual}}
    asked["max_completion_tokens"] = asked.pop("max_tokens")
    taken = dialect.applied(asked)
    if "max_tokens" not in dialect.limits_refused:
        taken["max_tokens"] = taken.pop("max_completion_tokens", taken.get("max_tokens"))
    return {**dict.fromkeys(usual), **taken}


def _connection(endpoint: EndpointConfig) -> dict[str, Any]:
    """How the package's `openai_completions` reaches an endpoint, whose address has every form that ours may have."""
    address = address_of(endpoint)
    client = {"timeout": endpoint.timeout_seconds, "max_retries": endpoint.max_retries}
    return {
        **({"openai_api_base": address.base_url} if address.base_url else {}),
        "openai_api_keys": [os.environ.get(endpoint.api_key_env) or "none"],
        "num_procs": endpoint.concurrency,
        "client_kwargs": {**client, "default_query": dict(address.query), "default_headers": dict(address.headers)},
    }


def _forget_missing(cache: Path) -> None:
    if cache.is_file():
        # The package writes over the file itself: a kill may leave half of it, and the package reads only a whole one.
        rows = remembered(cache, lambda rows: [row for row in rows if row["preference"] not in (None, _MISSING)])
        write_atomic(cache, json.dumps(rows or []))


def _row(answer: Answer) -> dict[str, str]:
    return {"instruction": plain(answer.instruction), "output": plain(answer.text), "generator": answer.generator}


def plain(text: str) -> str:
    """The text with chat markup taken apart: the package divides its prompts at it, and would cut them in an answer."""
    return _MARKUP.sub(r"<| \1 |>", text)


def _verdict(answer: Answer, row: Mapping[str, Any], cut: Sequence[str]) -> Verdict:
    """The verdict in a row of the package; `cut` are the prompts whose replies were cut."""
    preference = row["preference"]
    if preference is None or preference != preference:
        was_cut = any(plain(answer.instruction) in prompt for prompt in cut)
        why = "it was cut; raise max_tokens in the annotators_config" if was_cut else "alpaca_eval found no preference in it"
        return Verdict(id=answer.id, explanation=f"could not be read: {why}")
    return Verdict(id=answer.id, preference=float(preference), explanation=_words(row.get("preference_raw_completion")))


def _without_cut(complete: Callable[..., Any], cut: list[str]) -> Callable[..., Any]:
    """The package's function that asks, with replies made unreadable that were cut: they might have gone on otherwise.

    Their prompts are added to `cut`. One letter that is weighed by its probability is whole, although it is cut after it.
    """

    @wraps(complete)
    def completions(prompts: Sequence[str], *arguments: Any, **kwargs: Any) -> Any:
        replies = complete(prompts, *arguments, **kwargs)
        for index, whole in enumerate(replies["completions_all"] if replies else ()):
            if whole.get("finish_reason") == "length" and not whole.get("logprobs"):
                replies["completions"][index] = whole["text"] = _CUT
                cut.append(prompts[index])
        return replies

    return completions


def _words(reply: Any) -> str | None:
    """The judge's reply as text; of one with log-probabilities only those, in the API's form."""
    if not isinstance(reply, Mapping):
        return reply if isinstance(reply, str) else None
    tops = [
        [{"token": top["token"], "logprob": top["logprob"]} for top in position["top_logprobs"]]
        for position in (reply.get("logprobs") or {}).get("content") or []
    ]
    return json.dumps({"logprobs": {"content": [{"top_logprobs": top} for top in tops]}}) if tops else reply.get("text")
