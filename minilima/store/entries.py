"""The store: one directory for each result, named by the recipe that made it.

A stage's key is a hash of its recipe and of its inputs' keys, so it is known before anything is built. A result is built
aside under a stable name (a killed stage finds its own work again), described by a manifest, synced, and published by
one rename. A published directory is complete and never changes.

    store/pool-3f2a…/manifest.json      done
    store/.work/model-91bc…/            being built, or interrupted
    store/.locks/model-91bc….lock       held by whoever builds it; the system frees it when that process dies
    store/.reserved/host-4711-….json    what a running experiment needs, so that nothing of it is removed
"""

import json
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from minilima import environment
from minilima.errors import MinilimaError, owner
from minilima.formats.files import clear_aside, sha256_file, sha256_text, share, sync, umask, write_atomic
from minilima.store.job import SCRATCH, Outcome, Stage, key_of

FULL_CHECK_BYTES = 4_000_000
"""Files up to this size are hashed whenever a result is used, larger ones are checked by size."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A result in the store. `how` is `built`, `reused`, or `waited` (another process built it meanwhile)."""

    stage: Stage
    path: Path
    manifest: dict[str, Any]
    how: str

    @property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.manifest["metrics"]
        return metrics


class Store:
    """All results under one folder, safe for many processes of one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, stage: Stage, hash_up_to: float = FULL_CHECK_BYTES) -> Artifact | None:
        """The finished result, or None; its files up to `hash_up_to` bytes are hashed, larger ones compared by size.

        Raises:
            MinilimaError: the directory is there but not what its manifest says.
        """
        path = self.root / stage.directory
        if not path.is_dir():
            return None
        return Artifact(stage=stage, path=path, manifest=checked_manifest(path, hash_up_to), how="reused")

    def work(self, stage: Stage) -> Path:
        """Where the stage is built; there is something in it if a build was interrupted."""
        return self.root / ".work" / stage.directory

    def get_or_build(
        self,
        stage: Stage,
        build: Callable[[Path], Outcome],
        on_wait: Callable[[str], None] = lambda holder: None,
    ) -> Artifact:
        """Returns the stage's result, building it unless it is there or another process builds it meanwhile.

        Args:
            stage: what is wanted.
            build: fills the directory it is given, which may hold what an interrupted build left.
            on_wait: called with the holder of the lock, before waiting for it.
        """
        if existing := self.find(stage):
            return existing
        with self._locked(stage, on_wait) as waited:
            if existing := self.find(stage):
                return Artifact(stage=stage, path=existing.path, manifest=existing.manifest, how="waited" if waited else "reused")
            work = self.work(stage)
            (work / SCRATCH).mkdir(parents=True, exist_ok=True)
            clear_aside(work)
            started = time.monotonic()  # the clock may be set meanwhile
            outcome = build(work)
            self._publish(stage, work, outcome, started)
        existing = self.find(stage)
        assert existing is not None, f"{stage.directory} was published and is not there"
        return Artifact(stage=stage, path=existing.path, manifest=existing.manifest, how="built")

    @contextmanager
    def _locked(self, stage: Stage, on_wait: Callable[[str], None]) -> Iterator[bool]:
        lock = _lock(self.root, stage.directory)
        holder_file = Path(lock.lock_file).with_suffix(".holder")
        waited = False
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait(holder_file.read_text() if holder_file.is_file() else "another process")
            waited = True
            lock.acquire()
        try:
            write_atomic(holder_file, f"process {os.getpid()} on {environment.host()}")
            yield waited
        finally:
            holder_file.unlink(missing_ok=True)
            lock.release()

    def _publish(self, stage: Stage, work: Path, outcome: Outcome, started: float) -> None:
        shutil.rmtree(work / SCRATCH, ignore_errors=True)
        clear_aside(work)
        files = sorted(item for item in work.rglob("*") if item.is_file() and item.name != "manifest.json")
        for file in files:
            sync(file)
        manifest = {
            "stage": stage.name,
            "key": stage.key,
            "version": stage.version,
            "recipe": stage.recipe,
            "inputs": {role: source.directory for role, source in stage.inputs.items()},
            "files": {str(f.relative_to(work)): {"bytes": f.stat().st_size, "sha256": sha256_file(f)} for f in files},
            "metrics": outcome.metrics,
            "usage": asdict(outcome.usage),
            "seconds": round(time.monotonic() - started, 2),
            **environment.describe(),
        }
        manifest = {**manifest, "sha256": _seal(manifest)}
        write_atomic(work / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False))
        share(work)
        sync(work)
        work.rename(self.root / stage.directory)
        sync(self.root)


@contextmanager
def claimed(root: Path, directory: str) -> Iterator[bool]:
    """Holds the lock of an entry of the store `root`; yields False, holding nothing, where somebody is building it."""
    lock = _lock(root, directory)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def removing(root: Path) -> Iterator[None]:
    """While something may be removed from the store `root`: no experiment can reserve anything until the block ends."""
    with _lock(root, "removing"):
        yield


@contextmanager
def reserved(root: Path, directories: Iterable[str]) -> Iterator[None]:
    """Keeps entries of the store `root` from being removed until the block ends, whether they are there yet or not."""
    file = root / ".reserved" / f"{environment.host()}-{os.getpid()}-{secrets.token_hex(4)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(file.with_suffix(".lock"), mode=0o666 & ~umask())
    with removing(root):
        held.acquire()
        write_atomic(file, json.dumps(sorted(directories)))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        held.release()
        Path(held.lock_file).unlink(missing_ok=True)


def reservations(root: Path) -> dict[str, set[str]]:
    """Directories that running experiments have reserved, by host and process; those of dead processes are cleared away."""
    needed: dict[str, set[str]] = {}
    for file in sorted((root / ".reserved").glob("*.json")):
        lock = FileLock(file.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except (Timeout, PermissionError):  # what this user may not lock counts as held
            # Between the look at the folder and this one, the experiment may have ended.
            with suppress(FileNotFoundError):
                needed[file.stem.rpartition("-")[0]] = _reserved_in(file)
            continue
        file.unlink(missing_ok=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
    return needed


def _reserved_in(file: Path) -> set[str]:
    try:
        return set(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise MinilimaError(
            f"{file} cannot be read, so it is not known what a running experiment needs.",
            f"{type(error).__name__}: {error}.",
            "Wait until that experiment has ended, or stop it, and run the same command again.",
        ) from None


def _lock(root: Path, directory: str) -> FileLock:
    file = root / ".locks" / f"{directory}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file, mode=0o666 & ~umask())


def checked_manifest(path: Path, hash_up_to: float = FULL_CHECK_BYTES) -> dict[str, Any]:
    """The manifest of the entry in `path`, its files compared with it: sizes, and hashes up to `hash_up_to` bytes.

    Raises:
        MinilimaError: the entry is not what its manifest says, or may not be read.
    """
    try:
        manifest = _manifest(path)
        for name, expected in manifest["files"].items():
            _check_file(path, name, expected, hash_up_to)
        inputs = {role: directory.rpartition("-")[2] for role, directory in manifest["inputs"].items()}
        # Entries of earlier versions carry no seal; their recipes are checked all the same.
        sealed = manifest.get("sha256", seal := _seal(manifest)) == seal
        if not sealed or key_of(manifest["stage"], manifest["version"], manifest["recipe"], inputs) != manifest["key"]:
            raise ValueError("manifest.json was edited after the entry was built")
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error) if type(error) is ValueError else f"manifest.json is not what a stage writes ({error!r})"
        raise MinilimaError(
            f"The store entry {path.name} is damaged.",
            f"{why}.".replace("\n", " "),
            f"Remove it and run the same command again, it will be rebuilt: rm -r {shlex.quote(str(path))}",
        ) from None
    return manifest


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError("manifest.json is missing") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"manifest.json cannot be read ({error})") from None
    if not isinstance(manifest, dict):
        raise TypeError(type(manifest).__name__)
    for field, kind in (("stage", str), ("key", str), ("metrics", dict), ("usage", dict), ("inputs", dict), ("files", dict)):
        if not isinstance(manifest[field], kind):
            raise TypeError(f"{field}: {type(manifest[field]).__name__}")
    if f"{manifest['stage']}-{manifest['key']}" != path.name:
        raise ValueError(f"manifest.json is of another entry, {manifest['stage']}-{manifest['key']}")
    return manifest


def _seal(manifest: Mapping[str, Any]) -> str:
    """sha256 over all other fields: says whether somebody has edited them."""
    plain = json.loads(json.dumps({name: value for name, value in manifest.items() if name != "sha256"}))
    return sha256_text(json.dumps(plain, sort_keys=True))


def _check_file(path: Path, name: str, expected: dict[str, Any], hash_up_to: float) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"manifest.json names {name}, which is outside of it")
    try:
        size = (path / name).stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{name} is missing") from None
    if size != expected["bytes"]:
        raise ValueError(f"{name} has {size:,} bytes, {expected['bytes']:,} were written")
    if size <= hash_up_to and sha256_file(path / name) != expected["sha256"]:
        raise ValueError(f"the contents of {name} have changed")


class UnreadableError(MinilimaError):
    """An entry that may well be whole."""


def _unreadable(path: Path, error: OSError) -> UnreadableError:
    """An entry that may well be whole: nothing is said of removing it."""
    if isinstance(error, PermissionError):
        return UnreadableError(
            f"This user has no permission to read the store entry {path.name}.",
            f"{error.filename} belongs to {owner(Path(error.filename or path).absolute())}.",
            f"Ask for it to be shared (chmod -R a+rX {shlex.quote(str(path))}), or build in a folder of your own: "
            "paths.outputs=$HOME/minilima",
        )
    return UnreadableError(
        f"The store entry {path.name} cannot be read just now.",
        f"The system says of {error.filename or path}: {error.strerror}.",
        "Check the disk or the network file system, and run the same command again.",
    )
