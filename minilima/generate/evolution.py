"""Evol-Instruct: tasks that are made harder, or lead to new ones, round after round (Xu et al. 2023, arXiv 2304.12244).

    tasks ─> an operation each, drawn ─> rewritten ─> anything gained? ─> answered ─> accepted: evolved again in the next round
                                             └─ eliminated: rejected.jsonl; its task is evolved again as it was
The prompts are our own words (prompts/pool/chat/evol_*.j2). What is drawn depends on seed, round and place alone, so a run that
was interrupted asks the same again and finds the replies in the cache.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from minilima.config.schema import DataConfig
from minilima.formats.records import OnProgress, Progress, Rejected, user_text
from minilima.formats.words import count_words
from minilima.generate.classification import says_yes
from minilima.generate.filters import instance_fault, instruction_fault
from minilima.generate.instances import Instance
from minilima.generate.instructions import Growth, Instruction
from minilima.generate.prompting import Prompter
from minilima.models.cache import CachedModel
from minilima.models.chat import FAILED, Reply, Request
from minilima.rouge import RougeIndex

IN_DEPTH = ("constraints", "deepen", "concretise", "reasoning", "complicate_input")
OPERATIONS = (*IN_DEPTH, "breadth")
"""One is drawn for each task and round, all equally often (section 3.2)."""

SORRY_WORDS = 80
"""An answer shorter than this that says "sorry" shows that the task cannot be done (section 3.2, elimination)."""

_OURS = re.compile(
    r"\b(the|this) (task (below|above)|(given|new|rewritten|original) task)\b|^\W*(new|rewritten) task\s*:", re.IGNORECASE
)
"""Words of the prompts, which a model copies into its task where it has not understood them."""
_HEADING = re.compile(r"^\W*(?:new |rewritten )?task\W*:\s*", re.IGNORECASE)
_EMPTY_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for from has have he her his i if in is it its me my no not of on or our she so that the "
        "their them then there they this to us was we were will with yes you your",
    )
)


@dataclass(kw_only=True)
class Evolution:
    """What came of the rounds: as a pool grows otherwise, and the answers."""

    growth: Growth = field(default_factory=Growth)
    instances: list[Instance] = field(default_factory=list)


def evolve(tasks: Sequence[Instruction], model: CachedModel, prompter: Prompter, seed: int, on_progress: OnProgress) -> Evolution:
    """Evolves each task once a round, until there are `data.instructions` new ones or `data.max_rounds` rounds were made.

    Args:
        tasks: where the evolution begins; they are not part of what comes out.
        model: rewrites, says whether anything was gained, and answers.
        prompter: asks it, as the experiment's `generator` and `data` say.
        seed: of the operations that are drawn.
        on_progress: called after each round.
    """
    data, made, current = prompter.data, Evolution(), list(tasks)
    seen = {_plain(user_text(task.instruction, task.input)) for task in tasks}
    index = RougeIndex(data.tokenizer)
    for task in tasks:
        index.add(task.id, task.instruction)
    for number in range(1, data.max_rounds + 1):
        before = len(made.instances)
        for line, instance in _round(number, current, made.growth.rejected, seen, model, prompter, index, seed):
            if len(made.instances) < data.instructions:
                current[line] = instance.task
                made.instances.append(instance)
        accepted = len(made.instances) - before
        made.growth.rounds.append({"round": number, "candidates": len(current), "accepted": accepted})
        note = f"round {number}, {len(made.growth.rejected):,} rejected"
        on_progress(Progress(done=len(made.instances), total=data.instructions, unit="evolved tasks", note=note))
        if len(made.instances) >= data.instructions:
            break
    else:
        made.growth.stopped = "max_rounds"
    made.growth.accepted = [instance.task for instance in made.instances]
    return made


def _round(
    number: int,
    current: Sequence[Instruction],
    rejected: list[Rejected],
    seen: set[str],
    model: CachedModel,
    prompter: Prompter,
    index: RougeIndex,
    seed: int,
) -> list[tuple[int, Instance]]:
    """The tasks that one round adds, each with its place in `current`; what was eliminated goes to `rejected`."""
    drawn = [random.Random(f"evol:{seed}:{number}:{line}").choice(OPERATIONS) for line in range(len(current))]
    before = [user_text(task.instruction, task.input) for task in current]
    sampling = prompter.sampling(prompter.data.instruction_tokens)
    asked = [
        prompter.request(f"evol_{operation}", [], sampling, number, task=text)
        for operation, text in zip(drawn, before, strict=True)
    ]
    written = model.reply_many(asked, usable=lambda reply: bool(_task_in(reply.text)))
    texts = [_task_in(reply.text) for reply in written]
    faults = [_fault(reply, text, prompter.data, seen) for reply, text in zip(written, texts, strict=True)]
    going = [line for line, fault in enumerate(faults) if fault is None]
    # In breadth nothing is to be compared: the task is another one.
    compared = [line for line in going if drawn[line] in IN_DEPTH]
    replies = model.reply_many(
        [_equal(prompter, before[line], texts[line]) for line in compared], usable=lambda reply: says_yes(reply.text) is not None
    )
    for line, reply in zip(compared, replies, strict=True):
        faults[line] = "no_gain" if says_yes(reply.text) else None
    going = [line for line in going if faults[line] is None]
    answers = dict(zip(going, _answered(going, texts, number, model, prompter), strict=True))
    made = []
    for line, text in enumerate(texts):
        fault = faults[line] or answer_fault(text, answers[line])
        identity, request = f"e{number}.{line}", written[line].key or asked[line].key(model.name)
        if fault is not None:
            output = answers[line].text.strip() if line in answers else None
            rejected.append(
                Rejected(id=identity, text=text or written[line].text[:200], reason=fault, output=output, request=request)
            )
            continue
        seen.add(_plain(text))
        parents = (current[line].id, f"{drawn[line]}@{number}")
        made.append((line, _instance(identity, text, number, parents, request, answers[line], index)))
    return made


def _equal(prompter: Prompter, before: str, after: str) -> Request:
    return prompter.request("evol_equal", [], prompter.greedy(3), before=before, after=after)


def _answered(going: Sequence[int], texts: Sequence[str], number: int, model: CachedModel, prompter: Prompter) -> list[Reply]:
    words = prompter.data.answer_words
    sampling = prompter.instance_sampling()
    return model.reply_many(
        [prompter.request("answer", [], sampling, number, instruction=texts[line], input="", words=words) for line in going]
    )


def _instance(
    identity: str, text: str, number: int, parents: tuple[str, ...], request: str, answer: Reply, index: RougeIndex
) -> Instance:
    nearest = index.nearest(text)
    index.add(identity, text)
    task = Instruction(
        id=identity, instruction=text, complete=True, round=number, parents=parents, request=request,
        nearest_id=nearest.id if nearest else None, nearest_rouge=round(nearest.rouge, 4) if nearest else None,
        most_similar=nearest.most_similar if nearest else {}, mean_rouge=round(nearest.mean, 4) if nearest else None,
    )  # fmt: skip
    return Instance(
        task=task, number=0, is_classification=None, input="", output=answer.text, replies=(answer,), request=answer.key
    )


def _task_in(text: str) -> str:
    """The task in a reply: without a heading or marks around it."""
    return _HEADING.sub("", text.strip()).strip().strip('#*"“”').strip()


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _fault(reply: Reply, text: str, data: DataConfig, seen: set[str]) -> str | None:
    """Why a rewritten task is eliminated, before anything is asked about it."""
    if reply.finish == FAILED:
        return "no_reply"
    if reply.finish == "length":
        return "truncated"
    if _OURS.search(reply.text):
        return "copies_the_prompt"
    if _plain(text) in seen:
        return "no_gain"
    return instruction_fault(text, data)


def answer_fault(task: str, answer: Reply) -> str | None:
    """Why a task is eliminated by its answer (section 3.2): an apology, or nothing but punctuation and words without content;
    and what other pools reject too."""
    text = answer.text.strip()
    if answer.finish == FAILED:
        return "no_reply"
    if "sorry" in text.lower() and count_words(text) < SORRY_WORDS:
        return "apology"
    if text and not set(_plain(text).split()) - _EMPTY_WORDS:
        return "says_nothing"
    return instance_fault(instruction=task, input_text="", output=text, truncated=answer.finish == "length")
