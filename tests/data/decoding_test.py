"""Pictures are decoded in order, wherever, and what cannot be has a reason."""

import numpy as np
import pytest

from lidit_jax import errors
from lidit_jax.data.decoding import Job, decoders
from lidit_jax.data.sources.images import Encoded, InMemory
from tests import tiny_sources


def jobs():
    """Good pictures, one that is cut, one of another size than told, one that is grey."""
    contents = [sample.content for sample in tiny_sources.SAMPLES]
    contents[3] = contents[3][: len(contents[3]) // 2]
    contents[5] = tiny_sources.encode(tiny_sources.picture(90, 90)[..., 0], "PNG")
    natural = [sample.size for sample in tiny_sources.SAMPLES]
    natural[4], natural[5] = (200, 81), None
    return [Job(Encoded(InMemory(c)), (32, 48), n) for c, n in zip(contents, natural)]


def test_reasons_and_notes_are_told():
    with decoders(0) as decode:
        found = list(decode(jobs()))
    assert [d.reason for d in found[3:6]] == ["image-truncated", "R3-size", None]
    assert found[5].notes == ("image-grey",)
    assert all(d.pixels_HxWx3.shape == (32, 48, 3) for d in found if not d.reason)
    assert sum(d.reason is None for d in found) == 8


def test_workers_give_what_one_process_gives_in_its_order():
    with decoders(0) as one, decoders(2) as two:
        here = list(one(jobs() * 5))
        there = list(two(jobs())) + list(two(jobs() * 4))  # one piece of a source after another
    assert [(d.reason, d.notes) for d in here] == [(d.reason, d.notes) for d in there]
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.pixels_HxWx3, other.pixels_HxWx3)


class Deadly:
    """A picture that takes its process with it."""

    def size(self):
        return (8, 8)

    def notes(self):
        import os

        os._exit(1)


def test_a_worker_that_dies_is_told():
    with (
        pytest.raises(errors.InputError, match="a decoding process died.* fewer than 1"),
        decoders(1) as decode,
    ):
        list(decode([Job(Deadly(), (8, 8))]))
