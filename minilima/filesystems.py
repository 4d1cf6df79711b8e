"""What kind of file system a folder is on: locks and SQLite's log behave otherwise on those that several machines share.

Read from /proc/mounts; where there is none (macOS), nothing is known and nothing is said.
"""

import re
from pathlib import Path

MOUNTS = Path("/proc/mounts")

NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "orangefs", "pvfs2",
    "wekafs", "panfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse", "fuse.juicefs", "virtiofs",
}  # fmt: skip
"""Types of /proc/mounts that may be mounted on several machines at once."""


def network_filesystem(folder: Path) -> str | None:
    """The type of the network file system that `folder` (or what will be its parent) is on; None for a local or unknown one."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place = folder.expanduser().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    place = place.resolve()
    found = ""
    longest = -1
    for line in lines:
        _, mounted, kind, *_ = line.split(" ")
        point = Path(_unescaped(mounted))
        # A later line lies over an earlier one at the same place.
        if place.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = kind, len(point.parts)
    return found if found in NETWORK else None


def _unescaped(text: str) -> str:
    """Spaces and the like stand as octal numbers in /proc/mounts: `\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def caveat(outputs: Path) -> str | None:
    """What to know where `outputs` is on a network file system: a note for the plan."""
    kind = network_filesystem(outputs)
    if kind is None:
        return None
    locks = {
        "nfs": "jobs on several machines share stages safely only where its lock service runs",
        "lustre": "jobs on several machines share stages safely only where it is mounted with -o flock",
    }.get(kind, "jobs on several machines share stages safely only where its locks (flock) hold across machines")
    return (
        f"{outputs} is on {kind}: {locks}. The reply cache keeps SQLite's rollback journal there instead of its faster log, "
        "which needs a local disk."
    )
