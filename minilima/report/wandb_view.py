"""A saved view in W&B that shows the points of a sweep beside each other; only online, where W&B keeps such views.

python -m minilima.report.wandb_view SWEEP_NAME PROJECT [ENTITY]      # what a finished sweep starts
"""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from minilima.config.choices import TrackingMode
from minilima.config.schema import TrackingConfig
from minilima.report.wandb import logged_in, project_of
from minilima.report.wandb_record import reachable

TIMEOUT_SECONDS = 30.0

WIN_RATE = "win_rate/win_rate/value"
LOSS_CHANGE = "loss_change/change/value"


def show_workspace(tracking: TrackingConfig, group: str, axes: Sequence[str]) -> str | None:
    """Saves the view and returns a line that says where it is, or why there is none; None where W&B is not online."""
    if tracking.mode != TrackingMode.auto or not logged_in():
        return None
    command = [sys.executable, "-m", "minilima.report.wandb_view", group, project_of(tracking), tracking.entity or "", *axes]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"W&B: no view of the sweep was saved ({type(error).__name__}); its runs are grouped as {group}."
    lines = (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines()
    if result.returncode == 0 and lines:
        return f"W&B: {lines[-1]}"
    reason = lines[-1][:200] if lines else "no reason given"
    return f"W&B: no view of the sweep was saved ({reason}); its runs are grouped as {group}."


def make_workspace(group: str, project: str, entity: str, axes: Sequence[str]) -> Any:
    """The view of a group's experiments: win rates, win rate against each axis, loss curves, what differs.

    Args:
        axes: settings that vary, e.g. `dataset.size`.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces.expr import Metric

    # A bar plot names a metric as it was logged, a scatter plot says in which part of a run it stands.
    summed = panels.SummaryMetric(WIN_RATE)
    against = [panels.ScatterPlot(title=f"Win rate against {axis}", x=panels.Config(axis), y=summed) for axis in axes]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=group,
        sections=[
            workspaces.Section(
                name="Win rate",
                panels=[
                    panels.BarPlot(title="Win rate, percent", metrics=[WIN_RATE]),
                    *against,
                    panels.BarPlot(title="Change in loss on reference answers, nats per token", metrics=[LOSS_CHANGE]),
                ],
                is_open=True,
            ),
            workspaces.Section(
                name="Training", panels=[panels.LinePlot(title="Loss", x="train/step", y=["train/loss"])], is_open=True
            ),
            workspaces.Section(name="Settings", panels=[panels.RunComparer(diff_only=True)], is_open=False),
        ],
        runset_settings=workspaces.RunsetSettings(filters=[Metric("Group") == group, Metric("JobType") == "experiment"]),
    )


def save(group: str, project: str, entity: str, axes: Sequence[str]) -> str:
    """Saves the view; returns its address."""
    import wandb

    if not reachable():
        raise SystemExit("its server did not answer")
    saved: Any = make_workspace(group, project, entity or str(wandb.Api().default_entity), axes).save()
    return str(saved.url)


if __name__ == "__main__":
    group, project, entity, *axes = sys.argv[1:]
    sys.stdout.write(save(group, project, entity, axes) + "\n")
