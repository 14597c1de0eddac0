"""The exact judge of the shapes world: picture -> the objects in it -> is it what the prompt says?

An object is a connected patch that is not white. Its colour is the palette's nearest in CIELAB,
by a vote of its inner pixels; its shape is the template that overlaps most once position and
size are taken out; its place is its centroid. Any size from 24 pixels on; large ones are shrunk.
"""

import dataclasses
import functools
import itertools

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from lidit_jax import shapes_world
from lidit_jax.evaluation.pictures import Picture
from lidit_jax.shapes_world import COLOURS, RELATIONS, SHAPES, Scene

MIN_AREA, MAX_AREA = 0.012, 0.3  # of the picture: smaller is a speck, larger none of our shapes
LARGEST = 64  # pixels; more show nothing more
MIN_VOTE = 0.7  # of an object's inner pixels must agree on its colour
MIN_OVERLAP = 0.75  # with a template, or it is none of our shapes
BLURS = (0, 0.6, 1.1)  # in pixels, of the templates
_GRID = 24


@dataclasses.dataclass(frozen=True)
class Detected:
    """colour and shape are None where the patch is none of ours; x, y in [0, 1], y down."""

    colour: str | None
    shape: str | None
    x: float
    y: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What of the prompt came true, for every one of its objects."""

    count: bool
    colour: bool
    shape: bool
    place: bool

    @property
    def all_correct(self) -> bool:
        return self.count and self.colour and self.shape and self.place


def score(pictures: list[Picture], references: object = None) -> dict[str, float]:
    """Returns the fraction of pictures whose prompt came true, in each respect and in all.

    references: not needed; the prompt alone says what is right.
    Raises InputError if a prompt is no caption of the shapes world.
    """
    verdicts = [judge(p.load(), shapes_world.parse(p.prompt)) for p in pictures]
    names = ("count", "colour", "shape", "place", "all_correct")
    return {name: float(np.mean([getattr(v, name) for v in verdicts])) for name in names}


def judge(image: np.ndarray, scene: Scene) -> Verdict:
    """Compares uint8 [height, width, 3] with the scene.

    Each object of the scene is matched with a different object of the picture, as favourably as
    possible; with fewer objects than wanted, nothing is right. Place says nothing of one object.
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
    """Returns the objects in uint8 [height, width, 3], from left to right."""
    shrink = LARGEST / max(image.shape[:2])
    if shrink < 1:
        height, width = (round(shrink * n) for n in image.shape[:2])
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
    darkest = max(min(rgb) for rgb in COLOURS.values())
    cover_HxW = (255.0 - image.min(axis=-1)) / (255 - darkest)  # 1 in an object, 0 on white
    patches_HxW, count = ndimage.label(cover_HxW > 0.5, structure=np.ones((3, 3)))
    away_HxW, nearest = ndimage.distance_transform_edt(patches_HxW == 0, return_indices=True)
    owner_HxW = np.where(away_HxW <= 2, patches_HxW[tuple(nearest)], 0)  # with the soft edges
    found = []
    for patch in range(1, count + 1):
        inside_HxW = patches_HxW == patch
        if inside_HxW.mean() < MIN_AREA:
            continue
        full = np.quantile(cover_HxW[inside_HxW], 0.8)
        soft_HxW = np.where(owner_HxW == patch, np.clip(cover_HxW / full, 0, 1), 0)
        y, x = ndimage.center_of_mass(soft_HxW)
        height, width = soft_HxW.shape
        colour = _colour(image[inside_HxW & (soft_HxW > 0.85)])
        shape = _shape(soft_HxW) if inside_HxW.mean() <= MAX_AREA else None
        found.append(Detected(colour, shape, float(x + 0.5) / width, float(y + 0.5) / height))
    return sorted(found, key=lambda d: d.x)


def _relation(first: Detected, second: Detected) -> str:
    step = np.array([first.x - second.x, first.y - second.y])
    return max(RELATIONS, key=lambda name: step @ RELATIONS[name])


def _colour(rgb_Nx3: np.ndarray) -> str | None:
    """Returns the colour that most pixels are nearest to, or None if they do not agree."""
    palette = _lab(np.array(list(COLOURS.values())))
    distance = np.linalg.norm(_lab(rgb_Nx3)[:, None] - palette, axis=-1)
    votes = np.bincount(distance.argmin(axis=1), minlength=len(palette))
    return list(COLOURS)[votes.argmax()] if votes.max() >= MIN_VOTE * votes.sum() else None


def _lab(rgb: np.ndarray) -> np.ndarray:
    """Returns CIELAB (D65) of sRGB in 0..255; equal distances look about equally different."""
    c = rgb / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.array(to_xyz).T / (0.9505, 1.0, 1.089)
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _shape(soft_HxW: np.ndarray) -> str | None:
    """Returns the shape whose template overlaps most (soft intersection over union)."""
    patch, radius = _normalised(soft_HxW)
    overlap = {
        name: max(np.minimum(patch, t).sum() / np.maximum(patch, t).sum() for t in templates)
        for name, templates in _templates(round(4 * radius) / 4).items()
    }
    best = max(overlap, key=overlap.get)
    return best if overlap[best] >= MIN_OVERLAP else None


@functools.cache
def _templates(radius: float) -> dict[str, list[np.ndarray]]:
    """Returns each shape as it looks at this RMS radius in pixels, once for each of BLURS."""
    side, fine = int(6 * radius) + 4, 4
    templates = {}
    for name, outline in SHAPES.items():
        canvas = Image.new("L", (side * fine, side * fine))
        corners = side * fine / 2 + radius / _unit_radius(name) * fine * outline - 0.5
        ImageDraw.Draw(canvas).polygon([tuple(c) for c in corners], fill=255)
        drawn = np.asarray(canvas.resize((side, side), Image.Resampling.BOX), float) / 255
        blurred = [ndimage.gaussian_filter(drawn, sigma) for sigma in BLURS]
        templates[name] = [_normalised(b / np.quantile(b[b > 0.5], 0.8))[0] for b in blurred]
    return templates


@functools.cache
def _unit_radius(name: str) -> float:
    canvas = Image.new("L", (400, 400))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in 200 + 150 * SHAPES[name]], fill=1)
    return _moments(np.asarray(canvas, float))[1] / 150


def _moments(soft_HxW: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the centroid (y, x) and the RMS distance from it, in pixels."""
    yx_2xN = np.indices(soft_HxW.shape).reshape(2, -1)
    weight_N = soft_HxW.ravel() / soft_HxW.sum()
    centre_2 = yx_2xN @ weight_N
    return centre_2, np.sqrt(((yx_2xN - centre_2[:, None]) ** 2).sum(axis=0) @ weight_N)


def _normalised(soft_HxW: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the patch on a grid, moved and scaled to centroid 0 and RMS radius 1; the radius."""
    centre_2, radius = _moments(soft_HxW)
    grid_2xN = np.indices((_GRID, _GRID)).reshape(2, -1) / (_GRID - 1) * 4.4 - 2.2
    where_2xN = centre_2[:, None] + radius * grid_2xN
    return np.clip(ndimage.map_coordinates(soft_HxW, where_2xN, order=1), 0, 1), radius
