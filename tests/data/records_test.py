"""Records: what is written comes back, whole or not at all."""

import concurrent.futures
import errno
import os
import resource
import subprocess
import sys
import types

import numpy as np
import pytest

from lidit_jax import errors, files
from lidit_jax.data import records
from lidit_jax.share import bounds


def test_an_image_record_round_trips_at_bf16():
    latent = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    record = records.ImageRecord("k", latent, (3, 5), (7,), {"a": [1]})
    back = records.unpack_image(records.pack_image(record))
    assert (back.key, back.captions, back.synthetic) == ("k", (3, 5), (7,))
    assert back.metadata == {"a": [1]}
    np.testing.assert_allclose(back.latent_HxWxC, latent, rtol=2**-8)
    assert back.latent_HxWxC.dtype == np.float32


@pytest.mark.parametrize(("count", "shards"), [(10, 3), (2, 4), (12, 4)])
def test_shards_cover_everything_once(count, shards):
    ranges = [bounds(count, i, shards) for i in range(shards)]
    assert [i for r in ranges for i in r] == list(range(count))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def test_records_are_read_at_random_and_a_missing_shard_is_named(tmp_path):
    paths = [records.shard_path(tmp_path, "x", i, 2) for i in range(2)]
    records.write_records(paths[0], [b"a", b"b"])
    records.write_records(paths[1], [b"c"])
    rows = records.Shards(paths)
    assert [rows[i] for i in (2, 0, 1)] == [b"c", b"a", b"b"]
    paths[1].unlink()
    with pytest.raises(
        errors.InputError, match="x-00001-of-00002.array_record is missing; run `prepare` again"
    ):
        records.Shards(paths)


def test_a_failed_write_leaves_nothing(tmp_path):
    def failing():
        yield b"a"
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        records.write_records(tmp_path / "x.array_record", failing())
    assert list(tmp_path.iterdir()) == []


def test_as_many_files_are_open_as_all_of_a_data_set_has(tmp_path):
    """Pictures and features are read apart from one another, and all of them held open."""
    paths = [tmp_path / f"{i}.array_record" for i in range(2)]
    for path in paths:
        records.write_records(path, [b"a"])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        for path in paths:
            records.Shards([path])
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, files.UNLIMITED)
        assert hard > 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_threads_read_one_file_at_once(tmp_path):
    paths = [tmp_path / f"{i}.array_record" for i in range(2)]
    for i, path in enumerate(paths):
        records.write_records(path, (b"%d" % (i * 500 + k) for k in range(500)))
    rows = records.Shards(paths)
    wanted = np.random.default_rng(0).integers(0, 1000, 4000).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(rows.__getitem__, wanted)) == [b"%d" % i for i in wanted]
    for row in (-1, 1000):
        with pytest.raises(IndexError):
            rows[row]


def test_a_file_too_many_is_no_damaged_record(tmp_path):
    records.write_records(tmp_path / "x.array_record", [b"a"])
    code = f"""
import pathlib, resource
from lidit_jax import errors
from lidit_jax.data import records
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    records.Shards([pathlib.Path("{tmp_path}/x.array_record")])
except errors.InputError as e:
    print(e)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "more open files (1 in one part of it) than the system allows; raise" in told.stdout, (
        told
    )


def test_a_filesystem_that_does_not_answer_is_no_damaged_record(tmp_path, monkeypatch):
    path = tmp_path / "x.array_record"
    records.write_records(path, [b"a"])
    rows = records.Shards([path])

    def gone(*_, **options):
        raise RuntimeError(f"Failed to read {path}: {os.strerror(errno.ESTALE)}")

    monkeypatch.setattr(records, "_opened", gone)
    monkeypatch.setattr(rows, "_readers", [types.SimpleNamespace(read=gone)])
    for read in (lambda: rows[0], lambda: records.Shards([path])):
        with pytest.raises(errors.Passing, match=f"cannot read {path}: .*Stale file handle"):
            read()


def test_what_is_being_written_is_no_leftover(tmp_path):
    """Of another process, that was told to make the same."""
    path, left = tmp_path / "a.array_record", tmp_path / ".a.array_record.0a1b2c3d.tmp"
    left.touch()
    with records.writing(path) as writer:
        files.remove_leftovers(path)
        assert not left.exists()
        writer.write(b"a")
    assert records.Shards([path])[0] == b"a" and list(tmp_path.iterdir()) == [path]
