"""What is trained. A task says how a model is made, scored on a batch, and looked at.

diffusion     LI-DiT on latents and LLM features      autoencoding   the VAE on pictures

One step, one loop and one checkpoint format serve every task.
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
        """Returns the model, parameters in f32."""

    def loss(
        self, model: nnx.Module, batch: Batch, keys_B: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the loss of each sample, f32 [B], and what else is worth a log, [B] each.

        Row k draws from keys_B[k] alone, so that no draw depends on the mesh.
        """

    def scoring(self) -> "Task":
        """Returns the task whose `loss` says how good the model is, on pictures that it does not learn from."""

    def batch_spec(self) -> Batch:
        """Returns the global batch of the config's own size, as `jax.ShapeDtypeStruct`s."""

    def tokens(self, batch: Batch) -> int:
        """Returns how many positions the network has for this batch: what a step costs."""

    def preview_inputs(self, reader: Reader) -> Any:
        """Returns what `preview` is given at every call, arrays whose rows are samples."""

    def preview(self, model: nnx.Module, inputs: Any, keys_B: jax.Array) -> jax.Array:
        """Returns raw latents to look at, each sample's in one row or in several that follow."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A run about to begin: the config as measured, its task, its data, the model's constants."""

    config: Config
    task: Task
    reader: Reader
    constants: dict

    def held_out(self, folder: pathlib.Path) -> Reader:
        """Opens a data set to judge the run by. Raises InputError as `inputs.open_held_out` does."""
        return inputs.open_held_out(self.config, folder, self.reader)


def without_data(config: Config) -> Task:
    """Returns the task of a finished run, to draw with its model or to export it: nothing is scored."""
    if config.task == "vae":
        scoreless = dataclasses.replace(config.vae, perceptual="")
        return autoencoding.vae_task(dataclasses.replace(config, vae=scoreless))[0]
    return diffusion.diffusion_task(config, tuple(1 for _ in config.encoders))


def open_run(config: Config, folder: pathlib.Path) -> Opened:
    """Opens a prepared data set for the config's task.

    Raises InputError where the data set is not the one that the config describes.
    """
    if config.task == "vae":
        config, reader = inputs.open_pictures(config, folder)
        task, constants = autoencoding.vae_task(config)
    else:
        config, reader, constants = inputs.open_inputs(config, folder)
        task = diffusion.diffusion_task(config, tuple(reader.lengths))
    return Opened(config, task, reader, constants)
