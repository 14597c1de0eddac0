"""A state that is never whole anywhere: at its birth, while it is saved, read and looked at."""

import dataclasses
import itertools
import math
import re
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from jax._src.array import ArrayImpl

from lidit_jax import errors, sharding
from lidit_jax.training import checkpoints, loop, opening, optim, state, trained
from lidit_jax.training.config import parse
from lidit_jax.training.tasks import without_data
from lidit_jax.training.tasks.diffusion import diffusion_task
from tests import tiny
from tests.tiny import abstract_mesh, load_config
from tests.training.step_test import LENGTHS, make_config


def share(array) -> int:
    """Returns the bytes of an array that one device holds."""
    return math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize


def total(measure, tree) -> int:
    return sum(map(measure, jax.tree.leaves(tree)))


@pytest.mark.parametrize(
    ("mesh", "optimizer"),
    [((2, 2, 2), "adamw"), pytest.param((1, 8, 1), "muon", marks=pytest.mark.slow)],
)
def test_a_state_is_born_in_little_more_than_its_share_of_every_device(mesh, optimizer):
    config = make_config(optimizer)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, width=256, depth=4)
    )
    task, optimizer = diffusion_task(config, LENGTHS), optim.make_optimizer(config.optim, 5)
    _, like = state.abstract(task, optimizer, sharding.make_mesh(mesh))
    constants = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), nnx.to_pure_dict(like.constants)
    )
    program = state.make_initial(task, optimizer, 0, like).lower(constants)
    used = program.compile().memory_analysis()
    held = used.output_size_in_bytes + used.temp_size_in_bytes + used.argument_size_in_bytes
    assert held < 1.15 * total(share, like)


@pytest.mark.slow
def test_nothing_of_the_models_size_comes_to_the_host_whole(llms, data, tmp_path, monkeypatch):
    """Begun, described, saved, resumed, handed over and opened, on eight devices."""
    pulled = []
    value = ArrayImpl._value

    def watched(self):
        pulled.append((self.nbytes, self.shape))
        return value.__get__(self)

    monkeypatch.setattr(ArrayImpl, "_value", property(watched))
    monkeypatch.setattr(opening.logging, "level_info", lambda: True)
    c = tiny.config_dict(llms[:1], steps=2, save_every=1, log_every=1, preview_every=0)
    c.model.width = 128
    first = parse(c)
    loop.train(first, data, tmp_path / "first")
    shutil.rmtree(tmp_path / "first" / "checkpoints" / "2")
    loop.train(first, data, tmp_path / "first")
    c.train.init_from = str(tmp_path / "first")
    loop.train(parse(c), data, tmp_path / "second")
    _, like = state.abstract(
        without_data(trained.read_config(tmp_path / "second")),
        optim.make_optimizer(first.optim, 2),
        sharding.make_mesh((1, 8, 1)),
    )
    _, last = checkpoints.restore_fields(tmp_path / "second", 2, like, ("ema", "constants"))
    largest = max(jax.tree.leaves(like), key=share)
    assert share(largest) == math.prod(largest.shape) * 4 // 8
    assert max(pulled)[0] <= share(largest), max(pulled)
    np.asarray(max(jax.tree.leaves(last["ema"]), key=share))
    assert max(pulled)[0] == 8 * share(largest)  # it would have been seen


@pytest.fixture(scope="module")
def lidit_10b():
    task = without_data(parse(load_config("lidit_10b_512")))
    return state.split(jax.eval_shape(lambda: task.init(nnx.Rngs(0))))[1]


def meshes(count):
    """Every mesh of so many devices."""
    for replica, fsdp in itertools.product(range(1, count + 1), repeat=2):
        if count % (replica * fsdp) == 0:
            yield replica, fsdp, count // (replica * fsdp)


@pytest.mark.parametrize("count", [8, 44, 256])
def test_the_10b_is_split_over_every_mesh_that_divides_it_and_no_other(lidit_10b, count):
    """Width 2816 and 44 heads; on any other mesh, the one that the refusal names is accepted."""
    parameters = sum(math.prod(a.shape) for a in jax.tree.leaves(lidit_10b))
    for sizes in meshes(count):
        _, fsdp, tensor = sizes

        def split(sizes):
            shardings = sharding.param_shardings(abstract_mesh(sizes), lidit_10b)
            return jax.tree.map(lambda a, s: a.update(sharding=s), lidit_10b, shardings)

        if 2816 % fsdp or 44 % tensor:
            with pytest.raises(errors.InputError, match="does not divide over .* would work") as e:
                split(sizes)
            named = re.search(r"a mesh of \((\d+), (\d+), (\d+)\)", str(e.value))
            split(tuple(map(int, named.groups())))
        else:
            # A fiftieth has no axis that "tensor" splits: convolutions, and linear maps of vectors.
            limit = 4 * parameters / fsdp * (1.05 / tensor + 0.02)
            assert total(share, split(sizes)) < limit, sizes
