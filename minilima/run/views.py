"""The experiment as one of its evaluation sets, and one of its judges, sees it; most have one of each.

    config, sources ─> of_sets ─> View (answers) ─> of_judges ─> View (verdicts)
A view has the settings and sources of an experiment with that set and that judge alone, so that its stages have the same keys
and are shared with it. The roles of further sets and judges have their names behind them: verdicts_on_alpaca_eval_by_cot.
"""

from dataclasses import dataclass, replace

from minilima.config.schema import Config
from minilima.config.several import judges_of, sets_of
from minilima.run.graph import Node, arrow
from minilima.run.sources import judge_sources, set_sources
from minilima.run.spec import Spec
from minilima.run.stages.base import JUDGE_BASE
from minilima.store.sources import Sources


@dataclass(frozen=True, kw_only=True)
class View:
    """The experiment with one evaluation set and one judge."""

    config: Config
    sources: Sources
    set: str = ""
    """Name of the evaluation set; empty where there is one."""
    judge: str = ""
    """Name of the judge; empty where there is one."""
    suffix: str = ""
    """What stands behind the roles of its own stages; empty for the experiment's own set and judge."""
    set_suffix: str = ""
    """The same of the answers, which all judges of a set share."""

    def to(self, spec: Spec, **inputs: Node | None) -> Node | None:
        """As `graph.arrow`, in this view."""
        return arrow(self.config, self.sources, replace(spec, role=spec.name + self.suffix) if self.suffix else spec, **inputs)

    @property
    def roles(self) -> dict[str, str]:
        """The role in the run of each stage that an experiment of one set and one judge calls so, from the answers on."""
        shared = {name: name + self.set_suffix for name in ("answers", "base_answers", "other_answers")}
        return {**shared, "verdicts": "verdicts" + self.suffix}

    def weights(self, base: Node | None) -> Node | None:
        """The conversion of the judge's weights, where it is a packaged model other than the base model; else the base's."""
        own = self.to(JUDGE_BASE) if self.sources.judge not in (None, self.sources.base) else None
        return own or base


def of_sets(config: Config, sources: Sources) -> list[View]:
    """A view for each evaluation set, the experiment's own first."""
    views = [View(config=config, sources=sources)]
    for number, (name, one) in enumerate(sets_of(config).items()):
        if number == 0:
            views = [replace(views[0], set=name)]
        else:
            given = replace(sources, other_sets=(), **set_sources(one))
            views.append(View(config=one, sources=given, set=name, suffix=f"_on_{name}", set_suffix=f"_on_{name}"))
    return views


def of_judges(view: View) -> list[View]:
    """A view for each judge of these answers, the experiment's own first."""
    views = [view]
    for number, (name, one) in enumerate(judges_of(view.config).items()):
        if number == 0:
            views = [replace(view, judge=name)]
        else:
            given = replace(view.sources, **judge_sources(one.judge))
            views.append(replace(view, config=one, sources=given, judge=name, suffix=f"{view.suffix}_by_{name}"))
    return views


def every_view(config: Config, sources: Sources) -> list[View]:
    """Each judge's view of each evaluation set."""
    return [one for answered in of_sets(config, sources) for one in of_judges(answered)]
