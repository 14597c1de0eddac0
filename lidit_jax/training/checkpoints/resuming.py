"""Resumes a run from its last intact checkpoint. Damaged ones are moved aside, not deleted; those
that a kill left half-written do not have a checkpoint's name, and are removed."""

import dataclasses
import itertools
import pathlib
import shutil
from collections.abc import Callable

import jax

from lidit_jax import errors, processes
from lidit_jax.training.checkpoints import damage, reading
from lidit_jax.training.state import TrainState

ASIDE = "damaged"  # folder of a run
_UNFINISHED = ".orbax-checkpoint-tmp"  # Orbax's suffix, after the step, while it is writing


@dataclasses.dataclass(frozen=True)
class Found:
    """A run's last intact checkpoint, restored, and the damaged ones after it, latest first."""

    step: int
    state: TrainState
    record: dict
    damaged: tuple[damage.Damaged, ...]


def last_whole(workdir: pathlib.Path, like: TrainState) -> Found:
    """Restores the last intact checkpoint of a run that has checkpoints; moves nothing.

    A checkpoint counts as damaged after two failed reads. Raises InputError if none is intact:
    then something else is more likely to be wrong than that all are damaged.
    """
    damaged = []
    for step in reversed(reading.steps(workdir)):
        for _ in range(2):
            read, wrong = _try(workdir, step, like)
            if read:
                return Found(step, *read, tuple(damaged))
        damaged.append(wrong)
    if len(damaged) == 1:
        raise damaged[0]
    whys = "; ".join(f"{e.folder.name}: {e.why}" for e in damaged)
    raise errors.InputError(
        f"no checkpoint in {workdir / 'checkpoints'} can be used ({whys}); all are left as they "
        f"are: if neither the code nor the libraries changed, remove them to train again"
    )


def _try(workdir: pathlib.Path, step: int, like: TrainState):
    """Returns what was read, or a new error: the one raised references the arrays read."""
    try:
        return reading.restore(workdir, step, like), None
    except damage.Damaged as e:
        return None, damage.Damaged(e.folder, e.why)


def set_aside(workdir: pathlib.Path, found: Found, tell: Callable[[pathlib.Path, str], None]):
    """Moves damaged checkpoints to <workdir>/damaged, oldest first.

    Process 0 moves them, and every process waits until it sees that. Before each move process 0
    calls `tell` with the destination and the reason; after a kill in between, it is called again.
    """
    for gone in reversed(found.damaged):
        to = _free(workdir / ASIDE, gone.folder.name)
        with processes.together():
            if jax.process_index() == 0:
                to.parent.mkdir(exist_ok=True)
                tell(to, gone.why)
                shutil.move(gone.folder, to)  # a linked folder may be on another disk
        with processes.together():
            processes.await_news(
                lambda folder=gone.folder: not folder.exists(),
                errors.Passing(
                    f"{gone.folder} is damaged and was moved aside, but this process still sees "
                    f"it; start again when it does not"
                ),
            )


def remove_unfinished(workdir: pathlib.Path):
    """Removes checkpoints left unfinished by kills. Only for process 0, before it saves any."""
    for path in (workdir / "checkpoints").glob("*"):
        if is_unfinished(path):
            shutil.rmtree(path)


def is_unfinished(path: pathlib.Path) -> bool:
    """Whether a folder among checkpoints is unfinished: being saved, or left by a kill."""
    step, found, _ = path.name.partition(_UNFINISHED)
    return bool(found) and step.isdecimal() and path.is_dir() and not path.is_symlink()


def _free(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the first of folder/name, folder/name-2, folder/name-3, ... that does not exist."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(folder / n for n in names if not (folder / n).exists())
