"""A network filesystem that does not answer ends what reads from it: nothing there is taken for damage."""

import errno
import os
import pathlib
import tarfile
import types

import pytest
from pyarrow import parquet

from lidit_jax import errors, pretrained, prompts
from lidit_jax.data import decoding, plan, sources
from lidit_jax.data.sources import images, paths
from lidit_jax.evaluation import pictures
from lidit_jax.preparation import verify
from lidit_jax.text import weights
from tests import tiny_sources


def fail(*_, **options):
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


MADE = {
    "folder": tiny_sources.write_folder,
    "webdataset": tiny_sources.write_tars,
    "parquet": tiny_sources.write_parquet,
}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("folder", (pathlib.Path, "read_bytes")),
        ("webdataset", (tarfile, "open")),
        ("parquet", (parquet, "ParquetFile")),
    ],
)
def test_captions_are_not_lost(name, place, tmp_path, monkeypatch):
    source = sources.make(name, path=str(MADE[name](tmp_path / "raw")))
    assert len(list(source.piece(0, 1))) == len(tiny_sources.SAMPLES)
    monkeypatch.setattr(*place, fail)
    with pytest.raises(OSError, match="Stale"):
        list(source.piece(0, 1))


def test_a_glob_is_not_taken_for_empty(tmp_path, monkeypatch):
    path = tiny_sources.write_tars(tmp_path / "raw") / "0*.tar"
    assert len(paths.find(path, ".tar", "webdataset")) == 2
    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(OSError, match="Stale"):
        paths.find(path, ".tar", "webdataset")


class Gone:
    open = fail


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_are_not_lost(workers):
    """Nor where other processes read them."""
    job = decoding.Job(images.Encoded(Gone()), (16, 16))
    with pytest.raises(OSError, match="Stale"), decoding.decoders(workers) as decode:
        list(decode([job] * 3))


def test_a_file_is_not_taken_for_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "stat", fail)
    with pytest.raises(OSError, match="Stale"):
        paths.fingerprint([tmp_path / "a"], tmp_path)


def failing(folder):
    """One that loads a model from a folder, as transformers does."""
    with pretrained.loading(folder):
        fail()


@pytest.mark.parametrize(
    ("read", "place"),
    [
        (lambda p: prompts.read(p / "a.txt"), (pathlib.Path, "read_text")),
        (lambda p: weights.locate(str(p), p), (pathlib.Path, "glob")),
        (
            lambda p: pictures.Picture(p / "a.png", "", 0, p).load(),
            (pictures.Image, "open"),
        ),
        (
            lambda p: plan.Plan.piece(types.SimpleNamespace(folder=p, pieces=1), 0),
            (plan.np, "load"),
        ),
        (lambda p: list(verify._told(map(fail, [0]), "a part")), None),
        (failing, None),
    ],
)
def test_it_may_pass(read, place, tmp_path, monkeypatch):
    (tmp_path / "config.json").touch()
    if place:
        monkeypatch.setattr(*place, fail)
    with pytest.raises((OSError, errors.InputError)) as found:
        read(tmp_path)
    assert errors.is_passing(found.value) and "delete" not in str(found.value)
