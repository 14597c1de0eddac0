"""What a data set will cost before it is made: bytes, time and money, from a short sample."""

import dataclasses
import itertools
import time

import msgpack
import numpy as np

from lidit_jax import sharding
from lidit_jax.data import decoding, records
from lidit_jax.data.dataset import Captions
from lidit_jax.data.feature_codecs import FEATURE_CODECS
from lidit_jax.data.plan import Plan
from lidit_jax.data.sources.example import Source
from lidit_jax.models.vae import make_codec
from lidit_jax.preparation import images
from lidit_jax.text import encode, llm
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training.config import Config, DataConfig

PICTURES, CAPTIONS = 64, 64  # in the sample


@dataclasses.dataclass(frozen=True)
class Line:
    """One stage: its count, and bytes and seconds per item as measured here."""

    stage: str
    count: float
    bytes_each: float
    seconds_each: float

    def row(self, price: float) -> list[str]:
        """Returns the line as cells; `price` is for one hour of such a machine."""
        hours = self.count * self.seconds_each / 3600
        cells = [
            self.stage,
            f"{self.count:,.0f}",
            amount(self.bytes_each),
            amount(self.count * self.bytes_each),
        ]
        cells += [f"{_digits(1 / self.seconds_each)}/s", f"{hours:,.2f}"]
        return cells + ([f"{hours * price:,.2f}"] if price else [])


def estimate(config: Config, plan: Plan, source: Source, pictures: int = 0) -> list[Line]:
    """Returns a line per stage of `prepare`, for the plan or for `pictures` of its kind."""
    planned = sum(map(sum, plan.info["counts"]))
    scale = pictures / planned if pictures else 1.0
    lines = [_pictures(config.data, plan, source, planned * scale)]
    captions = Captions(plan.folder, plan.info["captions"])
    texts = [captions[row].text for row in records.spaced(len(captions), CAPTIONS)]
    for encoder in config.encoders:
        lines.append(_features(encoder, texts, len(captions) * scale))
    return lines


def _pictures(data: DataConfig, plan: Plan, source: Source, count: float) -> Line:
    """Measures decoding and encoding the first pictures of the plan, after a warm-up batch."""
    codec = make_codec(data.codec).on(sharding.copies())
    every = (pair for i in range(plan.pieces) for pair in images.planned(source, plan, i))
    some = list(itertools.islice(every, max(PICTURES, 4 * decoding.CHUNK * data.workers)))
    size = plan.bins[int(np.argmax([sum(c) for c in plan.info["counts"]]))]
    rows, jobs = zip(*((row, decoding.Job(job.picture, size)) for row, job in some))
    codec.encode(np.zeros((images.BATCH, *size, 3), np.uint8))
    with decoding.decoders(data.workers) as decode:
        for _ in decode(jobs[: decoding.CHUNK * data.workers]):
            pass  # starts every process
        start, written = time.perf_counter(), 0
        made = [(row, d.pixels_HxWx3) for row, d in zip(rows, decode(jobs)) if not d.reason]
        for first in range(0, len(made), images.BATCH):
            part = made[first : first + images.BATCH]
            pixels = [image for _, image in part]
            latents = codec.encode(np.stack(pixels + pixels[-1:] * (images.BATCH - len(part))))
            for (row, _), latent_HxWxC in zip(part, np.asarray(latents)):
                written += len(records.pack_image(row.record(latent_HxWxC)))
        seconds = time.perf_counter() - start
    done = max(len(made), 1)
    return Line("pictures", count, written / done, seconds / done)


def _features(encoder: EncoderConfig, texts: list[str], count: float) -> Line:
    """Measures reading the sample, after one batch as warm-up."""
    model = llm.load(encoder, llm.default_cache())
    model.encode(texts[: encode.BATCH])
    start = time.perf_counter()
    features = model.encode(texts)
    seconds = (time.perf_counter() - start) / len(texts)
    codec_type = FEATURE_CODECS[encoder.codec]
    channels = (np.zeros(model.width), np.ones(model.width)) if codec_type.needs_channels else ()
    codec = codec_type(*channels)
    written = sum(len(msgpack.packb(codec.pack(np.asarray(f)))) for f in features)
    return Line(f"captions read by {encoder.name}", count, written / len(texts), seconds)


def amount(size: float) -> str:
    """Returns a number of bytes with a unit: 1.5 kB, 22 TB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{_digits(size)} PB"


def _digits(x: float) -> str:
    """Returns a number of three digits or more: 0.333, 12.5, 4,710."""
    return f"{x:,.0f}" if x >= 99.95 else f"{x:.3g}"


def table(lines: list[Line], price: float) -> str:
    """Returns the lines as text, with their sum."""
    head = ["stage", "count", "each", "bytes", "speed here", "hours here"] + (
        ["cost"] if price else []
    )
    rows = [line.row(price) for line in lines]
    total = sum(line.count * line.bytes_each for line in lines)
    hours = sum(line.count * line.seconds_each for line in lines) / 3600
    rows.append(
        ["all", "", "", amount(total), "", f"{hours:,.2f}"]
        + ([f"{hours * price:,.2f}"] if price else [])
    )
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    return "\n".join(
        "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:]))])
        for cells in [head, *rows]
    )
