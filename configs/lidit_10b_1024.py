"""LI-DiT-10B, second stage (section 4.1): the 512 px run,
fine-tuned at 1024 px on high-quality data.

10,463,117,120 trained parameters, as in the first stage, whose weights, EMA and latent units it
keeps. 165 TFLOP an image, forward and backward, with 120 prompt tokens an LLM.
Hardware and time: the paper names none. Score (Table 1): GenEval 0.76, DPG-Bench 84.60.

python -m lidit_jax.prepare --config=configs/lidit_10b_1024.py:webdataset \
    --config.data.options.path=TARS --config.data.codec=VAE --data=DATA_1024
python -m lidit_jax.train --config=configs/lidit_10b_1024.py:webdataset --config.data.codec=VAE \
    --config.train.init_from=RUN_512 --data=DATA_1024 --workdir=RUN_1024

The paper gives only the resolution; batch size, steps, learning rate and the meaning of high
quality are decided here, see docs/model.md. As with lidit_1b, pictures need aesthetic scores; else
set other rules.
"""

from ml_collections import ConfigDict

from configs import base, lidit_1b, lidit_10b_512


def get_config(arg: str = "") -> ConfigDict:
    c = lidit_10b_512.get_config()
    c.data.size = (1024, 1024)
    c.data.rules = ("high-quality",)
    c.optim.learning_rate = 2e-5
    c.train.steps = 50_000
    c.train.batch_size = 1024
    if base.take_argument(c, arg):
        lidit_1b.smoke(c)
        c.data.size = (32, 32)
    return c
