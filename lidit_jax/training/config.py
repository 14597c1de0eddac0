"""Turns an ml_collections ConfigDict into frozen dataclasses, so that a typo is an error.

Each package's settings are a dataclass next to the code that uses them; this file combines
them. `configs/base.py` lists every key with a comment.
"""

import dataclasses
import json
import math
import typing
from typing import Any

import ml_collections
import numpy as np

from lidit_jax import errors
from lidit_jax.data import buckets, filters, judging
from lidit_jax.data.feature_codecs import check_codec
from lidit_jax.diffusion import objectives, samplers, schedules
from lidit_jax.models import conditioners
from lidit_jax.models.lidit import ModelConfig
from lidit_jax.models.vae.kl import VAEConfig
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training.guard import GuardConfig
from lidit_jax.training.optim import MOST_STEPS, OptimConfig

TASKS = ("diffusion", "vae")
MOST = 2**53  # the largest integer on which JSON readers agree
_LONGEST = 1e6  # hours, minutes or seconds: a century, two years, eleven days
MOST_AT_ONCE = 1024  # threads or processes on one machine


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a data set is made from; see configs/base.py. `options` are the source's."""

    source: str
    size: tuple[int, int]
    bins: str
    bin_step: int
    min_bin: int
    codec: str
    codec_hash: str
    rules: tuple[str, ...]
    limit: int
    hold_out: float
    preview: tuple[str, ...]
    shards: int
    workers: int
    threads: int
    bad_records: int
    options: dict[str, Any]
    part: str = judging.PARTS[0]  # the default is for runs older than this key

    def __post_init__(self):
        errors.check_range("data.shards", self.shards, 1, 99_999)  # a file's name has five digits
        errors.check_range("data.threads", self.threads, 1, MOST_AT_ONCE)
        errors.check_range("data.workers", self.workers, 0, MOST_AT_ONCE)
        for name in ("bin_step", "min_bin", "limit", "bad_records"):
            errors.check_range(f"data.{name}", getattr(self, name), 0)
        if not all(text.strip() for text in self.preview):
            raise errors.InputError(f"data.preview is {self.preview}; want captions, none empty")
        errors.check_range("data.hold_out", self.hold_out, 0, 0.999)
        if self.part not in judging.PARTS:
            raise errors.unknown_name("data.part", self.part, judging.PARTS)
        if self.part == judging.HELD_OUT and not self.hold_out:
            raise errors.InputError(
                "no pictures are held out: data.part is 'held_out', but data.hold_out is 0; set it "
                "to the training set's value, such as 0.05"
            )
        for side in self.size:
            errors.check_range("data.size, height and width,", side, 1)
        filters.expand(self.rules)
        buckets.make_bins(self.bins, self.size, self.bin_step)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The run; see configs/base.py."""

    steps: int
    batch_size: int
    accumulate: int
    mesh: tuple[int, int, int]
    drop_prompt: float
    log_every: int
    save_every: int
    keep: int
    keep_hours: float
    keep_best: str
    preview_every: int
    watchdog_minutes: float
    grace: float
    init_from: str
    init_optimizer: bool

    def __post_init__(self):
        if self.init_optimizer and not self.init_from:
            raise errors.InputError(
                "train.init_optimizer needs train.init_from; set it to the run to continue from"
            )
        for name in ("steps", "batch_size", "accumulate", "log_every", "save_every", "keep"):
            errors.check_range(f"train.{name}", getattr(self, name), 1)
        errors.check_range("train.preview_every", self.preview_every, 0)
        for name in ("steps", "batch_size", "log_every"):
            errors.check_range(f"train.{name}", getattr(self, name), -math.inf, MOST_STEPS)
        for name in ("keep_hours", "watchdog_minutes", "grace"):
            errors.check_range(f"train.{name}", getattr(self, name), 0, _LONGEST)
        errors.check_range("train.drop_prompt", self.drop_prompt, 0, 1)


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """How images are sampled: guidance (1 = off) and the sampler."""

    guidance: float
    sampler: samplers.SamplerConfig
    batch_size: int

    def __post_init__(self):
        errors.check_range("sample.batch_size", self.batch_size, 1)
        errors.check_range("sample.guidance", self.guidance, 0)

    @property
    def is_guided(self) -> bool:
        """Whether the empty prompt is evaluated as well."""
        return self.guidance != 1


@dataclasses.dataclass(frozen=True)
class VAETrainConfig:
    """The VAE of task "vae", and the weights of its losses; see configs/base.py."""

    model: VAEConfig
    kl_weight: float
    perceptual: str
    perceptual_weight: float
    discriminator_weight: float
    discriminator_width: int

    def __post_init__(self):
        for name in ("kl_weight", "perceptual_weight", "discriminator_weight"):
            errors.check_range(f"vae.{name}", getattr(self, name), 0)
        if self.discriminator_width < 16 or self.discriminator_width % 16:
            raise errors.InputError(
                f"vae.discriminator_width is {self.discriminator_width}; use a multiple of 16"
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    task: str
    seed: int
    data: DataConfig
    encoders: tuple[EncoderConfig, ...]
    model: ModelConfig
    vae: VAETrainConfig
    objective: objectives.ObjectiveConfig
    optim: OptimConfig
    guard: GuardConfig
    train: TrainConfig
    sample: SampleConfig

    def __post_init__(self):
        errors.check_range("seed", self.seed, 0, 2**32 - 1)
        if self.task not in TASKS:
            raise errors.unknown_name("task", self.task, TASKS)
        schedule = schedules.make_schedule(self.objective.schedule)
        signal, _ = schedule.alpha_sigma(np.ones(1))
        if signal < objectives.FLOOR and self.objective.prediction == "eps":
            raise errors.InputError(
                f"objective.schedule {self.objective.schedule!r} begins at pure noise, where "
                f"prediction 'eps' carries no information about the image (arXiv 2305.08891); set "
                f"objective.prediction to 'flow', 'v' or 'x0'"
            )
        if self.task == "diffusion":
            # Raises if they do not fit; no run has been trained with such a sampler.
            samplers.make_plan(self.sample.sampler, schedule)
        if self.task == "vae" and self.data.codec != "pixels":
            raise errors.InputError(
                f"data.codec is {self.data.codec!r}, but a VAE is trained on pictures; "
                "set it to 'pixels'"
            )
        names = [e.name for e in self.encoders]
        if self.task == "diffusion" and not names or len(set(names)) < len(names):
            raise errors.InputError(f"text.use is {names}; want one or more encoders, each once")
        for e in self.encoders:
            check_codec(e.codec, f"codec of encoder {e.name!r}")

    @property
    def cells_by(self) -> str:
        """What decides `cells`, for error messages."""
        return "patch" if self.task == "diffusion" else "block_out_channels of the trained VAE"

    @property
    def cells(self) -> int:
        """Latent cells per side that the network takes as one; must divide every side."""
        return self.model.patch if self.task == "diffusion" else self.vae.model.downsample


def parse(config: ml_collections.ConfigDict) -> Config:
    """Returns the frozen config; InputError if a key is missing, unknown or of the wrong type."""
    tree = json.loads(config.to_json_best_effort())  # tuples become lists, as in our files
    _check_values(tree, "config")
    text = build(_Text, tree.pop("text", {}), "config.text")
    for name in text.use:
        if name not in text.encoders:
            raise errors.unknown_name("encoder in text.use", name, text.encoders)
        if not isinstance(text.encoders[name], dict):
            build(EncoderConfig, text.encoders[name], f"config.text.encoders.{name}")
    tree["encoders"] = [text.encoders[name] | {"name": name} for name in text.use]
    found = build(Config, tree, "config")
    objective = found.objective  # checked only here, so that existing runs can still be read
    if objective.time == "uniform" and (objective.time_mean, objective.time_std) != (0, 1):
        raise errors.InputError(
            f"objective.time_mean {objective.time_mean} and time_std {objective.time_std} do not "
            f"apply to time 'uniform'; set objective.time to 'logit_normal', or them to 0 and 1"
        )
    if objective.sigma_floor > 1:
        raise errors.InputError(
            f"objective.sigma_floor {objective.sigma_floor} must be at most 1, as sigma is"
        )
    if found.task == "diffusion" and not found.train.init_from:
        if not found.train.drop_prompt and found.sample.is_guided:
            raise errors.InputError(
                f"sample.guidance {found.sample.guidance} needs the empty prompt, which is never "
                f"learned with train.drop_prompt 0; set that to 0.1, or sample.guidance to 1"
            )
    return found


@dataclasses.dataclass(frozen=True)
class _Text:
    """The part of a config that `Config.encoders` is made from."""

    use: tuple[str, ...]
    encoders: dict[str, Any]


def _check_values(value: Any, where: str):
    """Raises InputError for values that could not be written to a file unchanged, for any key."""
    inner = value if isinstance(value, dict) else {}
    if isinstance(value, list):
        inner = {f"[{i}]": v for i, v in enumerate(value)}
    for name, v in inner.items():
        _check_values(v, where + (name if name.startswith("[") else f".{name}"))
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise errors.InputError(f"{where} is {value!r}; want text that UTF-8 can encode")
    if isinstance(value, int) and abs(value) > MOST:
        told = value if abs(value) < 10**30 else "of more than 30 digits"
        raise errors.InputError(f"{where} is {told}; want a number of at most 2**53")
    if isinstance(value, float) and not math.isfinite(value):
        raise errors.InputError(f"{where} is {value}; want a finite number")


def build(cls: type, values: dict, where: str) -> Any:
    """Returns the dataclass `cls` from nested dicts, checking every key and type."""
    if not isinstance(values, dict):
        raise errors.InputError(f"{where} is {values!r}; want {', '.join(cls.__annotations__)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            raise errors.unknown_name(f"key in {where}", key, fields)
    for name, f in fields.items():
        if name not in values and f.default is f.default_factory is dataclasses.MISSING:
            raise errors.InputError(f"{where}.{name} is missing")
    coerced = {k: _coerce(hints[k], v, f"{where}.{k}") for k, v in values.items()}
    try:
        return cls(**coerced)
    except errors.InputError as e:
        if cls in (Config, EncoderConfig) or f"{where.rpartition('.')[2]}." in str(e):
            raise
        raise errors.InputError(f"{where}: {e}") from e


def _coerce(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, (tuple, list)):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) != len(value):
            raise errors.InputError(f"{where} is {value!r}; want {len(kinds)} values")
        return tuple(
            _coerce(kind, v, f"{where}[{i}]") for i, (kind, v) in enumerate(zip(kinds, value))
        )
    kind = origin or hint
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise errors.InputError(f"{where} is {value!r}; want {getattr(kind, '__name__', kind)}")
    return value


def text_sources(encoders: tuple[EncoderConfig, ...]) -> tuple[conditioners.TextSource, ...]:
    """Returns what the model needs to know about each encoder; widths must be known by now.

    Raises InputError if an encoder's width is still 0 (it is measured by `prepare`).
    """
    for e in encoders:
        if not e.width:
            raise errors.InputError(
                f"the width of encoder {e.name!r} is unknown; run `prepare` first, or set "
                f"text.encoders.{e.name}.width"
            )
    return tuple(conditioners.TextSource(e.width, e.prefix_len, e.null_len or 1) for e in encoders)
