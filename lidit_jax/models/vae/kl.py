"""The KL autoencoder of latent diffusion (arXiv 2112.10752, appendix G), as Stable Diffusion and FLUX use it.

The same network as diffusers' `AutoencoderKL`, in NHWC. Attributes have the names that they have
there, so that a parameter's path in the model is its name in a weights file (`folder`).
Every parameter is f32 and carries `axes` (see `models.layers`); the input side of a kernel is
"embed", except where it is a picture's or a latent's few channels. `dtype` is the compute dtype;
norm statistics and attention softmax are f32.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from lidit_jax import errors
from lidit_jax.models import layers
from lidit_jax.sharding import split_batch


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """The autoencoder's size, with diffusers' names; the default is 8x down with 16 latent channels.

    in_channels, out_channels: of a picture; latent_channels: C.
    block_out_channels: width per resolution; every resolution but the first halves the sides.
    layers_per_block: residual blocks per resolution of the encoder; the decoder has one more.
    norm_num_groups: GroupNorm's groups; divides every width.
    use_quant_conv, use_post_quant_conv: a 1x1 convolution on the moments; on the latents.
    mid_block_add_attention: one head of attention over all cells at the lowest resolution.
    scaling_factor, shift_factor: (latent - shift) * scaling has about unit variance; kept for
      other programs, latents here are raw.
    sample_size: side in pixels of the pictures it was trained on; kept for other programs.
    dtype: compute dtype, "float32" or "bfloat16".
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    use_quant_conv: bool = False
    use_post_quant_conv: bool = False
    mid_block_add_attention: bool = True
    scaling_factor: float = 1.0
    shift_factor: float = 0.0
    sample_size: int = 512
    dtype: str = "float32"

    def __post_init__(self):
        if self.dtype not in ("bfloat16", "float32"):
            raise errors.unknown_name("vae.dtype", self.dtype, ("bfloat16", "float32"))
        for name in ("in_channels", "out_channels", "latent_channels", "layers_per_block"):
            errors.check_range(f"vae.{name}", getattr(self, name), 1)
        errors.check_range("vae.norm_num_groups", self.norm_num_groups, 1)
        errors.check_range("the length of vae.block_out_channels", len(self.block_out_channels), 1)
        for width in self.block_out_channels:
            if width < 1 or width % self.norm_num_groups:
                raise errors.InputError(
                    f"vae.block_out_channels has {width}, which does not divide over "
                    f"{self.norm_num_groups} groups; use a multiple, or other norm_num_groups"
                )

    @property
    def downsample(self) -> int:
        """Pixels per latent cell and side."""
        return 2 ** (len(self.block_out_channels) - 1)


def conv(d_in, d_out, config, *, rngs, size=3, axes=("embed", "embed_out"), **options):
    """Returns a convolution that keeps the size; `axes` are those of d_in and d_out."""
    return nnx.Conv(
        d_in, d_out, (size, size), dtype=jnp.dtype(config.dtype), rngs=rngs,
        kernel_metadata={"axes": (None, None, *axes)}, bias_metadata={"axes": (None,)}, **options,
    )  # fmt: skip


def group_norm(width, config, *, rngs):
    """Returns GroupNorm over space and groups of channels, eps 1e-6; f32 in and out."""
    affine = {"axes": (None,)}
    return nnx.GroupNorm(
        width, config.norm_num_groups, epsilon=1e-6, dtype=jnp.float32, use_fast_variance=False,
        rngs=rngs, scale_metadata=affine, bias_metadata=affine,
    )  # fmt: skip


class Resnet(nnx.Module):
    """x + Conv3x3(SiLU(GN(Conv3x3(SiLU(GN(x)))))); x through a 1x1 convolution if the width changes."""

    def __init__(self, d_in, d_out, config, *, rngs):
        self.dtype = jnp.dtype(config.dtype)
        self.norm1 = group_norm(d_in, config, rngs=rngs)
        self.conv1 = conv(d_in, d_out, config, rngs=rngs)
        self.norm2 = group_norm(d_out, config, rngs=rngs)
        self.conv2 = conv(d_out, d_out, config, rngs=rngs)
        self.conv_shortcut = conv(d_in, d_out, config, rngs=rngs, size=1) if d_in != d_out else None

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

        self.group_norm = group_norm(width, config, rngs=rngs)
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
        padding = ((0, 1), (0, 1))
        self.conv = conv(width, width, config, rngs=rngs, strides=2, padding=padding)

    def __call__(self, x_BxHxWxD):
        return self.conv(x_BxHxWxD)


