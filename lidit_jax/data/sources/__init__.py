"""Sources of pictures and captions. A source is iterated and never written to.

To add one, write a class that satisfies `example.Source`, and add it to SOURCES.
"""

import inspect
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from lidit_jax.data.sources.catalogue import Tfds
from lidit_jax.data.sources.example import Caption, Example, Source, Unusable
from lidit_jax.data.sources.folder import Folder
from lidit_jax.data.sources.mixture import Mixture
from lidit_jax.data.sources.openmoji import OpenMoji
from lidit_jax.data.sources.parquet import Parquet
from lidit_jax.data.sources.scenes import Scenes
from lidit_jax.data.sources.shapes import Shapes
from lidit_jax.data.sources.webdataset import WebDataset
from lidit_jax.errors import InputError, unknown_name

__all__ = ["SOURCES", "Caption", "Example", "Source", "Unusable", "make"]

# Options for where a source is, not what it holds: another machine may have it elsewhere.
PLACES = ("path", "data_dir", "names")

SOURCES: dict[str, type[Source]] = {
    "folder": Folder,
    "mixture": Mixture,
    "openmoji": OpenMoji,
    "parquet": Parquet,
    "scenes": Scenes,
    "shapes": Shapes,
    "tfds": Tfds,
    "webdataset": WebDataset,
}


def placeless(options: dict[str, Any]) -> dict[str, Any]:
    """Returns a source's options without those that say where it, or its parts, are."""
    kept = {name: value for name, value in options.items() if name not in PLACES}
    if isinstance(parts := kept.get("parts"), dict):
        kept["parts"] = {name: placeless(part) for name, part in parts.items()}
    return kept


def is_place(key: str) -> bool:
    """Whether a key below `data.options`, such as "path" or "parts.cc12m.path", is a place."""
    return re.fullmatch(rf"(parts\.\w+\.)?({'|'.join(PLACES)})", key) is not None


def folders(options: dict[str, Any]) -> Iterator[str]:
    """Yields the `path` of a source, or of its parts, where there is one."""
    for part in (options, *(options.get("parts") or {}).values()):
        if part.get("path"):
            yield part["path"]


def make(name: str, /, **options: Any) -> Source:
    """Returns the source `name` with these options, e.g. make("openmoji", subset="all").

    Raises InputError for an unknown name or option, a missing option, or a value of a wrong type.
    """
    if name not in SOURCES:
        raise unknown_name("source", name, SOURCES)
    known = inspect.signature(SOURCES[name]).parameters
    for option in options:
        if option not in known:
            raise unknown_name(f"option of source {name}", option, known)
    for option, parameter in known.items():
        if parameter.default is parameter.empty and not options.get(option):
            raise InputError(f"source {name} needs its option {option!r} (data.options.{option})")
    kinds = typing.get_type_hints(SOURCES[name].__init__)
    for option, value in options.items():
        if not _is_of(kinds[option], value):
            wanted = getattr(kinds[option], "__name__", kinds[option])
            raise InputError(f"data.options.{option} of source {name} is {value!r}; want {wanted}")
    return SOURCES[name](**options)


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value has an option's type. A text is not a sequence, and True is not a number."""
    if typing.get_origin(kind) is Sequence:
        return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
    return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))
