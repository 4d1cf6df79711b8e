"""What can go wrong, at random from a seed: each case is disturbed, gone on with by the same command, and compared byte by byte.

    python benchmarks/chaos.py --json benchmarks/results/chaos.json        # 200 cases; --cases N, --seed N, --jobs N, --only KIND

    a disturbed run ─> ended well, or with one paragraph ─> the command that it names ─> the same command again ─> equal?

A case (chaos_case.py) fails where a run ends with a traceback, where the results differ from those of an undisturbed run, or
where a request is sent again that was answered before. The model is a server on loopback; the kind `local` trains and answers
with a tiny one.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.chaos_case import SECONDS, Case, FailedError, compare, kill, run_whole
from benchmarks.publish import parser, publish
from tests.generate.test_pool import writer
from tests.server import FAULTS, ModelServer
from tests.tiny import save_tiny_model

CASES = 200
SMALL = (
    "generator=openai", "generator.model=writer-small", "data.instructions=12", "data.requests_per_round=3",
    "data.instructions_per_request=3", "generator.json_schema=false", "tracking=none", "endpoints.generator.max_retries=12",
)  # fmt: skip
LOCAL = (
    "sft.epochs=1", "sft.batch_size=4", "dataset.size=8", "eval.max_tokens=12", "eval_set.size=6", "compute.generation_batch=2",
    "compute.answer_group=3", "compute.checkpoint_seconds=0", "judge.embedding_weight=0", "until=verdicts",
)  # fmt: skip


def _await(case: Case, process: "subprocess.Popen[str]", moment: int) -> None:
    """Until so many requests were received, and a little longer."""
    while process.poll() is None and case.server.received < moment:
        time.sleep(0.002)
    time.sleep(case.rng.uniform(0.0, 0.3))


def kill_at_random(case: Case) -> None:
    for _ in range(case.rng.choice([1, 1, 2])):
        process = case.start()
        _await(case, process, case.server.received + case.rng.randrange(0, 25))
        everyone = case.rng.random() < 0.5
        kill(process, everyone=everyone)
        case.lost += 16
    case.heal()


def kill_at_operation(case: Case) -> None:
    who = case.rng.choice(["parent", "worker"])
    at = case.rng.randrange(1, 70 if who == "parent" else 30)
    process = case.start(KILL_AT=f"{who}:{at}:{case.rng.choice(['before', 'after'])}")
    case.end(process)
    case.lost += 16
    case.heal()


def faults(case: Case) -> None:
    case.server.fault_share, case.server.hang_seconds = case.rng.uniform(0.1, 0.4), 0.2
    # A cut reply is a reply: whoever gets one goes on with it.
    case.server.fault_kinds = tuple(kind for kind in FAULTS if kind != "truncated")
    case.lost = 10_000  # what a fault spoiled has to be sent again
    case.heal()


def batch(case: Case) -> None:
    case.settings = (*case.settings, "endpoints.generator.batch=true", "endpoints.generator.poll_seconds=0.02")
    case.server.batch_faults = case.rng.choices([429, 500, 503, "drop", "lost"], k=case.rng.randrange(4))
    process = case.start()
    while process.poll() is None and len(case.server.batches) < case.rng.randrange(1, 5):
        time.sleep(0.002)
    time.sleep(case.rng.uniform(0.0, 0.2))
    kill(process)
    case.heal()
    # The server fails every third request of the first batch, which is sent again; a kill may leave a file without a batch.
    later = {file for file, _ in case.server.batches[1:]}
    sent = Counter(line for name in later for line in case.server.files[name].split(b"\n"))
    if any(count > 1 for count in sent.values()) or not case.server.batches:
        raise FailedError("a batch was sent twice")


def two_processes(case: Case) -> None:
    processes = [case.start(), case.start()]
    if case.rng.random() < 0.5:
        _await(case, processes[0], case.rng.randrange(1, 20))
        kill(processes[0])
        case.lost += 16
        del processes[0]
    for process in processes:
        status, _ = case.end(process)
        if status != 0:
            raise FailedError(f"one of two processes ended with exit status {status}")
    case.heal()


def damaged_file(case: Case) -> None:
    """A file of a finished or an interrupted experiment."""
    if case.rng.random() < 0.7:
        case.heal()
    else:
        process = case.start()
        _await(case, process, case.rng.randrange(5, 25))
        kill(process)
        case.lost += 16
    files = sorted(
        file for file in case.folder.rglob("*") if file.is_file() and "site" not in file.parts and file.suffix != ".lock"
    )
    chosen = case.rng.choice(files)
    _damage(chosen, case.rng)
    case.ran.append(f"damaged: {chosen.relative_to(case.folder)}")
    case.lost = 10_000  # a lost reply has to be asked for again
    case.heal()


def _damage(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    kind = rng.choice(["cut", "noise", "zeros", "empty", "gone"])
    if kind == "gone" or not content:
        file.unlink()
    elif kind == "cut":
        file.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "empty":
        file.write_bytes(b"")
    else:
        start = rng.randrange(len(content))
        length = min(len(content) - start, 200)
        content[start : start + length] = rng.randbytes(length) if kind == "noise" else bytes(length)
        file.write_bytes(content)


def full_disk(case: Case) -> None:
    """A disk of its own that is too small, and then is not; where none can be mounted, files that may not grow."""
    small = case.rng.randrange(100, 700)
    case.outputs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={small}k", "tmpfs", str(case.outputs)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        limit = ["bash", "-c", f'ulimit -f {small // 4}; exec "$@"', "limited", *case.command()]
        status, said = case.end(case.start(command=case.command() if mounted else limit))
        if status not in (0, 1) or (status == 1 and "The disk is full" not in said):
            raise FailedError("it does not say that the disk is full")
        case.lost = 10_000  # a reply that could not be kept is asked for again
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=100m", str(case.outputs)], check=True)
        case.heal()
        case.heals += status
        compare(case)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(case.outputs)], check=False)


def local(case: Case) -> None:
    """Training and answering with a model on this machine."""
    process = case.start()
    began = time.monotonic()
    wanted = case.rng.choice(["dataset", "model", "answers"])
    work, moment = case.outputs / "store" / ".work", case.rng.uniform(0.0, 6.0)
    while process.poll() is None and not list(work.glob(f"{wanted}-*")) and time.monotonic() - began < SECONDS:
        time.sleep(0.01)
    time.sleep(moment)
    kill(process, everyone=case.rng.random() < 0.5)
    case.lost += 16
    case.heal()


KINDS: dict[str, tuple[Callable[[Case], None], int]] = {
    "kill_at_random": (kill_at_random, 45),
    "kill_at_operation": (kill_at_operation, 50),
    "faults": (faults, 15),
    "batch": (batch, 20),
    "two_processes": (two_processes, 20),
    "damaged_file": (damaged_file, 30),
    "full_disk": (full_disk, 10),
    "local": (local, 10),
}
"""How to disturb, and how many of 200 cases do."""


def run_case(kind: str, seed: str, settings: tuple[str, ...]) -> tuple[str, str, list[str]]:
    """(equal, healed or failed; why; what was printed) of one case."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ModelServer() as server:
        server.answer = writer
        server.latency = 0.01
        case = Case(folder=Path(folder), server=server, rng=random.Random(seed), settings=settings)
        try:
            KINDS[kind][0](case)
            if kind != "full_disk":  # its disk is gone by now
                compare(case)
            again = sum(Counter(json.dumps(body, sort_keys=True) for body in server.requests).values())
            again -= len({json.dumps(body, sort_keys=True) for body in server.requests})
            if kind != "batch" and again > case.lost:
                raise FailedError(f"{again} requests were sent again")
        except Exception as error:
            return "failed", f"{type(error).__name__}: {error}", case.ran
        return ("healed" if case.heals else "equal"), "", case.ran


