"""What was probably meant by a word or an option that does not exist."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence

from minilima.config.groups import groups
from minilima.errors import MinilimaError, options

ADDED = ("experiment", "sweep")
"""Groups without a default: their option is added with `+`."""
_OTHER_NAMES = {"--dry-run": "plan", "--dryrun": "plan", "--dry_run": "plan", "--check": "plan"}
"""What other programs call one of our verbs."""


def choice_text(group: str, option: str) -> str:
    """How an option of a group is written: `sft=lora`, `+experiment=quickstart`."""
    return f"{'+' if group in ADDED else ''}{group}={option}"


def unknown_word(word: str, verbs: Iterable[str], known: Mapping[str, Sequence[str]], *, first: bool) -> MinilimaError:
    """A word without `=` that is no verb, or (not `first`) does not stand where a verb stands; `known` are the groups."""
    verbs = list(verbs)
    what, why = f"There is no command {word!r}.", f"The commands are: {options(verbs)}."
    if not first:
        what, why = f"{word!r} is not a setting.", "Settings are written key=value."
    return MinilimaError(what, why, _meant(word, verbs, known, first=first))


def _meant(word: str, verbs: Sequence[str], known: Mapping[str, Sequence[str]], *, first: bool) -> str:
    bare = word.lstrip("+")
    if bare in known:
        return f"Write {choice_text(bare, known[bare][0])}; the options of {bare} are: {options(known[bare])}."
    if not first and bare in verbs:
        return f"A command comes first: minilima {bare} …"
    every = {option for names in known.values() for option in names}
    near = [bare] if bare in every else difflib.get_close_matches(bare, [*verbs, *every], n=1)
    if not near:
        return "Settings are written key=value; `minilima --help` lists commands and groups."
    if near[0] not in every:
        return f"Did you mean {near[0]}?"
    meant = [choice_text(group, near[0]) for group, names in known.items() if near[0] in names]
    return f"Did you mean {' or '.join(sorted(meant))}?"


def unknown_option(
    item: str, verb: str, known: Mapping[str, argparse.Action], arguments: Sequence[str], config_dir: str | None
) -> MinilimaError:
    """An option that the verb does not have, with the option, setting or verb that was meant."""
    from minilima.config.settings import members

    name, _, value = item.partition("=")
    setting = name.lstrip("-").replace("-", "_")
    following = arguments[arguments.index(item) + 1 :]
    value = value or (following[0] if following and "=" not in following[0] and not following[0].startswith("-") else "")
    why = f"Its options are {options(name for name in known if name.startswith('--'))}."
    if name in _OTHER_NAMES:
        others = " ".join(word for word in arguments if word != item)
        fix = f"To see what would be done: minilima {_OTHER_NAMES[name]} {others or '+experiment=quickstart'}"
    elif setting in groups(config_dir):
        fix = f"Did you mean {choice_text(setting, value or '…')}?"
    elif setting.partition(".")[0] in members(""):
        fix = f"Settings have no dashes: {setting}={value or '…'}"
    elif near := difflib.get_close_matches(name, known, n=1):
        fix = f"Did you mean {near[0]}?"
    else:
        fix = f"All are explained by: minilima {verb} --help"
    return MinilimaError(f"This {verb} command cannot be read: {verb} has no option {name}.", why, fix)


def unknown_choice(value: str, verb: str, action: argparse.Action) -> MinilimaError:
    """A word or value that is not in a list."""
    choices = [str(choice) for choice in action.choices or ()]
    near = difflib.get_close_matches(value, choices, n=1)
    where = action.option_strings[-1] if action.option_strings else verb
    return MinilimaError(
        f"This {verb} command cannot be read: {where} {value} does not exist.",
        f"After {where} comes one of: {options(choices)}.",
        f"Did you mean {where} {near[0]}?" if near else f"More is said by: minilima {verb} --help",
    )
