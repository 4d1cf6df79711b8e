"""How instructions begin: a verb and its object, without a parser.

Self-Instruct (figure 3) takes root verbs and direct objects from the Berkeley parser, which needs a model of its own. This
looks for a verb of a short list where a sentence begins, and takes the last word of what looks like the noun phrase after it.
Instructions that are questions, or in other languages, have neither; their share stands beside the picture.
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VERBS = _words("""
    add advise analyse analyze answer argue arrange ask assess assign brainstorm build calculate categorise categorize
    change check choose cite clarify classify combine compare complete compose compute contrast convert correct count create
    critique debug decide deduce define derive describe design detect determine develop devise differentiate discuss draft
    draw edit elaborate estimate evaluate examine expand explain extract fill find fix forecast form format formulate
    generate give group guess help highlight identify illustrate imagine implement improve infer insert interpret invent
    judge justify label list make mark match mention modify name note offer optimise optimize order organise organize
    outline paraphrase parse pick plan predict prepare present produce proofread propose prove provide pull punctuate put
    quote rank rate read recommend reformat reformulate remove rename reorder rephrase replace reply report respond restate
    restructure return reverse review revise rewrite route say scale select separate share shorten show simplify simulate
    sketch solve sort specify spell split spot state structure suggest summarise summarize supply swap tag take tell think
    trace transcribe transform translate triage turn underline unscramble use verify work write
""")

_NO_NOUN = _words("""
    a about after against all alone also am among an and another any are as at based be because been before between both
    briefly but by can could did do does down during each eight every exactly few five following for four from given had has
    have he her here herself him himself his how i if in into is it its itself just least many may me might more most much
    must my myself nine no nor not of off on one only onto or other our out over own please same seven several she should
    since six so some such ten than that the their them themselves then there these they this those three through to two
    under until up us using very was we were what when where whether which while who whom whose why will with within without
    would you your yourself
""")

_NOUNS_ALL_THE_SAME = frozenset(
    {"string", "thing", "something", "everything", "spring", "wedding", "meaning", "heading", "building", "meeting", "greeting"}
    | {"morning", "evening", "painting", "recording", "setting", "sibling", "feeling", "seed", "speed", "breed", "feed", "need"}
)

_START = re.compile(r"(?:^|[.!?:;]\s+|\n\s*|\bplease\s+|\bthen\s+)(?:please\s+)?([^\W\d_]+)\b", re.IGNORECASE)
_PHRASE_ENDS = re.compile(r"[.,;:!?()\[\]{}\"“”\n—–]|\s-\s")


def verb_and_noun(instruction: str) -> tuple[str, str] | None:
    """The first verb and the noun after it, in lower case; None where there is none."""
    for match in _START.finditer(instruction):
        verb = match[1].lower()
        if verb in VERBS:
            noun = _noun(instruction[match.end() :])
            return (verb, noun) if noun else None
    return None


def _noun(rest: str) -> str | None:
    """The last word of the first run of words that can stand in a noun phrase."""
    phrase: list[str] = []
    for piece in _PHRASE_ENDS.split(rest.lower().lstrip()):
        for word in piece.split():
            word = word.removesuffix("'s").removesuffix("’s").strip("'’*_`")
            if word.isalpha() and word not in _NO_NOUN and not _is_participle(word):
                phrase.append(word)
            elif phrase:
                return phrase[-1]
        if phrase:
            return phrase[-1]
    return None


def _is_participle(word: str) -> bool:
    """Words like `completing` and `mentioned`, which seldom end a noun phrase."""
    return len(word) > 4 and word.endswith(("ing", "ed")) and word not in _NOUNS_ALL_THE_SAME
