"""Three layouts of diffusers' autoencoder, tiny and random; what they answer, and how ours compares."""

import diffusers
import numpy as np
import safetensors.torch
import torch
from flax import nnx

from lidit_jax.models.vae import folder

SIZE = (24, 40)
LAYOUTS = {  # what is peculiar to each, at a small width
    "sd": dict(latent_channels=4, block_out_channels=(32, 64, 64, 64), layers_per_block=2),
    "flux": dict(
        latent_channels=16, block_out_channels=(16, 32, 32), layers_per_block=1,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159,
    ),
    "plain": dict(block_out_channels=(16, 32), mid_block_add_attention=False),
}  # fmt: skip


def theirs(layout):
    """diffusers' model with every parameter random, norms and biases too."""
    torch.manual_seed(0)
    options = LAYOUTS[layout]
    levels = len(options["block_out_channels"])
    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=16,
        **options,
    )
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def rewrite(path, change):
    """Lets `change` edit the tensors of a folder in place."""
    found = safetensors.torch.load_file(path / folder.WEIGHTS)
    change(found)
    safetensors.torch.save_file(found, path / folder.WEIGHTS)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def their_moments(model, x_BxHxWx3):
    with torch.no_grad():
        found = model.encode(torch.from_numpy(x_BxHxWx3).permute(0, 3, 1, 2)).latent_dist
    return [v.permute(0, 2, 3, 1).numpy() for v in (found.mean, found.logvar)]


def their_picture(model, z_BxHxWxC):
    with torch.no_grad():
        found = model.decode(torch.from_numpy(z_BxHxWxC).permute(0, 3, 1, 2)).sample
    return found.permute(0, 2, 3, 1).numpy()


def relative_error(ours, wanted):
    return np.abs(np.asarray(ours) - wanted).max() / np.abs(wanted).max()


class NoNorm(nnx.Module):
    """Stands where a norm was, whose statistics depend on all of a picture."""

    def __call__(self, x):
        return x
