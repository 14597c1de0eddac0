"""Every key, with its meaning and unit. Other configs change a few of them.

The defaults are the paper's where it says (section 4.1), else the ones noted in docs/model.md.
"""

import inspect

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from lidit_jax import errors
from lidit_jax.data.sources import SOURCES


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.task = "diffusion"  # what is trained: diffusion (LI-DiT) or vae
    c.seed = 0  # of everything drawn at random: weights, order, noise, dropped prompts

    c.data = ConfigDict()
    c.data.source = "openmoji"  # a name in lidit_jax.data.sources
    c.data.options = ConfigDict()  # the source's own options; see `take_argument`
    c.data.size = (256, 256)  # height, width in pixels
    c.data.bins = (
        "square"  # every picture at `size`; or grid33, pixart40: about that area, by aspect
    )
    c.data.bin_step = 0  # pixels between the sides of grid33's bins; 0 = a 16th of the side
    c.data.min_bin = 256  # a bin of fewer pictures goes to the nearest other
    c.data.codec = "pixels"  # or a KL autoencoder's folder, as diffusers saves one, or its numbers
    c.data.codec_hash = ""  # of the autoencoder; "" = as found by prepare
    c.data.rules = ("R3-shape", "R4-url", "R5-tags")  # ids or profiles of lidit_jax.data.filters
    c.data.limit = 0  # pictures, chosen by a hash of their url or key; 0 = all
    c.data.hold_out = 0.0  # share of the keys, chosen by hash, that are left out to judge by
    c.data.part = "train"  # or held_out: those that hold_out leaves out
    c.data.preview = ()  # prompts of the training previews, set by prepare; () = 16 of the source
    c.data.shards = 4  # pieces that several processes can share; set by prepare
    c.data.workers = 0  # processes that decode pictures; 0 = none but prepare's own
    c.data.threads = 2  # that make batches to train on; each has up to three in memory
    # Pictures that cannot be read and are replaced by others of their bin, before the run ends; 0 = none.
    # A few are what a disk loses, and too few to be felt; what is damaged as a whole has thousands.
    c.data.bad_records = 16

    c.text = ConfigDict()
    c.text.use = ("llama3",)  # which of the encoders below read the prompts
    c.text.encoders = ConfigDict()
    c.text.encoders.llama3 = encoder("meta-llama/Meta-Llama-3-8B-Instruct", width=4096)
    c.text.encoders.qwen = encoder("Qwen/Qwen1.5-7B-Chat", width=4096)
    c.text.encoders.smollm2 = encoder("package:smollm2")
    c.text.encoders.gemma3 = encoder("package:gemma3-270m", template="base")
    c.text.encoders.minilm = encoder("package:minilm", template="encoder")

    c.model = ConfigDict()
    c.model.width = 1152
    c.model.depth = 28  # blocks
    c.model.heads = 16
    c.model.patch = 2  # latent cells per token and side
    c.model.dtype = "bfloat16"  # of products and activations; use float32 on a CPU
    c.model.remat = "none"  # products that are computed again to save memory: none, or full
    c.model.unroll = 1  # blocks per iteration of the loop over blocks
    c.model.conditioner = ConfigDict()
    c.model.conditioner.name = "infused"  # or "direct": no refiners
    c.model.conditioner.feature_norm = "channel"  # or rms, none
    c.model.conditioner.n_ltr = 2  # linguistic token refiner blocks per LLM
    c.model.conditioner.gating = True  # False: gates fixed at 1
    c.model.conditioner.ltr_mask = "full"  # or "causal"
    c.model.conditioner.fusion = "refiner"  # of several LLMs; or "concat"
    c.model.conditioner.n_cr = 1  # collaborative refiner blocks
    c.model.conditioner.context = "prompt"  # tokens averaged for the gates; or "all"

    c.vae = ConfigDict()  # of task "vae"; diffusion uses a trained one, by data.codec
    c.vae.model = ConfigDict()  # with the names that diffusers' AutoencoderKL has for them
    c.vae.model.latent_channels = 16
    c.vae.model.block_out_channels = (128, 256, 512, 512)  # each but the first halves the sides
    c.vae.model.layers_per_block = 2
    c.vae.model.norm_num_groups = 32
    c.vae.model.use_quant_conv = False
    c.vae.model.use_post_quant_conv = False
    c.vae.model.mid_block_add_attention = True
    c.vae.model.dtype = "bfloat16"  # of products and activations; use float32 on a CPU
    c.vae.kl_weight = 1e-6  # of nats per number of the picture
    c.vae.perceptual = ""  # safetensors file with VGG16's and LPIPS's weights; "" = no such loss
    c.vae.perceptual_weight = 1.0
    c.vae.discriminator_weight = 0.0  # of the patch discriminator's opinion; 0 = none
    c.vae.discriminator_width = 64

    c.objective = ConfigDict()
    c.objective.schedule = "linear"  # or scaled_linear, flow
    c.objective.prediction = "eps"  # what the network returns: eps (not with flow), v, x0, flow
    c.objective.loss_view = ""  # in which view the error is measured; "" = the prediction's
    c.objective.sigma_floor = 0.05  # least sigma to divide by when x0 is scored in another view
    c.objective.weighting = "none"  # or min_snr, eq7
    c.objective.min_snr_gamma = 5.0
    c.objective.time = "uniform"  # or logit_normal
    c.objective.time_mean = 0.0  # of logit(t), of time "logit_normal"; positive = toward noise
    c.objective.time_std = 1.0
    c.objective.time_shift = 1.0  # > 1 = toward noise

    c.optim = ConfigDict()
    c.optim.name = "adamw"  # or muon
    c.optim.learning_rate = 1e-4
    c.optim.warmup_steps = 1000
    c.optim.decay = "constant"  # or linear, cosine: to zero at the last step
    c.optim.b1 = 0.9  # Muon's momentum too
    c.optim.b2 = 0.999
    c.optim.weight_decay = 0.0  # of kernels; times the learning rate
    c.optim.clip_norm = 1.0
    c.optim.ema = 0.9999

    c.guard = ConfigDict()  # skips steps that would spoil a run
    # Also skip a step whose loss or gradient norm is so many standard deviations above its recent mean;
    c.guard.spike = 0.0  # 0 = skip only what is not finite
    c.guard.window = 200  # updates that this mean is taken over, 2 or more
    c.guard.patience = 10  # skipped steps in a row that end the run

    c.train = ConfigDict()
    c.train.steps = 300_000
    c.train.batch_size = 256  # over all devices and micro-batches
    c.train.accumulate = 1  # micro-batches per update
    c.train.mesh = (1, -1, 1)  # replica, fsdp, tensor; -1 = the devices that are left
    c.train.drop_prompt = 0.1  # share of samples trained without their prompt, for guidance
    c.train.log_every = 100  # steps
    c.train.save_every = 5_000  # steps
    c.train.keep = 3  # checkpoints, the last ones
    c.train.keep_hours = 0.0  # one in so many hours is kept for good; 0 = none
    c.train.keep_best = ""  # keeps the one that is best by this metric, such as "held_out_loss":
    # with the least mean, of psnr with the greatest; "" = none
    c.train.preview_every = 5_000  # steps; 0 = never
    c.train.watchdog_minutes = 30.0  # without a step, then all stacks go to stderr; 0 = never
    c.train.grace = 120.0  # seconds to save in after SIGTERM, then the process ends; 0 = no limit
    c.train.init_from = (
        ""  # a run's workdir, from whose last checkpoint this one begins; "" = from nothing
    )
    c.train.init_optimizer = False  # carry that run's optimizer too

    c.sample = ConfigDict()
    c.sample.guidance = 4.5  # 1 = off
    c.sample.batch_size = 64  # over all devices of a process; rounded up to a multiple of them
    c.sample.sampler = ConfigDict()
    c.sample.sampler.name = "dpmpp_2m"  # or ddpm, ddim, euler, heun
    c.sample.sampler.steps = 25
    c.sample.sampler.eta = 0.0  # of ddim: 0 = deterministic
    c.sample.sampler.shift = 1.0  # > 1 = more steps near noise
    return c


