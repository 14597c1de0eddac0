"""A page about a data set: pictures of every bin, what was dropped and why, captions, sizes on
disk.
"""

import base64
import html
import io
import pathlib

import numpy as np
from PIL import Image

from lidit_jax import errors, files
from lidit_jax.data import records
from lidit_jax.data.dataset import Dataset
from lidit_jax.data.plan import Plan
from lidit_jax.models.vae import make_codec
from lidit_jax.preparation.estimate import amount

SHOWN = 16  # pictures in a bin's contact sheet
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td { padding: 0 .7rem 0 0; vertical-align: middle }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: #4878a8; height: .8rem; display: inline-block }
img { max-width: 100%; display: block; margin-bottom: .3rem }
"""


def write(folder: pathlib.Path) -> pathlib.Path:
    """Writes `folder`/report.html, a page that needs no other file, and returns its path.

    Raises InputError if the folder holds no finished data set.
    """
    dataset, plan = Dataset(folder), Plan(folder)
    info = dataset.info
    lengths = plan.info["caption_lengths"]
    names = [f"up to {edge}" for edge in lengths["edges"]] + ["more"]
    per_bin = {f"{h} x {w}": n for (h, w), n in zip(dataset.bins, dataset.counts)}
    sections = [
        f"<h1>{html.escape(folder.name)}</h1>",
        f"<p>{info['count']:,} pictures of {info['rows']:,} rows, "
        f"{info['captions']:,} captions.</p>",
        _bars("Pictures per bin (height x width, pixels)", per_bin),
        _bars("Dropped, by the first rule or fault", info["dropped"]),
        _bars("Captions dropped from pictures that stayed", info["captions_dropped"]),
        _bars("Mended", info["mended"]),
        _bars("Languages of the captions", info["languages"]),
        _bars("Lengths of the captions, characters", dict(zip(names, lengths["counts"]))),
        _bars("Size on disk", _sizes(folder), amount),
        *(_sheet(dataset, bin) for bin in range(len(dataset.bins))),
    ]
    title = html.escape(folder.name)
    page = f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    with files.atomic(folder / "report.html") as path:
        path.write_text(page + "\n".join(sections), encoding="utf-8")
    return folder / "report.html"


def _bars(title: str, counts: dict[str, int], show=lambda n: f"{n:,}") -> str:
    """Returns a bar per entry, the longest as wide as fits; "" if all counts are 0."""
    if not any(counts.values()):
        return ""
    most = max(counts.values())
    rows = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="n">{show(n)}</td>'
        f'<td><span class="bar" style="width:{400 * n / most:.0f}px"></span></td></tr>'
        for name, n in counts.items()
    )
    return f"<h2>{html.escape(title)}</h2><table>{rows}</table>"


def _sizes(folder: pathlib.Path) -> dict[str, int]:
    """Returns the bytes of the pictures and of each feature store."""
    parts = [folder / "images", *sorted((folder / "features").glob("*"))]
    return {
        str(part.relative_to(folder)): sum(p.stat().st_size for p in part.rglob("*") if p.is_file())
        for part in parts
    }


def _sheet(dataset: Dataset, bin: int) -> str:
    """Returns a bin's contact sheet: evenly spaced pictures, each with its first caption."""
    rows = dataset.rows_of(bin)
    shown = [dataset.image(rows[i]) for i in records.spaced(len(rows), SHOWN)]
    codec = make_codec(dataset.info["codec"])
    if codec.identity() != dataset.info["codec_identity"]:
        raise errors.InputError(
            f"{dataset.info['codec']} is not the VAE that {dataset.folder} was made with"
        )
    pictures = np.asarray(codec.decode(np.stack([r.latent_HxWxC for r in shown])))
    height, width = dataset.bins[bin]
    grid = files.picture_grid(list(pictures), columns=max(1, min(8, 960 // width)))
    captions = (dataset.captions[(r.captions + r.synthetic)[0]].text for r in shown)
    told = html.escape(" · ".join(text[:80] for text in captions))
    return f'<h2>{height} x {width}: {len(rows):,}</h2><img src="{_inline(grid)}"><p>{told}</p>'


def _inline(image_HxWx3: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image_HxWx3).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
