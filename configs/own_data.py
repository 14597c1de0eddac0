"""A small LI-DiT on your own pictures, from any kind of source, at several aspect ratios.

python -m lidit_jax.prepare --config=configs/own_data.py:folder --config.data.options.path=PICTURES --data=DATA

The argument names a source of lidit_jax.data.sources; its options are keys of `data.options`.
"""

import inspect

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import quickstart
from lidit_jax import errors
from lidit_jax.data.sources import SOURCES


def get_config(arg: str = "folder") -> ConfigDict:
    if arg and arg not in (*SOURCES, "smoke"):
        raise errors.unknown_name("argument of the config", arg, (*SOURCES, "smoke"))
    smoke = arg == "smoke"
    source = "openmoji" if smoke else arg or "folder"
    c = quickstart.get_config("smoke" if smoke else "")
    c.data.source = source
    options = inspect.signature(SOURCES[source]).parameters.values()
    c.data.options = ConfigDict({o.name: _start_value(o.default) for o in options})
    c.data.bins = "grid33"
    c.data.bin_step = 16
    c.data.min_bin = 32
    c.data.rules = ("R3-shape", "R4-url", "R5-tags")
    return c


def _start_value(default):
    """An option without a default is an empty text; one of None can be set to a text."""
    if default is inspect.Parameter.empty:
        return ""
    return placeholder(str) if default is None else default
