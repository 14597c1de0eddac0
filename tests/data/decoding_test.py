"""Pictures are decoded in order, wherever, and what cannot be has a reason."""

import numpy as np
import pytest

from lidit_jax import errors
from lidit_jax.data.decoding import Job, decode_all
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
    found = list(decode_all(jobs(), 0))
    assert [d.reason for d in found[3:6]] == ["image-truncated", "R3-size", None]
    assert found[5].notes == ("image-grey",)
    assert all(d.pixels_HxWx3.shape == (32, 48, 3) for d in found if not d.reason)
    assert sum(d.reason is None for d in found) == 8


def test_workers_give_what_one_process_gives_in_its_order():
    here, there = list(decode_all(jobs() * 5, 0)), list(decode_all(jobs() * 5, 2))
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
    with pytest.raises(errors.InputError, match="a decoding process died.* fewer than 1"):
        list(decode_all([Job(Deadly(), (8, 8))], 1))
