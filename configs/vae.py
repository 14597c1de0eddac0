"""The VAE of LI-DiT's size (section 4.1): 8x down, 16 latent channels, 256 px.

83,819,683 trained parameters, the KL autoencoder of latent diffusion with 16 channels, and
2,766,529 of a patch discriminator. The paper trains its own on data it does not name; here the
argument names the source, and LPIPS is added if `vae.perceptual` names its weights.

python -m lidit_jax.prepare --config=configs/vae.py:webdataset \
    --config.data.options.path=TARS --data=DATA
python -m lidit_jax.train --config=configs/vae.py:webdataset --data=DATA --workdir=RUN
python -m lidit_jax.export --workdir=RUN --out=VAE
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    c = base.get_config()
    c.task = "vae"
    c.text.use = ()
    c.data.rules = ("R2-resolution", "R3-shape")
    c.data.hold_out = 0.01
    c.vae.discriminator_weight = 0.1
    c.optim.b1 = 0.5
    c.optim.ema = 0.999
    c.train.steps = 200_000
    c.train.batch_size = 128
    if base.take_argument(c, arg):
        smoke(c)
    return c


def smoke(c: ConfigDict):
    """Shrinks a VAE's config to seconds on a CPU, with the shapes world."""
    c.data.source, c.data.size, c.data.rules = "shapes", (32, 32), ()
    c.data.options = ConfigDict({"count": 32})
    c.data.hold_out = 0.25
    c.vae.model.block_out_channels = (8, 8, 16, 16)
    c.vae.model.layers_per_block = 1
    c.vae.model.norm_num_groups = 4
    c.vae.model.dtype = "float32"
    c.vae.discriminator_width = 16
    c.train.steps, c.train.batch_size = 2, 8
    c.train.save_every = c.train.log_every = c.train.preview_every = 2
