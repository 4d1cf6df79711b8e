"""Splits of data sets on a hub: loaded by `datasets` at a commit that is recorded and enters the key; refusals are explained."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilima.errors import MinilimaError
from minilima.models.hub_splits import find_split
from tests.hub import Hub, Repository, running_hub

ROWS = b"".join(
    json.dumps({"instruction": f"Say {number}.", "output": f"It is {number}."}).encode() + b"\n" for number in range(3)
)
SUBSETS = b"---\nconfigs:\n- config_name: de\n  data_files: de.jsonl\n- config_name: fr\n  data_files: fr.jsonl\n---\n"
PLAN = """
import json, sys
from minilima.config.compose import load_config
from minilima.run.sources import resolve
from minilima.run.stages.pool import POOL
from minilima.generate.import_pool import read_source
for overrides in json.loads(sys.argv[1]):
    try:
        config = load_config(overrides)
        sources = resolve(config)
        data = sources.data or sources.eval_set
        rows = read_source(data).examples if sources.data and data.path else []
        recipe = POOL.recipe(config, sources) if sources.data else {}
        print(json.dumps([data.hub, data.missing, [row.instruction for row in rows], recipe.get("hub")]))
    except Exception as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.repositories |= {
            "me/tasks": Repository(files={"README.md": b"---\n---\n", "data/train.jsonl": ROWS, "data/test.jsonl": ROWS}),
            "me/subsets": Repository(files={"README.md": SUBSETS, "de.jsonl": ROWS, "fr.jsonl": ROWS}),
            "me/gated": Repository(files={"train.jsonl": ROWS}, gated=True),
            "me/private": Repository(files={"train.jsonl": ROWS}, private=True),
            "me/program": Repository(files={"program.py": b""}),
        }
        yield hub


def look(folder: Path, endpoint: str, *cases: list[str], offline: bool = False) -> list[str]:
    """What each case finds, as a line of JSON; in a process of its own, since the hub's client reads its settings on import."""
    settings = {"HF_HOME": str(folder), "MINILIMA_CACHE": str(folder / "own"), "HF_ENDPOINT": endpoint}
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    environment |= {**settings, "HF_HUB_DISABLE_TELEMETRY": "1", **({"HF_HUB_OFFLINE": "1"} if offline else {})}
    command = [sys.executable, "-c", PLAN, json.dumps(cases)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600)
    return done.stdout.splitlines()


def imported(name: str, *more: str) -> list[str]:
    return ["data=file", f"data.hub={name}", "dataset.include_seeds=false", *more]


def test_a_split_is_read_at_a_commit_that_is_part_of_the_key(hub: Hub, tmp_path: Path) -> None:
    commit = hub.repositories["me/tasks"].commit
    cases = (
        imported("me/tasks:train"), imported("'me/tasks:test[:1]'"), imported("me/subsets:de:train"),
        ["eval_set=file", "eval_set.hub=me/tasks:test"],
    )  # fmt: skip
    train, first, subset, prompts = (json.loads(line) for line in look(tmp_path, hub.endpoint, *cases))
    pinned = f"me/tasks:train@{commit}"
    assert train == [pinned, None, ["Say 0.", "Say 1.", "Say 2."], pinned]
    assert first[2] == ["Say 0."] and subset[0] == f"me/subsets:de:train@{commit}" and len(subset[2]) == 3
    assert prompts[:2] == [f"me/tasks:test@{commit}", None]
    hub.asked.clear()
    again = look(
        tmp_path, hub.endpoint, imported("me/tasks:train"), imported("me/tasks:train", f"data.revision={commit}"), offline=True
    )
    assert [json.loads(line) for line in again] == [train, train] and not hub.asked
    unreached = json.loads(look(tmp_path, "http://127.0.0.1:9", imported("me/tasks:train"))[0])
    assert unreached == train


def test_what_the_hub_refuses_is_explained(hub: Hub, tmp_path: Path) -> None:
    cases = {
        "me/nothing:train": "The hub has no data set me/nothing.",
        "me/private:train": "it is private and you are not logged in",
        "me/gated:train": "The data set me/gated is gated. Its owners give it out to people who accepted its terms. "
        f"Accept them at {hub.endpoint}/datasets/me/gated",
        "me/tasks:dev": "The data set me/tasks has no dev. Unknown split \\\"dev\\\". Should be one of ['train', 'test'].",
        "me/subsets:train": "available configs: ['de', 'fr']",
        "me/subsets:it:train": "The data set me/subsets has no it:train.",
        "me/program:train": "The data set me/program is a program.",
    }  # fmt: skip
    lines = look(
        tmp_path, hub.endpoint, *(imported(name) for name in cases), imported("me/tasks:train", f"data.revision={'b' * 40}")
    )
    for line, refusal in zip(lines, [*cases.values(), f"has no revision {'b' * 40}"], strict=True):
        assert refusal in line


def test_without_a_network_the_split_is_missing_and_the_plan_can_still_be_made(hub: Hub, tmp_path: Path) -> None:
    missing = "the split me/tasks:train of a data set on the hub (revision main)"
    assert json.loads(look(tmp_path, hub.endpoint, imported("me/tasks:train"), offline=True)[0])[:3] == [None, missing, []]
    pinned = imported("me/tasks:train", f"data.revision={'a' * 40}")
    lines = look(tmp_path, "http://127.0.0.1:9", imported("me/tasks:train"), pinned)
    assert [json.loads(line)[2] for line in lines] == [[], []]


@pytest.mark.parametrize("name", ["me/tasks", "me/tasks:", "a/b/c:train", ":train", "me/tasks:a:b:train"])
def test_a_name_without_a_split_is_refused(name: str) -> None:
    with pytest.raises(MinilimaError, match="owner/name:split"):
        find_split("data.hub", name, "main")
