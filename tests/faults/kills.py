"""A run killed repeatedly, at random moments of every phase, equals the run that never was."""

import collections
import dataclasses
import pathlib
import shutil
import time
from collections.abc import Sequence

import numpy as np

from tests import same_run
from tests.faults import worlds
from tests.faults.victim import PHASES, Victim, checkpoints, is_whole
from tests.same_run import Tally

KEEP = 2  # checkpoints that a run keeps; an undisturbed one keeps all
# How often each phase is aimed at. Saves take longest and matter most; few phases make no progress.
AIMS = {"start": 2, "restore": 2, "compile": 2, "steps": 4, "save": 5, "removal": 3}


@dataclasses.dataclass(frozen=True)
class Totals:
    """What a campaign did and what differed."""

    kills: collections.Counter
    worlds: tuple[str, ...]
    arrays: Tally = Tally()
    lines: Tally = Tally()
    pictures: Tally = Tally()
    lost: int = 0
    resumed: int = 0  # starts that resumed from a checkpoint and did a step or more

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.kills + other.kills, tuple(dict.fromkeys(self.worlds + other.worlds)),
            self.arrays + other.arrays, self.lines + other.lines, self.pictures + other.pictures,
            self.lost + other.lost, self.resumed + other.resumed,
        )  # fmt: skip

    @property
    def ok(self) -> bool:
        different = self.arrays.different + self.lines.different + self.pictures.different
        return not different and not self.lost

    def line(self, seed: int) -> str:
        phases = ", ".join(f"{name} {self.kills[name]}" for name in PHASES if self.kills[name])
        return (
            f"faults: seed {seed}: {self.kills.total()} kills ({phases}) over {len(self.worlds)} configs, "
            f"{self.resumed} starts went on from a checkpoint: "
            f"{self.arrays} arrays differ ({self.arrays.bits} bits), {self.lines} lines of metrics and "
            f"ledger differ, {self.pictures} pictures differ, {self.lost} checkpoints lost"
        )


class Whole:
    """The undisturbed run of a world, with every checkpoint that it saved."""

    def __init__(self, world: worlds.World, folder: pathlib.Path):
        self.world, self.workdir = world, folder / "whole"
        if not (self.workdir / "checkpoints" / str(world.steps)).exists():
            run = Victim(
                world.command(self.workdir, f"--config.train.keep={world.steps}"),
                self.workdir, folder / "whole.log",
            )  # fmt: skip
            assert run.finish() == 0, run.text
        self._states = {}

    def state(self, step: int) -> dict[str, np.ndarray]:
        """Returns the arrays that a checkpoint at this step must have."""
        if step not in self._states:
            self._states[step] = same_run.arrays(self.workdir, step)
        return self._states[step]

    def compare(self, workdir: pathlib.Path) -> Totals:
        """Compares a finished run with this one."""
        return Totals(
            collections.Counter(), (self.world.name,),
            arrays=self.compare_state(workdir, self.world.steps),
            lines=same_run.compare_lines(same_run.metrics(workdir), same_run.metrics(self.workdir))
            + same_run.compare_lines(same_run.ledger(workdir), same_run.ledger(self.workdir)),
            pictures=same_run.compare_pictures(
                same_run.pictures(workdir), same_run.pictures(self.workdir)
            ),
        )  # fmt: skip

    def compare_state(self, workdir: pathlib.Path, step: int) -> Tally:
        """Compares a checkpoint with this run's at the same step; unreadable: all of it differs."""
        wanted = self.state(step)
        try:
            return same_run.compare_arrays(same_run.arrays(workdir, step), wanted)
        except Exception as e:  # whatever Orbax raises is counted and does not end the campaign
            return Tally(len(wanted), tuple(f"{step}: {e}" for _ in wanted))


