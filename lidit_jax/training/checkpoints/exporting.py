"""From a run to a copy without what only its own training needs: the optimizer's state and the raw
weights.
"""

import pathlib
import shutil

import orbax.checkpoint as ocp

from lidit_jax import errors, files
from lidit_jax.training.checkpoints import reading, record

KEPT = ("ema", "constants")


def export(workdir: pathlib.Path, out: pathlib.Path, step: int | None = None) -> int:
    """Copies the config of a run and, of one of its checkpoints,
    the EMA and the constants; returns the step.

    The copy is a run's folder: it gives the same pictures, and other runs can begin from it
    (`train.init_from`), but its own training cannot be resumed. What is copied
    is compared with its digests; an export that was interrupted is started again.

    step: of the checkpoint; None uses the last.
    Raises InputError if there is no finished checkpoint, or none of this step; if it is damaged; if
    `out` is a run or a data set, or has the config of something else.
    """
    files.check_own_folder(out, "out")
    step = reading.chosen(workdir, step)
    source, config = reading.folder_of(workdir, step), (workdir / "config.json").read_bytes()
    if (out / "config.json").exists() and (out / "config.json").read_bytes() != config:
        raise errors.InputError(f"--out {out} has another config.json; give a folder of its own")
    told = record.read(source)
    kept = {item: told["digests"][item] for item in KEPT if item in told["digests"]}
    partial = out.absolute() / "partial"
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was interrupted
    target = partial / str(step)
    for item in kept:
        reading.check_item(source, item)
        shutil.copytree(source / item, target / item)
    about = told | {"digests": kept, "identity": record.identity(told)}
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as saver:
        saver.save(target / record.ITEM, args=record.sealed(about))
    (out / "config.json").write_bytes(config)
    partial.rename(out.absolute() / "checkpoints")
    return step
