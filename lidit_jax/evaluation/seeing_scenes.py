"""What is in a picture of the scenes world: each thing's shape, colour, texture, size and place.

A thing is a connected patch that is not white, with its holes filled. Its shape is that of its
silhouette; its colour is the nearest in the palette, by a vote of its pixels after removing white
from them; its texture is the one whose marks agree most with where it is dark or white inside.
Large pictures are shrunk.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from lidit_jax.evaluation import colours, patches, silhouettes, textures
from lidit_jax.scenes.rendering import RADIUS
from lidit_jax.scenes.things import COLOURS

MIN_SIDE = 32  # pixels; in smaller pictures shapes cannot be told apart
MIN_COVER = 0.28  # of a pixel in a patch; 0 is white, 1 has a channel of 0
MIN_AREA, MAX_AREA = 0.008, 0.3  # of the picture: smaller is a speck, larger is not ours
MIN_VOTE = 0.6  # share of a patch's pixels that must agree on its colour
MIN_LIT = 0.15  # share of them that must not be dark
SIZE_LIMIT = np.sqrt(RADIUS["small"] * RADIUS["big"])  # between small and big


@dataclasses.dataclass(frozen=True)
class Seen:
    """shape and colour are None if the patch is not ours; texture "" is plain; x, y in [0, 1]."""

    shape: str | None
    colour: str | None
    texture: str
    size: str
    x: float
    y: float


def see(image: np.ndarray) -> list[Seen]:
    """Returns the things in uint8 [height, width, 3], in reading order of their patches.

    Raises InputError for a picture with a side of less than MIN_SIDE pixels after shrinking.
    """
    rgb_HxWx3 = patches.shrunk(image, MIN_SIDE).astype(np.float64)
    cover_HxW = 1 - rgb_HxWx3.min(axis=-1) / 255
    found = []
    for inside_HxW, reach_HxW in patches.patches(cover_HxW, MIN_COVER):
        body_HxW = ndimage.binary_fill_holes(inside_HxW)
        if body_HxW.mean() >= MIN_AREA:
            found.append(_seen(rgb_HxWx3, cover_HxW, body_HxW, reach_HxW | body_HxW))
    return found


def _seen(rgb_HxWx3, cover_HxW, body_HxW, reach_HxW) -> Seen:
    """Analyses the patch `body`; `reach` includes its surroundings."""
    colour = _colour(rgb_HxWx3[body_HxW & (cover_HxW > MIN_COVER)])
    full = 1 - min(COLOURS[colour or "red"]) / 255
    soft_HxW = np.clip(cover_HxW / full, 0, 1) * reach_HxW
    inner_HxW = ndimage.binary_erosion(body_HxW)
    soft_HxW = np.where(inner_HxW, 1.0, soft_HxW)  # holes filled
    height, width = soft_HxW.shape
    centre_2, radius = silhouettes.moments(soft_HxW)
    shape = silhouettes.nearest_shape(soft_HxW) if body_HxW.mean() <= MAX_AREA else None
    unit = radius / silhouettes.unit_moments(shape or "circle")[1]  # pixels
    texture = ""
    if shape and colour:
        texture = textures.nearest_texture(rgb_HxWx3, centre_2, unit, shape, colour)
    return Seen(
        shape=shape,
        colour=colour,
        texture=texture,
        size="big" if unit / max(height, width) > SIZE_LIMIT else "small",
        x=float(centre_2[1] + 0.5) / width,
        y=float(centre_2[0] + 0.5) / height,
    )


def _colour(rgb_Nx3: np.ndarray) -> str | None:
    """Returns the colour that most pixels have after removing white and black from them.

    Marks, and pixels that are as dark, do not vote.
    """
    lit_Nx3 = rgb_Nx3[rgb_Nx3.max(axis=1) > 80]
    if len(lit_Nx3) < MIN_LIT * len(rgb_Nx3):
        return None
    cover_N = 255 - lit_Nx3.min(axis=1)  # weights: edge pixels are mostly white and tell little
    grey_N = np.ptp(lit_Nx3, axis=1) < 0.35 * cover_N
    names = [name for name in COLOURS if name != "grey"]
    chosen_N = colours.nearest(_pure(lit_Nx3), _pure(np.array([COLOURS[n] for n in names], float)))
    chosen_N[grey_N] = len(names)
    votes = np.bincount(chosen_N, weights=cover_N, minlength=len(names) + 1)
    best = int(votes.argmax())
    return [*names, "grey"][best] if votes[best] >= MIN_VOTE * votes.sum() else None


def _pure(rgb_Nx3: np.ndarray) -> np.ndarray:
    """Returns the colours at the full saturation and brightness of their hue."""
    coloured_Nx3 = rgb_Nx3 - rgb_Nx3.min(axis=1, keepdims=True)
    return 255 * coloured_Nx3 / np.maximum(coloured_Nx3.max(axis=1, keepdims=True), 1e-6)
