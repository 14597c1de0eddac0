"""Damages a run's files (bits flipped; files cut, zeroed, removed) and checks that starts notice.

python -m tests.faults.damage --seed=0 --corruptions=60
"""

import collections
import dataclasses
import os
import pathlib
import shutil
import sys

import numpy as np

from tests import same_run
from tests.faults import worlds
from tests.faults.kills import Whole
from tests.faults.victim import Victim

# Kind -> files, as glob patterns relative to the run; {last} is its last checkpoint.
KINDS = {
    "arrays": ("checkpoints/{last}/*/d/*", "checkpoints/{last}/*/*.process_*/d/*"),
    "metadata": ("checkpoints/{last}/_*", "checkpoints/{last}/*/_*"),
    "manifest": ("checkpoints/{last}/**/manifest.ocdbt",),
    "commit": ("checkpoints/{last}/**/commit_success.txt",),
    "record": ("checkpoints/{last}/record/metadata",),
    "config": ("config.json",),
    "metrics": ("metrics.jsonl",),
    "ledger": ("ledger.jsonl",),
}
WAYS = ("flip", "cut", "zero", "remove")
OUTCOMES = ("named", "survived", "harmless", "unnamed", "SILENT")


@dataclasses.dataclass(frozen=True)
class Corruption:
    """What was done to a run, and to which of its files."""

    kind: str
    way: str
    path: str

    def __str__(self):
        return f"{self.way} {self.path} ({self.kind})"


def plant(rng: np.random.Generator, workdir: pathlib.Path, kind: str) -> Corruption | None:
    """Damages one random file of `kind` in a random way; returns None if the run has none."""
    last = same_run.steps_saved(workdir)[-1]
    found = {p for glob in KINDS[kind] for p in workdir.glob(glob.format(last=last))}
    found = sorted(p for p in found if p.is_file() and p.stat().st_size)
    if not found:
        return None
    path, way = found[rng.integers(len(found))], WAYS[rng.integers(len(WAYS))]
    content = bytearray(path.read_bytes())
    if way == "remove":
        path.unlink()
    elif way == "cut":
        os.truncate(path, int(rng.integers(len(content))))
    elif way == "zero":  # a range of bytes, like a sector that was never written
        start = int(rng.integers(len(content)))
        end = start + 4096
        content[start:end] = bytes(len(content[start:end]))
        path.write_bytes(content)
    else:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    return Corruption(kind, way, str(path.relative_to(workdir)))


class Damager:
    """Damages copies of one half-trained run, resumes each, and classifies the outcome."""

    def __init__(self, whole: Whole, folder: pathlib.Path):
        self._whole, self._folder = whole, folder
        self._half, self._pictures = folder / "half", None
        folder.mkdir(parents=True, exist_ok=True)
        if not self._half.exists():
            half = ["--config.train.keep=3", f"--config.train.steps={whole.world.steps // 2}"]
            run = self._train(self._half, *half)  # its copies will be damaged
            assert run.finish() == 0, run.text

    def _train(self, workdir: pathlib.Path, *more: str) -> Victim:
        return Victim(self._whole.world.command(workdir, *more), workdir, self._folder / "log.txt")

    def copy(self) -> pathlib.Path:
        """Returns a copy of the half-trained run, to damage."""
        workdir = self._folder / "damaged"
        shutil.rmtree(workdir, ignore_errors=True)
        return shutil.copytree(self._half, workdir)

    def continued(self, workdir: pathlib.Path, done: Corruption) -> str:
        """Trains a damaged run to its end; returns one of `OUTCOMES`."""
        run = self._train(workdir)
        if run.finish() != 0:
            return "named" if _names(run.error, workdir, done) else "unnamed"
        wanted = self._whole
        state = wanted.compare_state(workdir, wanted.world.steps)
        lines = same_run.compare_lines(same_run.metrics(workdir), same_run.metrics(wanted.workdir))
        told = self._told(workdir)
        rows = same_run.ledger(workdir) == same_run.ledger(wanted.workdir)
        if state.different or (lines.different or not rows) and not told:
            return "SILENT"
        return "survived" if told else "harmless"

    def _told(self, workdir: pathlib.Path) -> bool:
        """Whether the ledger has a row about a damaged file."""
        rows = same_run.ledger(workdir)
        return any(row["what"] in ("checkpoint", "lines") for row in rows)

    def sampled(self, workdir: pathlib.Path, done: Corruption) -> str:
        """Samples from a damaged run; returns one of `OUTCOMES`."""
        if self._pictures is None:
            first = self._sample(self._half)
            assert first.finish() == 0, first.text
            self._pictures = _drawn(self._folder / "drawn")
        run = self._sample(workdir)
        if run.finish() != 0:
            return "named" if _names(run.error, workdir, done) else "unnamed"
        if _drawn(self._folder / "drawn") == self._pictures:
            return "harmless"
        return "survived" if "checkpoints/" in run.text else "SILENT"

    def _sample(self, workdir: pathlib.Path) -> Victim:
        out = self._folder / "drawn"
        shutil.rmtree(out, ignore_errors=True)
        flags = {"workdir": workdir, "out": out, "prompt": "a red circle"}
        command = ["-m", "lidit_jax.sample", *(f"--{k}={v}" for k, v in flags.items())]
        return Victim(command, workdir, self._folder / "sample.txt")


