"""`shapes` without refiners: the LLM's features go straight to the DiT (Table 2's baseline).

make shapes_direct
"""

from ml_collections import ConfigDict

from configs import shapes


def get_config(arg: str = "") -> ConfigDict:
    c = shapes.get_config(arg)
    c.model.conditioner.name = "direct"
    return c
