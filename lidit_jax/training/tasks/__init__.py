"""What is trained. A task makes a model, computes its loss on a batch, and previews it.

diffusion     LI-DiT on latents and LLM features      autoencoding   the VAE on images

All tasks share one step, one loop and one checkpoint format.
"""

import dataclasses
import pathlib
from typing import Any, Protocol

import jax
from flax import nnx

from lidit_jax.batch import Batch
from lidit_jax.data.pipeline import Reader
from lidit_jax.training import inputs
from lidit_jax.training.config import Config
from lidit_jax.training.tasks import autoencoding, diffusion


class Task(Protocol):
    """The contract between a model and the training loop."""

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """Returns the model, with parameters in f32."""

    def loss(
        self, model: nnx.Module, batch: Batch, keys_B: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the loss of each sample, f32 [B], and other metrics to log, [B] each.

        Row k uses only the random key keys_B[k], so that nothing drawn depends on the mesh.
        """

    def scoring(self) -> "Task":
        """Returns the task whose `loss` measures the model on held-out images."""

    def batch_spec(self) -> Batch:
        """Returns the global batch at the config's size, as `jax.ShapeDtypeStruct`s."""

    def tokens(self, batch: Batch) -> int:
        """Returns the network's number of positions for this batch, which sets a step's cost."""

    def preview_inputs(self, reader: Reader) -> Any:
        """Returns the inputs of every `preview` call: arrays whose rows are samples."""

    def preview(self, model: nnx.Module, inputs: Any, keys_B: jax.Array) -> jax.Array:
        """Returns raw latents to look at, one row or several consecutive rows per sample."""


def without_data(config: Config) -> Task:
    """Returns the task of a finished run, for sampling or export: it cannot be scored."""
    if config.task == "vae":
        scoreless = dataclasses.replace(config.vae, perceptual="")
        return autoencoding.vae_task(dataclasses.replace(config, vae=scoreless))[0]
    return diffusion.diffusion_task(config, tuple(1 for _ in config.encoders))


def open_run(config: Config, folder: pathlib.Path) -> tuple[Config, Task, Reader, dict]:
    """Opens a prepared data set for the config's task.

    Returns the config with measured sizes, the task, the data and the model's constants. Raises
    InputError if the data set is not the one that the config describes.
    """
    if config.task == "vae":
        reader = inputs.open_pictures(config, folder)
        task, constants = autoencoding.vae_task(config)
    else:
        config, reader, constants = inputs.open_inputs(config, folder)
        task = diffusion.diffusion_task(config, tuple(reader.lengths))
    return config, task, reader, constants
