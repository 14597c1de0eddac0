"""Images and captions of a source with changed bytes, for each way that a source stores them."""

import json
import pathlib
import random
import tarfile

from lidit_jax.data import decoding, filters, planning, sources
from lidit_jax.data.sources import images
from lidit_jax.data.sources.example import Example
from lidit_jax.preparation import recipe_of
from lidit_jax.preparation.images import planned
from lidit_jax.training.config import parse
from tests import tiny_sources
from tests.faults.given.configs import put
from tests.faults.given.given import Given
from tests.faults.given.world import World

FORMATS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
}
COUNT = 12
CAPTIONS = (b"", b"\xff\xfe\x00", b"\0" * 10, b"a", b"{", b"[" * 100_000, b'{"caption": 5}', b'{"caption": [null, "a"]}', b'{"caption": "\\ud800"}',
    b'{"caption": "a", "width": "x", "height": -1}', b'{"caption": "a", "aesthetic": "NaN", "width": 1e999}', b'{"caption": NaN}', b"9" * 5000)  # fmt: skip


def give(rng: random.Random, world: World, scratch: pathlib.Path) -> Given:
    """Returns a source of images, most of them changed, to plan and decode."""
    kind = rng.choice(["folder", "folder", "table", "webdataset", "parquet"])
    raw, data = scratch / "raw", scratch / "data"
    raw.mkdir()
    rows, told = [], []
    for k in range(COUNT):
        format = rng.choice(list(FORMATS))
        picture = tiny_sources.picture(rng.randrange(2, 40), rng.randrange(2, 40))
        content = tiny_sources.encode(picture, format)
        caption = b"a heart" if rng.random() < 0.7 else rng.choice(CAPTIONS)
        if k:
            content, how = changed(rng, content)
            told.append(f"{format} {how}")
        rows.append((f"{k:04d}", FORMATS[format], content, caption))
    whole = WRITERS[kind](raw, rows)
    if rng.random() < 0.3:
        file = rng.choice(whole)
        content, how = changed(rng, file.read_bytes())
        file.write_bytes(content)
        told = [f"{file.name} {how}", *told]
    name = "folder" if kind == "table" else kind
    c = world.config_dict()
    put(c, "data.source", name)
    put(c, "data.options", {"path": str(raw)})
    put(c, "data.rules", tuple(rng.sample(sorted(filters.RULES), 3)))
    config = parse(c)
    return Given(
        told=f"{kind}: {'; '.join(told)}"[:300],
        names=(str(raw), "picture", *(f.name for f in whole)),
        act=lambda: _decoded(config, data),
        kept=(raw,),
    )


def changed(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Returns the bytes changed in a random way, and a description of the change."""
    way = rng.choice(
        ["flip", "flips", "cut", "zero", "append", "insert", "random", "empty", "header"]
    )
    at = rng.randrange(len(content)) if content else 0
    new = bytearray(content)
    match way:
        case "flip" if content:
            new[at] ^= 1 << rng.randrange(8)
        case "flips" if content:
            for _ in range(20):
                new[rng.randrange(len(new))] = rng.randrange(256)
        case "cut":
            new = new[:at]
        case "zero":
            new[at : at + 500] = bytes(len(new[at : at + 500]))
        case "append":
            new += rng.randbytes(1000)
        case "insert":
            new[at:at] = rng.randbytes(7)
        case "random":
            new = bytearray(rng.randbytes(300))
        case "empty":
            new = bytearray()
        case "header" if content:
            at = rng.randrange(min(64, len(new)))
            new[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
    return bytes(new), f"{way} at {at}"


def _write_folder(raw, rows) -> list[pathlib.Path]:
    found = []
    for key, suffix, content, caption in rows:
        (raw / (key + suffix)).write_bytes(content)
        beside = raw / (key + (".json" if caption[:1] in b"{[9" and caption else ".txt"))
        beside.write_bytes(caption)
        found.append(beside)
    return found


def _write_table(raw, rows) -> list[pathlib.Path]:
    lines = []
    for key, suffix, content, caption in rows:
        (raw / (key + suffix)).write_bytes(content)
        text = caption.decode("latin-1")
        lines.append(json.dumps({"file_name": key + suffix, "caption": text, "width": text}))
    path = raw / "metadata.jsonl"
    path.write_text("\n".join(lines))
    return [path]


def _write_tars(raw, rows) -> list[pathlib.Path]:
    paths = []
    for t in range(2):
        path = raw / f"{t:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for key, suffix, content, caption in rows[t::2]:
                tiny_sources.add(tar, key + suffix, content)
                tiny_sources.add(tar, key + (".json" if caption[:1] == b"{" else ".txt"), caption)
        paths.append(path)
    return paths


def _write_parquet(raw, rows) -> list[pathlib.Path]:
    import pyarrow
    from pyarrow import parquet

    paths = []
    for t in range(2):
        mine = rows[t::2]
        path = raw / f"{t:05d}.parquet"
        table = pyarrow.table(
            {
                "image": [
                    {"bytes": content, "path": key + suffix} for key, suffix, content, _ in mine
                ],
                "caption": [caption.decode("latin-1") for *_, caption in mine],
            }
        )
        parquet.write_table(table, path, row_group_size=3)
        paths.append(path)
    return paths


WRITERS = {
    "folder": _write_folder,
    "table": _write_table,
    "webdataset": _write_tars,
    "parquet": _write_parquet,
}


def _decoded(config, data: pathlib.Path):
    """Plans the source and decodes what is kept. Every rejection must have a known reason."""
    source = sources.make(config.data.source, **config.data.options)
    for row in source.piece(0, 1):
        if isinstance(row, Example):
            _decode(decoding.Job(row.picture, (16, 16)))
    plan = planning.make(source, recipe_of(config), data)
    for piece in range(plan.pieces):
        for _, job in planned(source, plan, piece):
            _decode(job)


def _decode(job: decoding.Job):
    found = decoding.decode(job)
    assert found.reason in (*images.REASONS, "R3-size", None), found.reason
    assert found.reason or found.pixels_HxWx3.shape == (*job.size, 3)
