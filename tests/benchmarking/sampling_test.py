"""What is measured is what is drawn: its parts are there, and make up the whole."""

import dataclasses

import numpy as np
import pytest

from lidit_jax import sharding
from lidit_jax.benchmarking import sampling
from lidit_jax.benchmarking.sampling import Asked, SamplingSpeed, Seconds
from lidit_jax.models.conditioners import ConditionerConfig
from tests.training.step_test import make_config


def config(conditioner="infused", **data):
    c = make_config()
    model = dataclasses.replace(c.model, conditioner=ConditionerConfig(name=conditioner))
    return dataclasses.replace(c, model=model, data=dataclasses.replace(c.data, **data))


@pytest.mark.parametrize("conditioner", ["direct", pytest.param("infused", marks=pytest.mark.slow)])
def test_every_part_is_measured(conditioner):
    mesh = sharding.make_mesh((1, 8, 1))
    asked = Asked(config(conditioner), steps=3, guidance=4.5, batch=8, tokens=8)
    speed = sampling.measure(asked, rounds=2, mesh=mesh)
    assert (speed.pictures, speed.evaluations, speed.rows, speed.mesh) == (8, 3, 2, (1, 8, 1))
    for part in (speed.draw, speed.denoiser, speed.conditioner, speed.dispatch, speed.write):
        assert 0 < part.least <= part.median <= part.most
    assert speed.decode.least > 0  # of pixels
    table = speed.table()
    for name in ("denoiser", "conditioner", "sampler", "dispatch", "decoding", "writing PNGs"):
        assert name in table


def test_a_vae_that_is_not_here_is_left_out_and_no_guidance_is_one_row():
    asked = Asked(config(codec="latents:2x3"), steps=2, guidance=1.0, batch=1, tokens=8)
    speed = sampling.measure(asked, rounds=1, mesh=sharding.one_device())
    assert speed.decode is None and "decoding" not in speed.table() and speed.rows == 1


def test_a_batch_is_rounded_up_to_what_the_mesh_divides():
    asked = Asked(config(codec="latents:2x3"), steps=2, guidance=1.0, batch=3, tokens=8)
    speed = sampling.measure(asked, rounds=1)
    assert speed.pictures == 8


def test_the_table_adds_up():
    def seconds(median):
        return Seconds(median, median - 0.5, median + 0.5)

    speed = SamplingSpeed(
        "cpu", (1, 1, 1), 5, pictures=2, evaluations=3, rows=2, draw=seconds(16), denoiser=seconds(10),
        conditioner=seconds(3), dispatch=seconds(1), decode=seconds(3), write=seconds(1),
    )  # fmt: skip
    assert (speed.sampler, speed.batch, speed.picture, speed.outside) == (2, 20, 10, 0.5)
    shares = [float(line.split("%")[0].split()[-1]) for line in speed.table().splitlines()[2:-1]]
    np.testing.assert_allclose(shares, [50, 15, 10, 5, 15, 5])
    assert speed.table().splitlines()[-1].split()[:3] == ["all", "10.0000", "100.0%"]
    assert "50.0% outside the denoiser" in speed.table()
