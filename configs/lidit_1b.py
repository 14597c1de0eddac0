"""LI-DiT-1B (section 4.1, appendix A.2): 256 px, two LLMs, 500k steps of batch 2048.

1,093,638,432 trained parameters with 16 latent channels: 28 blocks of width 1152.
1.10 TFLOP an image, forward and backward, with 120 prompt tokens an LLM.
Hardware and time: the paper names none. Score (Table 1): GenEval 0.60, DPG-Bench 81.65.

python -m lidit_jax.prepare --config=configs/lidit_1b.py:webdataset \
    --config.data.options.path=TARS --config.data.codec=VAE --data=DATA
python -m lidit_jax.train --config=configs/lidit_1b.py:webdataset --config.data.codec=VAE \
    --data=DATA --workdir=RUN

The rules drop every picture without an aesthetic score (R1); CC12M and ImageNet have none. Without
scores, pass both commands --config.data.rules="('R2-resolution','R3-shape','R4-url','R5-tags')".
The argument is a source of lidit_jax.data.sources, and VAE the folder of a 16-channel, 8x VAE: one
trained with configs/vae.py, or a public one in the layout of diffusers.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    c = base.get_config()
    c.data.bins = "grid33"
    c.data.rules = ("paper",)
    c.data.codec = "latents:8x16"  # a VAE's numbers, for planning; a run names its folder
    c.text.use = ("llama3", "qwen")
    c.train.steps = 500_000
    c.train.batch_size = 2048
    if base.take_argument(c, arg):
        smoke(c)
    return c


def smoke(c: ConfigDict):
    """Shrinks a config to seconds on a CPU, with the shapes world and SmolLM2's features."""
    c.data.source, c.data.size = "shapes", (16, 16)
    c.data.bins, c.data.rules, c.data.codec = "square", (), "pixels"
    c.data.options.count = 16
    c.text.use = ("smollm2",)
    c.model.width, c.model.depth, c.model.heads = 32, 2, 2
    c.model.dtype = "float32"
    c.train.steps, c.train.batch_size = 2, 4
    c.train.save_every = c.train.log_every = c.train.preview_every = 2