def plan(cases: int, only: str | None) -> list[str]:
    """The kinds of so many cases, in the shares of KINDS, each kind at least once where there is room, mixed."""
    shares = {kind: share for kind, (_, share) in KINDS.items() if only in (None, kind)}
    total = sum(shares.values())
    kinds = [kind for kind, share in shares.items() for _ in range(max(1, round(cases * share / total)))]
    random.Random(0).shuffle(kinds)
    return kinds


def settings_of(kind: str, model: Path) -> tuple[str, ...]:
    return (*SMALL, *LOCAL, f"model.path={model}") if kind == "local" else (*SMALL, "until=dataset")


def run_cases(
    kinds: list[str], seed: int, jobs: int, tell: Callable[[str], None], minutes: float = 1e9
) -> list[tuple[str, str, str]]:
    """(kind, end, why) of each case that was begun within so many minutes."""
    last = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="chaos-model-") as folder:
        model = save_tiny_model(Path(folder))
        for settings in {settings_of(kind, model) for kind in kinds}:
            run_whole(settings)

        def one(numbered: tuple[int, str]) -> tuple[str, str, str] | None:
            number, kind = numbered
            if time.monotonic() > last:
                return None
            end, why, ran = run_case(kind, f"{seed}-{number}", settings_of(kind, model))
            tell(f"{number:>3} {kind:<18} {end} {why}")
            if end == "failed":
                tell("\n".join(ran))
            return kind, end, why

        with ThreadPoolExecutor(jobs) as pool:
            return [ended for ended in pool.map(one, enumerate(kinds)) if ended is not None]


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--cases", type=int, default=CASES)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at once")
    arguments.add_argument("--minutes", type=float, default=30.0, help="no case is begun later than this")
    arguments.add_argument("--only", choices=list(KINDS), help="one kind alone")
    chosen = arguments.parse_args()
    started = time.monotonic()
    tell = partial(print, file=sys.stderr, flush=True)
    ends = run_cases(plan(chosen.cases, chosen.only), chosen.seed, chosen.jobs, tell, minutes=chosen.minutes)
    figures: dict[str, tuple[float | None, str]] = {"cases": (len(ends), "cases")}
    for kind in dict.fromkeys(kind for kind, _, _ in ends):
        count = Counter(end for of, end, _ in ends if of == kind)
        for end in ("equal", "healed", "failed"):
            figures[f"{kind}_{end}"] = (count[end], "cases")
    failed = sum(end == "failed" for _, end, _ in ends)
    figures["failed"] = (failed, "cases")
    figures["minutes"] = (round((time.monotonic() - started) / 60, 1), "minutes")
    publish(figures, chosen.json, load_average=[round(load, 1) for load in os.getloadavg()])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
