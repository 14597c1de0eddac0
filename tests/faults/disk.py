"""A small disk of its own for a run, that is full and then is not. Runs where users may mount in a namespace.

unshare --map-root-user --mount python -m tests.faults.disk CONFIG DATA FOLDER FREE_KIB
"""

import json
import pathlib
import shutil
import subprocess
import sys

from tests import same_run, several
from tests.faults.victim import Victim

SIZE_KIB = 16 << 10
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def available() -> bool:
    """Whether this user may mount a tmpfs in a namespace of their own."""
    mount = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:  # no util-linux
        return False


def fill(config: pathlib.Path, data: pathlib.Path, folder: pathlib.Path, free_kib: int) -> dict:
    """Trains on a disk with so much room, then again with enough, in a namespace of its own.

    Returns how the first run ended: "status", "errors" (its lines that tell one) and "saved", the
    steps of the checkpoints that were left; and the "status_after" of the second. It lies in
    folder/run in the end.
    """
    command = [*NAMESPACE, sys.executable, "-m", "tests.faults.disk"]
    done = subprocess.run(
        [*command, str(config), str(data), str(folder), str(free_kib)],
        cwd=several.ROOT, env=several.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _inside(config: str, data: str, folder: pathlib.Path, free_kib: int):
    """What `fill` does, once the namespace is there."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "tmpfs", disk]
    subprocess.run(mount, check=True)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes((SIZE_KIB - free_kib) << 10))
    command = several.door(config, data, disk / "run", "--cpu_devices=1")
    first = Victim(command, disk / "run", folder / "full.log")
    status = first.finish()
    found = {
        "status": status,
        "errors": [line for line in first.text.splitlines() if line.startswith("error")],
        "saved": same_run.steps_saved(disk / "run"),
    }
    ballast.unlink()
    second = Victim(command, disk / "run", folder / "again.log")
    found |= {"status_after": second.finish(), "resumed": second.resumed}
    shutil.copytree(disk / "run", folder / "run")
    print(json.dumps(found))


if __name__ == "__main__":
    _inside(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4]))
