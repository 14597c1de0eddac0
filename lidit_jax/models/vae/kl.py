"""The KL autoencoder of latent diffusion (arXiv 2112.10752, appendix G),
as Stable Diffusion and FLUX use it.

The same network as diffusers' `AutoencoderKL`, in NHWC. Attributes have the same names as there, so
that a parameter's path in the model is its name in a weights file (`folder`).
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from lidit_jax import errors
from lidit_jax.models import layers
from lidit_jax.models.vae.blocks import DownBlock, MidBlock, UpBlock, blocks
from lidit_jax.sharding import split_batch


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """The autoencoder's size, with diffusers' names;
    the default is 8x down with 16 latent channels.

    in_channels, out_channels: of a picture; latent_channels: C.
    block_out_channels: width per resolution; every resolution but the first halves the sides.
    layers_per_block: residual blocks per resolution of the encoder; the decoder has one more.
    norm_num_groups: GroupNorm's groups; must divide every width.
    use_quant_conv, use_post_quant_conv: a 1x1 convolution on the moments; on the latents.
    mid_block_add_attention: one head of attention over all cells at the lowest resolution.
    scaling_factor, shift_factor: (latent - shift) * scaling has about unit variance; kept for
      other programs, since latents here are raw.
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
            raise errors.unknown_name("dtype", self.dtype, ("bfloat16", "float32"))
        for name in ("in_channels", "out_channels", "latent_channels", "layers_per_block"):
            errors.check_range(name, getattr(self, name), 1)
        errors.check_range("norm_num_groups", self.norm_num_groups, 1)
        errors.check_range("the length of block_out_channels", len(self.block_out_channels), 1)
        for width in self.block_out_channels:
            if width < 1 or width % self.norm_num_groups:
                raise errors.InputError(
                    f"block_out_channels has {width}, which does not divide over "
                    f"{self.norm_num_groups} groups; use a multiple, or other norm_num_groups"
                )

    @property
    def downsample(self) -> int:
        """Pixels per latent cell and side."""
        return 2 ** (len(self.block_out_channels) - 1)


class Encoder(nnx.Module):
    """Pictures in [-1, 1] -> 2 C channels at the latent's size."""

    def __init__(self, config: VAEConfig, *, rngs):
        widths, moments = config.block_out_channels, 2 * config.latent_channels
        self.dtype = jnp.dtype(config.dtype)
        build = dict(dtype=self.dtype, rngs=rngs)
        self.conv_in = layers.conv(config.in_channels, widths[0], (None, "embed_out"), **build)
        self.down_blocks = blocks(DownBlock, widths, config, rngs=rngs)
        self.mid_block = MidBlock(widths[-1], config, rngs=rngs)
        self.conv_norm_out = layers.group_norm(widths[-1], config.norm_num_groups, rngs=rngs)
        self.conv_out = layers.conv(widths[-1], moments, ("embed", None), **build)

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
        build = dict(dtype=self.dtype, rngs=rngs)
        self.conv_in = layers.conv(config.latent_channels, widths[0], (None, "embed_out"), **build)
        self.mid_block = MidBlock(widths[0], config, rngs=rngs)
        self.up_blocks = blocks(UpBlock, widths, config, rngs=rngs)
        self.conv_norm_out = layers.group_norm(widths[-1], config.norm_num_groups, rngs=rngs)
        self.conv_out = layers.conv(widths[-1], config.out_channels, ("embed", None), **build)

    def __call__(self, z_BxHxWxC):
        x = self.mid_block(split_batch(self.conv_in(z_BxHxWxC)))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)).astype(self.dtype))


class AutoencoderKL(nnx.Module):
    """Pictures -> a Gaussian over latents (`posterior`); latents -> pictures."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        def pointwise(width, wanted):
            build = dict(size=1, dtype=jnp.dtype(config.dtype), rngs=rngs)
            return layers.conv(width, width, (None, None), **build) if wanted else None

        self.config = config
        self.encoder = Encoder(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        self.quant_conv = pointwise(2 * config.latent_channels, config.use_quant_conv)
        self.post_quant_conv = pointwise(config.latent_channels, config.use_post_quant_conv)

    def encode(self, x_BxHxWx3):
        """Returns the mean and the log-variance of the latents, f32 [B, h, w, C] each.

        x is in [-1, 1]; its sides are h and w times `config.downsample`. The log-variance is
        clipped to [-30, 20].
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
