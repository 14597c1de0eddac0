"""Files of a data set on disk: reading them plainly, evicting them from the page cache, sizes."""

import os
import pathlib
import time

_BLOCK = 2**22  # bytes per read


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that batches are made from: latents and features."""
    return sorted([*folder.glob("images/*/latents-*"), *folder.glob("features/*/*.array_record")])


def size(folder: pathlib.Path) -> int:
    """Returns the bytes of these files."""
    return sum(path.stat().st_size for path in files_of(folder))


def forget(folder: pathlib.Path):
    """Evicts these files from the page cache, as far as the kernel follows the advice."""
    for path in files_of(folder):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(folder: pathlib.Path) -> float:
    """Returns the seconds to read the files from disk, one after the other, and nothing else."""
    forget(folder)
    block, begun = bytearray(_BLOCK), time.perf_counter()
    for path in files_of(folder):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(block):
                pass
    return time.perf_counter() - begun


def disk_bytes() -> int | None:
    """Returns the bytes this process has read from disks; None if the kernel does not tell."""
    try:
        lines = pathlib.Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["read_bytes"])
