"""What a run says of itself when it begins, and which data it takes for its own."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import errors, sharding
from lidit_jax.training import opening


def test_a_run_tells_its_parameters_and_whether_it_only_warms_up(config, capsys):
    current = types.SimpleNamespace(params={"kernel": jnp.zeros((30, 40))}, ema=jnp.zeros(7))
    for warmup, told in ((config.train.steps, True), (config.train.steps - 1, False)):
        optim = dataclasses.replace(config.optim, warmup_steps=warmup)
        run = dataclasses.replace(config, optim=optim)
        opening.describe(current, sharding.one_device(), run)
        out = capsys.readouterr().out
        assert ("still warming up" in out) == told
        assert f"1,200 parameters, batch {config.train.batch_size}, mesh" in out


@pytest.mark.parametrize(
    "found",
    [{"mean": [1.0, 2.1]}, {"mean": [1.0]}, {"mean": 1.0}, {}, {"mean": [1.0, 2.0], "std": [1.0]}],
)
def test_data_of_other_statistics_are_refused_whichever_side_lacks_one(found, tmp_path):
    known = {"mean": np.array([1.0, 2.0])}
    opening.check_same_data(known, {"mean": np.float32([1, 2.000001])}, tmp_path)
    for one, other in ((known, found), (found, known)):
        with pytest.raises(errors.InputError, match=f"{tmp_path} is not .*: its (mean|std) diff"):
            opening.check_same_data(one, other, tmp_path)
