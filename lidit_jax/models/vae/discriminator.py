"""PatchGAN: is each patch of a picture real or decoded? (arXiv 1611.07004, section 3.2.2)"""

import jax.numpy as jnp
from flax import nnx

from lidit_jax.models import layers

LEAST_SIDE = 32  # of a picture, in pixels


class PatchDiscriminator(nnx.Module):
    """Three halvings by 4x4 convolutions, two more convolutions:
    one logit per patch of 70x70 pixels.

    The sizes are those of the 70x70 discriminator that VQGAN and latent diffusion train against.
    GroupNorm replaces their BatchNorm, whose statistics would couple the pictures of a batch, and
    so make the loss depend on how the batch is split over devices.
    width: of the first layer, a multiple of 16. Pictures are at least LEAST_SIDE pixels a side.
    """

    def __init__(self, width: int = 64, *, dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        widths = (width, 2 * width, 4 * width, 8 * width)

        init = nnx.initializers.normal(0.02)
        build = dict(size=4, padding=1, dtype=dtype, rngs=rngs, kernel_init=init)
        self.conv_in = layers.conv(3, widths[0], (None, "embed_out"), strides=2, **build)
        self.convs = nnx.List(
            [
                layers.conv(d_in, d_out, strides=strides, **build)
                for d_in, d_out, strides in zip(widths, widths[1:], (2, 2, 1))
            ]
        )
        self.norms = nnx.List([layers.group_norm(d, 32, rngs=rngs) for d in widths[1:]])
        self.conv_out = layers.conv(widths[-1], 1, ("embed", None), **build)

    def __call__(self, x_BxHxWx3):
        """Returns f32 logits [B, H/8 - 2, W/8 - 2] of pictures in [-1, 1]; positive means real."""
        h = nnx.leaky_relu(self.conv_in(x_BxHxWx3), 0.2)
        for conv, norm in zip(self.convs, self.norms):
            h = nnx.leaky_relu(norm(conv(h)), 0.2).astype(self.dtype)
        return self.conv_out(h)[..., 0].astype(jnp.float32)


def discriminator_loss(real_Bxhxw, fake_Bxhxw):
    """Returns the hinge loss of the discriminator's logits, [B] (arXiv 1705.02894)."""
    hinge_Bxhxw = nnx.relu(1.0 - real_Bxhxw) + nnx.relu(1.0 + fake_Bxhxw)
    return 0.5 * hinge_Bxhxw.mean((1, 2))


def generator_loss(fake_Bxhxw):
    """Returns what the decoder minimises to look real, [B]: minus the mean logit."""
    return -fake_Bxhxw.mean((1, 2))
