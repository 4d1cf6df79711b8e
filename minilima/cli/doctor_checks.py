"""The checks of `doctor`: what a fact of this machine means for an experiment. Imports no torch.

Facts come from `environment.py`, all at once; what they mean is decided here by functions of values alone.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from minilima import environment
from minilima.cli.doctor_endpoints import examine_endpoint
from minilima.cli.findings import Finding, Level
from minilima.config.choices import DeviceKind, Engine, JudgeKind, TrackingMode
from minilima.config.schema import Config
from minilima.environment import caveat
from minilima.errors import MinilimaError
from minilima.models.checkpoint import check_folder
from minilima.models.packaged import PACKAGED, check_terms, is_fetched
from minilima.run.dry_run import check_base, check_source
from minilima.run.endpoints import endpoints_of
from minilima.run.sources import model_source, resolve
from minilima.run.views import every_view
from minilima.store.sources import ModelSource, Sources

_GIGABYTE = 1_000_000_000
_LITTLE_DISK, _NO_DISK = 20 * _GIGABYTE, 1 * _GIGABYTE


def examine(config: Config, *, probe: bool = False) -> list[Finding]:
    """Everything but the store, for the experiment of `config`. What is slow runs side by side.

    Args:
        config: the experiment.
        probe: whether each endpoint that it asks is sent one small request.
    """
    try:
        sources = resolve(config)
    except MinilimaError as error:
        return [check_python(), Finding(name="sources", level=Level.fail, says=f"{error.what} {error.why}", fix=error.fix)]
    asked = {  # several judges may ask the same model at the same address
        (role, endpoint.base_url, model): (role, view)
        for view in reversed(every_view(config, sources))
        for role, (endpoint, model) in endpoints_of(view.config, view.sources).items()
    }
    with ThreadPoolExecutor() as pool:
        torch = pool.submit(lambda: environment.torch_facts(deepspeed=config.compute.zero_stage is not None))
        hub = pool.submit(environment.hub)
        tried = pool.submit(check_trial, config, sources)
        endpoints = [
            pool.submit(examine_endpoint, role, view.config, view.sources, probe=probe) for role, view in reversed(asked.values())
        ]
        gpus = environment.gpus()
        folder, free, writable = environment.disk(Path(config.paths.outputs))
        return [
            check_python(),
            *check_packages([*environment.requirements(), *extras(config)], environment.pins(), environment.installed()),
            *check_devices(config, gpus, torch.result()),
            *check_processor(config, torch.result().get("gpus", 0), environment.load(), environment.threads()),
            check_disk(folder, free, writable=writable),
            *check_filesystem(caveat(Path(config.paths.outputs))),
            check_hub(*hub.result(), sources.missing()),
            *(check_model(role, source) for role, source in _models(config, sources).items()),
            *tried.result(),
            *(finding.result() for finding in endpoints),
            check_tracking(config.tracking.mode),
        ]


def extras(config: Config) -> list[str]:
    """Packages beyond the required ones that these settings need."""
    in_process = config.compute.engine == Engine.vllm
    return [*(["bitsandbytes>=0.48"] if config.sft.quantise is not None else []), *(["vllm"] if in_process else [])]


def check_python(version: tuple[int, int] | None = None) -> Finding:
    """`setup.py` says 3.11 and newer; 3.14 has not been tried."""
    import sys

    python = version or (sys.version_info.major, sys.version_info.minor)
    says, fix = f"{python[0]}.{python[1]}", "minilima is tested with 3.11 to 3.13: make PYTHON=python3.12 install"
    if python < (3, 11):
        return Finding(name="python", level=Level.fail, says=says, fix=fix)
    return Finding(
        name="python", level=Level.ok if python < (3, 14) else Level.warn, says=says, fix=fix if python >= (3, 14) else ""
    )


def check_packages(wanted: Sequence[str], pins: Mapping[str, str], installed: Mapping[str, str]) -> list[Finding]:
    """What is missing or outside its range is a failure; a version that was not tested is a warning."""
    bad, other = [], []
    requirements = [one for one in map(Requirement, wanted) if one.marker is None or one.marker.evaluate()]
    for requirement in requirements:
        name = _plain(requirement)
        version = installed.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            bad.append(requirement)
        elif name in pins and Version(version).public != Version(pins[name]).public:
            other.append(f"{name} {version} ({pins[name]})")
    findings = []
    if bad:
        says = "; ".join(f"{one.name} {installed.get(_plain(one)) or 'missing'} (needs {one.specifier or 'any'})" for one in bad)
        fix = shlex.join(["python", "-m", "pip", "install", *(f"{one.name}{one.specifier}" for one in bad)])
        findings.append(Finding(name="packages", level=Level.fail, says=says, fix=fix))
    if other:
        says = f"not the tested versions (in brackets): {', '.join(other)}"
        fix = "to have the tested ones: python -m pip install -c constraints.txt -e ."
        findings.append(Finding(name="packages", level=Level.warn, says=says, fix=fix))
    if not findings:
        tested = "the tested versions" if pins else "in their ranges"
        findings.append(Finding(name="packages", level=Level.ok, says=f"{len(requirements)} required packages, {tested}"))
    return findings


def _plain(requirement: Requirement) -> str:
    return requirement.name.lower().replace("_", "-")


def check_devices(config: Config, gpus: Sequence[str] | None, torch: Mapping[str, Any]) -> list[Finding]:
    """The GPUs that the driver sees, what torch can use of them, NCCL and DeepSpeed's operations where they matter."""
    compute = config.compute
    if "error" in torch:
        fix = "python -c 'import torch' shows the whole message; make install brings the tested version"
        return [Finding(name="torch", level=Level.fail, says=f"cannot be used: {torch['error']}", fix=fix)]
    usable = torch["gpus"]
    says = f"{torch['torch']}, {usable} usable GPU{'' if usable == 1 else 's'}{', bfloat16' if torch['bf16'] else ''}"
    findings = [Finding(name="torch", level=Level.ok, says=says)]
    if gpus:
        findings.append(Finding(name="gpus", level=Level.ok, says="; ".join(gpus)))
    if gpus and not usable and compute.device != DeviceKind.cpu:
        build = f"is built for CUDA {torch['built_for']}" if torch["built_for"] else "is a build without CUDA"
        says = f"the driver lists {len(gpus)}, torch can use none: torch {build}"
        fix = "install a torch that fits the driver, check $CUDA_VISIBLE_DEVICES, or set compute=cpu"
        findings.append(
            Finding(name="gpus", level=Level.warn if compute.device == DeviceKind.auto else Level.fail, says=says, fix=fix)
        )
    elif not usable and compute.device == DeviceKind.cuda:
        fix = "compute=auto or compute=cpu runs on the CPU"
        findings.append(Finding(name="gpus", level=Level.fail, says="compute.device=cuda, and there is none", fix=fix))
    if usable > 1:
        nccl = torch["nccl"]
        level, fix = (Level.ok, "") if nccl else (Level.fail, "install a torch with NCCL, or set compute.processes=1")
        findings.append(Finding(name="nccl", level=level, says=nccl or "missing", fix=fix))
    if compute.zero_stage is not None:
        findings.append(_deepspeed(torch))
    return findings


