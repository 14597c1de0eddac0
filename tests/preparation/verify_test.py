"""Every kind of damage is told, and what is missing is made again."""

import json
import re

import msgpack
import numpy as np
import pytest

from lidit_jax import errors, files, preparation
from lidit_jax.data import records
from lidit_jax.data.dataset import Dataset
from lidit_jax.preparation import verify
from lidit_jax.training.inputs import open_inputs
from tests.tiny_prepared import assert_same, broken, change_json, change_record, config_of, flip


def flip_a_byte(folder):
    path = next(folder.rglob("latents-00001*"))
    flip(path, path.stat().st_size // 2)


def rewrite_a_record(folder, change):
    """A picture that was written wrong, with the checksum of what was written."""
    path = next(folder.rglob("latents-00001*"))
    rows = records.Shards([path])
    images = [records.unpack_image(rows[i]) for i in range(len(rows))]
    images[0] = records.ImageRecord(**vars(images[0]) | change(images[0]))
    del rows
    records.write_records(path, map(records.pack_image, images))
    marker = folder / "images" / "piece-00001-of-00003.json"
    text = json.loads(marker.read_text())
    bin = [f"{h}x{w}" for h, w in json.loads((folder / "plan.json").read_text())["bins"]].index(
        path.parent.name
    )
    text["sha256"][bin] = files.checksum(path)
    files.write_json(marker, text)


def poison_features(folder):
    path = next(folder.rglob("features-00000*.array_record"))
    rows = records.Shards([path])
    packed = [msgpack.unpackb(rows[i]) for i in range(len(rows))]
    numbers = np.frombuffer(packed[0]["bf16"], np.uint16).copy()
    numbers[3] = 0x7FC0  # NaN
    packed[0]["bf16"] = numbers.tobytes()
    del rows
    records.write_records(path, map(msgpack.packb, packed))
    change_json(path.with_suffix(".json"), sha256=files.checksum(path))


def part_of(latent_HxWxC):
    """Of the right shape, but three eighths as high, which is no whole part of the bin."""
    height, width = (side // 8 * 3 for side in latent_HxWxC.shape[:2])
    return latent_HxWxC[:height, :width]


def empty_a_caption(folder):
    change_record(folder / "captions.array_record", 2, lambda fields: fields | {"text": " \n"})


PROBLEMS = {
    "a changed byte": (flip_a_byte, r"latents-00001.*its checksum is not the one"),
    "NaN": (
        lambda f: rewrite_a_record(f, lambda r: {"latent_HxWxC": r.latent_HxWxC * np.nan}),
        "has a latent that is not finite",
    ),
    "a shape": (
        lambda f: rewrite_a_record(f, lambda r: {"latent_HxWxC": r.latent_HxWxC[:-8]}),
        r"a latent of \d+ x \d+ in bin",
    ),
    "a scale": (
        lambda f: rewrite_a_record(f, lambda r: {"latent_HxWxC": part_of(r.latent_HxWxC)}),
        r"a latent of \d+ x \d+ in bin",
    ),
    "an empty caption": (empty_a_caption, "caption 2 is empty"),
    "long features": (
        lambda f: change_json(next(f.rglob("encoder.json")), longest=1),
        "caption 0 has features of shape",
    ),
    "a caption id": (
        lambda f: rewrite_a_record(f, lambda r: {"captions": (999,), "synthetic": ()}),
        r"its caption ids are \(999,\), but there are",
    ),
    "a shard": (
        lambda f: next(f.rglob("latents-00002*")).unlink(),
        "piece 2 of the pictures is not complete",
    ),
    "statistics": (
        lambda f: change_json(f / "dataset.json", latent_mean=[1.0, 1.0, 1.0]),
        "dataset.json: its statistics are not those",
    ),
    "a marker": (
        lambda f: (f / "images" / "piece-00001-of-00003.json").write_text("{"),
        "piece 1 of the pictures cannot be read: .*is damaged",
    ),
    "a count": (
        lambda f: change_json(f / "dataset.json", count=3),
        "dataset.json counts",
    ),
    "a piece of the plan": (
        lambda f: next((f / "plan").glob("piece-00001*")).unlink(),
        "a file of the plan is missing",
    ),
    "captions": (
        lambda f: records.write_records(f / "captions.array_record", []),
        "captions.array_record",
    ),
    "features": (poison_features, "the features of caption 0 are not finite"),
    "a feature shard": (
        lambda f: next(f.rglob("features-00001*.json")).unlink(),
        "shard 1 is not complete",
    ),
    "the instruction": (
        lambda f: next(f.rglob("prefix.npy")).write_bytes(b""),
        "prefix.npy cannot be read",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_verify_tells_a_problem(problem, prepared, tmp_path):
    folder = broken(prepared, tmp_path)
    breaking, message = PROBLEMS[problem]
    breaking(folder)
    found = verify.verify(folder)
    assert any(re.search(message, line) for line in found), found


def test_verify_finds_nothing_in_a_sound_set_and_everything_in_a_broken_one(prepared, tmp_path):
    assert verify.verify(prepared) == []
    folder = broken(prepared, tmp_path)
    PROBLEMS["NaN"][0](folder)
    PROBLEMS["features"][0](folder)
    assert len(verify.verify(folder)) >= 2


def test_what_a_damaged_piece_holds_is_not_missed_in_the_counts_too(prepared, tmp_path):
    """Nor in the statistics, which are of all pieces."""
    folder = broken(prepared, tmp_path)
    flip_a_byte(folder)
    (problem,) = verify.verify(folder)
    assert "latents-00001" in problem


@pytest.mark.parametrize("channel", range(3))
def test_a_std_that_is_not_of_what_is_stored_is_told_of_every_channel(channel, prepared, tmp_path):
    folder = broken(prepared, tmp_path)
    std_C = json.loads((folder / "dataset.json").read_text())["latent_std"]
    for factor in (0.5, 5):
        wrong_C = [s * factor if c == channel else s for c, s in enumerate(std_C)]
        change_json(folder / "dataset.json", latent_std=wrong_C)
        (problem,) = verify.verify(folder)
        assert "dataset.json: its statistics are not those of what is stored" in problem


def test_a_channel_that_never_varies_is_no_problem(llms, tmp_path):
    """Though bf16, in which latents are stored, does not have its value."""
    for k in range(8):
        image = np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        image[..., 2] = 77
        files.write_png(tmp_path / "raw" / f"{k}.png", image)
        (tmp_path / "raw" / f"{k}.txt").write_text(f"noise {k}")
    options = {"path": str(tmp_path / "raw")}
    preparation.prepare(config_of(llms, "folder", options), tmp_path / "set")
    assert verify.verify(tmp_path / "set") == []
    change_json(tmp_path / "set" / "dataset.json", latent_mean=[0.0, 0.0, -0.3])
    (problem,) = verify.verify(tmp_path / "set")
    assert "its statistics are not those of what is stored" in problem


def test_what_is_missing_is_made_again_to_the_same_bytes(config, prepared, tmp_path):
    folder = broken(prepared, tmp_path)
    next(folder.rglob("latents-00002*")).unlink()
    next(folder.rglob("features-00001*.array_record")).unlink()
    preparation.prepare(config, folder)
    assert_same(prepared, folder)


@pytest.mark.parametrize("pattern", ["latents-00001*", "features-00001*.array_record", "captions*"])
@pytest.mark.parametrize("how", ["cut", "changed"])
def test_reading_what_is_damaged_is_one_error_that_says_what_to_do(pattern, how, config, prepared, tmp_path):  # fmt: skip
    folder = broken(prepared, tmp_path)
    path = next(folder.rglob(pattern))
    content = bytearray(path.read_bytes())
    content[100:] = b"" if how == "cut" else bytes(b ^ 255 for b in content[100:])
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match="is damaged .*(prepare|verify)"):
        found = Dataset(folder)
        store = found.features(config.encoders[0].store)
        for i in range(len(found)):
            found.image(i)
        for i in range(len(store)):
            store[i], found.captions[i]


def test_the_instructions_features_are_made_again(config, prepared, tmp_path):
    folder = broken(prepared, tmp_path)
    lost = next(folder.rglob("prefix.npy"))
    lost.write_bytes(b"")
    with pytest.raises(errors.InputError, match="prefix.npy is missing or damaged .*; delete it"):
        open_inputs(config, folder)
    lost.unlink()
    preparation.prepare(config, folder)
    assert_same(prepared, folder)
