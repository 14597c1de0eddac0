"""The parts of the KL autoencoder: residual blocks, one head of attention, halving and doubling.

Every parameter is f32 and carries `axes` (see `models.layers`); the input side of a kernel is
"embed", except where it is a picture's or a latent's few channels. A config's `dtype` is the
compute dtype; norm statistics and attention softmax are f32.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lidit_jax.models import layers
from lidit_jax.sharding import split_batch


class Resnet(nnx.Module):
    """x + Conv3x3(SiLU(GN(Conv3x3(SiLU(GN(x)))))); x through a 1x1 convolution if the width
    changes.
    """

    def __init__(self, d_in, d_out, config, *, rngs):
        self.dtype = jnp.dtype(config.dtype)
        groups, build = config.norm_num_groups, dict(dtype=self.dtype, rngs=rngs)
        self.norm1 = layers.group_norm(d_in, groups, rngs=rngs)
        self.conv1 = layers.conv(d_in, d_out, **build)
        self.norm2 = layers.group_norm(d_out, groups, rngs=rngs)
        self.conv2 = layers.conv(d_out, d_out, **build)
        self.conv_shortcut = layers.conv(d_in, d_out, size=1, **build) if d_in != d_out else None

    def __call__(self, x_BxHxWxD):
        h = self.conv1(nnx.silu(self.norm1(x_BxHxWxD)).astype(self.dtype))
        h = self.conv2(nnx.silu(self.norm2(h)).astype(self.dtype))
        return h + (x_BxHxWxD if self.conv_shortcut is None else self.conv_shortcut(x_BxHxWxD))


class SpatialAttention(nnx.Module):
    """x + Linear(attention over all cells of GN(x)), with one head."""

    def __init__(self, width, config, *, rngs):
        self.dtype = jnp.dtype(config.dtype)

        def linear():
            return layers.linear(width, width, ("embed", "embed_out"), dtype=self.dtype, rngs=rngs)

        self.group_norm = layers.group_norm(width, config.norm_num_groups, rngs=rngs)
        self.to_q, self.to_k, self.to_v = linear(), linear(), linear()
        self.to_out = nnx.List([linear()])

    def __call__(self, x_BxHxWxD):
        B, H, W, D = x_BxHxWxD.shape
        h_BxTx1xD = self.group_norm(x_BxHxWxD).astype(self.dtype).reshape(B, H * W, 1, D)
        mixed_BxTx1xD = jax.nn.dot_product_attention(
            self.to_q(h_BxTx1xD), self.to_k(h_BxTx1xD), self.to_v(h_BxTx1xD)
        )
        return x_BxHxWxD + self.to_out[0](mixed_BxTx1xD).reshape(B, H, W, D)


class MidBlock(nnx.Module):
    """Resnet, attention if the config wants it, Resnet."""

    def __init__(self, width, config, *, rngs):
        count = int(config.mid_block_add_attention)
        self.resnets = nnx.List([Resnet(width, width, config, rngs=rngs) for _ in range(2)])
        self.attentions = nnx.List(
            [SpatialAttention(width, config, rngs=rngs) for _ in range(count)]
        )

    def __call__(self, x_BxHxWxD):
        x_BxHxWxD = self.resnets[0](x_BxHxWxD)
        for attention in self.attentions:
            x_BxHxWxD = attention(x_BxHxWxD)
        return self.resnets[1](x_BxHxWxD)


class Downsample(nnx.Module):
    """Halves the sides: a 3x3 convolution with stride 2, padded below and to the right only."""

    def __init__(self, width, config, *, rngs):
        build = dict(dtype=jnp.dtype(config.dtype), rngs=rngs)
        self.conv = layers.conv(width, width, strides=2, padding=((0, 1), (0, 1)), **build)

    def __call__(self, x_BxHxWxD):
        return self.conv(x_BxHxWxD)


class Upsample(nnx.Module):
    """Doubles the sides: every cell becomes 2x2 equal ones, then a 3x3 convolution."""

    def __init__(self, width, config, *, rngs):
        self.conv = layers.conv(width, width, dtype=jnp.dtype(config.dtype), rngs=rngs)

    def __call__(self, x_BxHxWxD):
        return self.conv(x_BxHxWxD.repeat(2, 1).repeat(2, 2))


def resnets(d_in, d_out, count, config, *, rngs):
    """Returns `count` Resnets of width d_out, the first of which reads width d_in."""
    widths_in = (d_in, *(d_out,) * (count - 1))
    return nnx.List([Resnet(width, d_out, config, rngs=rngs) for width in widths_in])


class DownBlock(nnx.Module):
    """One resolution of the encoder; all but the last end in a Downsample."""

    def __init__(self, d_in, d_out, config, *, last, rngs):
        self.resnets = resnets(d_in, d_out, config.layers_per_block, config, rngs=rngs)
        self.downsamplers = nnx.List([] if last else [Downsample(d_out, config, rngs=rngs)])

    def __call__(self, x_BxHxWxD):
        for layer in (*self.resnets, *self.downsamplers):
            x_BxHxWxD = layer(x_BxHxWxD)
        return split_batch(x_BxHxWxD)


class UpBlock(nnx.Module):
    """One resolution of the decoder; all but the last end in an Upsample."""

    def __init__(self, d_in, d_out, config, *, last, rngs):
        self.resnets = resnets(d_in, d_out, config.layers_per_block + 1, config, rngs=rngs)
        self.upsamplers = nnx.List([] if last else [Upsample(d_out, config, rngs=rngs)])

    def __call__(self, x_BxHxWxD):
        for layer in (*self.resnets, *self.upsamplers):
            x_BxHxWxD = layer(x_BxHxWxD)
        return split_batch(x_BxHxWxD)


def blocks(kind, widths, config, *, rngs):
    """Returns one block of a kind per width, each fed by the one before."""
    last = len(widths) - 1
    pairs = zip((widths[0], *widths), widths)
    return nnx.List(
        [kind(i, o, config, last=n == last, rngs=rngs) for n, (i, o) in enumerate(pairs)]
    )
