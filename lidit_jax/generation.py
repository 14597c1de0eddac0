"""From prompts to pictures, with a trained run: its LLMs, its EMA and a sampler."""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from PIL import Image
from tqdm import tqdm

from lidit_jax import errors, files, rng
from lidit_jax.batch import TextFeatures
from lidit_jax.data.pipeline import pad_features, padded_length
from lidit_jax.evaluation.pictures import MANIFEST
from lidit_jax.models.vae import latent_size, make_codec
from lidit_jax.prompts import Prompt
from lidit_jax.text import llm
from lidit_jax.training.config import Config, SampleConfig
from lidit_jax.training.tasks.diffusion import draw
from lidit_jax.training.trained import open_trained, read_config

GRID = 64  # pictures in grid.png


class Generator:
    """A trained run, ready to draw on one device. Each LLM is loaded when the first prompt needs it.

    >>> generator = Generator("out/quickstart/run")
    >>> pictures = generator(["a red heart"], seeds=[0])      # uint8 [1, H, W, 3]
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        sample: SampleConfig | None = None,
        llms: dict[str, str] | None = None,
        vae: str | None = None,
    ):
        """Opens the run's EMA.

        Args:
          workdir: folder of the run.
          sample: replaces the run's own guidance and sampler.
          llms: encoder name -> where its weights are here, if not where the run found them.
          vae: the folder of the VAE here, if not where the run found it.

        Raises InputError if `workdir` holds no finished checkpoint, for an unknown encoder, or if the
        VAE is not the one that the run was trained with.
        """
        trained = open_trained(pathlib.Path(workdir), "diffusion", vae)
        self.config: Config = _moved(trained.config, llms or {})
        self.sample = sample or self.config.sample
        self.codec = make_codec(self.config.data.codec)
        self.graphdef, self.ema, self.constants = trained.graphdef, trained.ema, trained.constants
        self.step, self.identity = trained.step, trained.identity
        self._llms: dict[int, llm.FrozenLLM] = {}
        self._draw = jax.jit(self._traced, static_argnames=("sample", "shape"))

    def encode(self, prompts: list[str]) -> tuple[TextFeatures, ...]:
        """Returns every LLM's features of the prompts, padded to one length per LLM."""
        out = []
        for i in range(len(self.config.encoders)):
            tokens = self._llm(i).encode(prompts)
            out.append(pad_features(tokens, padded_length(max(map(len, tokens)))))
        return tuple(out)

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Returns (h, w, C) of pictures of `size`; InputError if VAE or patch do not divide it."""
        return latent_size(self.codec, size, self.config.model.patch)

    def _llm(self, i: int) -> llm.FrozenLLM:
        """Returns LLM i, loaded once; InputError if it is not the one that the run was trained with."""
        if i not in self._llms:
            config = self.config.encoders[i]
            loaded = llm.load(config, llm.default_cache())
            known = self.constants["text"][i]
            found = np.concatenate([loaded.prefix(), loaded.encode([""])[0]])
            wanted = np.concatenate([known["prefix_PxE"][...], known["null_ZxE"][...]])
            first = min(config.prefix_len, 1)  # the attention sink dwarfs every other token
            tolerance = 0.05 * np.linalg.norm(wanted[first:])  # a change of precision
            if np.linalg.norm(found[first:] - wanted[first:]) > tolerance:
                raise errors.InputError(
                    f"{config.model} reads the instruction or the empty prompt otherwise than when the "
                    f"run was trained; these are other weights than those of encoder {config.name!r}"
                )
            self._llms[i] = loaded
        return self._llms[i]

    def __call__(
        self, prompts: list[str], seeds: list[int], size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Returns one uint8 picture per prompt, [n, H, W, 3]; see `draw`."""
        return np.stack(list(self.draw(prompts, seeds, size)))

    def draw(
        self, prompts: list[str], seeds: list[int], size: tuple[int, int] | None = None
    ) -> Iterator[np.ndarray]:
        """Yields one uint8 picture [H, W, 3] per prompt, a batch at a time.

        Picture k depends on prompt and seed k alone, but for the last bit of rounding.

        Args:
          prompts: captions; "" draws without a prompt.
          seeds: one per prompt.
          size: (height, width) in pixels; None is the size trained at.

        Raises InputError if there is no prompt, not a seed for each, or if the VAE or the patch
        does not divide the size.
        """
        _check_count(prompts, seeds)
        shape = self.latent_size(size or self.config.data.size)
        text = self.encode(prompts)
        n, batch = len(prompts), min(self.sample.batch_size, len(prompts))
        for first in tqdm(range(0, n, batch), desc="pictures", unit="batch", disable=n <= batch):
            # The last batch is filled up, so that one program serves all.
            rows = np.minimum(np.arange(first, first + batch), n - 1)
            part = jax.tree.map(lambda a, rows=rows: a[rows], text)
            seeds_B = np.asarray(seeds, np.uint32)[rows]
            latents = self._draw(self.ema, self.constants, part, seeds_B, self.sample, shape)
            yield from np.asarray(self.codec.decode(latents))[: n - first]

    def _traced(self, ema, constants, text, seeds_B, sample, shape):
        model = nnx.merge(self.graphdef, ema, constants)
        keys_B = jax.vmap(lambda seed: rng.key(seed, "sample"))(seeds_B)
        return draw(model, self.config.objective, sample, text, keys_B, shape)


