"""The checkpoint of another run that a run began from: chosen once, kept in <workdir>/begun.json.

The other run may train on, and a run killed before its first checkpoint begins again.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import jax

from lidit_jax import errors, files, processes
from lidit_jax.training import checkpoints
from lidit_jax.training.config import Config

NAME = "begun.json"


@dataclasses.dataclass(frozen=True)
class Origin:
    """A checkpoint of the run in the folder `source`, and its `record.identity`."""

    source: str
    step: int
    identity: str

    def __str__(self):
        return f"step {self.step} of {self.source}"

    def check(self, identity: str, workdir: pathlib.Path):
        """Raises InputError unless `identity`, of the checkpoint there now, is the recorded one.

        workdir: of the run that began from it.
        """
        if identity != self.identity:
            raise errors.InputError(
                f"{self} is not the checkpoint that {workdir} began from, but one saved at another "
                f"time; put the old one back, or {_instead(workdir)}"
            )


def source(config: Config) -> pathlib.Path:
    """Returns the folder of the run that `train.init_from` names. Raises InputError for a URL."""
    return files.mounted("train.init_from", config.train.init_from)


def pinned(config: Config, workdir: pathlib.Path) -> Origin | None:
    """Returns the checkpoint that the run in `workdir` began from; None if none is recorded.

    Every process calls this. Raises InputError if that checkpoint is gone or was replaced.
    """
    return _of_first(lambda: _written(config, workdir))


def last(config: Config) -> Origin:
    """Returns the last checkpoint of the run that `train.init_from` names.

    Every process calls this. Raises InputError if there is none, and Damaged if it cannot be read.
    """
    folder = source(config)
    step = checkpoints.chosen(folder)
    return _of_first(lambda: Origin(str(folder), step, checkpoints.identity(folder, step)))


def pin(workdir: pathlib.Path, origin: Origin):
    """Records where the run in `workdir` begins, now and if it begins again. Only for process 0."""
    files.write_json(workdir / NAME, dataclasses.asdict(origin))


def _of_first(find: Callable[[], Origin | None]) -> Origin | None:
    """Returns what `find` returns on process 0, or raises what it raises, on every process."""
    with processes.together():
        found = find() if jax.process_index() == 0 else None
    told = processes.from_first(found and dataclasses.asdict(found))
    return Origin(**told) if told else None


def _written(config: Config, workdir: pathlib.Path) -> Origin | None:
    if not (workdir / NAME).exists():
        return None
    found = Origin(**files.read_json(workdir / NAME, "origin of a run", remedy=checkpoints.RESTORE))
    folder = source(config)
    if found.source != str(folder):  # of an earlier run here, whose config.json was removed
        return None
    if found.step not in checkpoints.steps_here(folder):
        raise errors.InputError(
            f"{found}, from which {workdir} began, is gone; put it back, or {_instead(workdir)}"
        )
    found.check(checkpoints.identity(folder, found.step), workdir)
    return found


def _instead(workdir: pathlib.Path) -> str:
    if checkpoints.steps_here(workdir):
        return "give another --workdir to begin from another one"
    return f"remove {workdir / NAME} to begin from the last one there, since no step is saved yet"
