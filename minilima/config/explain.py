"""Hydra's and OmegaConf's errors as one paragraph that names the valid choices and the nearest to what was typed."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from minilima.config.groups import groups
from minilima.config.quoting import as_typed
from minilima.config.renames import new_name
from minilima.config.settings import members, section_at, settings
from minilima.errors import MinilimaError, options

_UNREADABLE = (yaml.YAMLError, UnicodeDecodeError, RecursionError)
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError, *_UNREADABLE)
"""What reading settings may end with; a plain ValueError where the option of a group is no text."""


def explain_composition(error: Exception, overrides: Sequence[str], config_dir: str | None = None) -> MinilimaError:
    """Hydra's or OmegaConf's error as one paragraph that names the valid choices, those of the user's own folder too."""
    if (
        unreadable := _unreadable_file(error, overrides, config_dir) or _file_without_settings(overrides, config_dir)
    ) is not None:
        return unreadable
    if not isinstance(error, (HydraException, OmegaConfBaseException, *_UNREADABLE)) and "group override" not in str(error):
        raise error
    known = groups(config_dir)
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for link in chain:
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            return _unknown_option(str(link.missing_cfg_file), known)
        if isinstance(link, OverrideParseException):
            return MinilimaError(
                f"The override {link.override!r} cannot be read.",
                "An override is written key=value; a value with commas, brackets or spaces needs quotes.",
                _quoting(str(link.override))
                or f"For example {options(['sft.epochs=2', '+experiment=quickstart'])}; `minilima --help` lists the rest.",
            )
    invalid = [link for link in chain if isinstance(link, ValidationError)]
    for link in reversed(chain):
        if isinstance(link, ConfigKeyError):
            key = str(link.full_key or link.key)
            return _no_option(overrides, known) if key in known and key not in members("") else _unknown_key(key)
        if isinstance(link, ValidationError):
            named = next((str(one.full_key) for one in invalid if one.full_key), None)
            return _wrong_type(named, str(link), str(error))
    return _no_such_group(error, overrides, known)


def _quoting(override: str) -> str | None:
    """How the override is typed in a shell if its value is one text."""
    typed = as_typed(override)
    return f"If all of it is the value, type: {typed}" if typed else None


def _unreadable_file(error: Exception, overrides: Sequence[str], config_dir: str | None) -> MinilimaError | None:
    """The first file of the user's own folder that is no plain YAML: not UTF-8, with tags of a program's, or null bytes.

    Those that are chosen come first; others count only where the error is one of reading.
    """
    files, chosen = _own_files(overrides, config_dir)
    for file in [*chosen, *files] if isinstance(error, _UNREADABLE) else chosen:
        try:
            yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as wrong:
            why = " ".join(str(wrong).split()) or "It is nested too deeply"
            return MinilimaError(
                f"{file} cannot be read as settings.",
                f"{why[:300].rstrip('.')}.",
                "It has to be plain YAML in UTF-8, without tags (!!…) and null bytes: correct the file and run again.",
            )
    return None


def _own_files(overrides: Sequence[str], config_dir: str | None) -> tuple[list[Path], list[Path]]:
    """All files of the user's own folder, and those that the overrides name."""
    files = sorted(Path(config_dir).rglob("*.yaml")) if config_dir else []
    words = set(re.findall(r"[^\s=,\[\]/]+", " ".join(overrides)))
    return files, [file for file in files if file.stem in words]


def _file_without_settings(overrides: Sequence[str], config_dir: str | None) -> MinilimaError | None:
    """The first chosen file of the user's own that holds no settings by name, or none that Hydra puts where they belong."""
    for file in _own_files(overrides, config_dir)[1]:
        text = file.read_text(encoding="utf-8")
        held = yaml.safe_load(text)
        if not isinstance(held, dict):
            what = {type(None): "It is empty", list: "It is a list"}.get(type(held), "It is one value")
            return MinilimaError(
                f"{file} holds no settings.",
                f"{what}; settings stand by their names, as in a file of conf/.",
                f"Write into it: {_FILE}",
            )
        if not re.search(r"^\s*#\s*@package\b", text, re.MULTILINE) and held.keys() & {"defaults", *members("")}:
            return MinilimaError(
                f"The settings of {file} are not where they belong.",
                f"Without a line that says otherwise they stand below {file.parent.name}.",
                "Make this its first line: # @package _global_",
            )
    return None


_FILE = "# @package _global_ on the first line, and below it, for example, sft: {epochs: 2}"