def _moved(config: Config, llms: dict[str, str]) -> Config:
    names = [e.name for e in config.encoders]
    for name in llms:
        if name not in names:
            raise errors.unknown_name("encoder of the run", name, names)
    encoders = [dataclasses.replace(e, model=llms.get(e.name, e.model)) for e in config.encoders]
    return dataclasses.replace(config, encoders=tuple(encoders))


def sample_config(workdir: pathlib.Path, guidance: float | None = None, **sampler) -> SampleConfig:
    """Returns how the run in `workdir` samples, with what is not None replaced."""
    own = read_config(workdir).sample
    changed = {k: v for k, v in sampler.items() if v is not None}
    if changed.get("name", own.sampler.name) != own.sampler.name:
        changed = {"eta": 0.0} | changed
    return dataclasses.replace(
        own,
        guidance=own.guidance if guidance is None else guidance,
        sampler=dataclasses.replace(own.sampler, **changed),
    )


def _check_count(prompts: Sequence, seeds: Sequence[int]):
    if not prompts or len(prompts) != len(seeds):
        raise errors.InputError(
            f"{len(prompts)} prompts and {len(seeds)} seeds; want one or more prompts and a seed for each"
        )


def generate(
    generator: Generator,
    prompts: list[Prompt],
    seeds: list[int],
    out: pathlib.Path,
) -> pathlib.Path:
    """Writes manifest.json, a PNG per prompt and a grid of the first GRID; returns the grid's path.

    A prompt without a size is drawn at the size trained at. Each picture is written when its batch
    is drawn, and one that is there is not drawn again, so that a request that was stopped continues.
    Raises InputError as `Generator.draw` does, and if `out` holds another request's pictures.
    """
    _check_count(prompts, seeds)
    sizes = [prompt.size or generator.config.data.size for prompt in prompts]
    for size in set(sizes):
        generator.latent_size(size)
    request = {
        "run": generator.identity,
        "step": generator.step,
        "guidance": generator.sample.guidance,
        "sampler": dataclasses.asdict(generator.sample.sampler),
        "pictures": [
            {"file": f"{i:06d}.png", "prompt": p.text, "seed": seed, "size": list(size)}
            for i, (p, seed, size) in enumerate(zip(prompts, seeds, sizes))
        ],
    }
    begun = (out / MANIFEST).exists()
    if begun and files.read_json(out / MANIFEST, "manifest") != request:
        raise errors.InputError(f"{out} holds another request's pictures; give another --out")
    grid, paths = out / "grid.png", [out / p["file"] for p in request["pictures"]]
    missing = [i for i, path in enumerate(paths) if not (begun and path.exists())]
    if not missing and grid.exists():
        print(f"{len(prompts)} pictures are already in {out}")
        return grid
    for size in dict.fromkeys(sizes[i] for i in missing):
        rows = [i for i in missing if sizes[i] == size]
        drawn = generator.draw([prompts[i].text for i in rows], [seeds[i] for i in rows], size)
        first = next(drawn)
        if not begun:  # a mistake showed by now, and has written nothing
            files.write_json(out / MANIFEST, request)
            begun = True
        for i, image in zip(rows, itertools.chain([first], drawn)):
            files.write_png(paths[i], image)
    images = [np.asarray(Image.open(path)) for path in paths[:GRID]]
    columns = min(8, math.ceil(math.sqrt(len(images))))
    files.write_png(grid, files.picture_grid(images, columns))
    return grid
