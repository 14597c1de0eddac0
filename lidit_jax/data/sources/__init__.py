"""Where pictures and captions come from. A source is iterated and never written to.

To add one, write a class that satisfies `example.Source`, and name it in SOURCES.
"""

import inspect
from typing import Any

from lidit_jax.data.sources.example import Caption, Example, Source
from lidit_jax.data.sources.openmoji import OpenMoji
from lidit_jax.data.sources.shapes import Shapes
from lidit_jax.errors import unknown_name

__all__ = ["SOURCES", "Caption", "Example", "OpenMoji", "Shapes", "Source", "make"]

SOURCES: dict[str, type[Source]] = {
    "openmoji": OpenMoji,
    "shapes": Shapes,
}


def make(name: str, **options: Any) -> Source:
    """Returns the source `name` with these options, e.g. make("openmoji", subset="all").

    Raises InputError for a name or an option that does not exist.
    """
    if name not in SOURCES:
        raise unknown_name("source", name, SOURCES)
    known = inspect.signature(SOURCES[name]).parameters
    for option in options:
        if option not in known:
            raise unknown_name(f"option of source {name}", option, known)
    return SOURCES[name](**options)
