"""From batches on the host to global batches on the devices."""

import dataclasses

import jax
import numpy as np

from lidit_jax import sharding
from lidit_jax.batch import Batch, Int8Features
from lidit_jax.data import pipeline


def to_devices(batch: Batch, mesh: jax.sharding.Mesh, batch_size: int | None = None) -> Batch:
    """Returns the global batch of `batch_size`, of which `batch` has the rows of this process.

    None: `batch` is whole, as a lone process has it.
    """
    where, total = sharding.batch_sharding(mesh), batch_size or len(batch.row_B)
    rows = sharding.rows_here(mesh, total)

    def place(a):
        def part(index):
            wanted = range(total)[index[0]]  # consecutive, so that they are a view of `a`
            start = np.searchsorted(rows, wanted[0])
            return a[start : start + len(wanted)]

        return jax.make_array_from_callback((total, *a.shape[1:]), where, part)

    return jax.tree.map(place, batch)


class Feed:
    """Gives batches to the devices, and has int8 features restored there: a host has less to send."""

    def __init__(self, reader: pipeline.Reader, mesh: jax.sharding.Mesh, batch_size: int):
        self._mesh, self._batch_size = mesh, batch_size
        self._restored = jax.jit(reader.restored, out_shardings=sharding.batch_sharding(mesh))

    def __call__(self, batch: Batch) -> Batch:
        return self.restored(self.given(batch))

    def given(self, batch: Batch) -> Batch:
        """Returns the global batch, of which `batch` has the rows of this process, as it is stored."""
        given = to_devices(batch, self._mesh, self._batch_size)
        if self._mesh.devices.flat[0].platform == "cpu":
            # JAX has a step that must wait for its batch computed in another thread; see `heap`.
            jax.block_until_ready(given)
        return given

    def restored(self, batch: Batch) -> Batch:
        """Returns a batch that is on the devices as the model reads it."""
        if any(isinstance(features, Int8Features) for features in batch.text):
            return dataclasses.replace(batch, text=self._restored(batch.text))
        return batch
