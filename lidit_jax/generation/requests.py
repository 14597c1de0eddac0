"""A request for many pictures, in a folder: stopped and continued, by one machine or by several.

    manifest.json    the whole request: what each picture is of
    000000.png ...   numbered as in the request, whoever draws them
    grid.png         the first of them, made when the last is there

Machines that share a request do not talk to one another: each draws its own run of neighbours.
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

GRID = 64  # pictures in grid.png
WRITERS = 4  # threads that write pictures while the next ones are drawn
UNWRITTEN = 64  # pictures that may wait for them


def generate(
    generator: Generator,
    prompts: list[Prompt],
    seeds: list[int],
    out: pathlib.Path,
    share: Share = WHOLE,
) -> pathlib.Path | None:
    """Writes manifest.json, a PNG per prompt of this share, and a grid of the first GRID.

    A prompt without a size is drawn at the size trained at. Each picture is written when its batch
    is drawn, and one that is there and whole is not drawn again, so that a request that was stopped
    continues.
    Returns the grid's path; None if pictures of other shares are missing yet.
    Raises InputError as `Generator.draw` does, and if `out` holds another request's pictures.
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
            f"{len(left)} of {len(wanted)} pictures are not in {out} yet; when the other shares are "
            f"done, the same command without --share makes the grid"
        )
        return None
    if missing or not request.grid.exists():
        request.write_grid()
    else:
        print(f"{len(wanted)} pictures are already in {out}")
    return request.grid


def _manifest(generator: Generator, wanted: list[Wanted]) -> dict:
    """Returns what decides the pictures of a request; where and how many at once is not in it."""
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
        """Whether the folder has the manifest.

        Raises InputError if it has another request's, or a picture that would be overwritten, if it is a run or
        a data set, or cannot be made.
        """
        path = self.out / MANIFEST
        files.check_own_folder(self.out, "out")
        if self.out.is_dir() and not path.exists():
            ours = {self.grid.name, *(picture["file"] for picture in self.manifest["pictures"])}
            if theirs := sorted(ours & set(os.listdir(self.out))):
                raise errors.InputError(
                    f"{self.out} has {theirs[0]} without a {MANIFEST}, so that it is of something else; give another --out"
                )
        if path.exists() and files.read_json(path, "manifest") != self.manifest:
            raise errors.InputError(
                f"{self.out} holds another request's pictures; give another --out"
            )
        return path.exists()

    def claim(self):
        """Writes the manifest, unless another share has; InputError if that is of another request."""
        files.write_json(self.out / MANIFEST, self.manifest, first=True)
        self.begun()

    def path(self, k: int) -> pathlib.Path:
        return self.out / self.manifest["pictures"][k]["file"]

    def missing(self, rows: Iterable[int]) -> list[int]:
        """Returns those of the rows whose picture is not there, or not whole."""
        pictures = self.manifest["pictures"]
        return [k for k in rows if not files.is_whole_png(self.path(k), pictures[k]["size"])]

    def write_grid(self):
        first = range(min(GRID, len(self.manifest["pictures"])))
        images = [np.asarray(Image.open(self.path(k))) for k in first]
        columns = min(8, math.ceil(math.sqrt(len(images))))
        files.write_png(self.grid, files.picture_grid(images, columns))


def _write(request: Request, drawn: Iterator[tuple[int, np.ndarray]]):
    """Writes pictures in threads, so that the next batch is drawn meanwhile."""
    unwritten: collections.deque[futures.Future] = collections.deque()
    first = next(drawn)
    request.claim()  # a mistake showed by now, and has written nothing
    with futures.ThreadPoolExecutor(WRITERS) as pool:
        for k, image in itertools.chain([first], drawn):
            unwritten.append(pool.submit(files.write_png, request.path(k), image))
            while len(unwritten) > UNWRITTEN:
                unwritten.popleft().result()
        for written in unwritten:
            written.result()
