"""Where a run goes on: from its last checkpoint that is whole. A damaged one is moved aside, not deleted;
one that a kill left half written has no name as a checkpoint, and is removed."""

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
_UNFINISHED = ".orbax-checkpoint-tmp"  # behind a step: how Orbax calls what it is writing


@dataclasses.dataclass(frozen=True)
class Found:
    """The last whole checkpoint of a run, read; and those after it, which are damaged, latest first."""

    step: int
    state: TrainState
    record: dict
    damaged: tuple[damage.Damaged, ...]


def last_whole(workdir: pathlib.Path, like: TrainState) -> Found:
    """Reads the last whole checkpoint of a run that has some; nothing is moved.

    A checkpoint counts as damaged once it was read twice in vain. Raises InputError if none is whole:
    then it is more likely that something else is wrong than that all are damaged.
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
        f"no checkpoint in {workdir / 'checkpoints'} can be used ({whys}); all are left as they are: if it "
        f"is not the code or the libraries that changed, remove them to train again"
    )


def _try(workdir: pathlib.Path, step: int, like: TrainState):
    """Returns what is read, or what is wrong with it, told anew: what was raised holds the arrays read."""
    try:
        return reading.restore(workdir, step, like), None
    except damage.Damaged as e:
        return None, damage.Damaged(e.folder, e.why)


def set_aside(workdir: pathlib.Path, found: Found, tell: Callable[[pathlib.Path, str], None]):
    """Moves what is damaged to <workdir>/damaged, oldest first.

    Process 0 moves, and every process waits until it sees so. Before each move process 0 calls `tell`
    with where to and why: after a kill in between, it is told again.
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
                    f"{gone.folder} was moved aside, being damaged, but is still seen here; start again "
                    f"when it is not"
                ),
            )


def remove_unfinished(workdir: pathlib.Path):
    """Removes what processes that were killed had not finished saving. For process 0, before it saves any."""
    for path in (workdir / "checkpoints").glob("*"):
        if is_unfinished(path):
            shutil.rmtree(path)


def is_unfinished(path: pathlib.Path) -> bool:
    """Whether a folder among checkpoints is one that is being saved, or was when its process was killed."""
    step, found, _ = path.name.partition(_UNFINISHED)
    return bool(found) and step.isdecimal() and path.is_dir() and not path.is_symlink()


def _free(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns folder/name, or folder/name-2 or a later one, whichever is the first that is not there."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(folder / n for n in names if not (folder / n).exists())
