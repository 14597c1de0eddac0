"""From prompts to pictures, with a trained run: its LLMs, its EMA and a sampler."""

import dataclasses
import math
import pathlib

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from lidit_jax import errors, files, rng, sharding
from lidit_jax.batch import TextFeatures
from lidit_jax.data.pipeline import pad_features, padded_length
from lidit_jax.evaluation.pictures import MANIFEST
from lidit_jax.models.lidit import check_size
from lidit_jax.models.vae import latent_size, make_codec
from lidit_jax.text import llm
from lidit_jax.training import checkpoints, optim, state
from lidit_jax.training.config import Config, SampleConfig, build
from lidit_jax.training.loop import diffusion_task
from lidit_jax.training.tasks import draw


class Generator:
    """A trained run, ready to draw on one device. Each LLM is loaded when the first prompt needs it.

    >>> generator = Generator("out/quickstart/run")
    >>> pictures = generator(["a red heart"], seeds=[0])      # uint8 [1, H, W, 3]
    """

    def __init__(self, workdir: str | pathlib.Path, sample: SampleConfig | None = None):
        """Opens the run's EMA. `sample` replaces the run's own guidance and sampler.

        Raises InputError if `workdir` holds no finished checkpoint.
        """
        workdir = pathlib.Path(workdir)
        saved = files.read_json(workdir / "config.json", "run's config (train there first)")
        self.config: Config = build(Config, saved, "config")
        self.sample = sample or self.config.sample
        self.codec = make_codec(self.config.data.codec)
        task = diffusion_task(self.config, tuple(1 for _ in self.config.encoders))
        optimizer = optim.make_optimizer(self.config.optim, self.config.train.steps)
        mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
        self.graphdef, like = state.abstract(task, optimizer, mesh)
        self.step, self.ema, self.constants = checkpoints.restore_ema(workdir, like)
        self.identity = checkpoints.identity(workdir, self.step)
        self._llms: dict[str, llm.FrozenLLM] = {}
        self._draw = jax.jit(self._traced, static_argnames=("sample", "shape"))

    def encode(self, prompts: list[str]) -> tuple[TextFeatures, ...]:
        """Returns every LLM's features of the prompts, padded to one length per LLM."""
        out = []
        for i in range(len(self.config.encoders)):
            tokens = self._llm(i).encode(prompts)
            out.append(pad_features(tokens, padded_length(max(map(len, tokens)))))
        return tuple(out)

    def _llm(self, i: int) -> llm.FrozenLLM:
        """Returns LLM i, loaded once; InputError if it is not the one that the run was trained with."""
        config = self.config.encoders[i]
        if config.name not in self._llms:
            loaded = llm.load(config, llm.default_cache())
            trained_with = np.asarray(self.constants["text"][i]["prefix_PxE"][...])
            difference = np.linalg.norm(loaded.prefix() - trained_with)
            if difference > 0.05 * np.linalg.norm(trained_with):  # more than a change of precision
                raise errors.InputError(
                    f"{config.model} reads the instruction otherwise than when the run was trained; "
                    f"these are other weights than those of encoder {config.name!r}"
                )
            self._llms[config.name] = loaded
        return self._llms[config.name]

    def __call__(
        self, prompts: list[str], seeds: list[int], size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Returns one uint8 picture [n, H, W, 3] per prompt; picture k depends on prompt and seed k alone.

        Args:
          prompts: captions; "" draws without a prompt.
          seeds: one per prompt.
          size: (height, width) in pixels; None is the size trained at.

        Raises InputError if the VAE or the patch does not divide the size.
        """
        shape = self.latent_shape(size)
        text = self.encode(prompts)
        n, batch = len(prompts), min(self.sample.batch_size, len(prompts))
        pictures = []
        for first in tqdm(range(0, n, batch), desc="pictures", unit="batch", disable=n <= batch):
            # The last batch is filled up, so that one program serves all.
            rows = np.minimum(np.arange(first, first + batch), n - 1)
            part = jax.tree.map(lambda a, rows=rows: a[rows], text)
            seeds_B = np.asarray(seeds, np.uint32)[rows]
            latents = self._draw(self.ema, self.constants, part, seeds_B, self.sample, shape)
            pictures.append(np.asarray(self.codec.decode(latents))[: n - first])
        return np.concatenate(pictures)

    def latent_shape(self, size: tuple[int, int] | None) -> tuple[int, int, int]:
        """Returns the latent (H, W, C) of a picture of `size` pixels; InputError if it does not divide."""
        patch = self.config.model.patch
        unit = patch * self.codec.downsample
        size = size or self.config.data.size
        for side in size:
            if side < 1 or side % unit:
                near = sorted({max(side // unit, 1) * unit, (side // unit + 1) * unit})
                raise errors.InputError(
                    f"picture size {size[0]}x{size[1]}: {side} does not divide by {unit} "
                    f"(patch {patch} x VAE {self.codec.downsample}); use {' or '.join(map(str, near))}"
                )
        shape = latent_size(self.codec, size)
        check_size(*shape[:2], patch)
        return shape

    def _traced(self, ema, constants, text, seeds_B, sample, shape):
        model = nnx.merge(self.graphdef, ema, constants)
        keys_B = jax.vmap(lambda seed: rng.key(seed, "sample"))(seeds_B)
        return draw(model, self.config.objective, sample, text, keys_B, shape)


def read_prompts(path: pathlib.Path) -> list[str]:
    """Returns the lines of a text file, without empty ones.

    Raises InputError if the file is missing, is not UTF-8, or has no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise errors.InputError(f"cannot read prompts from {path}: {e}") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise errors.InputError(f"{path} has no prompt; want one per line")
    return prompts


def sample_config(workdir: pathlib.Path, guidance: float | None = None, **sampler) -> SampleConfig:
    """Returns how the run in `workdir` samples, with what is not None replaced."""
    saved = files.read_json(workdir / "config.json", "run's config (train there first)")
    own = build(Config, saved, "config").sample
    changed = {k: v for k, v in sampler.items() if v is not None}
    if changed.get("name", own.sampler.name) != own.sampler.name:
        changed = {"eta": 0.0} | changed
    return dataclasses.replace(
        own,
        guidance=own.guidance if guidance is None else guidance,
        sampler=dataclasses.replace(own.sampler, **changed),
    )


def generate(
    generator: Generator,
    prompts: list[str],
    seeds: list[int],
    out: pathlib.Path,
    size: tuple[int, int] | None = None,
) -> pathlib.Path:
    """Writes a PNG per prompt, a grid and manifest.json into `out`, and returns the grid's path.

    Pictures that a manifest of the same request already lists are not drawn again. Raises
    InputError if `out` holds another request's pictures.
    """
    request = {
        "run": generator.identity,
        "step": generator.step,
        "size": list(size or generator.config.data.size),
        "guidance": generator.sample.guidance,
        "sampler": dataclasses.asdict(generator.sample.sampler),
        "pictures": [
            {"file": f"{i:06d}.png", "prompt": p, "seed": s}
            for i, (p, s) in enumerate(zip(prompts, seeds))
        ],
    }
    grid = out / "grid.png"
    if (out / MANIFEST).exists() and grid.exists():
        found = files.read_json(out / MANIFEST, "manifest")
        if found == request:
            print(f"{len(prompts)} pictures are already in {out}")
            return grid
        raise errors.InputError(f"{out} holds another request's pictures; give another --out")
    images = generator(prompts, seeds, size)
    for picture, image in zip(request["pictures"], images):
        files.write_png(out / picture["file"], image)
    columns = min(8, math.ceil(math.sqrt(len(images))))
    files.write_png(
        grid, files.picture_grid(list(images), columns, zoom=max(1, 96 // images.shape[1]))
    )
    files.write_json(out / MANIFEST, request)
    return grid
