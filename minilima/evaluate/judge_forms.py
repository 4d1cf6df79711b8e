"""The prompt forms of a judge: a form is a file in minilima/prompts/judge and its row in FORMS.

    minilima/prompts/judge/<name>.j2 ─> the judge ─> its reply ─> the row's `read` ─> a preference, or one answer's score
Every preference is on AlpacaEval's scale: 1 = the answer shown first is better, 2 = the second, between = partly. A form that
shows each answer alone gives a score; the higher one of two is preferred.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minilima.config.choices import JudgeKind
from minilima.config.schema import JudgeConfig
from minilima.errors import MinilimaError, options
from minilima.evaluate.judge_replies import HIGHEST, LOWEST, VERDICTS, read_rating, read_verdict, read_yes_no
from minilima.formats.files import canonical_json
from minilima.formats.records import TIE
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
    """`judge.prompt`; the template is minilima/prompts/judge/<name>.j2, with `instruction`, `first` and `second`; of a form that
    shows each answer alone with `instruction`, `answer`, `history`, `reference`, `criteria` and `rubric`."""
    read: Callable[[Reply], float | None]
    """The preference in a reply, or the score of the one answer that was shown; None where it states none."""
    kinds: tuple[JudgeKind, ...]
    """The kinds of judge that can be asked in this form."""
    needs_logprobs: bool = False
    """Whether `read` needs the log-probabilities of the first token (judge.top_logprobs), and not the text."""
    letters: Letters | None = None
    """Where a local judge is asked for log-odds instead of a text."""
    scale: tuple[float, float] | None = None
    """Lowest and highest score, where each answer is shown alone; None = two are compared."""
    each_turn: bool = False
    """Whether every answer of a conversation is scored, and not only the last."""
    weight: Callable[[Reply], float] | None = None
    """How often a reply counts in the win rate, where that is not once."""
    schema: str | None = None
    """JSON schema of the reply, for servers that can hold to one; others reply as the prompt asks, and both are read."""
    follows: str | None = None
    """The judge of AlpacaEval whose form this is, in words of our own; its published figures stand for judges nobody measured."""

    @property
    def template(self) -> str:
        return f"judge/{self.name}"

    @property
    def alone(self) -> bool:
        """Whether each answer is shown alone."""
        return self.scale is not None

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


def read_preference(reply: Reply) -> float | None:
    """The preference of a reply that states one of five verdicts; how strong it is says `arena_hard_weight`."""
    return None if (verdict := read_verdict(reply)) is None else _PREFERENCES[verdict]


def arena_hard_weight(reply: Reply) -> float:
    """How often Arena-Hard counts a verdict: `>>` three times (show_result.py of lmarena/arena-hard-auto, v0.1 and v2)."""
    return 3.0 if ">>" in (read_verdict(reply) or "") else 1.0


def _reply_schema(name: str, value: Mapping[str, object]) -> str:
    """An explanation, then the value: what is written first can carry what follows."""
    properties = {"explanation": {"type": "string"}, name: value}
    return canonical_json(
        {"type": "object", "properties": properties, "required": ["explanation", name], "additionalProperties": False}
    )


_PREFERENCES = {"A>>B": FIRST_WINS, "A>B": FIRST_WINS, "A=B": TIE, "B>A": SECOND_WINS, "B>>A": SECOND_WINS}
_EITHER = (JudgeKind.openai, JudgeKind.local)
_RATING = _reply_schema("rating", {"type": "integer", "enum": [*range(int(LOWEST), int(HIGHEST) + 1)]})

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
    # Arena-Hard (Li et al. 2024): five labels, two orders, a strong verdict counts three times.
    JudgeForm(
        name="arena_hard",
        read=read_preference,
        weight=arena_hard_weight,
        schema=_reply_schema("verdict", {"type": "string", "enum": VERDICTS}),
        kinds=_EITHER,
    ),
    # MT-Bench (Zheng et al. 2023): single grading of every turn; and its pairwise comparison.
    JudgeForm(name="mt_bench", read=read_rating, scale=(LOWEST, HIGHEST), each_turn=True, schema=_RATING, kinds=_EITHER),
    JudgeForm(
        name="mt_bench_pair",
        read=read_preference,
        schema=_reply_schema("verdict", {"type": "string", "enum": ["A", "B", "tie"]}),
        kinds=_EITHER,
    ),
    JudgeForm(name="rubric", read=read_rating, scale=(LOWEST, HIGHEST), schema=_RATING, kinds=_EITHER),
    JudgeForm(name="yes_no", read=read_yes_no, scale=(-1.0, 1.0), needs_logprobs=True, kinds=_EITHER),
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
    if judge.rubric is not None and form.name != "rubric":
        raise MinilimaError(
            f"judge.rubric={judge.rubric} and judge.prompt={form.name} do not fit together.",
            "Only judge.prompt=rubric shows a rubric to the judge.",
            "Use judge=rubric, or leave judge.rubric out.",
        )
    asked_for_odds = judge.kind == JudgeKind.local and form.letters is not None
    if not asked_for_odds and form.needs_logprobs != (judge.top_logprobs is not None):
        need = "reads log-probabilities" if form.needs_logprobs else "reads the text of the reply"
        fix = f"Set judge.top_logprobs={20 if form.alone else 5}" if form.needs_logprobs else "Set judge.top_logprobs=null"
        raise MinilimaError(
            f"judge.prompt={form.name} and judge.top_logprobs={judge.top_logprobs} do not fit together.",
            f"judge.prompt={form.name} {need}.",
            f"{fix}, or use judge=gpt4_turbo_weighted, judge=yes_no, judge=chatgpt or judge=cot as they are.",
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
