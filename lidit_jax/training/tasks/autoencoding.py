"""Training the VAE: images through Gaussian latents and back (arXiv 2112.10752, section 3.1)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lidit_jax import rng
from lidit_jax.batch import Batch, BatchShape, spec
from lidit_jax.data import records
from lidit_jax.models import layers
from lidit_jax.models.vae import perceptual, posterior
from lidit_jax.models.vae.discriminator import (
    PatchDiscriminator,
    discriminator_loss,
    generator_loss,
)
from lidit_jax.models.vae.kl import AutoencoderKL
from lidit_jax.training.config import Config, VAETrainConfig

SHOWN = 16  # images in a preview


class FixedVGG(nnx.Module):
    """The network of the perceptual distance: saved with the model, but not trained."""

    def __init__(self, stages: tuple[perceptual.VGGStage, ...]):
        self.stages = nnx.data(jax.tree.map(layers.Constant, stages))

    def __call__(self, x_BxHxWx3, y_BxHxWx3):
        is_constant = {"is_leaf": lambda v: isinstance(v, layers.Constant)}
        stages = jax.tree.map(lambda v: v[...], self.stages, **is_constant)
        return perceptual.lpips(stages, x_BxHxWx3, y_BxHxWx3)


class VAETraining(nnx.Module):
    """The autoencoder and, if their losses have weight, the discriminator and the fixed VGG."""

    def __init__(self, config: VAETrainConfig, vgg: tuple | None, *, rngs: nnx.Rngs):
        self.vae = AutoencoderKL(config.model, rngs=rngs)
        build = {"dtype": jnp.dtype(config.model.dtype), "rngs": rngs}
        judged = config.discriminator_weight > 0
        self.discriminator = (
            PatchDiscriminator(config.discriminator_width, **build) if judged else None
        )
        self.vgg = FixedVGG(vgg) if vgg else None


@dataclasses.dataclass(frozen=True)
class VAETask:
    """L1 + perceptual distance + KL + a patch discriminator's loss, each with its weight.

    Losses are means over an image's numbers; so is the KL divergence, which is computed in nats per
    image. The discriminator is trained in the same step, on images with stopped gradients, and its
    gradient reaches the decoder through parameters that are held fixed.
    """

    config: VAETrainConfig
    shape: BatchShape
    vgg: tuple | None = dataclasses.field(default=None, hash=False, compare=False)

    def init(self, rngs):
        return VAETraining(self.config, self.vgg, rngs=rngs)

    def scoring(self):
        """Without the discriminator, whose loss measures itself."""
        return dataclasses.replace(
            self, config=dataclasses.replace(self.config, discriminator_weight=0.0)
        )

    def batch_spec(self):
        return spec(self.shape)

    def tokens(self, batch):
        B, H, W, _ = batch.latents_BxHxWxC.shape
        return B * H * W // self.config.model.downsample**2

    def loss(self, model, batch: Batch, keys_B):
        x_BxHxWx3, c = batch.latents_BxHxWxC, self.config
        mean, logvar = model.vae.encode(x_BxHxWx3)
        noise = rng.normal(rng.named_each(keys_B, "posterior"), mean.shape[1:])
        decoded_BxHxWx3 = model.vae.decode(posterior.sample(mean, logvar, noise))
        count = np.prod(x_BxHxWx3.shape[1:])
        parts = {
            "l1": jnp.abs(x_BxHxWx3 - decoded_BxHxWx3).mean((1, 2, 3)),
            "kl": posterior.kl(mean, logvar) / count,
        }
        loss_B = parts["l1"] + c.kl_weight * parts["kl"]
        if model.vgg is not None:
            parts["perceptual"] = model.vgg(x_BxHxWx3, decoded_BxHxWx3)
            loss_B += c.perceptual_weight * parts["perceptual"]
        if c.discriminator_weight:
            parts |= _adversarial(model.discriminator, x_BxHxWx3, decoded_BxHxWx3)
            loss_B += c.discriminator_weight * parts["generator"] + parts["discriminator"]
        squared_B = jnp.square(x_BxHxWx3 - jnp.clip(decoded_BxHxWx3, -1, 1)).mean((1, 2, 3))
        parts["psnr"] = 10 * jnp.log10(4 / jnp.maximum(squared_B, 1e-10))  # a range of 2
        return loss_B, parts

    def preview_inputs(self, reader):
        """SHOWN images of the data set, all of one size."""
        rows = reader.dataset.rows_of(int(np.argmax(reader.dataset.counts)))
        shown = [(rows[i], 0) for i in records.spaced(len(rows), SHOWN)]
        return reader.drawn(shown).batch.latents_BxHxWxC

    def preview(self, model, inputs, keys_B):
        """Each image, followed by what is decoded from the mean of its latents."""
        del keys_B
        decoded_BxHxWx3 = model.vae.decode(model.vae.encode(inputs)[0])
        B, H, W, C = inputs.shape
        return jnp.stack([inputs, decoded_BxHxWx3], 1).reshape(2 * B, H, W, C)


def _adversarial(discriminator: PatchDiscriminator, real_BxHxWx3, fake_BxHxWx3) -> dict:
    """Returns two losses, [B] each: one trains only the discriminator, one only the decoder."""
    graphdef, weights = nnx.split(discriminator)
    fixed = nnx.merge(graphdef, jax.tree.map(jax.lax.stop_gradient, weights))
    learned_from = jax.lax.stop_gradient(fake_BxHxWx3)
    return {
        "discriminator": discriminator_loss(
            discriminator(real_BxHxWx3), discriminator(learned_from)
        ),
        "generator": generator_loss(fixed(fake_BxHxWx3)),
    }


def vae_task(config: Config) -> tuple[VAETask, dict]:
    """Returns the task of a VAE's config, and the values of its constants.

    Raises InputError if the perceptual loss is used and its weights cannot be read.
    """
    shape = BatchShape(config.train.batch_size, (*config.data.size, 3), ())
    vgg = perceptual.load(config.vae.perceptual) if config.vae.perceptual else None
    constants = {"vgg": nnx.to_pure_dict(nnx.state(FixedVGG(vgg)))} if vgg else {}
    return VAETask(config.vae, shape, vgg), constants
