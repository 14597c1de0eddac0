"""A request for many images, in a folder: resumable, and shareable among machines.

    manifest.json    the whole request: the prompt, seed and size of each image
    000000.png ...   numbered as in the request, whichever machine samples them
    grid.png         the first images, made once all are done

Machines that share a request do not communicate: each samples its own contiguous range.
"""

import collections
import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Iterable, Iterator
from concurrent import futures

import numpy as np
from PIL import Image

from lidit_jax import errors, files
from lidit_jax.evaluation.pictures import MANIFEST
from lidit_jax.generation.generator import Generator, Wanted, check_wanted
from lidit_jax.prompts import Prompt
from lidit_jax.share import WHOLE, Share, bounds

GRID = 64  # images in grid.png
WRITERS = 4  # threads that write images while the next batch is sampled
UNWRITTEN = 64  # images that may wait to be written


def generate(
    generator: Generator,
    prompts: list[Prompt],
    seeds: list[int],
    out: pathlib.Path,
    share: Share = WHOLE,
) -> pathlib.Path | None:
    """Writes manifest.json, a PNG per prompt of this share, and a grid of the first GRID images.

    A prompt without a size uses the training size. Each image is written when its batch is done,
    and complete images are not sampled again, so that a stopped request can be resumed.
    Returns the grid's path; None while images of other shares are missing.
    Raises InputError as `Generator.draw` does, and if `out` holds another request's images.
    """
    check_wanted(prompts, seeds)
    wanted = [
        Wanted(prompt.text, int(seed), prompt.size or generator.config.data.size)
        for prompt, seed in zip(prompts, seeds)
    ]
    for size in {w.size for w in wanted}:
        generator.latent_size(size)
    request = Request(out, _manifest(generator, wanted))
    begun = request.begun()
    mine = bounds(len(wanted), share.index, share.count)
    missing = request.missing(mine) if begun else list(mine)
    if missing:
        _write(request, generator.draw(wanted, missing))
    others = [*range(mine.start), *range(mine.stop, len(wanted))]
    if left := request.missing(others):
        print(
            f"{len(left)} of {len(wanted)} pictures are not in {out} yet; when the "
            "other shares are done, run the same command without --share to make the grid"
        )
        return None
    if missing or not request.grid.exists():
        request.write_grid()
    else:
        print(f"{len(wanted)} pictures are already in {out}")
    return request.grid


def _manifest(generator: Generator, wanted: list[Wanted]) -> dict:
    """Returns what determines a request's images; devices and batch size do not."""
    negative = generator.negative_prompt
    return ({"negative_prompt": negative} if negative else {}) | {
        "run": generator.identity,
        "step": generator.step,
        "guidance": generator.sample.guidance,
        "sampler": dataclasses.asdict(generator.sample.sampler),
        "pictures": [
            {"file": f"{i:06d}.png", "prompt": w.prompt, "seed": w.seed, "size": list(w.size)}
            for i, w in enumerate(wanted)
        ],
    }


class Request:
    """The folder of a request with this manifest."""

    def __init__(self, out: pathlib.Path, manifest: dict):
        self.out, self.manifest, self.grid = out, manifest, out / "grid.png"

    def begun(self) -> bool:
        """Whether the folder has this request's manifest.

        Raises InputError if it has another request's, or an image that would be overwritten, if it
        is a run or a data set, or if it cannot be made.
        """
        path = self.out / MANIFEST
        files.check_own_folder(self.out, "out")
        if self.out.is_dir() and not path.exists():
            ours = {self.grid.name, *(picture["file"] for picture in self.manifest["pictures"])}
            if theirs := sorted(ours & set(os.listdir(self.out))):
                raise errors.InputError(
                    f"{self.out} has {theirs[0]} but no {MANIFEST}, so it belongs to something "
                    f"else; give another --out"
                )
        if path.exists() and files.read_json(path, "manifest") != self.manifest:
            raise errors.InputError(
                f"{self.out} holds another request's pictures; give another --out"
            )
        return path.exists()

    def claim(self):
        """Writes the manifest, unless another share has; InputError if it is another request's."""
        files.write_json(self.out / MANIFEST, self.manifest, first=True)
        self.begun()

    def path(self, k: int) -> pathlib.Path:
        return self.out / self.manifest["pictures"][k]["file"]

    def missing(self, rows: Iterable[int]) -> list[int]:
        """Returns the rows whose image is missing or incomplete."""
        pictures = self.manifest["pictures"]
        return [k for k in rows if not files.is_whole_png(self.path(k), pictures[k]["size"])]

    def write_grid(self):
        first = range(min(GRID, len(self.manifest["pictures"])))
        images = [np.asarray(Image.open(self.path(k))) for k in first]
        columns = min(8, math.ceil(math.sqrt(len(images))))
        files.write_png(self.grid, files.picture_grid(images, columns))


def _write(request: Request, drawn: Iterator[tuple[int, np.ndarray]]):
    """Writes images in threads while the next batch is sampled."""
    unwritten: collections.deque[futures.Future] = collections.deque()
    first = next(drawn)
    request.claim()  # only now: a mistake would have raised above, with nothing written
    with futures.ThreadPoolExecutor(WRITERS) as pool:
        for k, image in itertools.chain([first], drawn):
            unwritten.append(pool.submit(files.write_png, request.path(k), image))
            while len(unwritten) > UNWRITTEN:
                unwritten.popleft().result()
        for written in unwritten:
            written.result()
