"""The values that travel between stages: seed tasks, examples, answers, verdicts, and what model calls cost.

Each is a frozen dataclass and one line of a JSONL file (`files.write_jsonl`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class SeedTask:
    """A task written by a person, with one example and its answer (the format of Self-Instruct's seed_tasks.jsonl)."""

    id: str
    instruction: str
    input: str
    output: str
    is_classification: bool


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row of a data set: what the model is asked and what it should answer."""

    id: str
    instruction: str
    input: str
    output: str
    source: str
    """`seed`, `machine` or `file`: who wrote it."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier (user, assistant) turns of the conversation, the oldest first."""
    system: str | None = None
    """What the conversation was opened with, where an imported one has such a message."""
    is_classification: bool | None = None
    prompt: str | None = None
    """What the user says, where it is not `user_text(instruction, input)`."""
    round: int | None = None
    """Round of the generation in which the instruction was written."""
    parents: tuple[str, ...] | None = None
    """Ids of the tasks shown when it was written."""
    request: str | None = None
    """Key in the reply cache of the request that gave the output."""
    score: float | None = None
    """Rating by which it was chosen, where it was rated."""
    scores: dict[str, float] | None = None
    """The numbers that the rating was made of, where there are several."""
    nearest_id: str | None = None
    """The row it resembles most among those that stood before it."""
    nearest_rouge: float | None = None
    """ROUGE-L F1 with that row's instruction, 0 to 1."""

    def __post_init__(self) -> None:
        # JSON knows lists only: a row read back is the row that was written.
        object.__setattr__(self, "history", tuple((user, assistant) for user, assistant in self.history))
        object.__setattr__(self, "parents", None if self.parents is None else tuple(self.parents))

    def messages(self) -> list[dict[str, str]]:
        """The conversation in OpenAI's form: role and content of each turn, the answer last."""
        turns = [("system", self.system)] if self.system else []
        asked = self.prompt or user_text(self.instruction, self.input)
        for user, assistant in (*self.history, (asked, self.output)):
            turns += [("user", user), ("assistant", assistant)]
        return [{"role": role, "content": content} for role, content in turns]


def user_text(instruction: str, given: str) -> str:
    """What a user says to pose a task: the instruction, and the input below it where there is one."""
    return f"{instruction}\n\n{given}" if given else instruction


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """Something generated or imported that was rejected, with the reason."""

    id: str
    text: str
    """The instruction; of a reply in which none could be read, its beginning."""
    reason: str
    nearest_id: str | None = None
    """The earlier task, or the evaluation prompt, that it resembles most."""
    nearest_rouge: float | None = None
    """ROUGE-L F1 with that one's instruction, 0 to 1."""
    input: str | None = None
    output: str | None = None
    """The answer that was rejected with it, where there was one."""
    request: str | None = None
    """Key in the reply cache of the request that it came from."""


@dataclass(frozen=True, kw_only=True)
class EvalPrompt:
    """One row of an evaluation set; `output` is the reference answer where the set has one."""

    id: str
    instruction: str
    """What is asked; of a conversation all that the user says, as `shown_turns` puts it into one text."""
    output: str | None = None
    category: str | None = None
    turns: tuple[str, ...] = ()
    """What the user says, turn by turn, in a conversation; empty for a prompt that is asked once."""
    references: tuple[str, ...] = ()
    """The reference answer to each turn of a conversation, where the set has them; "" for a turn without one."""
    criteria: str | None = None
    """What a judge with a rubric is to look for in the answer to this prompt."""

    @property
    def asked(self) -> tuple[str, ...]:
        """What the user says, turn by turn; one turn for most prompts."""
        return self.turns or (self.instruction,)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A model's answer to an evaluation prompt."""

    id: str
    instruction: str
    output: str
    generator: str
    tokens: int
    truncated: bool
    """True where an answer met the token limit before the end of the turn."""
    history: tuple[tuple[str, str], ...] | None = None
    """The earlier turns of a conversation (user, this model), the oldest first; `output` answers the last one."""

    def __post_init__(self) -> None:
        if self.history is not None:  # JSON knows lists only
            object.__setattr__(self, "history", tuple((user, answer) for user, answer in self.history))

    @property
    def text(self) -> str:
        """All that the model said: its answer, or its answers with the number of each turn."""
        if not self.history:
            return self.output
        return shown_turns([*(answer for _, answer in self.history), self.output])


def shown_turns(texts: Sequence[str]) -> str:
    """The turns of one side of a conversation as one text; a single one as it is."""
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"[Turn {number}]\n{text}" for number, text in enumerate(texts, start=1))


@dataclass(frozen=True, kw_only=True)
class ReferenceLoss:
    """How surprising the reference answer is to a model: negative log-likelihood in nats, summed over its tokens."""

    id: str
    nats: float
    tokens: int


TIE = 1.5
"""The preference between 1 (the reference model wins) and 2 (the tuned model wins)."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A judge's comparison of the tuned model's answer with the reference model's.

    `preference` follows AlpacaEval: 1 = the reference model's answer is better, 2 = the tuned model's, 1.5 = a tie,
    None = the judge's reply could not be read.
    """

    id: str
    preference: float | None = None  # fields that are None are not written
    orders: tuple[float, ...] = ()
    """The preference in each order of presentation, where the judge was asked in more than one."""
    explanation: str | None = None
    weight: float | None = None
    """How often the verdict counts in the win rate; None = once, as every other."""
    scores: tuple[float, float] | None = None
    """The scores of the reference model's answer and of the tuned model's, where the judge saw each alone."""
    turn_scores: tuple[tuple[float, float], ...] | None = None
    """The same of each turn of a conversation, where each was scored; `scores` are their means."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What model calls took. `usd` is None where no price is known; it is never guessed."""

    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    faults: dict[str, int] = field(default_factory=dict)
    """What went wrong on the way and was tried again or given up, by kind."""

    def __add__(self, other: "Usage") -> "Usage":
        known = [usd for usd in (self.usd, other.usd) if usd is not None]
        return Usage(
            calls=self.calls + other.calls,
            cached=self.cached + other.cached,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            usd=sum(known) if known else None,
            faults=dict(Counter(self.faults) + Counter(other.faults)) if other.faults else self.faults,
        )

    def text(self) -> str:
        """`192 replies, 2,880 tokens, 0.0012 USD; on the way: 19 busy, 7 malformed`; empty where no model was asked."""
        if not (self.calls or self.cached):
            return ""
        parts = [f"{self.calls:,} {'reply' if self.calls == 1 else 'replies'}"]
        parts += [f"{self.cached:,} kept from before"] if self.cached else []
        parts += [f"{self.prompt_tokens + self.completion_tokens:,} tokens"]
        parts += [f"{self.usd:,.4f} USD"] if self.usd is not None else []
        faults = ", ".join(f"{count:,} {fault.replace('_', ' ')}" for fault, count in self.faults.items())
        return ", ".join(parts) + (f"; on the way: {faults}" if faults else "")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage is: `done` of `total` units (None: not known), with a note on how it goes."""

    done: int
    total: int | None
    unit: str
    note: str = ""
    shown: tuple[tuple[str, bool], ...] = ()
    """An example to show once, in pieces of text, each with whether it has loss."""


OnProgress = Callable[[Progress], None]
"""What a stage calls to report progress."""

BASE, TUNED = "_base", "_tuned"
"""How the roles of a benchmark's two stages end; the rest is the benchmark's name."""
