"""Checkpoints, which Orbax writes: of what they are made, whose they are, and whether they are still whole.

<workdir>/config.json         whose run it is: claim
<workdir>/checkpoints/<step>/ params, ema, constants, opt_state, guard: one item each, so that
                              sampling reads the EMA alone (naming); record: the place in the data, and the
                              digest of every array
<workdir>/damaged/<step>/     one that is not what was saved, moved aside: resuming

saving    arrays -> files, and which are kept       reading   files -> arrays, compared with their digests
damage    what is the files' fault, and what is not
holdings  what a run's folder holds               exporting  a copy without what only training needs
"""

from lidit_jax.training.checkpoints.claim import RESTORE, changes, claim, differences, to_json
from lidit_jax.training.checkpoints.damage import Damaged
from lidit_jax.training.checkpoints.exporting import export
from lidit_jax.training.checkpoints.holdings import info
from lidit_jax.training.checkpoints.naming import by_name
from lidit_jax.training.checkpoints.reading import (
    check_there,
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
    "RESTORE", "Damaged", "Found", "Saved", "Saver", "by_name", "changes", "check_keep_best", "check_there", "claim", "differences",
    "export", "identity", "info", "is_export", "last_step", "last_whole", "record_of", "remove_unfinished", "restore", "restore_ema", "restore_fields", "saved_constants",
    "saved_shapes", "set_aside", "steps", "steps_here", "to_json", "was_due",
]  # fmt: skip
