"""The prompt forms of a judge: a form is a file in minilima/prompts/judge and its row in FORMS.

    minilima/prompts/judge/<name>.j2 ─> the judge ─> its reply ─> the row's `read` ─> a preference
Every preference is on AlpacaEval's scale: 1 = the answer shown first is better, 2 = the second, between = partly.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minilima.config.choices import JudgeKind
from minilima.config.schema import JudgeConfig
from minilima.errors import MinilimaError, options
from minilima.models.chat import Reply, Sampling

FIRST_WINS, SECOND_WINS = 1.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Letters:
    """How a local model is asked without writing: how likely are the two letters after the beginning of a reply?"""

    first: str
    second: str
    prefill: str
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class JudgeForm:
    """One way to ask a judge, and to read what it replies."""

    name: str
    """`judge.prompt`; the template is minilima/prompts/judge/<name>.j2, with `instruction`, `first` and `second`."""
    read: Callable[[Reply], float | None]
    """The preference in a reply; None where it states none."""
    kinds: tuple[JudgeKind, ...]
    """The kinds of judge that can be asked in this form."""
    needs_logprobs: bool = False
    """Whether `read` needs the log-probabilities of the first token (judge.top_logprobs), and not the text."""
    letters: Letters | None = None
    """Where a local judge is asked for log-odds instead of a text."""
    follows: str
    """The judge of AlpacaEval whose form this is, in words of our own; its published figures stand for judges nobody measured."""

    @property
    def template(self) -> str:
        return f"judge/{self.name}"

    def sampling(self, judge: JudgeConfig) -> Sampling:
        """How a reply that is read by `read` is sampled."""
        return Sampling(temperature=judge.temperature, max_tokens=judge.max_tokens, top_logprobs=judge.top_logprobs)


def read_choice(reply: Reply) -> float | None:
    """The preference of a whole reply that names `Output (a)` or `Output (b)`; one that was cut may have gone on otherwise."""
    choice = None if reply.finish == "length" else parse_choice(reply.text)
    return None if choice is None else {"a": FIRST_WINS, "b": SECOND_WINS}[choice]


def read_letters(reply: Reply) -> float | None:
    """The preference of a reply whose first token is `m` or `M`, weighted by their probabilities."""
    return weigh(reply.logprobs or {})


FORMS = (
    JudgeForm(
        name="choose",
        read=read_choice,
        kinds=(JudgeKind.openai, JudgeKind.local),
        letters=Letters(
            first="a", second="b", prefill="Output (", sampling=Sampling(temperature=0.0, max_tokens=1, top_logprobs=2)
        ),
        follows="chatgpt",
    ),
    JudgeForm(
        name="explain",
        read=read_choice,
        kinds=(JudgeKind.openai, JudgeKind.local),
        follows="alpaca_eval_cot_gpt4_turbo_fn",
    ),
    JudgeForm(
        name="weigh",
        read=read_letters,
        kinds=(JudgeKind.openai,),
        needs_logprobs=True,
        follows="weighted_alpaca_eval_gpt4_turbo",
    ),
)


def form_named(name: str) -> JudgeForm:
    """The form of `judge.prompt`.

    Raises:
        MinilimaError: the prompt has no row here.
    """
    for form in FORMS:
        if form.name == name:
            return form
    raise MinilimaError(
        f"judge.prompt={name} has no row in minilima/evaluate/judge_forms.py.",
        "The row says how the judge's reply is read.",
        f"Add a row for it, or choose {options(form.name for form in FORMS)}.",
    )


def check_form(judge: JudgeConfig) -> None:
    """Checks that the judge can be asked in its form; a judge without a prompt of ours has nothing to check.

    Raises:
        MinilimaError: the form needs another kind of judge, or log-probabilities that are not asked for.
    """
    if judge.kind not in (JudgeKind.openai, JudgeKind.local):
        return
    form = form_named(judge.prompt)
    if judge.kind not in form.kinds:
        fitting = [other.name for other in FORMS if judge.kind in other.kinds]
        where = "at an endpoint" if form.kinds == (JudgeKind.openai,) else f"of kind {options(form.kinds)}"
        raise MinilimaError(
            f"judge.prompt={form.name} needs a judge {where}.",
            f"With judge.kind={judge.kind} its reply cannot be read.",
            f"Choose judge.prompt={options(fitting)}, or judge=gpt4_turbo_weighted with endpoints.judge.base_url=…",
        )
    if judge.kind == JudgeKind.openai and form.needs_logprobs != (judge.top_logprobs is not None):
        need = "reads log-probabilities" if form.needs_logprobs else "reads the text of the reply"
        fix = "Set judge.top_logprobs=5" if form.needs_logprobs else "Set judge.top_logprobs=null"
        raise MinilimaError(
            f"judge.prompt={form.name} and judge.top_logprobs={judge.top_logprobs} do not fit together.",
            f"judge.prompt={form.name} {need}.",
            f"{fix}, or use judge=gpt4_turbo_weighted, judge=chatgpt or judge=cot as they are.",
        )


def form_of(judge: JudgeConfig) -> str | None:
    """The published judge whose form a judge follows; None where there is none."""
    if judge.kind == JudgeKind.alpaca_eval:
        return judge.annotators_config
    return form_named(judge.prompt).follows if judge.kind == JudgeKind.openai else None


def form_shown(judge: JudgeConfig) -> str | None:
    """The form's name where several judges differ by it; None for a judge without a prompt, or a local one asked for log-odds."""
    if judge.kind not in (JudgeKind.openai, JudgeKind.local):
        return None
    form = form_named(judge.prompt)
    return None if judge.kind == JudgeKind.local and form.letters else form.name


