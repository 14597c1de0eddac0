"""What a checkpoint says of itself, as JSON with its own SHA-256.

step     of the state                               saved  when, in seconds since 1970
batches  the place in the data                      data, held_out  the data sets' statistics
means    of each metric, since the last checkpoint that was due; none of one that a stop made. What is
         named held_out_... is of the state itself
bad, metrics, lines, since, due, clock    what `Logbook` has to know to go on
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
    """Returns a record of now. told: the other entries."""
    made = {"step": step, "saved": time.time(), "digests": digests}
    return json.loads(json.dumps(told | made))


def sealed(record: dict) -> ocp.args.JsonSave:
    """Returns what has Orbax save a record."""
    return ocp.args.JsonSave({"record": record, "sha256": files.digest(record)})


def read(folder: pathlib.Path) -> dict:
    """Returns the record of the checkpoint in `folder`. Raises Damaged unless it is what was saved there.

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
    """Returns a hash that no other checkpoint has, but copies of it: of when it was saved, and of all that it holds."""
    return record.get("identity") or files.digest(record)[:16]
