"""Suites without official prompts: of what they are given, and what they refuse."""

import numpy as np
import pytest
from PIL import Image

from lidit_jax.errors import InputError
from lidit_jax.evaluation import SUITES
from lidit_jax.evaluation.judges.records import Judges


class Half:
    identity = "half"

    def images(self, images):
        return np.array([[1.0, p.mean() / 255] for p in images], np.float32)

    features = images

    def texts(self, texts):
        return np.array([[0.5, 0.0]] * len(texts), np.float32)


def test_fid_is_of_clip_where_there_is_clip(samples):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(6)]
    drawn, references = samples([("x", i) for i in images]), [((), i) for i in images]
    assert SUITES["fid"](drawn, references, Judges())["fid_pixels"] == pytest.approx(0, abs=1e-6)
    assert SUITES["fid"](drawn, references, Judges(clip=Half()))["fid_clip"] < 1e-6
    with pytest.raises(InputError, match="fid needs a data set's pictures; give --config"):
        SUITES["fid"](drawn, None, Judges())


def test_psnr_wants_originals_of_the_same_size(samples):
    image = np.zeros((4, 4, 3), np.uint8)
    (drawn,) = samples([("x", image)])
    with pytest.raises(
        InputError, match="no original of .*0.png at .*written by lidit_jax.reconstruct"
    ):
        SUITES["psnr"]([drawn], None, Judges())
    originals = drawn.path.parent / "originals"
    originals.mkdir()
    Image.fromarray(image[:2]).save(originals / drawn.path.name)
    with pytest.raises(
        InputError, match="its original .2, 4.; want .*written by lidit_jax.reconstruct"
    ):
        SUITES["psnr"]([drawn], None, Judges())


def test_clip_score_wants_clip(samples):
    drawn = samples([("x", np.zeros((4, 4, 3), np.uint8))])
    assert SUITES["clip_score"](drawn, None, Judges(clip=Half())) == {"clip_score": 50}
    with pytest.raises(InputError, match="clip_score needs CLIP; give --judges=clip=FOLDER"):
        SUITES["clip_score"](drawn, None, Judges())
