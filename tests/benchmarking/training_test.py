"""The train step's speed: what is measured, what is made of it, and a peer of the same size."""

import dataclasses
import json
import math
import time

import jax
import numpy as np
import pytest

from lidit_jax import errors, sharding
from lidit_jax.benchmarking import assumed, flops, peer, training
from lidit_jax.benchmarking.timing import Seconds
from lidit_jax.benchmarking.training import TrainingSpeed
from lidit_jax.training.config import parse
from tests.tiny import load_config

LENGTHS = assumed.Lengths(text=8, prefix=4)


@pytest.fixture(scope="module")
def config():
    return assumed.measured(parse(load_config("benchmark_cpu", "smoke")), LENGTHS)


@pytest.fixture(scope="module")
def task(config):
    return assumed.task(config, LENGTHS)


def mesh(count=1):
    return sharding.make_mesh((1, count, 1), jax.devices()[:count])


@pytest.mark.slow
def test_what_is_measured_is_the_whole_step_of_all_devices(config, task):
    slow = peer.Peer("slow", 1, 1, lambda: time.sleep(1.0))
    speed = training.measure(config, task, mesh(2), slow, rounds=2)
    assert speed.flops == 4 * flops.training(flops.forward(task))
    assert speed.product_flops == 2 * 2 * 2048**3
    assert speed.mesh == (1, 2, 1) and speed.images == 4
    assert speed.peer_step.least >= 1.0
    state = 16 * speed.parameters / 2  # parameters, EMA and two moments in f32, over two devices
    assert speed.memory > state
    told = json.loads(json.dumps(speed.as_json()))
    assert told["peer"] == {"name": "slow", "parameters": 1, "flops": 1}
    assert told["step"]["median"] == speed.step.median


def test_the_numbers_that_are_made_of_the_measured_ones_are_those_worked_out_by_hand():
    """6 TFLOP in 2 s, where 8 devices together do 16 TFLOP in 0.5 s; 24 pictures, the peer's in 3 s."""

    def seconds(median):
        return Seconds(median, median / 2, 2 * median)

    speed = TrainingSpeed(
        device="cpu", mesh=(2, 4, 1), dtype="float32", parameters=7, images=24, compile_seconds=9.0,
        step=seconds(2.0), flops=6 * 10**12, xla_flops=None, product=seconds(0.5), product_flops=16 * 10**12,
        memory=3 * 2**29, peer=peer.Peer("other", 5, 10**9, lambda: 0.0), peer_step=seconds(3.0),
    )  # fmt: skip
    assert (speed.peak, speed.share, speed.ratio) == (32e12, 0.09375, 1.5)
    told = speed.as_json()
    assert (told["peak"], told["share_of_peak"], told["ratio_to_peer"]) == (32e12, 0.09375, 1.5)
    rows = {line[:14].strip(): line[14:] for line in speed.table().splitlines()}
    assert "12.00 images/s" in rows["step"] and "8.00 images/s" in rows["its step"]
    assert rows["model"] == "6,000.0 GFLOP a step; 3,000.0 GFLOP/s"
    assert rows["product"].startswith("32,000.0 GFLOP/s, summed over all devices at the same time")
    assert rows["share"].startswith("9.4%") and rows["memory"].startswith("1.50 GiB")
    assert rows["ratio"].startswith("1.50 x")
    alone = dataclasses.replace(speed, peer=None, peer_step=None)
    assert alone.ratio is None and "ratio" not in alone.table()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_every_device_multiplies_its_own_matrices_at_once(sizes):
    """Sums of `side` products of unit normals: their deviation is its root, and no two are alike."""
    count, side = math.prod(sizes), 64
    where = sharding.make_mesh(sizes, jax.devices()[:count])
    made = training._product(side, "float32", where)()
    shards = {shard.device: np.asarray(shard.data) for shard in made.addressable_shards}
    assert set(shards) == set(where.devices.flat)
    for product in shards.values():
        assert product.shape == (side, side) and product.std() == pytest.approx(side**0.5, rel=0.1)
    assert len({product.tobytes() for product in shards.values()}) == count


def test_the_peer_is_of_our_size(task):
    """Its blocks have our products; our position block and modulation come on top."""
    pixart = peer.pixart(task)
    products = flops.forward(task)
    shared = [p for p in products if p.where.startswith("block.") and "modulation" not in p.where]
    ours = 4 * flops.training(shared)
    assert ours < pixart.flops < 1.15 * ours
    assert pixart.step() > 0


def test_a_peer_that_reads_one_llm_is_told_of_two(task):
    two = dataclasses.replace(task.shape, text=task.shape.text * 2)
    with pytest.raises(errors.InputError, match="the peer supports one LLM, but the config has 2"):
        peer.pixart(dataclasses.replace(task, shape=two))


@pytest.mark.parametrize(
    ("gpu", "theirs", "ours"), [(False, "float32", "bfloat16"), (True, "bfloat16", "float32")]
)
def test_a_peer_that_computes_in_another_dtype_is_refused(task, monkeypatch, gpu, theirs, ours):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    other = dataclasses.replace(task, model=dataclasses.replace(task.model, dtype=ours))
    message = (
        f"the peer computes in {theirs} .* the config in {ours}; use --config.model.dtype={theirs}"
    )
    with pytest.raises(errors.InputError, match=message):
        peer.pixart(other)


def test_a_batch_that_does_not_divide_is_refused(config, task):
    with pytest.raises(errors.InputError, match="batch_size 4 does not divide over 8"):
        training.measure(config, task, mesh(8))
