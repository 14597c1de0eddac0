"""Fréchet distance between two sets of pictures (Heusel et al., arXiv 1706.08500, eq. 6)."""

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image

from lidit_jax.errors import InputError
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.evaluation.pictures import Picture
from lidit_jax.evaluation.recall import Reference
from lidit_jax.moments import Moments

Features = Callable[[Sequence[np.ndarray]], np.ndarray]  # uint8 pictures -> [n, E]
_BATCH = 32


def suite(
    pictures: list[Picture], references: Iterable[Reference] | None, judges: Judges
) -> dict[str, float]:
    """Returns {"fid_clip"} with judges.clip, or else {"fid_pixels"},
    against the training set's pictures.

    "CLIP-FID" (Kynkäänniemi et al., arXiv 2203.06026) uses CLIP's features without normalising
    their length, like clean-fid. It is not comparable with a FID on Inception features.

    Raises InputError without references.
    """
    if references is None:
        raise InputError("fid needs a data set's pictures; give --config=configs/NAME.py")
    features = judges.clip.features if judges.clip else pixel_features
    name = "fid_clip" if judges.clip else "fid_pixels"
    real = (image for _, image in references if image is not None)
    return {name: fid((p.load() for p in pictures), real, features)}


def fid(drawn: Iterable[np.ndarray], real: Iterable[np.ndarray], features: Features) -> float:
    """Returns the Fréchet distance of Gaussians fitted to the features of drawn and real pictures.

    0 = the same; lower is better. It depends on the features and on the number of pictures:
    covariances of few pictures are off, so that it is larger with fewer. Compare only distances for
    which both are the same, and report both.
    pictures: uint8 [height, width, 3], of any size. Raises InputError with fewer than two of a
    kind.
    """
    return frechet_distance(_fitted(drawn, features, "drawn"), _fitted(real, features, "reference"))


def frechet_distance(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> float:
    """Returns |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) for two (mean [E], covariance [E, E]).

    The trace of the root is the sum of the singular values of C1^(1/2) C2^(1/2), which exists and
    is real even for covariances without full rank.
    """
    (mean1_E, cov1_ExE), (mean2_E, cov2_ExE) = one, other
    singular_E = np.linalg.svd(_root(cov1_ExE) @ _root(cov2_ExE), compute_uv=False)
    apart = np.square(mean1_E - mean2_E).sum()
    squared = apart + np.trace(cov1_ExE) + np.trace(cov2_ExE) - 2 * singular_E.sum()
    return max(0.0, float(squared))  # rounding can make a distance of 0 negative


def _root(covariance_ExE: np.ndarray) -> np.ndarray:
    values_E, vectors_ExE = np.linalg.eigh(covariance_ExE)
    return (vectors_ExE * np.sqrt(np.maximum(values_E, 0))) @ vectors_ExE.T


def pixel_features(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns features without a model, [N, 384], only for tests and curves of small worlds.

    They are means and standard deviations of colours over 8 x 8 parts of each picture.
    """
    return np.stack([_parts(picture) for picture in pictures])


def _parts(picture: np.ndarray) -> np.ndarray:
    small = Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float64)
    parts_YxXx16x3 = pixels.reshape(8, 4, 8, 4, 3).swapaxes(1, 2).reshape(8, 8, 16, 3)
    return np.concatenate([parts_YxXx16x3.mean(axis=2), parts_YxXx16x3.std(axis=2)]).ravel() / 255


def _fitted(
    pictures: Iterable[np.ndarray], features: Features, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean [E] and covariance [E, E], in f64."""
    pictures, found = iter(pictures), None
    while batch := list(itertools.islice(pictures, _BATCH)):
        found_NxE = np.asarray(features(batch))
        found = found or Moments(found_NxE.shape[-1], across=True)
        found.add(found_NxE)
    count = found.count if found else 0
    if count < 2:
        raise InputError(f"{count} {kind} pictures; a Fréchet distance needs two or more per kind")
    return found.mean_C, found.covariance_CxC
