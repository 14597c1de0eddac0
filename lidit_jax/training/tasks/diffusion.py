"""Training LI-DiT to denoise latents (appendix A.1)."""

import dataclasses

from lidit_jax import rng
from lidit_jax.batch import BatchShape, spec
from lidit_jax.diffusion import objectives, schedules
from lidit_jax.models.conditioners import TextSource
from lidit_jax.models.lidit import LiDiT, ModelConfig
from lidit_jax.models.vae import latent_size, make_codec
from lidit_jax.training.config import Config, SampleConfig, text_sources
from lidit_jax.training.drawing import draw


@dataclasses.dataclass(frozen=True)
class DiffusionTask:
    """LI-DiT as a denoiser of latents.

    drop_prompt: fraction of samples trained on the empty prompt, for classifier-free guidance.
    """

    model: ModelConfig
    objective: objectives.ObjectiveConfig
    sources: tuple[TextSource, ...]
    shape: BatchShape
    drop_prompt: float
    sample: SampleConfig

    def init(self, rngs):
        return LiDiT(self.model, self.shape.latent[-1], self.sources, rngs=rngs)

    def scoring(self):
        """With no prompt dropped, to measure how well prompts are followed."""
        return dataclasses.replace(self, drop_prompt=0.0)

    def batch_spec(self):
        return spec(self.shape)

    def loss(self, model, batch, keys_B):
        """Four calls: time, corruption, network, score (appendix A.1)."""
        x0_BxHxWxC = model.from_raw(batch.latents_BxHxWxC)
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
        return reader.restored(reader.text(reader.readable(reader.dataset.info["preview"])))

    def preview(self, model, inputs, keys_B):
        return draw(model, self.objective, self.sample, inputs, keys_B, self.shape.latent)


def diffusion_task(config: Config, text_lengths: tuple[int, ...]) -> DiffusionTask:
    """Returns the task of a config with measured encoders, for prompts padded to these lengths."""
    latent = latent_size(make_codec(config.data.codec), config.data.size, config.model.patch)
    text = tuple((length, e.width) for length, e in zip(text_lengths, config.encoders))
    return DiffusionTask(
        config.model, config.objective, text_sources(config.encoders),
        BatchShape(config.train.batch_size, latent, text),
        config.train.drop_prompt, config.sample,
    )  # fmt: skip
