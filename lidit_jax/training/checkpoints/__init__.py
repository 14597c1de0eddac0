"""Checkpoints, written by Orbax: their contents, the run that owns them, and their integrity.

<workdir>/config.json         the run's config: claim
<workdir>/checkpoints/<step>/ params, ema, constants, opt_state, guard: one item each, so that
                              sampling reads only the EMA (naming); record: the position in the data
                              and the digest of every array
<workdir>/damaged/<step>/     a damaged checkpoint, moved aside: resuming

saving    arrays -> files, and which are kept      reading   files -> arrays, checked by digests
damage    whether the files are at fault           exporting a copy without the optimizer's state
holdings  what a run's folder holds
"""

from lidit_jax.training.checkpoints.claim import RESTORE, changes, claim, differences, to_json
from lidit_jax.training.checkpoints.damage import Damaged
from lidit_jax.training.checkpoints.exporting import export
from lidit_jax.training.checkpoints.holdings import info
from lidit_jax.training.checkpoints.naming import by_name
from lidit_jax.training.checkpoints.reading import (
    chosen,
    identity,
    is_export,
    last_step,
    record_of,
    restore,
    restore_ema,
    restore_fields,
    saved_constants,
    saved_shapes,
    steps,
    steps_here,
    was_due,
)
from lidit_jax.training.checkpoints.resuming import (
    Found,
    last_whole,
    remove_unfinished,
    set_aside,
)
from lidit_jax.training.checkpoints.saving import Saved, Saver, check_keep_best

__all__ = [
    "RESTORE", "Damaged", "Found", "Saved", "Saver", "by_name", "changes", "check_keep_best",
    "chosen", "claim", "differences", "export", "identity", "info", "is_export", "last_step",
    "last_whole", "record_of", "remove_unfinished", "restore", "restore_ema", "restore_fields",
    "saved_constants", "saved_shapes", "set_aside", "steps", "steps_here", "to_json", "was_due",
]  # fmt: skip
