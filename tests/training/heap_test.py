"""The heap where a CPU computes: it is not filled anew at every step, and is given back at the end."""

import ctypes
import subprocess
import sys

import jax
import pytest

from lidit_jax import sharding
from lidit_jax.batch import BatchShape, fake
from lidit_jax.training import feed, logbook, loop
from lidit_jax.training.telemetry.pulse import Pulse
from tests import tiny

TEMPORARY = 2**27  # bytes that a program needs while it runs

# Prints page faults of a call, and bytes in use after some: without; within; and the latter, after.
CALLED = f"""
import ctypes, resource, statistics
import jax, jax.numpy as jnp
from lidit_jax.training import heap

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a page is 4 kB, whatever the system prefers
heap.compute_here()
x = jnp.ones({TEMPORARY // 4}, jnp.float32)
program = jax.jit(lambda x: jnp.flip(jax.lax.optimization_barrier(x * 2)).sum()).lower(x).compile()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(program(x))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def in_use():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

print(statistics.median_high(faults() for _ in range(9)), in_use())
with heap.kept():
    print(statistics.median_high(faults() for _ in range(9)), in_use())
print(in_use())
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc's heap is kept"
)
def test_a_program_called_again_asks_for_no_memory_until_the_end():
    said = subprocess.run(
        [sys.executable, "-c", CALLED], capture_output=True, text=True, check=True
    ).stdout
    faults, in_use, faults_kept, kept, after = map(int, said.split())
    assert faults_kept * 50 < faults
    assert kept - in_use > TEMPORARY / 2 > after - in_use


def test_a_batch_is_there_when_a_step_is_given_it():
    class Reader:
        restored = staticmethod(lambda text: text)

    given = feed.Feed(Reader(), sharding.make_mesh((1, 1, 1), jax.devices()[:1]), 16)
    for _ in range(8):
        batch = fake(BatchShape(16, (256, 256, 16), ((8, 8),)))  # 64 MiB of latents
        assert all(array.is_ready() for array in jax.tree.leaves(given(batch)))


def test_a_step_is_told_of_as_soon_as_it_is_done(llms, data, tmp_path, monkeypatch):
    beaten, told = [], []
    queued = logbook.Logbook.queued
    monkeypatch.setattr(Pulse, "beat", lambda pulse, step: beaten.append(step))

    def then(self, step, *args):
        queued(self, step, *args)
        told.append((step, beaten[-1]))

    monkeypatch.setattr(logbook.Logbook, "queued", then)
    loop.train(tiny.config(llms[:1], steps=3, log_every=3), data, tmp_path / "run")
    assert told == [(1, 1), (2, 2), (3, 3)]
