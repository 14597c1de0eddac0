"""Training LI-DiT: noise on latents, and what the network makes of it (appendix A.1); and drawing with it."""

import dataclasses

import jax
import jax.numpy as jnp

from lidit_jax import rng
from lidit_jax.batch import BatchShape, TextFeatures, spec
from lidit_jax.diffusion import guidance, objectives, samplers, schedules
from lidit_jax.models.conditioners import TextCondition, TextSource
from lidit_jax.models.lidit import LiDiT, ModelConfig
from lidit_jax.models.vae import latent_size, make_codec
from lidit_jax.training.config import Config, SampleConfig, text_sources


@dataclasses.dataclass(frozen=True)
class DiffusionTask:
    """LI-DiT as a denoiser of latents.

    drop_prompt: share of samples trained on the empty prompt, for classifier-free guidance.
    """

    model: ModelConfig
    objective: objectives.ObjectiveConfig
    sources: tuple[TextSource, ...]
    shape: BatchShape
    drop_prompt: float
    sample: SampleConfig

    def __post_init__(self):
        samplers.make_plan(self.sample.sampler, schedules.make_schedule(self.objective.schedule))

    def init(self, rngs):
        return LiDiT(self.model, self.shape.latent[-1], self.sources, rngs=rngs)

    def batch_spec(self):
        return spec(self.shape)

    def loss(self, model, batch, keys_B):
        """Four calls: time, corruption, network, score (appendix A.1)."""
        x0_BxHxWxC = batch.latents_BxHxWxC
        schedule = schedules.make_schedule(self.objective.schedule)
        t_B = objectives.sample_time(self.objective, rng.named_each(keys_B, "time"))
        noise_BxHxWxC = rng.normal(rng.named_each(keys_B, "noise"), x0_BxHxWxC.shape[1:])
        drop_B = rng.uniform(rng.named_each(keys_B, "drop_prompt")) < self.drop_prompt
        x_t_BxHxWxC = objectives.corrupt(x0_BxHxWxC, noise_BxHxWxC, t_B, schedule)
        prediction = model(x_t_BxHxWxC, t_B, batch.text, drop_B)
        return objectives.loss(self.objective, prediction, x0_BxHxWxC, noise_BxHxWxC, t_B), {}

    def tokens(self, batch):
        B, H, W, _ = batch.latents_BxHxWxC.shape
        return B * H * W // self.model.patch**2

    def preview_inputs(self, reader):
        return reader.text(reader.dataset.info["preview"])

    def preview(self, model, inputs, keys_B):
        return draw(model, self.objective, self.sample, inputs, keys_B, self.shape.latent)


def diffusion_task(config: Config, text_lengths: tuple[int, ...]) -> DiffusionTask:
    """Returns the task of a config whose encoders have been measured, for prompts padded to these lengths."""
    latent = latent_size(make_codec(config.data.codec), config.data.size, config.model.patch)
    text = tuple((length, e.width) for length, e in zip(text_lengths, config.encoders))
    return DiffusionTask(
        config.model, config.objective, text_sources(config.encoders),
        BatchShape(config.train.batch_size, latent, text),
        config.train.drop_prompt, config.sample,
    )  # fmt: skip


def draw(
    model: LiDiT,
    objective: objectives.ObjectiveConfig,
    config: SampleConfig,
    text: tuple[TextFeatures, ...],
    keys_B: jax.Array,
    shape: tuple[int, int, int],
) -> jax.Array:
    """Returns raw latents [B, *shape] drawn for the prompts, row k from keys_B[k] alone.

    Nothing is computed at every step that does not change: the LLMs' features are the caller's, and
    a conditioner that does not use time runs once. The refiners, which do, run at every step. Under
    guidance a doubled batch has the prompt and the empty prompt of a sample in neighbouring rows, on
    one device; the empty prompt is the same for all, so that its one row is refined once for all.
    """
    B = keys_B.shape[0]

    def denoise(x_t, t_B, condition):
        return objectives.to_x0(objective, model.dit(x_t, model.time(t_B), condition), x_t, t_B)

    def prompts(t_B):
        return model.condition(text, jnp.zeros(B, bool), model.time(t_B))

    def prompts_and_empty(t_B):
        return _with_empty(prompts(t_B), model.empty_condition(model.time(t_B[:1])))

    seen_at = prompts if config.guidance == 1 else prompts_and_empty
    if not model.conditioner.uses_time:
        seen = seen_at(jnp.zeros(B))
        seen_at = lambda t_B: seen  # noqa: E731

    def prompted(x_t, t_B):
        return denoise(x_t, t_B, seen_at(t_B))

    def both(x_t, t_B):
        x0 = denoise(_pairs(x_t, x_t), _pairs(t_B, t_B), seen_at(t_B))
        x0_Bx2xHxWxC = x0.reshape(B, 2, *shape)
        return x0_Bx2xHxWxC[:, 0], x0_Bx2xHxWxC[:, 1]

    denoise_guided = guidance.guided(prompted, both, config.guidance)
    schedule = schedules.make_schedule(objective.schedule)
    return model.to_raw(samplers.sample(config.sampler, schedule, denoise_guided, keys_B, shape))


def _with_empty(prompts: TextCondition, empty: TextCondition) -> TextCondition:
    """Returns conditions of 2 B rows: each prompt's, and after it the empty prompt's, given in one row."""
    length = max(prompts.mask_BxS.shape[1], empty.mask_BxS.shape[1])

    def pair(prompt, empty):
        return _pairs(prompt, jnp.broadcast_to(empty, prompt.shape))

    def longer(a):
        return jnp.pad(a, [(0, 0), (0, length - a.shape[1])] + [(0, 0)] * (a.ndim - 2))

    return TextCondition(
        pair(longer(prompts.tokens_BxSxD), longer(empty.tokens_BxSxD)),
        pair(longer(prompts.mask_BxS), longer(empty.mask_BxS)),
        pair(prompts.pooled_BxD, empty.pooled_BxD),
    )


def _pairs(a, b):
    """Returns the rows of a and b in turns."""
    return jnp.stack([a, b], 1).reshape(2 * len(a), *a.shape[1:])
