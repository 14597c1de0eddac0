"""Several sources as one, such as the paper's ImageNet and CC12M."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

from lidit_jax.data.sources.example import Example, Source, Unusable
from lidit_jax.errors import InputError

SPLITS = 8  # of a part, for each piece of the mixture


@dataclasses.dataclass(frozen=True)
class _Part:
    """A source of the mixture, of whose keys a share is used."""

    name: str
    source: Source
    share: float

    def piece(self, i: int, n: int) -> Iterator[Example | Unusable]:
        for row in self.source.piece(i, n):
            if self.share == 1 or _fraction(f"mixture {row.key}") < self.share:
                yield dataclasses.replace(row, key=f"{self.name}/{row.key}")


class Mixture:
    """The examples of each part, one part after the other; training sees them in random order.

    parts: name -> the options of a source, with `source`, its name in SOURCES, and `share`, the
      fraction of its examples that is used, chosen by a hash of the key (1 if absent). Keys become
      "NAME/KEY". `data.rules` are the same for all parts.
    Raises InputError if there is no part, for a name that is no identifier or a share that is not
    in (0, 1], and what the sources raise, with the part's name.
    """

    def __init__(self, parts: dict):
        self.options = {"parts": parts}
        self._parts = [_part(name, options) for name, options in parts.items()]

    def __len__(self) -> int:
        return sum(round(part.share * len(part.source)) for part in self._parts)

    def piece(self, i: int, n: int) -> Iterator[Example | Unusable]:
        """Each part is split finely, so that pieces of the mixture are about equally long."""
        before, total = 0.0, max(sum(part.share * len(part.source) for part in self._parts), 1)
        for part in self._parts:
            length = part.share * len(part.source) / total
            for k in range(SPLITS * n):
                if int(n * (before + length * k / (SPLITS * n))) == i:
                    yield from part.piece(k, SPLITS * n)
            before += length

    def prompts(self, count: int) -> list[str]:
        return []

    def describe(self) -> dict[str, Any]:
        told = {part.name: part.source.describe() for part in self._parts}
        return {
            "name": "mixture",
            "version": {name: of["version"] for name, of in told.items()},
            "licence": "; ".join(f"{name}: {of['licence']}" for name, of in told.items()),
            "options": self.options,
        }


def _part(name: str, options: Any) -> _Part:
    from lidit_jax.data.sources import SOURCES, make  # which imports this module

    where = f"data.options.parts.{name}"
    if not name.isidentifier():
        raise InputError(f"a part of the mixture is called {name!r}; use a name such as cc12m")
    if not isinstance(options, dict) or options.get("source") not in SOURCES:
        raise InputError(
            f"{where} is {options!r}; want the options of a source, with its name as `source`: "
            f"{', '.join(SOURCES)}"
        )
    own = {key: value for key, value in options.items() if key not in ("source", "share")}
    share = options.get("share", 1.0)
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
        raise InputError(f"{where}.share is {share!r}; use a value in (0, 1]")
    try:
        return _Part(name, make(options["source"], **own), float(share))
    except InputError as e:
        raise InputError(f"{where}: {e}") from e


def _fraction(key: str) -> float:
    """Returns a hash of a key, in [0, 1)."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / 2**56
