"""The exact judge of the shapes world: picture -> the objects in it -> does it match the prompt?

An object is a connected patch that is not white. Its colour is the nearest in the palette, in
CIELAB, by a vote of its inner pixels; its shape is the template that overlaps most after
normalising position and size; its place is its centroid. Large pictures are shrunk.
"""

import dataclasses
import itertools

import numpy as np
from scipy import ndimage

from lidit_jax import shapes_world
from lidit_jax.evaluation import patches
from lidit_jax.evaluation.colours import nearest
from lidit_jax.evaluation.pictures import Picture
from lidit_jax.evaluation.silhouettes import nearest_shape
from lidit_jax.shapes_world import COLOURS, RELATIONS, Scene

MIN_SIDE = 24  # pixels; in smaller pictures shapes cannot be told apart
MIN_AREA, MAX_AREA = 0.012, 0.3  # of the picture: smaller is a speck, larger is not ours
MIN_VOTE = 0.7  # share of an object's inner pixels that must agree on its colour


@dataclasses.dataclass(frozen=True)
class Detected:
    """colour and shape are None if the patch is not ours; x, y in [0, 1], y down."""

    colour: str | None
    shape: str | None
    x: float
    y: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Which parts of the prompt are right, for all of its objects."""

    count: bool
    colour: bool
    shape: bool
    place: bool

    @property
    def all_correct(self) -> bool:
        return self.count and self.colour and self.shape and self.place


def score(pictures: list[Picture]) -> dict[str, float]:
    """Returns the fraction of pictures that match their prompt, in each respect and in all.

    Raises InputError if a prompt is not a caption of the shapes world, or a picture is too small.
    """
    verdicts = [_judged(picture) for picture in pictures]
    names = ("count", "colour", "shape", "place", "all_correct")
    return {name: float(np.mean([getattr(v, name) for v in verdicts])) for name in names}


def _judged(picture: Picture) -> Verdict:
    image = picture.load()
    with picture.named():
        return judge(image, shapes_world.parse(picture.prompt))


def judge(image: np.ndarray, scene: Scene) -> Verdict:
    """Compares uint8 [height, width, 3] with the scene.

    Each object of the scene is matched with a different object of the picture, as favourably as
    possible; with fewer objects than wanted, nothing is right. The place of a single object counts
    as right.
    """
    found, wanted = detect(image), scene.objects
    best = Verdict(False, False, False, False)
    for chosen in itertools.permutations(found, len(wanted)):
        verdict = Verdict(
            count=len(found) == len(wanted),
            colour=all(f.colour == w.colour for f, w in zip(chosen, wanted, strict=True)),
            shape=all(f.shape == w.shape for f, w in zip(chosen, wanted, strict=True)),
            place=scene.relation is None or scene.relation == _relation(*chosen),
        )
        best = max(best, verdict, key=lambda v: (sum(dataclasses.astuple(v)), v.colour, v.shape))
    return best


def detect(image: np.ndarray) -> list[Detected]:
    """Returns the objects in uint8 [height, width, 3], from left to right.

    Raises InputError for a picture with a side of less than MIN_SIDE pixels after shrinking.
    """
    image = patches.shrunk(image, MIN_SIDE)
    darkest = max(min(rgb) for rgb in COLOURS.values())
    cover_HxW = (255.0 - image.min(axis=-1)) / (255 - darkest)  # 1 in an object, 0 on white
    found = []
    for inside_HxW, reach_HxW in patches.patches(cover_HxW, 0.5):
        if inside_HxW.mean() < MIN_AREA:
            continue
        full = np.quantile(cover_HxW[inside_HxW], 0.8)
        soft_HxW = np.where(reach_HxW, np.clip(cover_HxW / full, 0, 1), 0)
        y, x = ndimage.center_of_mass(soft_HxW)
        height, width = soft_HxW.shape
        colour = _colour(image[inside_HxW & (soft_HxW > 0.85)])
        shape = nearest_shape(soft_HxW) if inside_HxW.mean() <= MAX_AREA else None
        found.append(Detected(colour, shape, float(x + 0.5) / width, float(y + 0.5) / height))
    return sorted(found, key=lambda d: d.x)


def _relation(first: Detected, second: Detected) -> str:
    step = np.array([first.x - second.x, first.y - second.y])
    return max(RELATIONS, key=lambda name: step @ RELATIONS[name])


def _colour(rgb_Nx3: np.ndarray) -> str | None:
    """Returns the colour that most pixels are nearest to, or None if too few agree."""
    palette_Cx3 = np.array(list(COLOURS.values()))
    votes = np.bincount(nearest(rgb_Nx3, palette_Cx3), minlength=len(palette_Cx3))
    return list(COLOURS)[votes.argmax()] if votes.max() >= MIN_VOTE * votes.sum() else None
