"""`doctor`: each finding says what is wrong and what to do; what would stop a run is a failure, debris goes on request."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from minilima import environment
from minilima.__main__ import main
from minilima.cli.doctor_checks import (
    check_devices,
    check_disk,
    check_filesystem,
    check_hub,
    check_model,
    check_packages,
    check_processor,
    check_python,
    check_tracking,
    extras,
)
from minilima.cli.doctor_endpoints import check_endpoint
from minilima.cli.findings import Finding
from minilima.config.choices import Quantise, TrackingMode
from minilima.config.compose import load_config
from minilima.run.sources import model_source
from minilima.store.entries import Store, claimed
from minilima.store.job import Outcome, Stage
from tests.server import VALID_KEY, ModelServer

TORCH = {"torch": "2.13.0", "built_for": None, "gpus": 0, "bf16": False, "nccl": None}


def test_the_whole_of_it_is_one_line_a_finding_and_imports_no_torch(tmp_path: Path) -> None:
    arguments = ["doctor", "+experiment=quickstart", f"paths.outputs={tmp_path}"]
    code = f"import sys; from minilima.__main__ import main; print(main({arguments!r}), 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[-1] == "0 False", told
    names = [line[6:25].strip() for line in told if line[:6].strip() in ("ok", "warn", "fail")]
    assert names[:4] == ["python", "packages", "torch", "disk"] and names[-1] == "store"


def test_an_endpoint_without_a_key_fails_and_the_key_is_named_but_never_shown(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "torch_facts", lambda deepspeed: TORCH)
    command = ["doctor", "judge=chatgpt", f"endpoints.judge.base_url={server.url}", "judge.model=writer-small"]
    command.append(f"paths.outputs={tmp_path}")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    assert main(command) == 1
    refused = capfd.readouterr().out
    assert "refuses the key" in refused and "$OPENAI_API_KEY" in refused
    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)
    assert main([*command[:3], "judge.model=no-such", command[-1]]) == 1
    assert "writer-large" in capfd.readouterr().out
    assert main(command) == 0
    accepted = capfd.readouterr().out
    assert "lists writer-small; $OPENAI_API_KEY is set" in accepted
    assert "sk-wrong" not in refused and VALID_KEY not in accepted


def test_a_server_that_is_not_there_fails_with_the_setting_to_correct() -> None:
    endpoint = load_config(["generator=vllm", "endpoints.generator.base_url=http://127.0.0.1:9/v1"]).endpoints.generator
    found = check_endpoint("generator", endpoint, "m", *environment.endpoint_models(endpoint.base_url, endpoint.api_key_env))
    assert found.level == "fail" and "cannot be reached" in found.says and "endpoints.generator.base_url" in found.fix


def test_a_key_is_not_sent_on_to_another_address(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{server.url}/models")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("OPENAI_API_KEY", VALID_KEY)
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        endpoint = load_config([f"endpoints.generator.base_url=http://127.0.0.1:{other.server_port}/v1"]).endpoints.generator
        assert environment.endpoint_models(endpoint.base_url, endpoint.api_key_env) == ([], "HTTP status 302")


@pytest.mark.parametrize(("version", "level"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "warn")])
def test_only_tested_pythons_pass_without_a_word(version: tuple[int, int], level: str) -> None:
    found = check_python(version)
    assert found.level == level and bool(found.fix) == (level != "ok")


def test_packages_out_of_range_fail_and_untested_versions_are_told() -> None:
    wanted = ["torch>=2.11", "pandas<3", "rich>=13", 'tomli>=2; python_version < "3"']
    fine = {"torch": "2.13.0+cpu", "pandas": "2.3.3", "rich": "15.0.0"}
    (found,) = check_packages(wanted, {"torch": "2.13.0"}, fine)
    assert found.level == "ok" and "3 required" in found.says
    (found,) = check_packages(wanted, {"torch": "2.13.0"}, {**fine, "torch": "2.14.0"})
    assert found.level == "warn" and "torch 2.14.0 (2.13.0)" in found.says
    (found,) = check_packages(wanted, {}, {"torch": "2.13.0", "pandas": "3.0.1"})
    assert found.level == "fail" and "pandas 3.0.1 (needs <3)" in found.says and "rich missing" in found.says
    assert found.fix == "python -m pip install 'pandas<3' 'rich>=13'"


def test_settings_that_need_a_package_more_name_it() -> None:
    config = load_config([])
    assert extras(config) == []
    config.sft.quantise = Quantise.nf4
    assert extras(config) == ["bitsandbytes>=0.48"]
    assert extras(load_config(["generator=vllm"])) == ["vllm"]


def levels(findings: list[Finding]) -> dict[str, str]:
    return {found.name: found.level.value for found in findings}


def test_gpus_that_torch_cannot_use_are_found() -> None:
    automatic, wanted = load_config([]), load_config(["compute.device=cuda", "compute.zero_stage=2"])
    seen = ["H100, 81559 MiB, 550.54"]
    assert levels(check_devices(automatic, None, TORCH)) == {"torch": "ok"}
    assert levels(check_devices(automatic, seen, TORCH))["gpus"] == "warn"
    assert levels(check_devices(wanted, seen, {**TORCH, "deepspeed": {"cpu_adam": False}})) == {
        "torch": "ok",
        "gpus": "fail",
        "deepspeed": "warn",
    }
    two = {**TORCH, "built_for": "12.8", "gpus": 2, "bf16": True}
    assert levels(check_devices(automatic, seen * 2, two))["nccl"] == "fail"
    assert levels(check_devices(automatic, seen * 2, {**two, "nccl": "2.27.5"}))["nccl"] == "ok"
    assert levels(check_devices(automatic, None, {"error": "no module named torch"})) == {"torch": "fail"}


def test_a_full_or_foreign_disk_fails() -> None:
    place = Path("/data")
    found = [check_disk(place, size, writable=True).level.value for size in (10**8, 5 * 10**9, 10**12)]
    assert found == ["fail", "warn", "ok"]
    assert check_disk(place, 10**12, writable=False).level == "fail"


def test_a_network_file_system_is_told_and_a_local_one_is_not() -> None:
    (found,) = check_filesystem("outputs is on nfs: jobs on several machines …")
    assert found.level == "warn" and "nfs" in found.says
    assert check_filesystem(None) == []


def test_the_hub_must_answer_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_hub("https://h", "timed out", []).level == "ok"
    assert check_hub("https://h", "timed out", ["the model x"]).level == "fail"
    assert check_hub("https://h", None, ["the model x"]).level == "ok"
    assert environment.hub()[1] == "HF_HUB_OFFLINE is set"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert "mirror.example ($HF_ENDPOINT)" in check_hub(*environment.hub(), []).says


def test_a_model_folder_needs_safetensors_and_a_tokenizer(tmp_path: Path, tiny_model: Path) -> None:
    assert "with its chat template" in check_model("model", model_source(None, None, str(tiny_model), "main")).says
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("")
    source = model_source(None, None, str(tmp_path), "main")
    assert "no *.safetensors" in check_model("model", source).says
    (tmp_path / "model.safetensors").write_text("")
    found = check_model("model", source)
    assert found.level == "fail" and "no tokenizer" in found.says


def test_tracking_can_never_fail() -> None:
    assert "online" in check_tracking(TrackingMode.auto, lambda: True).says
    assert "offline" in check_tracking(TrackingMode.auto, lambda: False).says
    assert check_tracking(TrackingMode.none).level == "ok"


def entry(root: Path, name: str) -> Stage:
    stage = Stage(name=name, version=1, recipe={})

    def fill(work: Path) -> Outcome:
        (work / "text.txt").write_text("x")
        return Outcome(metrics={})

    Store(root).get_or_build(stage, fill)
    return stage


def test_repair_removes_what_nothing_will_use_and_keeps_what_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "torch_facts", lambda deepspeed: TORCH)
    root = tmp_path / "store"
    done = entry(root, "pool").directory
    kept = root / ".work" / "model-1" / "scratch" / "job.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"role": "model"}))
    for debris in (f".work/{done}", ".work/dataset-1", ".work/answers-held", ".removed-pool-2"):
        (root / debris).mkdir()
        (root / debris / "half").write_text("x" * 1000)
    (root / ".locks" / "pool-3.holder").write_text("process 1 on nowhere")
    command = ["doctor", f"paths.outputs={tmp_path}"]
    with claimed(root, "answers-held"):
        assert main(command) == 0
        assert "4 leftovers of killed processes" in capfd.readouterr().out
        assert (root / ".work" / "dataset-1").is_dir()
        assert main([*command, "--repair"]) == 0
    assert sorted(path.name for path in (root / ".work").iterdir()) == ["answers-held", "model-1"]
    assert not (root / ".removed-pool-2").exists() and not list((root / ".locks").glob("*.holder"))
    assert kept.is_file() and (root / done / "text.txt").is_file()


def test_a_damaged_entry_fails_with_the_command_that_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "torch_facts", lambda deepspeed: TORCH)
    stage = entry(tmp_path / "store", "pool")
    (tmp_path / "store" / stage.directory / "text.txt").write_text("longer")
    assert main(["doctor", f"paths.outputs={tmp_path}"]) == 1
    assert f"rm -r {tmp_path / 'store' / stage.directory}" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"), [(["--fix"], "--repair"), (["data=file", "data.path=nowhere.json"], "no file nowhere.json")]
)
def test_what_cannot_be_examined_is_named(arguments: list[str], named: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 1
    told = capfd.readouterr()
    assert named in told.out + told.err


@pytest.mark.parametrize(
    ("settings", "gpus", "load", "threads", "warned"),
    [
        ([], 0, 4.2, "2", True), ([], 0, 2.0, "2", False), ([], 0, 4.2, "1", False), ([], 1, 4.2, "2", False),
        (["compute=cpu"], 1, 4.2, "2", True),
    ],
)  # fmt: skip
def test_a_busy_processor_is_said_where_a_model_computes_on_it(
    settings: list[str], gpus: int, load: float, threads: str, warned: bool
) -> None:
    found = check_processor(load_config(settings), gpus, load, threads)
    assert [(each.level.value, each.name) for each in found] == [("warn", "processor")] * warned
    assert all("4.2 for 2 threads" in each.says and "OMP_NUM_THREADS=1" in each.fix for each in found)
