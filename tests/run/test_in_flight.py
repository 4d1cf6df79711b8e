"""Ctrl-C, and an error, while replies are in flight: they are awaited and kept, and nothing is asked for again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from minilima.config.schema import EndpointConfig
from minilima.models.chat import Reply, Request, Sampling, ask
from minilima.models.endpoint import connect
from tests.generate.test_pool import writer
from tests.models.test_whole_runs import SMALL
from tests.personalities import settings
from tests.server import VALID_KEY, ModelServer


def test_after_ctrl_c_what_is_in_flight_is_kept_and_nothing_is_paid_twice(tmp_path: Path, server: ModelServer) -> None:
    server.answer, server.wait_after = writer, 3
    overrides = [*SMALL, "until=pool", "endpoints.generator.concurrency=3", f"paths.outputs={tmp_path}"]
    command = [sys.executable, "-m", "minilima", *settings(server.url), *overrides]
    environment = {**os.environ, "TEST_KEY": VALID_KEY}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite under nohup ignores it, and so would this
    )  # fmt: skip
    while server.received < 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "in flight: waiting" not in process.stderr.readline():
        assert process.poll() is None
    server.wait_after = None
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130 and "Traceback" not in errors
    assert not list((tmp_path / "store").glob("pool-*"))
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert again.returncode == 0, again.stdout + again.stderr
    asked = Counter(json.dumps(body, sort_keys=True) for body in server.requests)
    assert server.received == len(server.requests) and "kept from before" in again.stdout
    usage = json.loads(next((tmp_path / "store").glob("pool-*/manifest.json")).read_text())["usage"]
    assert usage["calls"] + usage["cached"] == sum(asked.values()), "each request was sent once, by one of the two"


def test_a_reply_that_cannot_be_kept_stops_the_sending_and_loses_no_other(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", VALID_KEY)
    server.latency = 0.3
    endpoint = EndpointConfig(base_url=server.url, api_key_env="TEST_KEY", concurrency=4)
    model = connect("generator.model", "writer-small", endpoint, tmp_path / "replies.sqlite", "s")
    sampling = Sampling(temperature=0.7, max_tokens=50)
    requests = [Request(messages=ask(f"question {number}"), sampling=sampling) for number in range(40)]
    seen: list[int] = []

    def on_reply(index: int, reply: Reply) -> None:
        seen.append(index)
        if len(seen) == 1:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        model.reply_many(requests, on_reply)
    assert len(seen) == server.received < 40
    model.reply_many(requests)
    assert server.received == 40, "the replies that were in flight had been kept"