def weigh(logprobs: Mapping[str, float]) -> float | None:
    """2 - p(m) / (p(m) + p(M)), as alpaca_eval 0.6.6's logprob_parser; None if neither letter is among the tokens.

    Args:
        logprobs: natural logarithms of the probabilities of the likeliest first tokens; a letter that is missing has none.
    """
    values = [logprobs.get(letter, -math.inf) for letter in ("m", "M")]
    highest = max(values)
    if highest == -math.inf:
        return None
    first, second = (math.exp(value - highest) for value in values)
    return 2 - first / (first + second)


_VERB = r"is|was|wins|has|because|since|over|to|than|and|or"
_LETTER = rf"(?:output|answer|response)\s*(?:\(\s*([ab])\s*\)|([ab])(?=\s*(?:$|[.,:;!)*]|(?:{_VERB})\b)))"
_ONE = rf"(?:the\s+)?(?:{_LETTER}|(first|second)(?:\s+(?:output|answer|response|one))?\b)"
"""An output as a judge names it: by its letter in brackets, by a lone letter (no article), by its position."""
_NAMED = re.compile(_LETTER, re.IGNORECASE)
_LEAD = re.compile(r"[^\w(]*(?:(?:my|the|final)\s+)*(?:(?:choice|answer|verdict|winner)(?:\s+is)?\s*:?\W*)?", re.IGNORECASE)
"""What may stand before a choice that stands alone."""
_CHOSEN = r"prefer|choose|chose|pick|select|favou?r|choice\s+is|winner\s+is|better\s+(?:one\s+)?is|best\s+is|go\s+with"
_PRAISED = r"(?:is|was|seems)\s+(?:(?!not\b)\w+\s+)?(?:better|best|preferable|superior|stronger|preferred)|wins"
_CHOOSES = (
    re.compile(rf"\b(?:{_CHOSEN})\s*:?\s*{_ONE}", re.IGNORECASE),
    re.compile(rf"{_ONE}\s+(?:{_PRAISED})\b", re.IGNORECASE),
)
_UNDECIDED = re.compile(r"\b(?:neither|nor|tied?|draw|equal(?:ly)?|both|either|undecided|unclear|cannot)\b", re.IGNORECASE)
_DENIES = re.compile(r"\b(?:not|\w+n't|worse|worst|wrong|incorrect|fails|lacks|bad|weaker|inferior)\b", re.IGNORECASE)


def parse_choice(text: str) -> str | None:
    """`a` or `b`: the choice that the last line of a reply states in words; None where it states none, both, or a tie."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return None
    last = lines[-1].strip()
    named = {_letter(match) for match in _NAMED.finditer(last)}
    rest = _NAMED.sub("", _LEAD.sub("", last, count=1), count=1)
    if len(named) == 1 and not re.search(r"\w", _LEAD.sub("", rest)):
        return named.pop()
    if _UNDECIDED.search(last):
        return None
    chosen = {_letter(match) for form in _CHOOSES for match in form.finditer(last)}
    if chosen:
        return chosen.pop() if len(chosen) == 1 else None
    return named.pop() if len(named) == 1 and not _DENIES.search(last) else None


def _letter(match: re.Match[str]) -> str:
    word = next(group.lower() for group in match.groups() if group)
    return {"first": "a", "second": "b"}.get(word, word)
