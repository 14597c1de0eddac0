"""Raw inputs of every kind, tiny but real: the same ten pictures and captions in a folder, with a
table, in tars, in Parquet files, and as a set of TensorFlow Datasets."""

import dataclasses
import io
import json
import pathlib
import tarfile
from typing import Any

import numpy as np
from PIL import Image

from lidit_jax.data import sources


@dataclasses.dataclass(frozen=True)
class Sample:
    """One picture as JPEG or PNG of `size` (height, width), its captions, and what is known of it."""

    key: str
    size: tuple[int, int]
    format: str
    caption: str
    synthetic: str | None
    metadata: dict[str, Any]

    @property
    def suffix(self) -> str:
        return {"JPEG": ".jpg", "PNG": ".png"}[self.format]

    @property
    def content(self) -> bytes:
        return encode(picture(*self.size), self.format)

    @property
    def fields(self) -> dict[str, Any]:
        """The .json of a sample: its captions and all that is known."""
        synthetic = {"synthetic": self.synthetic} if self.synthetic else {}
        return {"caption": self.caption} | synthetic | self.metadata


def every(name: str, /, **options: Any) -> list[sources.Example]:
    """Returns all that a source yields."""
    return list(sources.make(name, **options).piece(0, 1))


def picture(height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width, 3]: a gradient from the left to the right and down, and a bar."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([255 * x // (width - 1), 255 * y // (height - 1), np.full_like(x, 90)], axis=-1)
    rgb[height // 3 : height // 2, width // 4 : width // 2] = (230, 20, 30)
    return rgb.astype(np.uint8)


def encode(image: np.ndarray | Image.Image, format: str, **options: Any) -> bytes:
    """Returns a picture as Pillow writes it."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def _sample(key, size, format, caption, synthetic, aesthetic, punsafe, language) -> Sample:
    metadata = {
        "width": size[1],
        "height": size[0],
        "aesthetic": aesthetic,
        "punsafe": punsafe,
        "url": f"https://example.org/{key}",
        "language": language,
    }
    return Sample(key, size, format, caption, synthetic, metadata)


# Captions, and numbers that some rules drop: an aesthetic score below 4.7, punsafe of 0.5 and more.
SAMPLES = [
    _sample("0000", (96, 128), "JPEG", "a lake at dawn", "still water and fog", 6.25, 0.0, "en"),
    _sample("0001", (128, 96), "JPEG", "两只猫坐在沙发上", "two cats on a sofa", 5.5, 0.0, "zh"),
    _sample("0002", (160, 160), "PNG", "a red bar on a gradient", None, 5.0, 0.0, "en"),
    _sample("0003", (80, 200), "JPEG", "a long street", "a street seen from above", 4.5, 0.0, "en"),
    _sample("0004", (200, 80), "JPEG", "a tall tower", None, 4.75, 0.75, "en"),
    _sample("0005", (120, 120), "PNG", "桌子上的一杯茶", "一杯绿茶放在木桌上", 5.25, 0.25, "zh"),
    _sample("0006", (144, 96), "JPEG", "visit www.example.com", None, 5.0, 0.0, "en"),
    _sample("0007", (96, 144), "JPEG", "un chat dans le jardin", None, 7.0, 0.0, "fr"),
    _sample("0008", (100, 150), "PNG", "a boat <b>sale</b>", "a small boat", 6.0, 0.0, "en"),
    _sample("0009", (150, 100), "JPEG", "a bird on a branch", "a bird, blue sky", 5.5, 0.0, "en"),
]


def write_folder(path: pathlib.Path) -> pathlib.Path:
    """Writes pictures in two folders, the even ones with a .json, the odd with a .txt and a .json."""
    for k, sample in enumerate(SAMPLES):
        stem = path / ("even", "odd")[k % 2] / sample.key
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(sample.suffix).write_bytes(sample.content)
        fields = dict(sample.fields)
        if k % 2:
            stem.with_suffix(".txt").write_text(fields.pop("caption") + "\n", encoding="utf-8")
        stem.with_suffix(".json").write_text(json.dumps(fields), encoding="utf-8")
    return path


def write_table(path: pathlib.Path, suffix: str = ".csv") -> pathlib.Path:
    """Writes pictures in one folder, with metadata.csv or metadata.jsonl."""
    path.mkdir(parents=True, exist_ok=True)
    rows = []
    for sample in SAMPLES:
        (path / (sample.key + sample.suffix)).write_bytes(sample.content)
        row = {"file_name": sample.key + sample.suffix, "synthetic": ""} | sample.fields
        rows.append({name: row[name] for name in ("file_name", "caption", "synthetic", *row)})
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    if suffix == ".csv":  # none of the values holds a comma or a quote, but for one caption
        lines = [",".join(rows[0])] + [",".join(f'"{v}"' for v in row.values()) for row in rows]
    (path / f"metadata{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_tars(path: pathlib.Path, tars: int = 2) -> pathlib.Path:
    """Writes tars as img2dataset does: a .jpg (or .png), .txt and .json each, and _stats.json."""
    path.mkdir(parents=True, exist_ok=True)
    for t in range(tars):
        samples = SAMPLES[t * len(SAMPLES) // tars : (t + 1) * len(SAMPLES) // tars]
        with tarfile.open(path / f"{t:05d}.tar", "w") as tar:
            for sample in samples:
                fields = {"original_width": 999, "original_height": 777} | sample.fields
                add(tar, sample.key + sample.suffix, sample.content)
                add(tar, sample.key + ".txt", sample.caption.encode())
                add(tar, sample.key + ".json", json.dumps(fields).encode())
        stats = {"count": len(samples) + 1, "successes": len(samples), "failed_to_download": 1}
        (path / f"{t:05d}_stats.json").write_text(json.dumps(stats))
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes):
    """Adds a file to a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_parquet(path: pathlib.Path, files: int = 2, group: int = 3) -> pathlib.Path:
    """Writes files with `group` rows a row group; pictures in the hub's struct {bytes, path}."""
    import pyarrow
    from pyarrow import parquet

    path.mkdir(parents=True, exist_ok=True)
    for f in range(files):
        samples = SAMPLES[f * len(SAMPLES) // files : (f + 1) * len(SAMPLES) // files]
        image = {"image": [{"bytes": s.content, "path": s.key + s.suffix} for s in samples]}
        names = ("caption", "synthetic", *SAMPLES[0].metadata)
        rest = {name: [s.fields.get(name) for s in samples] for name in names}
        table = pyarrow.table(image | rest)
        parquet.write_table(table, path / f"train-{f:05d}.parquet", row_group_size=group)
    return path


def write_tfds(path: pathlib.Path, captions: bool = False) -> str:
    """Writes a set of TensorFlow Datasets into the catalogue `path`; returns its name.

    It has the labels "great_white_shark, shark" and "tabby, tabby cat", or else captions and what is
    known of a picture.
    """
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    names = ["great_white_shark, shark", "tabby, tabby cat"]
    features = {"label": tfds.features.ClassLabel(names=names)}
    if captions:
        features = {"caption": text, "synthetic": text, "url": text}
        features |= {"aesthetic": np.float32, "punsafe": np.float32}
    rows = []
    for k, sample in enumerate(SAMPLES):
        row = sample.fields | {"synthetic": sample.synthetic or "", "label": k % 2}
        row = {name: row[name] for name in features}
        rows.append(row | {"image": io.BytesIO(sample.content)})
    name = "tiny_captions" if captions else "tiny_labels"
    write_tfds_rows(path, name, features | {"image": tfds.features.Image()}, rows)
    return name


def write_tfds_rows(path: pathlib.Path, name: str, features: dict, rows: list[dict[str, Any]]):
    """Writes a set with these rows in the split "train".

    Pictures are given as files: arrays would be encoded by TensorFlow.
    """
    import tensorflow_datasets as tfds

    folder = path / name / "1.0.0"
    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(name, "1.0.0", str(folder), __name__)
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, 100, file_format="array_record")
    writer.initialize_splits(["train"])
    writer.add_examples({"train": rows})
    writer.close_all()
