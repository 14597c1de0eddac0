"""A small LI-DiT on your own pictures, from any kind of source, at several aspect ratios.

python -m lidit_jax.prepare --config=configs/own_data.py:folder \
    --config.data.options.path=PICTURES --data=DATA

The argument names a source of lidit_jax.data.sources; its options are keys of `data.options`.
"""

from ml_collections import ConfigDict

from configs import base, quickstart


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    c = quickstart.get_config("smoke" if smoke else "")
    base.take_argument(c, "openmoji" if smoke else arg or "folder")
    c.data.bins = "grid33"
    c.data.bin_step = 16
    c.data.min_bin = 32
    c.data.rules = ("R3-shape", "R4-url", "R5-tags")
    return c
