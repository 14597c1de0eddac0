"""The train step's speed: its own numbers agree, and the peer is of the same size."""

import dataclasses
import time

import jax
import pytest

from lidit_jax import errors, sharding
from lidit_jax.benchmarking import assumed, flops, peer, training
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


def test_the_numbers_agree_with_one_another(config, task):
    slow = peer.Peer("slow", 1, 1, lambda: time.sleep(1.0))
    speed = training.measure(config, task, mesh(2), slow, rounds=2)
    assert speed.flops == 4 * flops.training(flops.forward(task))
    assert speed.mesh == (1, 2, 1) and speed.images == 4
    assert speed.peak == pytest.approx(2 * 2 * 2048**3 / speed.product.median)
    assert speed.share == pytest.approx(speed.flops / speed.step.median / speed.peak)
    assert speed.ratio == pytest.approx(speed.peer_step.median / speed.step.median)
    assert speed.peer_step.least >= 1.0 and f"{speed.ratio:.2f} x the peer" in speed.table()
    told = speed.as_json()
    assert told["ratio_to_peer"] == speed.ratio and told["peer"]["name"] == "slow"
    state = 16 * speed.parameters / 2  # parameters, EMA and two moments in f32, over two devices
    assert speed.memory > state


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
    with pytest.raises(errors.InputError, match="the peer reads one LLM, the config 2"):
        peer.pixart(dataclasses.replace(task, shape=two))


def test_a_batch_that_does_not_divide_is_refused(config, task):
    with pytest.raises(errors.InputError, match="batch_size 4 does not divide over 8"):
        training.measure(config, task, mesh(8))