class Upsample(nnx.Module):
    """Doubles the sides: every cell becomes 2x2 equal ones, then a 3x3 convolution."""

    def __init__(self, width, config, *, rngs):
        self.conv = conv(width, width, config, rngs=rngs)

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
    """Returns one block of a kind per width, each reading what the one before gives."""
    last = len(widths) - 1
    pairs = zip((widths[0], *widths), widths)
    return nnx.List(
        [kind(i, o, config, last=n == last, rngs=rngs) for n, (i, o) in enumerate(pairs)]
    )


class Encoder(nnx.Module):
    """Pictures in [-1, 1] -> 2 C channels at the latent's size."""

    def __init__(self, config: VAEConfig, *, rngs):
        widths, moments = config.block_out_channels, 2 * config.latent_channels
        self.dtype = jnp.dtype(config.dtype)
        self.conv_in = conv(
            config.in_channels, widths[0], config, rngs=rngs, axes=(None, "embed_out")
        )
        self.down_blocks = blocks(DownBlock, widths, config, rngs=rngs)
        self.mid_block = MidBlock(widths[-1], config, rngs=rngs)
        self.conv_norm_out = group_norm(widths[-1], config, rngs=rngs)
        self.conv_out = conv(widths[-1], moments, config, rngs=rngs, axes=("embed", None))

    def __call__(self, x_BxHxWx3):
        x = split_batch(self.conv_in(x_BxHxWx3))
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)).astype(self.dtype))


class Decoder(nnx.Module):
    """Latents -> pictures."""

    def __init__(self, config: VAEConfig, *, rngs):
        widths = config.block_out_channels[::-1]
        self.dtype = jnp.dtype(config.dtype)
        self.conv_in = conv(
            config.latent_channels, widths[0], config, rngs=rngs, axes=(None, "embed_out")
        )
        self.mid_block = MidBlock(widths[0], config, rngs=rngs)
        self.up_blocks = blocks(UpBlock, widths, config, rngs=rngs)
        self.conv_norm_out = group_norm(widths[-1], config, rngs=rngs)
        self.conv_out = conv(
            widths[-1], config.out_channels, config, rngs=rngs, axes=("embed", None)
        )

    def __call__(self, z_BxHxWxC):
        x = self.mid_block(split_batch(self.conv_in(z_BxHxWxC)))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)).astype(self.dtype))


class AutoencoderKL(nnx.Module):
    """Pictures -> a Gaussian over latents (`posterior`); latents -> pictures."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        def pointwise(width, wanted):
            few = (None, None)
            return conv(width, width, config, rngs=rngs, size=1, axes=few) if wanted else None

        self.config = config
        self.encoder = Encoder(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        self.quant_conv = pointwise(2 * config.latent_channels, config.use_quant_conv)
        self.post_quant_conv = pointwise(config.latent_channels, config.use_post_quant_conv)

    def encode(self, x_BxHxWx3):
        """Returns the mean and the log-variance of the latents, f32 [B, h, w, C] each.

        x is in [-1, 1]; its sides are h and w times `config.downsample`. The log-variance is clipped
        to [-30, 20].
        """
        moments_Bxhxwx2C = self.encoder(x_BxHxWx3)
        if self.quant_conv is not None:
            moments_Bxhxwx2C = self.quant_conv(moments_Bxhxwx2C)
        mean_BxhxwxC, logvar_BxhxwxC = jnp.split(moments_Bxhxwx2C.astype(jnp.float32), 2, -1)
        return mean_BxhxwxC, jnp.clip(logvar_BxhxwxC, -30.0, 20.0)

    def decode(self, z_BxhxwxC):
        """Returns the pictures of raw latents, f32 [B, H, W, 3], around [-1, 1] and not clipped."""
        if self.post_quant_conv is not None:
            z_BxhxwxC = self.post_quant_conv(z_BxhxwxC)
        return self.decoder(z_BxhxwxC).astype(jnp.float32)
