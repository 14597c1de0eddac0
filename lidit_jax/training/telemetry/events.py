"""A run's TensorBoard event file."""

import pathlib
import sys
import time
from typing import Any

import numpy as np


def _import_without_torch():
    """Imports tensorboardX without torch, which it imports if installed and training never uses."""
    had = sys.modules.get("torch")
    sys.modules["torch"] = None  # makes `import torch` an ImportError, which tensorboardX expects
    try:
        import tensorboardX.event_file_writer
        import tensorboardX.summary
    finally:
        del sys.modules["torch"]
        if had is not None:
            sys.modules["torch"] = had
    return tensorboardX


tensorboardX = _import_without_torch()


class Events:
    """Writes scalars and images in the calling thread.

    tensorboardX's own SummaryWriter uses another thread: a full disk ends that thread, and the run
    would then wait for it forever. Here it is an OSError.
    first_step: the first step to be done; TensorBoard drops the folder's events from it on.
    """

    def __init__(self, folder: pathlib.Path, first_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tensorboardX.event_file_writer.EventsWriter(str(folder / "events"))
        start = tensorboardX.proto.event_pb2.SessionLog(status=1)  # START
        self._write(first_step, session_log=start)

    def scalars(self, step: int, values: dict[str, float]):
        for name, value in values.items():
            self._add(step, tensorboardX.summary.scalar(name, value))

    def picture(self, step: int, name: str, image_HxWx3: np.ndarray):
        self._add(step, tensorboardX.summary.image(name, image_HxWx3, dataformats="HWC"))

    def flush(self):
        """Writes what is still buffered in this process."""
        self._file.flush()

    def close(self):
        self._file.close()

    def _add(self, step: int, summary: Any):
        self._write(step, summary=summary)

    def _write(self, step: int, **what: Any):
        event = tensorboardX.proto.event_pb2.Event(wall_time=time.time(), step=step, **what)
        self._file.write_event(event)
