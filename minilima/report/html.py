"""The HTML report of a run."""

from pathlib import Path


def write_report(path, config, artifacts, paths, results, worth):  # replaced below
    Path(path).write_text("todo")
