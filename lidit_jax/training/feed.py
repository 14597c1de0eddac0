"""From batches on the host to global batches on the devices."""

import dataclasses

import jax
import numpy as np

from lidit_jax import sharding
from lidit_jax.batch import Batch, Int8Features
from lidit_jax.data import pipeline


def to_devices(batch: Batch, mesh: jax.sharding.Mesh, batch_size: int | None = None) -> Batch:
    """Returns the global batch of `batch_size`; `batch` has this process's rows of it.

    None: `batch` is the whole batch, as with a single process.
    """
    where, total = sharding.batch_sharding(mesh), batch_size or len(batch.row_B)
    rows = sharding.rows_here(mesh, total)

    def place(a):
        def part(index):
            wanted = range(total)[index[0]]  # contiguous, so the result is a view of `a`
            start = np.searchsorted(rows, wanted[0])
            return a[start : start + len(wanted)]

        return jax.make_array_from_callback((total, *a.shape[1:]), where, part)

    return jax.tree.map(place, batch)


class Feed:
    """Moves batches to the devices and dequantizes int8 features there, so the host sends less."""

    def __init__(self, reader: pipeline.Reader, mesh: jax.sharding.Mesh, batch_size: int):
        self._mesh, self._batch_size = mesh, batch_size
        self._restored = jax.jit(reader.restored, out_shardings=sharding.batch_sharding(mesh))

    def __call__(self, batch: Batch) -> Batch:
        return self.restored(self.given(batch))

    def given(self, batch: Batch) -> Batch:
        """Returns the global batch as stored (not dequantized); `batch` has this process's rows."""
        given = to_devices(batch, self._mesh, self._batch_size)
        if self._mesh.devices.flat[0].platform == "cpu":
            # JAX would run a step that waits for its batch in another thread; see `heap`.
            jax.block_until_ready(given)
        return given

    def restored(self, batch: Batch) -> Batch:
        """Returns a batch on the devices in the form that the model reads."""
        if any(isinstance(features, Int8Features) for features in batch.text):
            return dataclasses.replace(batch, text=self._restored(batch.text))
        return batch
