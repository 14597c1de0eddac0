"""On disk: what is written comes back, whole or not at all, and only to who asks rightly."""

import numpy as np
import pytest

from lidit_jax import errors, files
from lidit_jax.data import records


def test_an_image_record_round_trips_at_bf16():
    latent = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    record = records.ImageRecord("k", latent, (3, 5), {"a": [1]})
    back = records.unpack_image(records.pack_image(record))
    assert (back.key, back.captions, back.metadata) == ("k", (3, 5), {"a": [1]})
    np.testing.assert_allclose(back.latent_HxWxC, latent, rtol=2**-8)
    assert back.latent_HxWxC.dtype == np.float32


def test_features_round_trip():
    hidden = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    back, truncated = records.unpack_features(records.pack_features(hidden, True))
    np.testing.assert_allclose(back, hidden, rtol=2**-8)
    assert truncated is True


@pytest.mark.parametrize(("count", "shards"), [(10, 3), (2, 4), (12, 4)])
def test_shards_cover_everything_once(count, shards):
    ranges = records.shard_ranges(count, shards)
    assert [i for r in ranges for i in r] == list(range(count))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def test_records_are_read_at_random_and_a_missing_shard_is_named(tmp_path):
    paths = records.shard_paths(tmp_path, "x", 2)
    records.write_records(paths[0], [b"a", b"b"])
    records.write_records(paths[1], [b"c"])
    rows = records.read_shards(paths)
    assert [rows[i] for i in (2, 0, 1)] == [b"c", b"a", b"b"]
    paths[1].unlink()
    with pytest.raises(
        errors.InputError, match="x-00001-of-00002.array_record is missing; run `prepare` again"
    ):
        records.read_shards(paths)


def test_a_failed_write_leaves_nothing(tmp_path):
    def failing():
        yield b"a"
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        records.write_records(tmp_path / "x.array_record", failing())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_belongs_to_one_recipe(tmp_path):
    folder = tmp_path / "set"
    records.claim(folder, {"size": [32, 32], "source": "shapes"})
    records.claim(folder, {"size": [32, 32], "source": "shapes"})
    with pytest.raises(errors.InputError, match=r"size is \[32, 32\], the config wants \[64, 64\]"):
        records.claim(folder, {"size": [64, 64], "source": "shapes"})
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    with pytest.raises(errors.InputError, match="is not empty and holds no data set"):
        records.claim(other, {})


@pytest.mark.parametrize("what", ["dataset.json", "encoder.json"])
def test_another_format_is_refused(tmp_path, what):
    files.write_json(tmp_path / what, {"format": 99})
    opened = records.Dataset if what == "dataset.json" else records.FeatureStore
    with pytest.raises(errors.InputError, match="format 99, this version reads 1"):
        opened(tmp_path)


def test_no_data_set_says_what_to_run(tmp_path):
    with pytest.raises(errors.InputError, match="run `prepare` first"):
        records.Dataset(tmp_path / "nothing")


def test_channel_statistics_equal_numpy():
    arrays = [np.random.default_rng(i).normal(5, 2, size=(4, 3, 2)) for i in range(6)]
    mean, std = records.channel_statistics(iter(arrays))
    flat = np.concatenate([a.reshape(-1, 2) for a in arrays])
    np.testing.assert_allclose(mean, flat.mean(0))
    np.testing.assert_allclose(std, flat.std(0))