def _drawn(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def _names(error: str, workdir: pathlib.Path, done: Corruption) -> bool:
    """Whether a line names the damaged file, or its checkpoint."""
    parts = pathlib.PurePath(done.path).parts
    place = pathlib.Path(*parts[:2]) if parts[0] == "checkpoints" else done.path
    return str(workdir / place) in error or str((workdir / place).absolute()) in error


def damages(
    world: worlds.World, folder: pathlib.Path, seed: int, times: int, sampling: int = 4
) -> tuple[collections.Counter, list[str]]:
    """Plants `times` corruptions; returns counts of the outcomes, and those not reported clearly.

    sampling: also samples from every `sampling`-th run, if the damage is in a checkpoint or the
      config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    damager, rng = Damager(Whole(world, folder), folder / "damage"), np.random.default_rng(seed)
    outcomes, bad, done = collections.Counter(), [], 0
    while done < times:
        workdir = damager.copy()
        corruption = plant(rng, workdir, list(KINDS)[rng.integers(len(KINDS))])
        if corruption is None:
            continue
        found = []
        if done % sampling == 0 and corruption.kind not in ("metrics", "ledger", "record"):
            found.append(("sampling", damager.sampled(workdir, corruption)))
        found.append(("training", damager.continued(workdir, corruption)))
        for door, outcome in found:
            outcomes[outcome] += 1
            if outcome in ("unnamed", "SILENT"):
                bad.append(f"{outcome}, {door}: {corruption}")
        done += 1
    return outcomes, bad


def line(seed: int, times: int, outcomes: collections.Counter) -> str:
    told = ", ".join(f"{name} {outcomes[name]}" for name in OUTCOMES)
    return f"damage: seed {seed}: {times} corruptions, {outcomes.total()} starts: {told}"


def main() -> int:
    import argparse
    import tempfile

    from absl import logging

    parser = argparse.ArgumentParser(prog="python -m tests.faults.damage", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corruptions", type=int, default=60)
    parser.add_argument("--config", choices=worlds.MORE, default="pixels")
    parser.add_argument(
        "--folder", type=pathlib.Path, help="keep the runs here; default: a temporary folder"
    )
    given = parser.parse_args()
    logging.set_verbosity(logging.FATAL)  # hides Orbax's messages about missing files
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or pathlib.Path(temporary)
        world = worlds.make(given.config, folder / "worlds")
        outcomes, bad = damages(world, folder / given.config, given.seed, given.corruptions)
    print(line(given.seed, given.corruptions, outcomes), *bad, sep="\n  ", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
