"""Several judges, or several evaluation sets, in one experiment: options of a group, each composed as if it were the only one.

    judges=[chatgpt,cot] ─> compose with judge=chatgpt, with judge=cot ─> config.judge_options
The first is the experiment's own `judge` (or `eval_set`). Overrides such as judge.model=… hold for all of them; what differs
belongs in an option's file.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from minilima.config.schema import Config, JudgeOption
from minilima.errors import MinilimaError

GROUPS = {"judge": "judges", "eval_set": "eval_sets"}
"""Group -> the setting that lists several of its options."""


def listed(overrides: Sequence[str]) -> list[str]:
    """The overrides, with `judge=[a,b]` written as `judges=[a,b]`: a group itself takes one option."""
    return [re.sub(rf"^({'|'.join(GROUPS)})=(?=\[)", lambda match: f"{GROUPS[match.group(1)]}=", word) for word in overrides]


def with_options(config: Config, overrides: Sequence[str], compose: Callable[[Sequence[str]], Config]) -> Config:
    """The config with the options that it lists; unchanged where it lists fewer than two.

    Args:
        config: as composed.
        overrides: what it was composed from.
        compose: composes another one.

    Raises:
        MinilimaError: an option is listed twice.
    """
    for group, setting in GROUPS.items():
        names = list(getattr(config, setting))
        if len(set(names)) < len(names):
            again = next(name for name in names if names.count(name) > 1)
            raise MinilimaError(
                f"{setting} lists {again} twice.",
                "Each is asked once.",
                f"Leave it out; two of one form and two models are two files of --config-dir: my_conf/{group}/mine.yaml.",
            )
        if not names:
            continue
        others = [word for word in overrides if not word.startswith((f"{group}=", f"{setting}="))]
        made = {name: compose([*others, f"{group}={name}", f"{setting}=[]"]) for name in names}
        first = made[names[0]]
        if group == "judge":
            options = {name: JudgeOption(judge=one.judge, endpoint=one.endpoints.judge) for name, one in made.items()}
            endpoints = replace(config.endpoints, judge=first.endpoints.judge)
            config = replace(config, judge=first.judge, endpoints=endpoints, judge_options=options if len(names) > 1 else {})
        else:
            sets = {name: one.eval_set for name, one in made.items()}
            config = replace(config, eval_set=first.eval_set, eval_set_options=sets if len(names) > 1 else {})
        if len(names) == 1:
            setattr(config, setting, [])
    return config


def judges_of(config: Config) -> dict[str, Config]:
    """The experiment as each judge sees it, by the judge's name; the first is the experiment's own."""
    return {
        name: replace(
            config, judge=one.judge, endpoints=replace(config.endpoints, judge=one.endpoint), judges=[], judge_options={}
        )
        for name, one in config.judge_options.items()
    }


def sets_of(config: Config) -> dict[str, Config]:
    """The experiment on each evaluation set, by the set's name; the first is the experiment's own."""
    return {
        name: replace(config, eval_set=one, eval_sets=[], eval_set_options={}) for name, one in config.eval_set_options.items()
    }
