"""Two coloured shapes and where they stand, judged on combinations never seen,
in minutes on 2 CPU cores.

make shapes
"""

from ml_collections import ConfigDict

from configs import base, quickstart


def get_config(arg: str = "") -> ConfigDict:
    c = quickstart.get_config(arg)
    c.data.source = "shapes"
    # The split "held_out" has pictures of pairs that training never sees.
    c.data.options = ConfigDict({"count": 3_000, "split": "train"})
    c.data.size = (32, 32)
    c.model.patch = 8
    c.train.steps = 600
    if base.is_smoke(arg):
        c.data.options.count = 64
        c.train.steps = 4
    return c
