"""A trained run on this process's devices, ready to generate images."""

import collections
import dataclasses
import numbers
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from lidit_jax import errors, sharding
from lidit_jax.batch import TextFeatures
from lidit_jax.diffusion import samplers, schedules
from lidit_jax.generation.reading import Features, Readers, padded
from lidit_jax.models.lidit import LiDiT
from lidit_jax.models.vae import latent_size, make_codec
from lidit_jax.prompts import Prompt, is_text
from lidit_jax.text.instruct import moved
from lidit_jax.training.config import Config, SampleConfig
from lidit_jax.training.drawing import make_draw
from lidit_jax.training.trained import open_to_draw, read_config


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """One image to generate: its prompt, its seed and its (height, width) in pixels."""

    prompt: str
    seed: int
    size: tuple[int, int]


class Generator:
    """A trained run, ready to generate images. Each LLM is loaded when a prompt first needs it.

    >>> generator = Generator("out/quickstart/run")
    >>> pictures = generator(["a red heart"], seeds=[0])      # uint8 [1, H, W, 3]

    Image k depends only on prompt k and seed k, whatever the devices and the batch size, except for
    rounding: the last bit of f32, and some pixel levels of an image in bf16.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        sample: SampleConfig | None = None,
        llms: dict[str, str] | None = None,
        vae: str | None = None,
        mesh: jax.sharding.Mesh | None = None,
        step: int | None = None,
        negative_prompt: str = "",
    ):
        """Loads the run's EMA weights.

        Args:
          workdir: folder of the run.
          sample: replaces the run's own guidance, sampler and batch size.
          llms: encoder name -> its weights on this machine, if not where the run found them.
          vae: folder of the VAE on this machine, if not where the run found it.
          mesh: of this process's devices; None uses `sharding.drawing_mesh`.
          step: of the checkpoint; None uses the last.
          negative_prompt: guidance leads away from it in every picture; "" is the empty prompt, as
            in training.

        Raises InputError if `workdir` holds no finished checkpoint, or none of this step; if an
        encoder is unknown; if the sampler does not fit the run's schedule; for a negative prompt
        without guidance; for guidance if the empty prompt was not trained; if the VAE is not the
        one that the run was trained with; or if the model does not divide over the mesh. All but
        the last two are raised before any weight is read.
        """
        own = read_config(pathlib.Path(workdir), "diffusion")
        own = dataclasses.replace(own, encoders=moved(own.encoders, llms or {}))
        self.sample = sample or own.sample
        _check_prompt(negative_prompt)
        if negative_prompt and not self.sample.is_guided:
            raise errors.InputError(
                f"negative prompt {negative_prompt!r} with guidance "
                f"{self.sample.guidance}, which is off; use another guidance, such as 4.5"
            )
        learned = own.train.drop_prompt or own.train.init_from
        if self.sample.is_guided and not (learned or negative_prompt):
            raise errors.InputError(
                f"guidance {self.sample.guidance} leads away from the empty prompt, "
                f"which {workdir} has not learned: its train.drop_prompt is 0; use guidance 1"
            )
        self.negative_prompt = negative_prompt
        samplers.make_plan(self.sample.sampler, schedules.make_schedule(own.objective.schedule))
        trained = open_to_draw(pathlib.Path(workdir), vae, mesh, step)
        self.config: Config = dataclasses.replace(trained.config, encoders=own.encoders)
        self.mesh = trained.mesh
        self.codec = make_codec(self.config.data.codec).on(self.mesh)
        self.graphdef, self.ema, self.constants = trained.graphdef, trained.ema, trained.constants
        self.step, self.identity = trained.step, trained.identity
        self._readers = Readers(self.config.encoders, self.constants)
        self._draw = make_draw(self.graphdef, self.config.objective, self.mesh)

    @property
    def model(self) -> LiDiT:
        """The network with the EMA weights; see docs/extending.md."""
        return nnx.merge(self.graphdef, self.ema, self.constants)

    def encode(self, prompts: list[str]) -> tuple[TextFeatures, ...]:
        """Returns each LLM's features of the prompts, padded to one length per LLM.

        Raises InputError for one text instead of a list.
        """
        _check_list(prompts)
        return padded(list(self._readers.read(prompts)), self._readers.lengths(prompts))

    def _negative(self) -> tuple[TextFeatures, ...] | None:
        """Returns the features of the negative prompt, one row on every device; None if there is
        none.
        """
        if not self.negative_prompt:
            return None
        text = self.encode([self.negative_prompt])
        return jax.device_put(text, sharding.replicated(self.mesh))

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Returns (h, w, C) of latents for `size`; InputError if VAE or patch do not divide it."""
        return latent_size(self.codec, size, self.config.model.patch)

    def __call__(
        self, prompts: list[str], seeds: list[int], size: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Returns one uint8 image per prompt, [n, H, W, 3].

        Args:
          prompts: captions; "" samples without a prompt.
          seeds: one per prompt.
          size: (height, width) in pixels; None uses the training size.

        Raises InputError if there are no prompts, if prompts and seeds differ in number, or if the
        VAE or the patch does not divide the size.
        """
        check_wanted(prompts, seeds)
        size = tuple(size or self.config.data.size)
        wanted = [Wanted(prompt, seed, size) for prompt, seed in zip(prompts, seeds)]
        pictures = dict(self.draw(wanted))
        return np.stack([pictures[k] for k in range(len(wanted))])

    def draw(
        self, wanted: Sequence[Wanted], rows: Sequence[int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (k, uint8 image [H, W, 3]) for each wanted k, batch by batch, in any order.

        If `rows` is given, only those are sampled. The others still determine the padded text
        length and the batch size, so that part of a request runs the same program as the whole.
        Each prompt is encoded once, however many images use it.
        Raises InputError, before an LLM is loaded, if the VAE or the patch does not divide a size.
        """
        shapes = {size: self.latent_size(size) for size in {w.size for w in wanted}}
        rows = range(len(wanted)) if rows is None else rows
        batches = self._batch_sizes(wanted)
        lengths = self._readers.lengths({w.prompt: None for w in wanted})
        negative = self._negative()
        one_batch = len(rows) <= self.sample.batch_size
        with tqdm(total=len(rows), desc="pictures", disable=one_batch) as bar:
            for size, part in self._parts(wanted, rows, batches):
                yield from self._drawn(wanted, part, shapes[size], batches[size], lengths, negative)
                bar.update(len(part))

    def _batch_sizes(self, wanted: Sequence[Wanted]) -> dict[tuple[int, int], int]:
        """Returns the batch size for each image size: the config's, but at most the number of such
        images, rounded up to divide over the mesh.
        """
        counts = collections.Counter(w.size for w in wanted)
        return {
            size: sharding.rounded_up(self.mesh, min(self.sample.batch_size, count))
            for size, count in counts.items()
        }

    def _parts(self, wanted, rows, batches) -> Iterator[tuple[tuple[int, int], list]]:
        """Yields a size and its [(row, features)] whenever a batch of that size is complete."""
        by_prompt: dict[str, list[int]] = collections.defaultdict(list)
        for row in rows:
            by_prompt[wanted[row].prompt].append(row)
        waiting = collections.defaultdict(list)
        for same, features in zip(by_prompt.values(), self._readers.read(by_prompt)):
            for row in same:
                size = wanted[row].size
                waiting[size].append((row, features))
                if len(waiting[size]) == batches[size]:
                    yield size, waiting.pop(size)
        yield from waiting.items()

    def _drawn(
        self, wanted, part: list[tuple[int, Features]], shape, batch: int, lengths, negative
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Samples one batch; an incomplete one is padded with its last row and then cut."""
        rows, features = zip(*part + part[-1:] * (batch - len(part)))
        text = padded(features, lengths)
        seeds_B = np.asarray([wanted[row].seed for row in rows], np.uint32)
        placed = jax.device_put((text, seeds_B), sharding.batch_sharding(self.mesh))
        given = (self.ema, self.constants, *placed, negative)
        latents = self._draw(*given, sample=self.sample, shape=shape)
        yield from zip(rows[: len(part)], np.asarray(self.codec.decode(latents)))


def sample_config(
    workdir: pathlib.Path,
    guidance: float | None = None,
    batch_size: int | None = None,
    **sampler,
) -> SampleConfig:
    """Returns the sampling config of the run in `workdir`, with arguments that are set replaced."""
    own = read_config(workdir).sample
    changed = {k: v for k, v in sampler.items() if v is not None}
    if changed.get("name", own.sampler.name) != own.sampler.name:
        changed = {"eta": 0.0} | changed
    return SampleConfig(
        guidance=own.guidance if guidance is None else guidance,
        sampler=dataclasses.replace(own.sampler, **changed),
        batch_size=own.batch_size if batch_size is None else batch_size,
    )


def check_wanted(prompts: Sequence[str | Prompt], seeds: Sequence[int]):
    """Raises InputError unless there are prompts, each of them text, and a seed for each."""
    _check_list(prompts)
    if not prompts or len(prompts) != len(seeds):
        raise errors.InputError(
            f"got {len(prompts)} prompts and {len(seeds)} seeds; want one or more prompts and a "
            f"seed for each"
        )
    for prompt in prompts:
        _check_prompt(getattr(prompt, "text", prompt))
    for seed in seeds:
        if not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**32:
            raise errors.InputError(f"seed {seed!r}: want a whole number from 0 to 2**32 - 1")


def _check_list(prompts: Sequence[str | Prompt]):
    """Raises InputError for a text, which is a sequence too: of letters."""
    if isinstance(prompts, str):
        raise errors.InputError(f"prompts is the text {prompts!r}; want a list of prompts")


def _check_prompt(text: str):
    if not is_text(text):
        raise errors.InputError(f"prompt {text!r}: want text that UTF-8 can encode")
