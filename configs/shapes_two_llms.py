"""`shapes` read by two LLMs, SmolLM2 and Gemma-3-270M,
fused by the collaborative refiner (section 3.1).

make shapes_two_llms
"""

from ml_collections import ConfigDict

from configs import shapes


def get_config(arg: str = "") -> ConfigDict:
    c = shapes.get_config(arg)
    c.text.use = ("smollm2", "gemma3")
    return c
