"""OpenMoji on a laptop: 64 x 64 px pictures from SmolLM2-135M's features,
in minutes on 2 CPU cores.

make quickstart
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    c = base.get_config()
    c.data.source = "openmoji"
    c.data.options.flags = False
    c.data.size = (64, 64)
    c.data.rules = ()  # the names are clean
    c.text.use = ("smollm2",)

    c.model.width = 192
    c.model.depth = 4
    c.model.heads = 6
    c.model.patch = 16
    c.model.dtype = "float32"
    c.model.unroll = 4
    c.model.conditioner.n_ltr = 1  # text is half the time of a step: 50 instruction tokens

    c.objective.schedule = "flow"
    c.objective.prediction = "x0"
    c.objective.loss_view = "flow"
    c.objective.time = "logit_normal"
    # The model learns to follow the prompt where the picture is nearly all noise; with less noise,
    # most of the picture can be seen already. Measured in docs/small_models.md.
    c.objective.time_mean = 2.2

    c.optim.learning_rate = 2e-3
    c.optim.warmup_steps = 50
    c.optim.decay = "cosine"
    c.optim.b2 = 0.99
    c.optim.ema = 0.995

    c.train.steps = 1600
    c.train.batch_size = 32
    c.train.log_every = 50
    c.train.save_every = 500
    c.train.preview_every = 500

    c.sample.guidance = 2.0
    c.sample.sampler.name = "euler"
    c.sample.sampler.steps = 20
    c.sample.sampler.shift = 4.0  # stay at the noise levels of training: low ones leave speckle
    if base.is_smoke(arg):
        c.train.steps, c.train.save_every, c.train.preview_every = 4, 2, 4
        c.model.width, c.model.depth = 48, 2
    return c