_EXTRAS = {"joblib": "joblib", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray", "optuna": "optuna"}
"""Which of our extras brings a launcher or sweeper."""


def _unknown_option(missing: str, known: Mapping[str, Sequence[str]]) -> MinilimaError:
    group, _, option = missing.removesuffix(".yaml").rpartition("/")
    names = known.get(group, [])
    if group in ("hydra/launcher", "hydra/sweeper"):
        extra = _EXTRAS.get(option)
        fix = f"Install it: pip install 'minilima[{extra}]'" if extra else f"Choose one of {options(_EXTRAS)}, or leave it out."
        return MinilimaError(f"There is no {group}={option} here.", "Launchers and sweepers are plugins of Hydra.", fix)
    return MinilimaError(
        f"There is no {group}={option}.",
        f"The options of {group} are: {options(names)}." if names else f"conf/ has no group {group!r}: {options(known)}.",
        _closest(option, names, "{}")
        or f"Choose one of them, or put {option or 'NAME'}.yaml into conf/{group}/ or --config-dir.",
    )


def _unknown_key(key: str) -> MinilimaError:
    if key.startswith("hydra."):
        return MinilimaError(
            f"There is no setting {key} here.",
            "What hydra.launcher and hydra.sweeper have depends on which is chosen (hydra/launcher=joblib).",
            f"This shows it: minilima --cfg hydra --package {'.'.join(key.split('.')[:2])} hydra/launcher=joblib",
        )
    if (new := new_name(key)) is not None:
        return MinilimaError(f"{key} is now {new}.", "Settings stand with the stage that they belong to.", f"Write {new}=…")
    parent, _, leaf = key.rpartition(".")
    while section_at(parent) is None:
        parent, _, leaf = parent.rpartition(".")
    names = members(parent)
    return MinilimaError(
        f"There is no setting {key}.",
        f"{parent or 'The top level'} has: {options(names)}.",
        _closest(leaf, names, (f"{parent}." if parent else "") + "{}") or "Correct the name and run again.",
    )


def _wrong_type(key: str | None, reason: str, context: str) -> MinilimaError:
    override, file = re.search(r"merging override '?([^'\s]+)'?", context), re.search(r"^In '([^']+)'", context)
    where = f" in {file[1]}.yaml" if file else ""
    return MinilimaError(
        f"{(override and override[1]) or key or 'A setting'}{where} has a value of the wrong kind.",
        _expected(reason.splitlines()[0].rstrip(".")),
        "Correct the value; `minilima --cfg job` shows all settings as they are.",
    )


_KINDS = {"Integer": "a whole number", "Float": "a number"}
_SAID = {
    "not a valid bool": "It must be true or false.",
    "to string": "It must be text.",
    "is not Optional": "It cannot be null.",
    "is not a ListConfig": "It is a list: put the value into brackets, as in benchmarks=[ifeval,gsm8k].",
    "Invalid type assigned": "It is a group of settings; set those in it, as in endpoints.judge.concurrency=4.",
}
"""Parts of OmegaConf's messages that name its own types."""


def _expected(reason: str) -> str:
    """What OmegaConf says of a value, for people."""
    if match := re.search(r"could not be converted to (\w+)", reason):
        return f"It must be {_KINDS.get(match.group(1), match.group(1))}."
    if match := re.search(r"\w+ is not a subclass of \w+Config\. value: (.*)", reason):
        return f"It is a group of settings, and {match[1]} is one value; set those in it, as in endpoints.judge.concurrency=4."
    if match := re.search(r"expected one of \[(.*)\]", reason):
        return f"It must be one of {match.group(1)}."
    return next((said for part, said in _SAID.items() if part in reason), f"{reason}.")


def _no_such_group(error: Exception, overrides: Sequence[str], known: Mapping[str, Sequence[str]]) -> MinilimaError:
    text = " ".join(str(error).split())
    if several := re.search(r"Ambiguous value for argument '(.+?)' 1\.|Sweep parameters '(.+?)' requires --multirun", text):
        wrong = several.group(1) or several.group(2)
        quotes = _quoting(next((item for item in overrides if wrong in (item, item.partition("=")[0])), wrong))
        return MinilimaError(
            f"{wrong} gives several values.",
            "A run takes one; a sweep takes them all, a run for each.",
            f"For a sweep add -m: minilima -m …; a value that has commas itself needs quotes. {quotes or ''}".rstrip(),
        )
    if named := re.search(r"Could not override '([^']+)'", text):
        group = named.group(1)
        if group in known:
            wrong = next((item for item in overrides if item.lstrip("+~").startswith(f"{group}=")), f"{group}=…")
            return MinilimaError(
                f"{wrong} cannot replace anything.", f"No {group} is chosen by default.", f"Add it instead: +{wrong.lstrip('+~')}"
            )
        if "." in group:
            return _unknown_key(group)
        return _no_such_name(group, known)
    if named := re.search(r"config group '([^']+)' does not exist|Could not delete from config\. '([^'.]+)'", text):
        return _no_such_name(named.group(1) or named.group(2), known)
    if named := re.search(r"Multiple values for ([\w/]+)", text):
        group = named.group(1)
        typed = any(word.startswith(f"+{group}=") for word in overrides)
        fix = f"Leave one of them out, or write {group}=option without '+'."
        return MinilimaError(
            f"{group} is given twice.",
            "Each group takes one option.",
            fix if typed else f"In the defaults of a file write: - override /{group}: OPTION",
        )
    return (
        _wrong_mark(text, overrides, known)
        or _wrong_reference(text)
        or MinilimaError("The configuration cannot be composed.", f"{text.rstrip('.')}.", "Correct it and run again.")
    )


def _no_such_name(name: str, known: Mapping[str, Sequence[str]]) -> MinilimaError:
    top = [*known, *members("")]
    return MinilimaError(
        f"There is no group or setting {name}.",
        f"There are: {options(set(top))}.",
        _closest(name, top, "{}") or "Correct the name and run again.",
    )


def _wrong_mark(text: str, overrides: Sequence[str], known: Mapping[str, Sequence[str]]) -> MinilimaError | None:
    """An override with `+` or `~` that does not belong there, or with a value that is no option of a group."""
    if named := re.search(r"An item is already at '([^']+)'", text):
        return MinilimaError(
            f"{named[1]} is there already.", "'+' adds what is not there.", f"Write it without '+': {named[1]}=…"
        )
    if named := re.search(r"Could not delete from config\. '([^']+)'", text):
        return _unknown_key(named[1])
    if named := re.search(r"Could not delete '([^']+)'\. No match|Error merging override ~(\S+?)\.?$", text):
        name, why = named[1] or named[2], "It was not chosen." if named[1] else "Every setting has a value."
        return MinilimaError(f"{name} cannot be taken out with '~'.", why, f"Leave ~{name} out.")
    if "Config group override" in text:
        return _no_option(overrides, known)
    return None


def _no_option(overrides: Sequence[str], known: Mapping[str, Sequence[str]]) -> MinilimaError:
    """A group with a number, null or settings in place of an option's name."""
    no_name = re.compile(r"null|[-+.\d]|inf|nan|true|false|\{", re.IGNORECASE)
    words = [(word, word.lstrip("+~").partition("=")) for word in overrides]
    given = [(word, group) for word, (group, _, value) in words if group in ("", *known) and no_name.match(value)]
    wrong, group = given[0] if given else ("An override", "")
    names = known.get(group, [])
    return MinilimaError(
        f"{wrong} names no option.",
        f"The options of {group} are: {options(names)}." if names else "A group takes the name of one option.",
        f"Write {wrong.partition('=')[0]}={names[0]}, for example." if names else "Write group=option, for example sft=lora",
    )


def _wrong_reference(text: str) -> MinilimaError | None:
    """A value `${…}` that leads nowhere."""
    where = re.search(r"full_key: (\S+)", text)
    name = where[1] if where else "A setting"
    if named := re.search(r"Environment variable '([^']+)' not found", text):
        return MinilimaError(f"${named[1]} is not set.", f"{name} takes its value from it.", f"export {named[1]}=…")
    if named := re.search(r"Interpolation key '([^']+)' not found", text):
        return MinilimaError(
            f"{name} refers to {named[1]}, and there is no such setting.",
            "${…} takes the value of another setting.",
            _closest(named[1], list(settings()), "${{{}}}") or "Correct the name between the braces.",
        )
    if "while resolving interpolation" in text:
        reason = text.partition(" full_key")[0].rpartition("interpolation: ")[2]
        return MinilimaError(f"{name} cannot be worked out from ${{…}}.", f"{reason}.", "Correct what stands between the braces.")
    return None


def _closest(word: str, names: Sequence[str], form: str) -> str:
    near = difflib.get_close_matches(word, names, n=1)
    return f"Did you mean {form.format(near[0])}?" if near else ""
