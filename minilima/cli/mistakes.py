"""What was probably meant by a word or an option that does not exist."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence

from minilima.config.groups import groups
from minilima.config.settings import settings
from minilima.errors import MinilimaError, options

ADDED = ("experiment", "sweep")
"""Groups without a default: their option is added with `+`."""
_DRY_RUN = ("--dry-run", "--dryrun", "--dry_run", "--check")
"""What other programs call the verb plan."""


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
    if bare in settings():
        return f"Write {bare}=…, with a value."
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
    item: str,
    verb: str,
    known: Mapping[str, argparse.Action],
    arguments: Sequence[str],
    config_dir: str | None,
    owners: Sequence[str],
) -> MinilimaError:
    """An option that the verb does not have, with what was meant; `owners` are the verbs that have it."""
    name, _, value = item.partition("=")
    setting = name.lstrip("-").replace("-", "_")
    following = arguments[arguments.index(item) + 1 :]
    value = value or (following[0] if following and "=" not in following[0] and not following[0].startswith("-") else "")
    why = f"Its options are {options(name for name in known if name.startswith('--'))}."
    takes_settings, value = "--config-dir" in known, value or "…"
    meant = [path for path in settings() if setting in (path, path.replace(".", "_"), path.rpartition(".")[2])]
    if name in _DRY_RUN and verb == "run":
        others = " ".join(word for word in arguments if word != item)
        fix = f"To see what would be done: minilima plan {others or '+experiment=quickstart'}"
    elif name in _DRY_RUN and verb == "plan":
        fix = f"A plan does nothing by itself: leave {name} out."
    elif owners:
        fix = f"It is an option of: {options(owners)}; minilima {owners[0]} --help explains it."
    elif takes_settings and setting in groups(config_dir):
        fix = f"Did you mean {choice_text(setting, value)}?"
    elif takes_settings and meant:
        fix = f"Settings have no dashes: {' or '.join(f'{path}={value}' for path in meant[:3])}"
    elif near := difflib.get_close_matches(name, known, n=1):
        fix = f"Did you mean {near[0]}?"
    else:
        fix = f"minilima {verb} --help explains them all."
    return MinilimaError(f"This {verb} command cannot be read: {verb} has no option {name}.", why, fix)


def shown_choices(action: argparse.Action) -> list[str]:
    """The words that may stand there, as help shows them: what only our own scripts write is left out."""
    listed = str(action.metavar).split("|")
    return listed if len(listed) > 1 else [str(choice) for choice in action.choices or ()]


def unknown_choice(value: str, verb: str, action: argparse.Action) -> MinilimaError:
    """A word or value that is not in a list."""
    choices = shown_choices(action)
    near = difflib.get_close_matches(value, choices, n=1)
    where = action.option_strings[-1] if action.option_strings else verb
    return MinilimaError(
        f"This {verb} command cannot be read: there is no {where} {value}.",
        f"After {where} comes one of: {options(choices)}.",
        f"Did you mean {where} {near[0]}?" if near else f"minilima {verb} --help explains them all.",
    )
