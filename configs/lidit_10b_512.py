"""LI-DiT-10B, first stage (section 4.1, appendix A.2): 512 px, two LLMs,
over 1M steps of batch 4096.

10,463,117,120 trained parameters with 16 latent channels: 48 blocks of width 2816.
37.4 TFLOP an image, forward and backward, with 120 prompt tokens an LLM.
Hardware and time: the paper names none.
Score after both stages (Table 1): GenEval 0.76, DPG-Bench 84.60.

python -m lidit_jax.prepare --config=configs/lidit_10b_512.py:webdataset \
    --config.data.options.path=TARS --config.data.codec=VAE --data=DATA_512
python -m lidit_jax.train --config=configs/lidit_10b_512.py:webdataset --config.data.codec=VAE \
    --data=DATA_512 --workdir=RUN_512

Like lidit_1b, it needs a source, a VAE, and aesthetic scores or other rules. lidit_10b_1024
continues from here. On 64 v5p chips a mesh of (4, 16, 1) communicates less than the default
(docs/plan.md).
"""

from ml_collections import ConfigDict

from configs import base, lidit_1b


def get_config(arg: str = "") -> ConfigDict:
    c = lidit_1b.get_config()
    c.data.size = (512, 512)
    c.model.width = 2816
    c.model.depth = 48
    c.model.heads = 44
    c.model.remat = "full"
    c.train.steps = 1_000_000
    c.train.batch_size = 4096
    if base.take_argument(c, arg):
        lidit_1b.smoke(c)
    return c
