"""A file of ours is what was written, or it is told."""

import errno
import fcntl
import json
import os
import pathlib
import select
import subprocess
import sys

import numpy as np
import pytest

from lidit_jax import errors, files
from lidit_jax.models.vae import tensors

CONTENT = {"latent_mean": [0.1234, -5e-07], "count": 48, "who": {"中": None, "b": True}, "e": []}


@pytest.fixture
def path(tmp_path):
    files.write_json(tmp_path / "a.json", CONTENT)
    return tmp_path / "a.json"


def read(path):
    return files.read_json(path, "thing", remedy="make it again")


def test_what_is_written_is_read_whatever_the_order_and_the_spaces(path):
    assert read(path) == CONTENT
    found = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(dict(reversed(found.items())), indent=7))
    assert read(path) == CONTENT


def test_no_bit_can_change_a_value_unseen(path):
    """Every bit of the file, one at a time: the same content comes back, or an error that names the file."""
    content = path.read_bytes()
    for at in range(8 * len(content)):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            assert read(path) == CONTENT
        except errors.InputError as e:
            assert str(path) in str(e) and str(e).endswith("make it again")


def test_a_changed_digit_is_told_and_a_person_may_stand_for_it(path):
    path.write_text(path.read_text(encoding="utf-8").replace("0.1234", "0.1235"), encoding="utf-8")
    message = "a.json is damaged, .*: its content is not what was written .*put 'by hand' there"
    with pytest.raises(errors.InputError, match=message):
        read(path)
    changed = json.loads(path.read_text(encoding="utf-8")) | {"sealed": "by hand"}
    path.write_text(json.dumps(changed))
    assert read(path)["latent_mean"][0] == 0.1235


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_told(path, name):
    path.write_text(f'{{"guidance": {name}}}')
    with pytest.raises(
        errors.InputError, match=f"a.json is damaged, .*it contains {name}, which is"
    ):
        files.read_json(path, "thing", sealed=False)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EPERM])
def test_the_first_ones_file_stays_also_where_there_are_no_links(tmp_path, monkeypatch, number):
    def link(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    for content in ({"a": 1}, {"a": 2}):
        files.write_json(tmp_path / "x.json", content, first=True)
    assert files.read_json(tmp_path / "x.json", "thing") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_written(path, number, sealed):
    before = path.read_bytes()
    with pytest.raises(ValueError):
        files.write_json(path, {"a": [number]}, sealed=sealed)
    assert path.read_bytes() == before


def test_a_file_that_lacks_a_key_is_told(path):
    assert files.read_json(path, "thing", holds=("count", "who")) == CONTENT
    with pytest.raises(errors.InputError, match="a.json .*'gone'"):
        files.read_json(path, "thing", holds=("count", "gone"))


def test_a_file_without_a_hash_is_another_programs(path):
    path.write_text(json.dumps(CONTENT))
    assert files.read_json(path, "thing", sealed=False) == CONTENT
    with pytest.raises(errors.InputError, match="has no 'sealed', the sha256 of its content"):
        read(path)
    files.write_json(path, CONTENT, sealed=False)
    assert json.loads(path.read_text(encoding="utf-8")) == CONTENT


def test_written_again_it_has_a_hash_of_its_own(path):
    files.write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"count": 49})
    assert read(path) == CONTENT | {"count": 49}


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3), np.zeros((0, 4), np.float32)])
def test_an_array_is_what_was_written_or_it_is_told(array, tmp_path):
    path = tmp_path / "a.npy"
    files.write_npy(path, array)
    np.testing.assert_array_equal(files.read_npy(path), array)
    np.testing.assert_array_equal(np.load(path), array)  # as anybody reads one
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(errors.InputError, match="a.npy is missing or damaged .*; delete it"):
            files.read_npy(path)
    for cut in (0, 1, 40, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(errors.InputError, match="a.npy is missing or damaged"):
            files.read_npy(path)


@pytest.mark.parametrize("read", [files.read_npy, tensors.read])
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_a_filesystem_that_does_not_answer_is_no_missing_file(read, number, tmp_path, monkeypatch):
    """As one whose file has a bad sector is, which stays."""

    def fail(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pathlib.Path, "read_bytes", fail)
    with pytest.raises(OSError if number == errno.ESTALE else errors.InputError) as found:
        read(tmp_path / "a")
    assert errors.is_passing(found.value) == (number == errno.ESTALE)


def test_a_lock_is_waited_for_and_a_killed_process_lets_go_of_it(tmp_path):
    hold = f"from lidit_jax import files\nwith files.locked('{tmp_path}/a.lock'): print('held', flush=True); input()"
    code = [sys.executable, "-c", hold]
    with (
        subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first,
        subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second,
    ):
        ready, _, _ = select.select([first.stdout, second.stdout], [], [])
        holder, other = (first, second) if ready[0] is first.stdout else (second, first)
        assert not select.select([other.stdout], [], [], 5)[0]  # long enough to have started
        holder.kill()
        assert other.stdout.readline() == b"held\n"
        other.kill()


def test_where_there_are_no_locks_nothing_is_locked(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    with files.locked(tmp_path / "a.lock"), open(tmp_path / "b", "w") as f:
        assert files.take_lock(f)


def test_an_error_that_names_no_file_is_not_told_as_one_of_a_file():
    for number in (errno.EACCES, errno.ENOENT, errno.EADDRINUSE):
        assert errors.told(OSError(number, os.strerror(number))) is None
        assert "/a" in errors.told(OSError(number, os.strerror(number), "/a"))
    assert errors.told(OSError(errno.EDQUOT, "")).startswith("the disk is full; finished work")


def test_a_grid_has_every_picture_in_the_middle_of_its_cell():
    """Row by row, enlarged alike, as far as the tallest stays within the height."""
    sizes, columns, gap = [(10, 4), (6, 8), (3, 3), (10, 8), (1, 2)], 2, 3
    images = [np.full((*size, 3), 50 + k, np.uint8) for k, size in enumerate(sizes)]
    for height, zoom in ((29, 2), (30, 3), (5, 1)):
        grid = files.picture_grid(images, columns, height, gap)
        cell = np.array([10 * zoom + gap, 8 * zoom + gap])
        assert grid.shape == (*(np.array([3, 2]) * cell + gap), 3) and grid.dtype == np.uint8
        for k, size in enumerate(sizes):
            y, x = np.nonzero((grid == 50 + k).all(axis=-1))
            box = np.array([[y.min(), y.max() + 1], [x.min(), x.max() + 1]])
            np.testing.assert_array_equal(box[:, 1] - box[:, 0], np.array(size) * zoom)
            assert len(y) == size[0] * size[1] * zoom**2
            middle = gap + cell * divmod(k, columns) + (cell - gap) / 2
            assert np.abs(box.mean(axis=1) - middle).max() <= 0.5  # where a pixel is left over
        assert (grid == 128).all(axis=-1).sum() == grid[..., 0].size - zoom**2 * sum(
            h * w for h, w in sizes
        )
