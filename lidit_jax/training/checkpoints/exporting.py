"""From a run to a copy without what only its own training needs: the optimizer's state and the raw weights."""

import pathlib
import shutil

import orbax.checkpoint as ocp

from lidit_jax import errors, files
from lidit_jax.training.checkpoints import reading, record

KEPT = ("ema", "constants")


def export(workdir: pathlib.Path, out: pathlib.Path) -> int:
    """Copies the config of a run and, of its last checkpoint, the EMA and the constants; returns the step.

    The copy is a run's folder: the same pictures are drawn from it, and other runs can begin from it
    (`train.init_from`), but its own training cannot be resumed.
    Raises InputError if there is no finished checkpoint, or if `out` is a run or a data set.
    """
    files.check_own_folder(out, "out")
    step = reading.last_step(workdir)
    if step is None:
        raise errors.InputError(f"{workdir} holds no finished checkpoint; train longer")
    source, target = (reading.folder_of(folder, step) for folder in (workdir, out))
    told = record.read(source)
    kept = {item: told["digests"][item] for item in KEPT if item in told["digests"]}
    partial = target.with_name("partial")  # no name of a checkpoint
    for item in kept:
        shutil.copytree(source / item, partial / item, dirs_exist_ok=True)
    shutil.copy(source / "_CHECKPOINT_METADATA", partial)  # Orbax warns where there is none
    about = told | {"digests": kept, "identity": record.identity(told)}
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as saver:
        saver.save(partial / record.ITEM, args=record.sealed(about), force=True)
    shutil.copy(workdir / "config.json", out)
    partial.rename(target)
    return step
