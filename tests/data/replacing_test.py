"""A sample that cannot be read is replaced: by the same one whoever reads it, and nothing else changes."""

import re

import jax
import numpy as np
import pytest

from lidit_jax import errors
from lidit_jax.data import pipeline
from lidit_jax.training.inputs import open_inputs
from tests.tiny_prepared import broken, change_record, flip, not_finite

LATENTS, FEATURES = "latents-00001*", "features-00000*.array_record"


def opened(config, folder):
    return open_inputs(config, folder)[1]


def flip_a_byte(path, record):
    """Damages some record: a byte of a file's first third, which holds nothing else."""
    used = [at for at, byte in enumerate(path.read_bytes()) if byte]
    flip(path, used[len(used) // 3])


def with_field(name, value):
    return lambda path, k: change_record(path, k, lambda fields: fields | {name: value})


DAMAGE = {
    "a latent's byte": (LATENTS, flip_a_byte, "is damaged .*hash mismatch"),
    "a latent's infinity": (LATENTS, lambda p, k: change_record(p, k, not_finite), "not finite"),
    "a latent's shape": (LATENTS, with_field("shape", [8, 32, 3]), r"shape \(8, 32, 3\), not"),
    "a field": (LATENTS, with_field("captions", 3), "not a picture record"),
    "a caption's name": (LATENTS, with_field("captions", ["a"]), "not a picture record"),
    "another field": (LATENTS, with_field("caption", 3), "not a picture record"),
    "no record": (LATENTS, lambda p, k: change_record(p, k, lambda f: [1]), "not a picture record"),
    "no caption": (
        LATENTS,
        lambda p, k: change_record(p, k, lambda f: f | {"captions": [], "synthetic": []}),
        "has no caption",
    ),
    "a caption id": (
        LATENTS,
        lambda p, k: change_record(p, k, lambda f: f | {"captions": [-1], "synthetic": [64]}),
        "has 64 captions, but none with id",
    ),
    "a feature's byte": (FEATURES, flip_a_byte, "features: .*is damaged"),
    "a feature's infinity": (FEATURES, lambda p, k: change_record(p, k, not_finite), "not finite"),
    "no token": (
        FEATURES,
        lambda p, k: change_record(p, k, lambda f: {"shape": [0, 16], "bf16": b""}),
        r"features of shape \(0, 16\)",
    ),
    "another width": (FEATURES, with_field("shape", [-1, 8]), "features of shape"),
    "no features": (FEATURES, lambda p, k: change_record(p, k, lambda f: {}), "not a features record"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_only_what_cannot_be_read_is_replaced(damage, config, data, tmp_path):
    pattern, breaking, why = DAMAGE[damage]
    folder = broken(data, tmp_path)
    path = next(folder.rglob(pattern))
    breaking(path, 3)
    sound, reader = opened(config, data), opened(config, folder)
    samples = [(row, 0) for row in range(48)]
    wanted, drawn = sound.drawn(samples), reader.drawn(samples)
    assert not wanted.replaced and 1 <= len(drawn.replaced) <= 8
    rows = np.arange(48)
    for r in drawn.replaced:
        assert (r.place, r.row) == (r.row, r.row) and r.used != r.row
        rows[r.row] = r.used
        assert re.search(why, r.why), r.why
    np.testing.assert_array_equal(drawn.batch.row_B, rows)
    if pattern == LATENTS:
        (replaced,) = drawn.replaced
        assert replaced.row == 24 + 3 or breaking is flip_a_byte and replaced.row >= 24
    same = sound.batch([(int(row), 0) for row in rows])
    jax.tree.map(np.testing.assert_array_equal, drawn.batch, same)


def test_batches_and_what_was_replaced_do_not_depend_on_who_reads(config, poor):
    bad = set(range(25, 34))
    whole = pipeline.batches(opened(config, poor), 8, threads=1)
    parts = [
        pipeline.batches(opened(config, poor), 8, rows=rows, threads=3)
        for rows in (np.arange(4), np.arange(4, 8))
    ]
    order, seen = pipeline.Order(opened(config, poor), 8), set()
    for before in range(12):
        drawn, halves = next(whole), [next(part) for part in parts]
        joined = jax.tree.map(lambda *a: np.concatenate(a), *(half.batch for half in halves))
        jax.tree.map(np.testing.assert_array_equal, drawn.batch, joined)
        assert drawn.replaced == sum((half.replaced for half in halves), ())
        due = [row for row, _ in order.samples(before)]
        assert [r.row for r in drawn.replaced] == [row for row in due if row in bad]
        used = {r.place: r.used for r in drawn.replaced}
        now = [used.get(place, row) for place, row in enumerate(due)]
        assert drawn.batch.row_B.tolist() == now and not bad & set(now)
        seen |= {(r.row, r.used) for r in drawn.replaced}
    assert len(seen) == len(bad) == len(dict(seen))  # a row has the same one each time
    assert len(dict(seen).values()) > 5  # and not all have one


def test_a_row_of_another_bin_never_stands_in(config, data, tmp_path):
    """The picture has another size there."""
    folder = broken(data, tmp_path)
    change_record(next(folder.rglob(LATENTS)), 20, not_finite)
    reader = opened(config, folder)
    dataset = reader.dataset
    # As if there were two bins.
    dataset.counts, dataset._ends = [40, 8], [40, 48]
    dataset.latent_shapes *= 2
    for seed in range(20):
        (found,) = pipeline.Reader(dataset, reader.stores, seed).drawn([(44, 0)]).replaced
        assert 40 <= found.used < 48 and found.used != 44


def test_where_nothing_can_be_read_it_is_told(config, data, tmp_path):
    folder = broken(data, tmp_path)
    store = next(folder.rglob(FEATURES)).parent
    reader = opened(config, folder)
    for path in store.glob("*.array_record"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(errors.InputError, match="features-0.* is damaged .* none of 100 other"):
        next(pipeline.batches(reader, 8))
    with pytest.raises(errors.InputError, match="features-0.* is damaged"):
        reader.readable([0, 1])


def test_the_key_of_a_row_is_told_as_far_as_it_is_known(config, poor, data, tmp_path):
    reader, sound = opened(config, poor), opened(config, data)
    assert [reader.key(row) for row in range(48)] == [sound.key(row) for row in range(48)]
    assert len({sound.key(row) for row in range(48)}) == 48
    folder = broken(data, tmp_path)
    flip_a_byte(next(folder.rglob(LATENTS)), 0)
    reader = opened(config, folder)
    (replaced,) = reader.drawn([(row, 0) for row in range(48)]).replaced
    assert reader.key(replaced.row) == replaced.key == f"row {replaced.row} (unreadable)"


def test_shapes_are_foretold_and_prompts_shown_without_the_record_that_is_damaged(config, data, tmp_path):  # fmt: skip
    folder = broken(data, tmp_path)
    preview = opened(config, data).dataset.info["preview"]
    for path in (next(folder.rglob("latents-00000*")), *folder.rglob(FEATURES)):
        change_record(path, 0, not_finite)
    reader = opened(config, folder)
    assert reader.specs(8, 0, 4) == opened(config, data).specs(8, 0, 4)
    assert reader.readable([0, *preview, 1]) == [c for c in (*preview, 1) if c]
