"""The Fréchet distance is that of Gaussians; CLIPScore is a cosine in percent."""

import types

import numpy as np
import pytest
from scipy import linalg

from lidit_jax.errors import InputError
from lidit_jax.evaluation import fid
from lidit_jax.evaluation.clip_score import clip_score, suite
from lidit_jax.evaluation.judges.records import Judges


def pictures(count, seed=0, noise=0.0, size=32):
    """Discs of random colour and place."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size))
    made = []
    for _ in range(count):
        colour, (cy, cx) = rng.uniform(0, 255, 3), rng.uniform(8, size - 8, 2)
        picture = np.where(((y - cy) ** 2 + (x - cx) ** 2 < 36)[..., None], colour, 255)
        made.append(np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8))
    return made


def gaussian(seed, size=5):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    return rng.normal(size=size), root @ root.T


def test_the_closed_form_of_gaussians_that_commute():
    mean, values1, values2 = np.array([1.0, 2, 3]), np.array([1.0, 4, 9]), np.array([4.0, 1, 0])
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    one = (mean, turned * values1 @ turned.T)
    other = (np.zeros(3), turned * values2 @ turned.T)
    wanted = mean @ mean + np.square(np.sqrt(values1) - np.sqrt(values2)).sum()
    assert fid.frechet_distance(one, other) == pytest.approx(wanted)


def test_it_is_symmetric_zero_for_the_same_and_grows_with_distance():
    one, other = gaussian(0), gaussian(1)
    assert fid.frechet_distance(one, other) == pytest.approx(fid.frechet_distance(other, one))
    for same in (gaussian(seed, 64) for seed in range(10)):
        assert 0 <= fid.frechet_distance(same, same) < 1e-9
    near, far = (fid.frechet_distance(one, (one[0] + d, one[1])) for d in (1, 2))
    assert near == pytest.approx(5) and far == pytest.approx(20)


def test_it_is_the_matrix_root_of_the_product():
    (m1, c1), (m2, c2) = gaussian(2), gaussian(3)
    wanted = np.square(m1 - m2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    assert fid.frechet_distance((m1, c1), (m2, c2)) == pytest.approx(wanted)


def test_of_pictures():
    features = fid.pixel_features
    real = pictures(200)
    assert fid.fid(real, real[::-1], features) == pytest.approx(0, abs=1e-6)
    again, noisy, noisier = (
        fid.fid(pictures(200, 1, noise), real, features) for noise in (0, 20, 60)
    )
    assert again < noisy < noisier
    assert fid.fid(pictures(20, 1), real, features) > again  # fewer pictures, a larger distance
    large = [np.kron(p, np.ones((2, 2, 1), np.uint8)) for p in real]
    assert fid.fid(large, real, features) == pytest.approx(0, abs=1e-6)


def test_features_of_pixels_are_of_parts_where_they_are():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[16:24, 40:48] = (255, 51, 0)  # the third part from above, the sixth from the left
    mean_YxXx3, std_YxXx3 = fid.pixel_features([picture]).reshape(2, 8, 8, 3)
    assert mean_YxXx3[2, 5].tolist() == pytest.approx([1, 0.2, 0])
    assert mean_YxXx3.sum() == pytest.approx(1.2) and not std_YxXx3.any()


def test_two_pictures_of_a_kind_are_wanted():
    with pytest.raises(InputError, match="1 drawn pictures; .* two or more"):
        fid.fid(pictures(1), pictures(3), fid.pixel_features)
    with pytest.raises(InputError, match="0 reference pictures"):
        fid.fid(pictures(3), [], fid.pixel_features)


class Turned:
    """Texts are angles in degrees; every picture is at angle 0."""

    identity = "turned"

    def images(self, images):
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(images), 1))

    def features(self, images):
        return 3 * self.images(images)

    def texts(self, texts):
        angles = np.deg2rad([float(t) for t in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_clip_score_is_the_mean_cosine_in_percent_never_negative():
    picture = np.zeros((8, 8, 3), np.uint8)
    assert clip_score([(picture, "60")], Turned()) == pytest.approx(50)
    assert clip_score([(picture, "0"), (picture, "180")], Turned()) == pytest.approx(50)


def test_each_picture_is_scored_by_its_own_prompt(samples):
    picture = np.zeros((8, 8, 3), np.uint8)
    drawn = samples([("0", picture), ("60", picture)])
    assert suite(drawn, None, Judges(clip=Turned())) == {"clip_score": pytest.approx(75)}


def test_clip_is_asked_of_many_pictures_at_a_time_and_few_are_held():
    shown, asked = [], []

    class Watched(Turned):
        def images(self, images):
            asked.append(len(images))
            assert len(shown) == sum(asked)
            return super().images(images)

    def pairs():
        for k in range(150):
            shown.append(k)
            yield np.zeros((8, 8 + k % 3, 3), np.uint8), str(k)

    wanted = np.mean([100 * max(np.cos(np.deg2rad(k)), 0) for k in range(150)])
    assert clip_score(pairs(), Watched()) == pytest.approx(wanted)
    assert asked == [64, 64, 22]


def test_clip_fid_is_of_its_embeddings():
    """Not of those of length 1 that texts are compared with."""

    class Embedded(Turned):
        def images(self, images):
            raise AssertionError("made of length 1")

        def features(self, images):
            return np.stack([image.mean((0, 1)) for image in images])

    def shown(*greys):
        images = [np.full((8, 8, 3), grey, np.uint8) for grey in greys]
        return [types.SimpleNamespace(load=lambda image=image: image) for image in images]

    references = [("", picture.load()) for picture in shown(10, 30)]
    found = fid.suite(shown(20, 40), references, Judges(clip=Embedded()))
    assert found == {"fid_clip": pytest.approx(3 * 10**2)}  # of means; the covariances are alike
