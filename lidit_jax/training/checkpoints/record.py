"""A checkpoint's own metadata, as JSON with its SHA-256.

step     of the state                               saved  when, in seconds since 1970
batches  the position in the data                   data, held_out  the data sets' statistics
means    of each metric, since the last scheduled checkpoint; empty if a stop caused the save.
         held_out_... are scores of the state itself
bad, metrics, lines, since, due, clock    what `Logbook` needs to resume
identity  in a copy made by `exporting`: the original's
digests  of every array: item -> name -> `digests.digest`, in hexadecimal
"""

import json
import pathlib
import time
from typing import Any

import orbax.checkpoint as ocp

from lidit_jax import files
from lidit_jax.training.checkpoints import damage

ITEM = "record"


def make(step: int, told: dict[str, Any], digests: dict[str, Any]) -> dict:
    """Returns a record with the current time. told: the other entries."""
    made = {"step": step, "saved": time.time(), "digests": digests}
    return json.loads(json.dumps(told | made))


def sealed(record: dict) -> ocp.args.JsonSave:
    """Returns the Orbax argument that saves a record."""
    return ocp.args.JsonSave({"record": record, "sha256": files.digest(record)})


def read(folder: pathlib.Path) -> dict:
    """Returns the record of the checkpoint in `folder`. Raises Damaged if it is not what was saved.

    No process waits for another.
    """
    with damage.blamed(folder):
        whole = ocp.JsonCheckpointHandler().restore(folder / ITEM)
        if whole.get("sha256") != files.digest(whole.get("record")):
            raise damage.Damaged(folder, "its record is not what was saved")
        told = whole["record"]
        if told.get("step") != int(folder.name):
            raise damage.Damaged(folder, f"it is the checkpoint of step {told.get('step')}")
        return told


def identity(record: dict) -> str:
    """Returns a hash unique to this checkpoint and its copies: of the time of saving and of all its
    contents.
    """
    return record.get("identity") or files.digest(record)[:16]
