"""Previews of a run during training: a grid of images."""

import jax
import numpy as np
from flax import nnx

from lidit_jax import files, rng, sharding
from lidit_jax.models.vae import Codec, make_codec
from lidit_jax.training import opening, state


class Preview:
    """A grid of images from the EMA, always for the same prompts and seeds, or the same originals.

    Compiles on construction, so that compile or memory errors appear before the first step.
    """

    def __init__(self, run: opening.Run):
        self.codec: Codec = make_codec(run.config.data.codec)
        inputs = run.task.preview_inputs(run.reader)
        self._count = len(jax.tree.leaves(inputs)[0])
        parts = sharding.batch_parts(run.mesh)
        self._rows = -(-self._count // parts) * parts
        places = np.arange(self._rows) % self._count
        where = sharding.batch_sharding(run.mesh)

        def spread(a):  # every process has the whole of `a`
            filled = np.asarray(a)[places]
            return jax.make_array_from_callback(filled.shape, where, lambda index: filled[index])

        def draw(ema, constants, inputs, places_B):
            keys_B = rng.per_sample(rng.key(run.config.seed, "preview"), places_B)
            # For `sharding.split_batch`, and for attention's kernels.
            with jax.sharding.use_abstract_mesh(run.mesh.abstract_mesh):
                return run.task.preview(nnx.merge(run.graphdef, ema, constants), inputs, keys_B)

        self._inputs = jax.tree.map(spread, (inputs, np.arange(self._count)))
        program = jax.jit(draw, out_shardings=sharding.replicated(run.mesh))
        lowered = program.lower(run.like.ema, run.like.constants, *self._inputs)
        self._draw = lowered.compile()
        if jax.process_index() == 0:
            self._decoded(np.zeros(lowered.out_info.shape, lowered.out_info.dtype))

    def grid(self, current: state.TrainState) -> np.ndarray | None:
        """Returns the uint8 grid on process 0, which decodes it, else None; all must call it."""
        latents = jax.device_get(self._draw(current.ema, current.constants, *self._inputs))
        if jax.process_index() != 0:
            return None
        return files.picture_grid(list(self._decoded(latents)), columns=8, height=64)

    def _decoded(self, latents: np.ndarray) -> np.ndarray:
        """Returns uint8 images, without the padding rows."""
        return np.asarray(self.codec.decode(latents[: len(latents) * self._count // self._rows]))
