"""Data sets made from tiny raw inputs: their configs, and how two of them are compared or broken."""

import filecmp
import json
import shutil

import msgpack
import numpy as np
from ml_collections import ConfigDict

from lidit_jax import files
from lidit_jax.data import records
from lidit_jax.training.config import parse
from tests import tiny, tiny_sources


def config_of(llms, source, options, **data):
    """Trains on 32 px squares, and bins around them, of a source of ten pictures."""
    c = tiny.config_dict(llms[:1])
    c.data.source, c.data.options = source, ConfigDict(options)
    c.data.size, c.data.bins, c.data.bin_step, c.data.min_bin = (32, 32), "grid33", 8, 1
    c.data.rules = ("R4-url", "R5-tags")
    c.data.update(data)
    c.train.steps, c.train.batch_size = 2, 8
    c.train.save_every = c.train.log_every = c.train.preview_every = 2
    return parse(c)


SOURCES = {
    "folder": lambda path: ("folder", {"path": str(tiny_sources.write_folder(path))}),
    "table": lambda path: ("folder", {"path": str(tiny_sources.write_table(path))}),
    "webdataset": lambda path: ("webdataset", {"path": str(tiny_sources.write_tars(path))}),
    "parquet": lambda path: ("parquet", {"path": str(tiny_sources.write_parquet(path))}),
    "tfds": lambda path: (
        "tfds",
        {"name": tiny_sources.write_tfds(path, captions=True), "data_dir": str(path)},
    ),
}


def whole(folder):
    """Every file of a data set, but what is never the same twice."""
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


def assert_same(one, other):
    assert whole(one) == whole(other)
    different = [f for f in whole(one) if not filecmp.cmp(one / f, other / f, shallow=False)]
    assert not different


def broken(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "broken")


def change_json(path, **entries):
    files.write_json(path, json.loads(path.read_text()) | entries)


def change_record(path, record, change):
    """Writes a file of records again, one of them as `change` makes it of its fields."""
    rows = records.Shards([path])
    packed = [rows[i] for i in range(len(rows))]
    del rows
    packed[record] = msgpack.packb(change(msgpack.unpackb(packed[record])))
    records.write_records(path, packed)


def not_finite(fields):
    """A record whose bf16 numbers hold an infinity."""
    numbers = np.frombuffer(fields["bf16"], np.uint16).copy()
    numbers[5] = 0xFF80
    return fields | {"bf16": numbers.tobytes()}


def flip(path, at):
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 16
    path.write_bytes(content)