def _deepspeed(torch: Mapping[str, Any]) -> Finding:
    if "deepspeed_error" in torch:
        fix = "make install, or compute=auto to train without DeepSpeed"
        return Finding(name="deepspeed", level=Level.fail, says=f"cannot be imported: {torch['deepspeed_error']}", fix=fix)
    lacking = [name for name, compatible in torch.get("deepspeed", {}).items() if not compatible]
    if lacking:
        fix = "ds_report says why; a compiler and the CUDA toolkit of torch's version are needed to build them"
        return Finding(name="deepspeed", level=Level.warn, says=f"cannot build {', '.join(lacking)}", fix=fix)
    return Finding(name="deepspeed", level=Level.ok, says="its operations can be built")


def check_processor(config: Config, usable_gpus: int, load: float, threads: str) -> list[Finding]:
    """Nothing where a GPU computes or the processor is calm: threads that wait for each other are slow where others compute."""
    on_gpu = usable_gpus and config.compute.device != DeviceKind.cpu
    if on_gpu or threads == "1" or load <= float(threads.partition(",")[0]):
        return []
    says = f"busy: a load of {load:.1f} for {threads} threads; models on the CPU can take many times longer"
    fix = "wait until it is calmer, or set OMP_NUM_THREADS=1"
    return [Finding(name="processor", level=Level.warn, says=says, fix=fix)]


def check_disk(folder: Path, free_bytes: int, *, writable: bool) -> Finding:
    """Room for results: a model of 8 billion parameters takes 16 GB, and 112 GB of checkpoint while it is trained."""
    says = f"{free_bytes / _GIGABYTE:,.0f} GB free in {folder}"
    fix = "choose another folder with paths.outputs=/a/larger/disk, or free some with: minilima store gc"
    if not writable:
        return Finding(
            name="disk", level=Level.fail, says=f"{folder} cannot be written", fix="set paths.outputs=/a/folder/of/yours"
        )
    level = Level.fail if free_bytes < _NO_DISK else Level.warn if free_bytes < _LITTLE_DISK else Level.ok
    return Finding(name="disk", level=level, says=says, fix="" if level == Level.ok else fix)


def check_filesystem(says: str | None) -> list[Finding]:
    """Nothing of a local one; of a network file system what to know of its locks."""
    if says is None:
        return []
    return [Finding(name="file system", level=Level.warn, says=says, fix="paths.outputs=/a/local/disk for jobs of one machine")]