class Campaign:
    """Kills one world's run repeatedly. A run that finishes is compared, and a new one begins.

    phases: the phases to aim at, cycled in this order; None: all, in random order, as often as
      `AIMS` says.
    """

    def __init__(
        self,
        whole: Whole,
        folder: pathlib.Path,
        seed: int,
        phases: Sequence[str] | None = None,
    ):
        self._whole, self._folder = whole, folder
        self._rng = np.random.default_rng([seed, *whole.world.name.encode()])
        self._phases = phases
        self._aims = []
        self._round, self._newest, self._checked = 0, 0, 0
        self._paces = {"start": 1.5, "compile": 1.5}  # seconds; updated as measured
        self.totals = Totals(collections.Counter(), (whole.world.name,))
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def workdir(self) -> pathlib.Path:
        return self._folder / f"run{self._round}"

    def run(self, times: int) -> Totals:
        """Kills `times` times, lets the last run finish, and returns the totals."""
        while self.totals.kills.total() < times:
            self._one(self._next_aim())
        self._one(None)
        return self.totals

    def _next_aim(self) -> str:
        """Returns the next phase: each as often as wanted, but "restore" only with a checkpoint."""
        if not self._aims:
            often = [phase for phase, count in AIMS.items() for _ in range(count)]
            self._aims = list(self._phases or self._rng.permutation(often))
        possible = [a for a in self._aims if a != "restore" or self._newest]
        aim = possible[0] if possible else "save"
        if aim in self._aims:
            self._aims.remove(aim)
        return aim

    def _one(self, aim: str | None):
        """Starts the run once and kills it at a random moment of the phase `aim`; None: no kill."""
        process = Victim(
            self._whole.world.command(self.workdir), self.workdir, self._folder / "log.txt"
        )
        killed = False
        if aim:
            self._wait(process, aim)
            killed = process.kill()
        if not killed and process.finish() != 0:
            raise AssertionError(f"a run ended by itself: {process.text[-3000:]}")
        self._check_start(process)
        if killed:
            phase = process.phase(KEEP)
            self.totals += Totals(collections.Counter([phase]), ())
            self._check_newest()
        else:
            self._end()

    def _wait(self, process: Victim, aim: str):
        """Waits for a random moment of a phase, or until the process has ended."""
        rng, begun = self._rng, time.monotonic()
        if aim == "start":
            end = begun + rng.random() * self._paces["start"]
            process.wait_until(lambda: time.monotonic() >= end)
            return
        if aim == "restore":
            process.wait_until(lambda: process.reads_checkpoint() or process.opened)
            time.sleep(rng.random() * 0.15)
            return
        process.wait_until(lambda: process.opened)
        self._paces["start"] = time.monotonic() - begun
        if aim == "compile":
            time.sleep(rng.random() * self._paces["compile"])
            return
        begun = time.monotonic()
        process.wait_until(lambda: process.compiled)
        self._paces["compile"] = time.monotonic() - begun
        if aim == "steps":
            wanted = rng.integers(1, 2 * self._whole.world.every)
            process.wait_until(lambda: process.steps >= wanted)
            time.sleep(rng.random() * 0.02)
            return
        self._wait_to_write(process, aim)

    def _wait_to_write(self, process: Victim, aim: str):
        """Waits for a random moment of a removal or of a save, possibly not the first one."""
        folder = self.workdir / "checkpoints"
        for _ in range(self._rng.integers(1, 3)):
            known = set(folder.glob("*.orbax-checkpoint-tmp*"))
            process.wait_until(
                lambda known=known: set(folder.glob("*.orbax-checkpoint-tmp*")) - known
            )
        if aim == "save":
            time.sleep(self._rng.random() * 0.35)
            return
        process.wait_until(
            lambda: len(checkpoints(folder)) > KEEP or not all(map(is_whole, checkpoints(folder)))
        )
        time.sleep(self._rng.random() * 0.06)

    def _check_start(self, process: Victim):
        """Counts a loss unless the start resumed at least at the newest committed checkpoint."""
        if process.opened and (process.resumed or 0) < self._newest:
            self._lose()
        if process.resumed and process.steps:
            self.totals += Totals(collections.Counter(), (), resumed=1)

    def _check_newest(self):
        """Checks that the newest checkpoint is not lost and equals the undisturbed run's."""
        saved = same_run.steps_saved(self.workdir)
        newest = saved[-1] if saved else 0
        if newest < self._newest:
            self._lose()
        self._newest = newest
        if newest and newest != self._checked:
            self._checked = newest
            self.totals += Totals(
                collections.Counter(), (), self._whole.compare_state(self.workdir, newest)
            )

    def _lose(self):
        self.totals += Totals(collections.Counter(), (), lost=1)

    def _end(self):
        """Compares a finished run and makes room for the next."""
        self.totals += self._whole.compare(self.workdir)
        if self.totals.ok:
            shutil.rmtree(self.workdir)
        self._round, self._newest, self._checked = self._round + 1, 0, 0


def kills(
    world: worlds.World,
    folder: pathlib.Path,
    seed: int,
    times: int,
    phases: Sequence[str] | None = None,
) -> Totals:
    """Kills a world's run `times` times; runs that differ stay in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return Campaign(Whole(world, folder), folder / "killed", seed, phases).run(times)
