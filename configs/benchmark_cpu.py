"""A LI-DiT small enough to train at a second a step on a CPU, to compare its speed with a peer's.

python -m lidit_jax.benchmark --train --peer=diffusers --config=configs/benchmark_cpu.py

6 blocks of width 384 on 256 image tokens and 128 text tokens, batch 4, f32; without refiners, which
the peer lacks. `--config.model.conditioner.name=infused` measures them too. Results are in
docs/performance.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    c = base.get_config()
    c.data.codec = "latents:8x16"
    c.text.use = ("smollm2",)
    c.model.width, c.model.depth, c.model.heads = 384, 6, 6
    c.model.dtype = "float32"
    c.model.unroll = 6
    c.model.conditioner.name = "direct"
    c.train.batch_size = 4
    if base.is_smoke(arg):
        c.data.size = (64, 64)
        c.model.width, c.model.depth, c.model.unroll = 96, 2, 2
        c.train.steps = 2
    return c
