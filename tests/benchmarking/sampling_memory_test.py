"""What sampling takes is its real program's: weights as they are kept, on the mesh that it would use."""

import dataclasses
import json

import jax
import pytest

from lidit_jax import errors, sharding
from lidit_jax.benchmarking import assumed, chips, devices, sampling_memory
from lidit_jax.benchmarking.program import TooLarge
from lidit_jax.benchmarking.sampling import Asked
from lidit_jax.training.config import parse
from lidit_jax.training.trained import to_draw
from tests.benchmarking.sampling_test import config
from tests.tiny import load_config


@pytest.fixture
def here(monkeypatch):
    """This process's devices, in place of eight TPUs."""
    monkeypatch.setattr(devices, "of_topology", lambda name: jax.devices())


def asked(batch=8, **changes):
    c = dataclasses.replace(config(codec="latents:2x3"), **changes)
    return Asked(c, steps=2, guidance=4.5, batch=batch, tokens=8)


def weights(found, mesh):
    """Bytes on one device of weights and constants, as sampling keeps them."""
    _, _, *parts = to_draw(found.asked.config, mesh)
    shards = [(a.sharding.shard_shape(a.shape), a.dtype.itemsize) for a in jax.tree.leaves(parts)]
    return sum(jax.numpy.prod(jax.numpy.array(s), dtype=int) * size for s, size in shards)


def test_weights_are_counted_as_they_lie_on_a_device(here):
    for sizes in ((8, 1, 1), (1, 8, 1)):
        found = sampling_memory.plan(asked(), "v5e:2x4", sizes)
        texts = found.found.arguments - weights(found, sharding.make_mesh(sizes))
        assert 0 < texts < 2000, sizes  # a row of features of width 16, its mask and its seed
        assert tuple(found.mesh.values()) == sizes


def test_a_larger_batch_takes_more_and_small_models_are_copied(here):
    small, large = (sampling_memory.plan(asked(b), "v5e:2x4", None) for b in (3, 512))
    assert (small.batch, large.batch) == (8, 512)
    assert large.found.temporaries > 2 * small.found.temporaries
    assert tuple(small.mesh.values()) == (8, 1, 1)


def test_what_is_printed_adds_up_and_says_what_fits(here):
    found = sampling_memory.plan(asked(), "v5e:2x4", None)
    room = found.memory
    assert found.fits and room == chips.CHIPS["v5e"].memory
    refused = dataclasses.replace(found, found=TooLarge(None, "wants 30.00G", 30 * chips.GIB, 1.0))
    crowded = dataclasses.replace(found, found=dataclasses.replace(found.found, temporaries=room))
    assert found.table().endswith("of 15.75: fits")
    assert refused.table().endswith("30.00  of 15.75: too large")
    assert crowded.table().endswith("of 15.75: too large")
    told = json.loads(json.dumps(found.as_json()))
    assert told["bytes"] == told["arguments"] + told["temporaries"] + told["code"]
    asked_for = {"steps": 2, "guidance": 4.5, "text_tokens": 8, "pictures": 8}
    assert {name: told[name] for name in asked_for} == asked_for
    _, _, ema, _ = to_draw(found.asked.config, sharding.make_mesh((8, 1, 1)))
    assert told["parameters"] == sum(a.size for a in jax.tree.leaves(ema))
    assert json.loads(json.dumps(refused.as_json()))["refused"] == "wants 30.00G"


def test_a_mesh_that_does_not_fit_the_devices_is_refused(here):
    with pytest.raises(errors.InputError, match="needs 4 devices, but there are 8"):
        sampling_memory.plan(asked(), "v5e:2x4", (1, 4, 1))


def test_several_machines_are_refused_since_sampling_uses_one(here):
    with pytest.raises(
        errors.InputError, match="v5p:2x2x2 is several machines, .* such as H200:1x8"
    ):
        sampling_memory.plan(asked(), "v5p:2x2x2", None)


def test_a_gpus_memory_is_what_jax_gives_a_program_by_itself(here):
    found = sampling_memory.plan(asked(), "H200:1x8", None)
    assert found.memory / chips.GIB == pytest.approx(139.81 * 0.75)


@pytest.mark.slow
def test_sampling_from_the_1b_is_compiled_for_a_gpu():
    pytest.importorskip("jax_cuda13_plugin", reason="the GPU compiler is not installed")
    c = load_config("lidit_1b")
    c.model.depth = 2
    wanted = Asked(assumed.measured(parse(c), assumed.Lengths()), 28, 4.5, batch=4)
    found = sampling_memory.plan(wanted, "H200:1x1", None)
    assert found.fits and "__cudnn$fmhaSoftmax" in found.found.text
