"""Whatever a disk does to a file of a data set: the file is named, or a sample is replaced, or nothing differs."""

import hashlib
import random

import jax
import numpy as np
import pytest

from lidit_jax import errors, prompts
from lidit_jax.data import dataset, plan, records
from lidit_jax.preparation import features, images
from lidit_jax.training.inputs import open_inputs
from tests.tiny_prepared import broken

KINDS = (
    "dataset.json",
    "recipe.json",
    "plan.json",
    "plan/piece-00000-of-00002.npz",
    "captions.array_record",
    "prompts.jsonl",
    "images/piece-00000-of-00002.json",
    "images/16x16/latents-00001-of-00002.array_record",
    "features/*/recipe.json",
    "features/*/encoder.json",
    "features/*/prefix.npy",
    "features/*/null.npy",
    "features/*/features-00000-of-00002.json",
    "features/*/features-00000-of-00002.array_record",
)
REPLACED = ("latents", "features")  # kinds whose records are samples


def fingerprint(config, folder):
    """Returns a hash of all that a data set is read for, and what was replaced on the way.

    Raises InputError where opening or reading does.
    """
    measured, reader, constants = open_inputs(config, folder)
    found = hashlib.sha256(repr(measured).encode())
    rows = range(len(reader.dataset))
    drawn = [reader.drawn([(row, epoch)]) for epoch in range(2) for row in rows]
    for array in jax.tree.leaves((constants, [d.batch for d in drawn])):
        found.update(np.asarray(array).tobytes())
    captions = reader.dataset.captions
    found.update(repr([captions[i] for i in range(len(captions))]).encode())
    found.update(repr(_what_prepare_reads(config, folder)).encode())
    return found.hexdigest(), [r for d in drawn for r in d.replaced]


def _what_prepare_reads(config, folder):
    """And what `sample` does."""
    planned = plan.Plan(folder)
    judged = prompts.read(folder / "prompts.jsonl")
    plan.check_prompts(folder / "prompts.jsonl")
    pieces = [planned.piece(i) for i in range(planned.pieces)]
    markers = [
        images.read_marker(dataset.image_marker(folder, i, planned.pieces))
        for i in range(planned.pieces)
    ]
    for encoder in config.encoders:
        store, shards = features.store_folder(planned, encoder), features.shard_count(planned)
        markers.append(dataset.read_recipe(store))
        markers += [
            features.read_marker(dataset.feature_path(store, i, shards)) for i in range(shards)
        ]
    arrays = [array.tobytes() for piece in pieces for array in vars(piece).values()]
    return judged, arrays, planned.info, markers


def damages(content, flips, rng):
    """Yields a name and what is left of a file's content; None where it is gone."""
    written = [at for at, byte in enumerate(content) if byte]
    for _ in range(flips):
        at = rng.choice(written)
        yield f"bit of byte {at}", content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]
    page = rng.randrange(-(-len(content) // 4096)) * 4096
    after = content[page + 4096 :]
    yield f"page at {page}", content[:page] + bytes(len(content) - page - len(after)) + after
    yield "end", content[: -min(len(content), 5000)] + bytes(min(len(content), 5000))
    for size in (len(content) - 1, len(content) // 2, 0):
        yield f"cut to {size}", content[:size]
    yield "gone", None


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    return broken(data, tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def sound(config, folder):
    found, replaced = fingerprint(config, folder)
    assert not replaced
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told_or_replaced_or_changes_nothing(kind, config, folder, sound):
    path = next(folder.glob(kind))
    content, outcomes = path.read_bytes(), set()
    for name, left in damages(content, 3, random.Random(kind)):
        path.unlink()
        if left is not None:
            path.write_bytes(left)
        try:
            found, replaced = fingerprint(config, folder)
            assert all(f"{path.parent.name}/{path.name}" in r.why for r in replaced), name
            assert not replaced or path.name.startswith(REPLACED), name
            assert replaced or found == sound, f"{kind}, {name}: other numbers, and nothing is told"
            outcomes.add("replaced" if replaced else "same")
        except errors.InputError as e:
            assert path.name in str(e), f"{name}: {e}"
            outcomes.add("told")
        finally:
            path.write_bytes(content)
    assert "told" in outcomes


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("array_record")])
def test_a_file_of_records_that_is_not_whole_is_told_before_training(kind, config, folder):
    path = next(folder.glob(kind))
    content = path.read_bytes()
    end = content[:-70_000] + bytes(70_000)
    for left in (content[:-1], content[: len(content) // 2], b"", end, content + b"\0", None):
        path.unlink()
        if left is not None:
            path.write_bytes(left)
        try:
            with pytest.raises(
                errors.InputError, match=f"{path.name} is (damaged|missing).*prepare"
            ):
                open_inputs(config, folder)
        finally:
            path.write_bytes(content)


def test_a_whole_file_of_fewer_records_is_told_too(config, data, tmp_path):
    """Its rows would be taken for others'."""
    for i, kind in enumerate(kind for kind in KINDS if kind.endswith("array_record")):
        folder = broken(data, tmp_path / f"{i}")
        path = next(folder.glob(kind))
        rows = records.Shards([path])
        records.write_records(path, [rows[i] for i in range(len(rows) - 1)])
        with pytest.raises(
            errors.InputError, match=rf"{path.name} is damaged \(it has \d+ records, but"
        ):
            open_inputs(config, folder)