def is_smoke(arg: str) -> bool:
    """Returns whether a config is asked to shrink itself to seconds on a CPU: `configs/NAME.py:smoke`."""
    if arg not in ("", "smoke"):
        raise errors.unknown_name("argument of the config", arg, ("smoke",))
    return arg == "smoke"


def take_argument(c: ConfigDict, arg: str, *others: str) -> bool:
    """Takes the argument of a config for pictures of any source; returns whether it is smoke's.

    `configs/NAME.py:SOURCE` reads that one of lidit_jax.data.sources, whose options become keys of
    `data.options`. others: what else the config's argument may be, to be told of.
    """
    if arg not in ("", "smoke", *SOURCES):
        raise errors.unknown_name("argument of the config", arg, ("smoke", *SOURCES, *others))
    if arg in SOURCES:
        c.data.source = arg
        options = inspect.signature(SOURCES[arg]).parameters.values()
        c.data.options = ConfigDict({o.name: _start_value(o.default) for o in options})
    return arg == "smoke"


def _start_value(default):
    """An option without a default is an empty text; one of None can be set to a text."""
    if default is inspect.Parameter.empty:
        return ""
    return placeholder(str) if default is None else default


def encoder(model: str, template: str = "chat", width: int = 0) -> ConfigDict:
    """A frozen LLM: Hugging Face id, folder, GGUF file, or "package:NAME"."""
    bidirectional = template == "encoder"
    c = ConfigDict()
    c.model = model
    c.template = template  # "chat": the model's own; "base": none; "encoder": bidirectional
    c.instruction = not bidirectional  # put the instruction before the prompt
    c.layer = -1 if bidirectional else -3  # whose output is kept; -1 = the last, after the norm
    c.max_prompt_tokens = 255  # longer prompts are cut
    c.codec = "bf16"  # of the stored features; or int8, half as large
    c.width = width  # hidden width; 0 = as measured by prepare
    c.prefix_len = 0  # instruction tokens; 0 = as measured by prepare
    c.null_len = 0  # tokens kept of an empty prompt; 0 = as measured by prepare
    return c
