"""Up to four things with colour, texture, size and place,
judged exactly on what training never saw.

make scenes; and the base of configs/ablations.py
"""

from ml_collections import ConfigDict

from configs import base, quickstart


def get_config(arg: str = "") -> ConfigDict:
    c = quickstart.get_config(arg)
    c.data.source = "scenes"
    c.data.options = ConfigDict({"count": 6_000})
    c.data.size = (48, 48)
    c.model.patch = 8
    c.train.steps = 1_000
    if base.is_smoke(arg):
        c.data.options.count = 64
        c.train.steps = 4
    return c
