"""Every key, with its meaning and unit. Other configs change a few of them.

The defaults are the paper's where it gives them (section 4.1), else those noted in docs/model.md.
"""

import inspect

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from lidit_jax import errors
from lidit_jax.data.sources import SOURCES


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.task = "diffusion"  # what is trained: diffusion (LI-DiT) or vae
    c.seed = 0  # of all randomness: weights, order, noise, dropped prompts

    c.data = ConfigDict()
    c.data.source = "openmoji"  # a name in lidit_jax.data.sources
    c.data.options = ConfigDict()  # the source's own options; see `take_argument`
    c.data.size = (256, 256)  # height, width in pixels
    c.data.bins = (
        "square"  # every picture at `size`; or grid33, pixart40: about that area, by aspect ratio
    )
    c.data.bin_step = 0  # pixels between the sides of grid33's bins; 0 = a 16th of the side
    c.data.min_bin = 256  # a bin with fewer pictures is merged into the nearest other
    c.data.codec = (
        "pixels"  # or a KL autoencoder's folder (diffusers layout); or, to plan, "latents:8x16"
    )
    c.data.codec_hash = ""  # of the autoencoder; "" = as found by prepare
    c.data.rules = ("R3-shape", "R4-url", "R5-tags")  # ids or profiles of lidit_jax.data.filters
    c.data.limit = 0  # pictures, chosen by a hash of their url or key; 0 = all
    c.data.hold_out = 0.0  # share of the keys, chosen by hash, that are held out for evaluation
    c.data.part = "train"  # or held_out: the keys that hold_out leaves out
    c.data.preview = ()  # prompts of the training previews, set by prepare; () = 16 from the source
    c.data.shards = 4  # pieces that several processes can share; set by prepare
    c.data.workers = 0  # processes that decode pictures; 0 = only prepare's own
    c.data.threads = 2  # that build training batches; each holds up to three in memory
    # Unreadable pictures that are replaced by others of their bin; one more ends the run; 0 = none.
    # A bad disk loses a few, too few to matter; a file that is damaged as a whole has thousands.
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
    c.model.remat = "none"  # products recomputed in the backward pass to save memory: none, or full
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

    c.vae = ConfigDict()  # for task "vae"; diffusion uses a trained VAE, by data.codec
    c.vae.model = ConfigDict()  # names as in diffusers' AutoencoderKL
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
    c.vae.discriminator_weight = 0.0  # of the decoder's adversarial loss; 0 = no discriminator
    c.vae.discriminator_width = 64

    c.objective = ConfigDict()
    c.objective.schedule = "linear"  # or scaled_linear, flow
    c.objective.prediction = "eps"  # what the network predicts: eps (not with flow), v, x0, flow
    c.objective.loss_view = ""  # view in which the error is measured; "" = the prediction's
    c.objective.sigma_floor = 0.05  # minimum sigma to divide by when x0 is scored in another view
    c.objective.weighting = "none"  # or min_snr, eq7
    c.objective.min_snr_gamma = 5.0
    c.objective.time = "uniform"  # or logit_normal
    c.objective.time_mean = 0.0  # of logit(t), for time "logit_normal"; positive = toward noise
    c.objective.time_std = 1.0
    c.objective.time_shift = 1.0  # > 1 = toward noise

    c.optim = ConfigDict()
    c.optim.name = "adamw"  # or muon
    c.optim.learning_rate = 1e-4
    c.optim.warmup_steps = 1000
    c.optim.decay = "constant"  # or linear, cosine: to zero after the last step
    c.optim.b1 = 0.9  # also Muon's momentum
    c.optim.b2 = 0.999
    c.optim.weight_decay = 0.0  # of kernels only; multiplied by the learning rate
    c.optim.clip_norm = 1.0
    c.optim.ema = 0.9999

    c.guard = ConfigDict()  # skips steps that would spoil a run
    # Also skip a step whose loss or gradient norm is this many standard deviations above its recent
    c.guard.spike = 0.0  # mean; 0 = skip only non-finite ones
    c.guard.window = 200  # updates that this mean is taken over, 2 or more
    c.guard.patience = 10  # skipped steps in a row that end the run

    c.train = ConfigDict()
    c.train.steps = 300_000
    c.train.batch_size = 256  # over all devices and micro-batches
    c.train.accumulate = 1  # micro-batches per update
    c.train.mesh = (1, -1, 1)  # replica, fsdp, tensor; -1 = the remaining devices
    c.train.drop_prompt = 0.1  # share of samples with the empty prompt, for guidance
    c.train.log_every = 100  # steps
    c.train.save_every = 5_000  # steps
    c.train.keep = 3  # the last checkpoints
    c.train.keep_hours = 0.0  # one per this many hours is kept for good; 0 = none
    c.train.keep_best = ""  # also keeps the best by this metric, such as "held_out_loss":
    # the least mean, or for psnr the greatest; "" = none
    c.train.preview_every = 5_000  # steps; 0 = never
    c.train.watchdog_minutes = 30.0  # without a step, then all stacks go to stderr; 0 = never
    c.train.grace = 120.0  # seconds for saving after SIGTERM, then the process ends; 0 = no limit
    c.train.init_from = ""  # a run's workdir; starts from its last checkpoint; "" = from scratch
    c.train.init_optimizer = False  # also carry over that run's optimizer state

    c.sample = ConfigDict()
    c.sample.guidance = 4.5  # 1 = off; 0 = the empty prompt alone
    c.sample.batch_size = 64  # over all devices of a process; rounded up to a multiple of them
    c.sample.sampler = ConfigDict()
    c.sample.sampler.name = "dpmpp_2m"  # or ddpm, ddim, euler, heun
    c.sample.sampler.steps = 25
    c.sample.sampler.eta = 0.0  # for ddim: 0 = deterministic
    c.sample.sampler.shift = 1.0  # > 1 = more steps near noise
    return c


