"""What is said of a chip agrees with what its compiler is told, and with its kind."""

import re

from lidit_jax.benchmarking.chips import CHIPS


def test_a_gpus_programs_get_most_of_its_memory_and_not_all():
    gpus = [chip for chip in CHIPS.values() if chip.described]
    assert len(gpus) == 2
    for chip in gpus:
        (memory,) = re.findall(r"device_memory_size: (\d+)", chip.described)
        assert 0.9 < chip.memory / int(memory) < 1


def test_other_machines_are_reached_more_slowly_than_neighbours():
    assert all(0 < chip.far < chip.link for chip in CHIPS.values() if chip.joined)
