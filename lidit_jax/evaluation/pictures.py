"""A folder of samples: pictures, and a manifest.json with the prompt of each.

    manifest.json   {"pictures": [{"file": "000000.png", "prompt": "a red circle", "seed": 0}, ...]}

"seed" may be missing. The keys in HOW say how the pictures were drawn, and are copied to results;
all others are ignored here.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lidit_jax import files
from lidit_jax.errors import InputError, is_unreachable

MANIFEST = "manifest.json"
# Keys that lidit_jax.sample and lidit_jax.reconstruct write.
HOW = ("run", "step", "guidance", "negative_prompt", "sampler", "vae")
SHOWN = 20  # names in an error
MOST_PIXELS = 8192 * 8192  # of a picture that is decoded
_FIELDS = {"file": str, "prompt": str}
_FORMATS = ("PNG", "JPEG", "WEBP")  # for some others, Pillow runs programs
_MODES = ("RGB", "L", "P", "1")  # those that Pillow converts to RGB without loss
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture listed in a folder's manifest. seed: None if the manifest has none."""

    path: Path
    prompt: str
    seed: int | None
    folder: Path

    @property
    def name(self) -> str:
        """Its path within its folder, with "/"."""
        return Path(os.path.relpath(self.path, self.folder)).as_posix()

    def load(self) -> np.ndarray:
        """Returns the picture, uint8 [height, width, 3], rotated according to its EXIF orientation.

        Raises InputError if it is not an 8-bit RGB or grey picture, or is transparent: the file
        does not say what shows through a transparent pixel.
        """
        try:
            with Image.open(self.path, formats=_FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise InputError(
                        f"{self.path} has {image.width}x{image.height}, "
                        f"more than {MOST_PIXELS:,} pixels"
                    )
                image = ImageOps.exif_transpose(image)
                if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
                    return np.asarray(image.convert("RGB"))
                if image.mode not in _MODES or image.has_transparency_data:
                    raise InputError(
                        f"{self.path} is transparent, or not 8-bit RGB or grey (mode "
                        f"{image.mode}); save it as 8-bit RGB, without transparency"
                    )
                return np.asarray(image.convert("RGB"))
        except InputError:
            raise
        except (OSError, SyntaxError, ValueError, *_BOMBS) as error:
            if is_unreachable(error):
                raise
            raise InputError(
                f"cannot read the picture {self.path}: "
                f"{error}; copy it again, or delete and redraw it"
            ) from error

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Adds this picture's path to an InputError raised within."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error


def read(folder: str | Path) -> list[Picture]:
    """Returns the pictures listed in the folder's manifest, in its order.

    Raises InputError if the folder, the manifest or a file that it names is missing, if an entry
    is malformed, or if there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder of samples at {folder}")
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise InputError(
            f"{folder} has no {MANIFEST}, which lidit_jax.sample writes; "
            f"for other pictures, write one: "
            f'{{"pictures": [{{"file": "a/0.png", "prompt": "a red circle"}}, ...]}}'
        )
    content = files.read_json(manifest, "manifest", sealed=False)  # another program may write it
    entries = content.get("pictures")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{manifest} lists no pictures; want a list under the key 'pictures'")
    pictures = [_picture(folder, manifest, i, entry) for i, entry in enumerate(entries)]
    missing = [p.name for p in pictures if not p.path.is_file()]
    if missing:
        raise InputError(
            f"{manifest} names {len(missing)} files that are not in {folder}: {listed(missing)}"
        )
    return pictures


def listed(names: Sequence[str]) -> str:
    """Returns the first SHOWN names, joined for an error message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def how_drawn(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Returns how pictures were drawn, for results: the keys of HOW in their manifest, and "seeds".

    "seeds": the least and the greatest, if all are known. Raises InputError like `read`.
    """
    manifest = files.read_json(pictures[0].folder / MANIFEST, "manifest", sealed=False)
    told = {key: manifest[key] for key in HOW if key in manifest}
    seeds = [picture.seed for picture in pictures]
    return told if None in seeds else told | {"seeds": [min(seeds), max(seeds)]}


def _picture(folder: Path, manifest: Path, index: int, entry) -> Picture:
    for field, kind in _FIELDS.items():
        if not isinstance(entry, dict) or not isinstance(entry.get(field), kind):
            raise InputError(
                f"{manifest}: picture {index} is {entry!r}; want {field!r}, a {kind.__name__}"
            )
    seed = entry.get("seed")
    if not (seed is None or isinstance(seed, int) or isinstance(seed, float) and seed.is_integer()):
        raise InputError(f"{manifest}: picture {index} has the seed {seed!r}; want a whole number")
    path = folder / entry["file"]
    try:
        inside = folder.resolve() in path.resolve().parents
    except ValueError:  # not a valid file name
        inside = False
    if not inside:
        raise InputError(
            f"{manifest}: picture {index} is {entry['file']!r}, outside {folder}; want a file in it"
        )
    return Picture(path, entry["prompt"], None if seed is None else int(seed), folder)