def is_smoke(arg: str) -> bool:
    """Returns whether a config is asked to shrink to seconds on a CPU: `configs/NAME.py:smoke`."""
    if arg not in ("", "smoke"):
        raise errors.unknown_name("argument of the config", arg, ("smoke",))
    return arg == "smoke"


def take_argument(c: ConfigDict, arg: str, *others: str) -> bool:
    """Applies the argument of a config that takes any source; returns whether it is "smoke".

    `configs/NAME.py:SOURCE` reads that source of lidit_jax.data.sources, whose options become keys
    of `data.options`. others: other arguments of the config, to list in the error.
    Raises InputError for an unknown argument.
    """
    if arg not in ("", "smoke", *SOURCES):
        raise errors.unknown_name("argument of the config", arg, ("smoke", *SOURCES, *others))
    if arg in SOURCES:
        c.data.source = arg
        options = inspect.signature(SOURCES[arg]).parameters.values()
        c.data.options = ConfigDict({o.name: _start_value(o.default) for o in options})
    return arg == "smoke"


def _start_value(default):
    """Returns an option's default: "" if it has none; for None, a placeholder that takes a text."""
    if default is inspect.Parameter.empty:
        return ""
    return placeholder(str) if default is None else default


def encoder(model: str, template: str = "chat", width: int = 0) -> ConfigDict:
    """Returns the config of a frozen LLM: Hugging Face id, folder, GGUF file, or "package:NAME"."""
    bidirectional = template == "encoder"
    c = ConfigDict()
    c.model = model
    c.template = template  # "chat": the model's own; "base": none; "encoder": bidirectional
    c.instruction = not bidirectional  # put the instruction before the prompt
    c.layer = -1 if bidirectional else -3  # whose output is kept; -1 = the last, after the norm
    c.max_prompt_tokens = 255  # longer prompts are truncated
    c.codec = "bf16"  # of the stored features; or int8, half as large
    c.width = width  # hidden width; 0 = as measured by prepare
    c.prefix_len = 0  # instruction tokens; 0 = as measured by prepare
    c.null_len = 0  # tokens kept of an empty prompt; 0 = as measured by prepare
    return c
