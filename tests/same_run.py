"""Whether two runs are the same: every array of a checkpoint, and what a run says of itself, bit for bit."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lidit_jax.training.checkpoints import naming, record


def arrays(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Returns every array of a checkpoint, by path, wherever its parts were; and its record.

    The latter, JSON, is the array "record" of its text's bytes, without what is of the clock, or tells how many lines its files have.
    """
    folder = (workdir / "checkpoints" / str(step)).absolute()
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found = {}
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        for item in naming.ALL:
            tree = reader.metadata(folder / item).item_metadata.tree
            like = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), tree
            )
            found[item] = reader.restore(folder / item, args=ocp.args.StandardRestore(like))
    leaves = jax.tree_util.tree_leaves_with_path(found)
    told = {k: v for k, v in record.read(folder).items() if k not in ("saved", "clock", "lines")}
    text = json.dumps(told, sort_keys=True).encode()
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves} | {
        "record": np.frombuffer(text, np.uint8)
    }


def copy_checkpoint(whole: pathlib.Path, to: pathlib.Path):
    """Copies a checkpoint to be one of another step, by its record too."""
    shutil.copytree(whole, to)
    told = record.read(whole) | {"step": int(to.name)}
    ocp.JsonCheckpointHandler().save(to / record.ITEM, args=record.sealed(told))


def differing_bits(found: np.ndarray, wanted: np.ndarray) -> int:
    """Returns how many bits of two arrays differ: all of the wanted one's, if shape or dtype does."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return 8 * wanted.nbytes
    both = [np.frombuffer(np.ascontiguousarray(a).tobytes(), np.uint8) for a in (found, wanted)]
    return int(np.bitwise_count(both[0] ^ both[1]).sum())


def is_of_the_clock(name: str) -> bool:
    """Whether a number in a run's files is of its speed, its age or its machine: not a function of the seed."""
    if name == "crc":  # of the whole line
        return True
    words = ("per_s", "time", "age", "memory", "goodput")
    return name.endswith("_s") or any(f"_{word}_" in f"_{name}_" for word in words)


def without_clock(line: str | bytes) -> dict[str, Any]:
    """Returns one line of JSON. Raises ValueError if it is none."""
    return {k: v for k, v in json.loads(line).items() if not is_of_the_clock(k)}


def lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns a JSON-lines file, without what is of the clock; none if there is no file."""
    if not path.exists():
        return []
    return [without_clock(line) for line in path.read_text().split("\n") if line]


def metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Every metric of every line, unrounded."""
    return lines(workdir / "metrics.jsonl")


def ledger(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return lines(workdir / "ledger.jsonl")


def pictures(workdir: pathlib.Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((workdir / "samples").glob("*.png"))}


def steps_saved(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of the checkpoints that bear their final name, oldest first."""
    folder = workdir / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


@dataclasses.dataclass(frozen=True)
class Tally:
    """How many things were compared, and which differ; for arrays, in how many bits."""

    compared: int = 0
    different: tuple[str, ...] = ()
    bits: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.compared + other.compared,
            self.different + other.different,
            self.bits + other.bits,
        )

    def __str__(self):
        return f"{len(self.different)} of {self.compared}"


def compare_arrays(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> Tally:
    """Compares two checkpoints; an array that only one of them has differs."""
    bits = {name: differing_bits(found[name], wanted[name]) for name in found.keys() & wanted}
    different = sorted({name for name, n in bits.items() if n} | (found.keys() ^ wanted.keys()))
    return Tally(len(found.keys() | wanted.keys()), tuple(different), sum(bits.values()))


def compare_lines(found: list[dict], wanted: list[dict]) -> Tally:
    """Compares two files of lines, line by line; a line that only one of them has differs."""
    missing = [{}] * abs(len(found) - len(wanted))
    pairs = list(zip(found + missing, wanted + missing))
    different = [f"{a} for {b}" for a, b in pairs if a != b]
    return Tally(max(len(found), len(wanted)), tuple(different))


def compare_pictures(found: dict[str, bytes], wanted: dict[str, bytes]) -> Tally:
    different = [k for k in sorted(found.keys() | wanted) if found.get(k) != wanted.get(k)]
    return Tally(len(found.keys() | wanted), tuple(different))


def assert_same_run(workdir: pathlib.Path, other: pathlib.Path, step: int = 4):
    """Fails unless both runs ended at `step`, with one line of its metrics a step and with equal bits."""
    assert metrics(workdir) == metrics(other)
    steps = [line["step"] for line in metrics(workdir) if "loss" in line]
    assert steps == list(range(1, step + 1))
    found, wanted = arrays(workdir, step), arrays(other, step)
    assert found.keys() == wanted.keys() and len(found) > 50
    assert not compare_arrays(found, wanted).different