def check_hub(address: str, problem: str | None, needed: Sequence[str]) -> Finding:
    """Only what is needed from the hub makes its silence a failure."""
    mirror = " ($HF_ENDPOINT)" if "HF_ENDPOINT" in os.environ else ""
    token = "$HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "no $HF_TOKEN"
    if problem is None or problem.startswith("HTTP status"):
        return Finding(name="hub", level=Level.ok, says=f"{address}{mirror} answers; {token}")
    if not needed:
        return Finding(
            name="hub", level=Level.ok, says=f"{address}{mirror} is not used: {problem}; these settings need nothing of it"
        )
    fix = "unset HF_HUB_OFFLINE, set HF_ENDPOINT to a mirror, or fetch them elsewhere with `hf download` and copy $HF_HOME"
    return Finding(name="hub", level=Level.fail, says=f"{address}{mirror}: {problem}; needed: {'; '.join(needed)}", fix=fix)


def _models(config: Config, sources: Sources) -> dict[str, ModelSource]:
    named = {"model": sources.base, "generator": sources.generator, "judge": sources.judge}
    if config.judge.kind == JudgeKind.reference and config.judge.embedding_weight:
        named["judge"] = model_source("all_minilm_l6_v2", None, None, "main")
    return {role: source for role, source in named.items() if source is not None}


def check_model(whose: str, source: ModelSource) -> Finding:
    """Whether the weights are here, are safetensors, and have a tokenizer."""
    name = f"{whose} weights"
    if source.kind == "packaged":
        size = f"{source.location}, {PACKAGED[source.location].megabytes} MB"
        if is_fetched(source.location):
            return Finding(name=name, level=Level.ok, says=f"{size}, fetched")
        try:
            check_terms(source.location)
        except MinilimaError as error:
            return _refusal(name, error)
        fix = f"minilima fetch {source.location} (where a package index can be reached)"
        return Finding(name=name, level=Level.warn, says=f"{size}, not fetched yet; the run does it", fix=fix)
    if source.kind == "hub":
        if source.missing:
            fix = "`hf download` where there is a network, then copy $HF_HOME; or model=smollm2_135m"
            return Finding(name=name, level=Level.fail, says=f"not here: {source.missing}", fix=fix)
        return Finding(name=name, level=Level.ok, says=f"{source.location} of the hub")
    return _check_folder(name, Path(source.location), trained=whose == "model")


def _check_folder(name: str, folder: Path, *, trained: bool) -> Finding:
    try:
        check_folder(folder, trained=trained)
    except MinilimaError as error:
        return _refusal(name, error)
    settings = folder / "tokenizer_config.json"
    jinja = (folder / "chat_template.jinja").is_file()
    written = jinja or (settings.is_file() and "chat_template" in settings.read_text("utf-8"))
    template = "with its chat template" if written else "without a chat template, so minilima's plain one is taken"
    return Finding(name=name, level=Level.ok, says=f"{folder}, {template}")


def check_trial(config: Config, sources: Sources) -> list[Finding]:
    """Whether the base model would be right with these settings, prompts and rows; nothing where its files already are not."""
    try:
        check_source(sources.base, trained=True)
    except MinilimaError:
        return []
    try:
        notes = check_base(config, sources)
    except MinilimaError as error:
        return [_refusal("model trial", error)]
    fix = "raise sft.max_tokens, or leave it: the run counts them"
    if not notes and sources.base.kind != "packaged" and sources.base.missing is None:
        says = "tokenizer, template, tensors, and every prompt and row that is known"
        return [Finding(name="model trial", level=Level.ok, says=says)]
    return [Finding(name="model trial", level=Level.warn, says=note, fix=fix) for note in notes]


def _refusal(name: str, error: MinilimaError) -> Finding:
    return Finding(name=name, level=Level.fail, says=f"{error.what} {error.why}", fix=error.fix)


def check_tracking(mode: TrackingMode, logged_in: Callable[[], bool] | None = None) -> Finding:
    """How a run would appear in Weights & Biases; none of it can stop a run."""
    from minilima.report import wandb

    if mode == TrackingMode.none:
        return Finding(name="W&B", level=Level.ok, says="off (wandb.mode=none)")
    if wandb.disabled():
        return Finding(name="W&B", level=Level.ok, says="off ($WANDB_MODE=disabled)")
    if mode == TrackingMode.offline:
        return Finding(name="W&B", level=Level.ok, says="recorded offline (wandb.mode=offline)")
    if (logged_in or wandb.logged_in)():
        return Finding(name="W&B", level=Level.ok, says="logged in: runs are recorded online")
    return Finding(name="W&B", level=Level.ok, says="not logged in: runs are recorded offline; `wandb login` changes that")
