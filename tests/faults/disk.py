"""Gives a run a small disk that fills, then has room. Needs permission to mount in a namespace.

unshare --map-root-user --mount python -m tests.faults.disk CONFIG DATA FOLDER FREE_KIB [FLAG...]
"""

import json
import pathlib
import shutil
import subprocess
import sys

from tests import same_run, several
from tests.faults.victim import Victim
from tests.faults.worlds import World

SIZE_KIB = 16 << 10
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def available() -> bool:
    """Whether this user may mount a tmpfs in a namespace of their own."""
    mount = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:  # no util-linux
        return False


def fill(world: World, folder: pathlib.Path, free_kib: int, *more: str) -> dict:
    """Trains on a disk with `free_kib` of room, then again with enough, in a separate namespace.

    more: flags for the first of these runs.

    Returns how the first run ended: "status", "errors" (its error lines) and "saved", the steps of
    the checkpoints left; and the "status_after" and "resumed" of the second. The run ends up in
    folder/run.
    """
    command = [*NAMESPACE, sys.executable, "-m", "tests.faults.disk"]
    done = subprocess.run(
        [*command, str(world.config), str(world.data), str(folder), str(free_kib), *more],
        cwd=several.ROOT, env=several.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _inside(world: World, folder: pathlib.Path, free_kib: int, more: list[str]):
    """What `fill` does inside the namespace."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "tmpfs", disk]
    subprocess.run(mount, check=True)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes((SIZE_KIB - free_kib) << 10))
    first = Victim(world.command(disk / "run", *more), disk / "run", folder / "full.log")
    status = first.finish()
    found = {
        "status": status,
        "errors": [line for line in first.text.splitlines() if line.startswith("error")],
        "saved": same_run.steps_saved(disk / "run"),
    }
    ballast.unlink()
    second = Victim(world.command(disk / "run"), disk / "run", folder / "again.log")
    found |= {"status_after": second.finish(), "resumed": second.resumed}
    shutil.copytree(disk / "run", folder / "run")
    print(json.dumps(found))


if __name__ == "__main__":
    config, data, folder = map(pathlib.Path, sys.argv[1:4])
    _inside(World(config.stem, config, data), folder, int(sys.argv[4]), sys.argv[5:])
