"""Configs with arbitrary values for one key or a few, and with incompatible combinations."""

import functools
import pathlib
import random
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from lidit_jax import preparation, rng
from lidit_jax.training import opening
from lidit_jax.training.config import Config, parse
from tests.faults.given.given import Given
from tests.faults.given.world import World

HUGE = (2**31, 2**40, 2**63, 10**30, 10**400)
NUMBERS = (-(10**9), -1, 0, 1, 2, 3, 5, 7, 64, 1000, *HUGE, -0.5, 0.5, 1e-300, 1e300)
ANYTHING = (
    None, "", " ", "x", "nonsense", "/no/such", "~", ".", "\0", "\ud800", "a" * 5000, "12", "inf", True, False,
    float("nan"), float("inf"), float("-inf"), (), (1,), (8, 8), (0, 0), (-1, -1), (1, 2, 3), (16, "x"), (None, 1),
    ("x",), ("", ""), ("x",) * 50, ((16, 16),), [[]], {}, {"a": 1}, {"name": "x"}, {1: 2}, b"bytes", 3j, *NUMBERS,
)  # fmt: skip
MESHES = (
    (-1, -1, 1),
    (0, 1, 1),
    (2, 2, 2),
    (8, 1, 1),
    (1, 1, 8),
    (3, 1, 1),
    (1, -1, 3),
    (1, -1, 2),
    (16, 1, 1),
)
# Combinations of keys whose error may name any of them.
TOGETHER = (
    {"model.heads": 5}, {"model.width": 33}, {"model.width": 36, "model.heads": 3}, {"model.width": 2, "model.heads": 2},
    {"model.patch": 3}, {"model.patch": 32}, {"model.patch": 16}, {"model.unroll": 3}, {"model.unroll": 0},
    {"train.batch_size": 8, "train.accumulate": 3}, {"train.accumulate": 2}, {"train.batch_size": 12},
    {"train.batch_size": 2**40}, {"train.batch_size": 8 * 10**9}, {"train.batch_size": 800},
    {"guard.spike": 3.0, "guard.window": 1}, {"guard.spike": 3.0, "guard.window": 10**9}, {"guard.patience": 0},
    {"guard.spike": 3.0, "guard.window": 0}, {"guard.spike": -1.0}, {"guard.spike": 2.0, "guard.patience": 10**12},
    {"train.keep_best": "los"}, {"train.keep_best": "loss"}, {"train.keep_best": "loss", "train.log_every": 7},
    {"train.steps": -3}, {"train.steps": 2**31}, {"optim.warmup_steps": 1000}, {"optim.decay": "linear", "optim.warmup_steps": 2},
    {"optim.decay": "cosine", "train.steps": 1}, {"optim.warmup_steps": 2**63}, {"optim.name": "muon"}, {"optim.name": "sgd"},
    {"data.bins": "grid33"}, {"data.bins": "grid33", "data.bin_step": 3}, {"data.bins": "grid33", "data.bin_step": 10**9},
    {"data.bins": "pixart40"}, {"data.size": (16, 24), "data.bins": "grid33"}, {"data.size": (17, 16)}, {"data.size": (2**40, 16)},
    {"data.size": (10**6, 10**6), "data.bins": "grid33", "data.bin_step": 1}, {"data.bin_step": 4}, {"data.size": (8192, 8192)},
    {"data.size": (8192, 8192), "data.bins": "grid33", "data.bin_step": 4}, {"data.shards": 1000}, {"data.shards": 10**9},
    {"data.workers": 10**6}, {"data.threads": 10**6}, {"data.limit": 1}, {"data.hold_out": 0.999}, {"data.part": "held_out"}, {"data.part": "held_out", "data.hold_out": 0.5}, {"data.part": ""}, {"data.limit": 2**63},
    {"data.min_bin": 10**9}, {"data.rules": ("R3-shape", "R9-none")}, {"data.rules": ("R2-resolution", "R1-caption")},
    {"data.preview": ("", "a")}, {"data.preview": ("a",) * 10_000}, {"data.preview": ("a\0b", "\ud800")},
    {"data.source": "folder"}, {"data.source": "parquet"}, {"data.source": "tfds"}, {"data.source": "openmoji"},
    {"data.options.count": 0}, {"data.options.count": -1}, {"data.options.seed": -1}, {"data.options.split": "test"},
    {"data.options.count": 2.5}, {"data.options.count": "many"}, {"data.options.seed": "x"}, {"data.options.colour": "red"},
    {"data.codec": "latents:8x16"}, {"data.codec": "latents:0x0"}, {"data.codec": "latents:3x1", "data.size": (15, 15)},
    {"data.codec": "/tmp"}, {"data.codec": "latents:8x999999999999"}, {"data.codec": "pixel"}, {"data.codec_hash": "abc"},
    {"objective.schedule": "flow"}, {"objective.prediction": "flow"}, {"objective.prediction": "v"}, {"objective.loss_view": "x0"},
    {"objective.weighting": "eq7"}, {"objective.weighting": "min_snr", "objective.min_snr_gamma": 0.0}, {"objective.sigma_floor": 0.0},
    {"objective.schedule": "flow", "objective.prediction": "flow", "sample.sampler.name": "heun"}, {"objective.time": "normal"},
    {"objective.time": "logit_normal", "objective.time_std": 0.0}, {"objective.time_shift": 0.0}, {"objective.time_shift": 1e300},
    {"sample.sampler.name": "euler"}, {"sample.sampler.name": "ddim", "sample.sampler.eta": 2.0}, {"sample.sampler.eta": 0.5},
    {"sample.sampler.steps": 2000}, {"sample.sampler.steps": 10**10}, {"sample.sampler.shift": 1e300}, {"sample.sampler.shift": 1e-300},
    {"sample.sampler.steps": 999, "sample.sampler.shift": 30.0}, {"sample.batch_size": 10**12}, {"sample.guidance": 1e300},
    {"text.use": ()}, {"text.use": ("tiny0", "tiny0")}, {"text.use": ("tiny1",)}, {"text.use": "tiny0"}, {"text.use": None},
    {"text.encoders.tiny0.layer": -100}, {"text.encoders.tiny0.layer": 0}, {"text.encoders.tiny0.layer": 3},
    {"text.encoders.tiny0.layer": -4}, {"text.encoders.tiny0.max_prompt_tokens": 0}, {"text.encoders.tiny0.max_prompt_tokens": 2**40},
    {"text.encoders.tiny0.codec": "int4"}, {"text.encoders.tiny0.codec": "int8"}, {"text.encoders.tiny0.template": "base"},
    {"text.encoders.tiny0.template": "encoder"}, {"text.encoders.tiny0.template": "chatty"}, {"text.encoders.tiny0.width": 7},
    {"text.encoders.tiny0.model": ""}, {"text.encoders.tiny0.model": "/tmp"}, {"text.encoders.tiny0.model": "package:none"},
    {"text.encoders.tiny0.model": "nobody/nothing"}, {"text.encoders.tiny0.model": "package:../x"}, {"text.encoders.tiny0.model": "~nobody/x"},
    {"text.encoders.tiny0.model": "/etc/passwd"}, {"text.encoders.tiny0.prefix_len": 3}, {"text.encoders.tiny0.null_len": 99},
    {"model.conditioner.n_ltr": 0}, {"model.conditioner.n_cr": 0}, {"model.conditioner.name": "direct"}, {"model.dtype": "float16"},
    {"model.conditioner.name": "fused"}, {"model.dtype": "int8"}, {"model.dtype": "f32"}, {"model.remat": "some"}, {"model.depth": 0},
    {"model.depth": 10**9}, {"model.width": 2**20}, {"train.init_from": "/no/such"}, {"train.init_optimizer": True}, {"train.init_from": "."},
    {"task": "vae"}, {"task": "vae", "vae.perceptual": "/no/such"}, {"task": "vae", "vae.discriminator_weight": 0.5},
    {"task": "vae", "vae.model.block_out_channels": ()}, {"task": "vae", "vae.model.norm_num_groups": 7},
    {"task": "vae", "vae.model.block_out_channels": (32,) * 9}, {"task": "vae", "vae.model.layers_per_block": 0},
    {"task": "vae", "data.codec": "latents:8x4"}, {"task": "vae", "vae.model.latent_channels": 0}, {"task": "gan"}, {"seed": -1},
    {"seed": 2**32 - 1}, {"seed": 2**32}, {"train.keep": 10**12}, {"train.keep_hours": 1e300}, {"train.watchdog_minutes": 1e300},
    {"train.drop_prompt": 1.5}, {"train.drop_prompt": 1.0}, {"optim.b1": 1.0}, {"optim.clip_norm": 0.0}, {"optim.ema": 1.0},
    {"optim.learning_rate": 1e300}, {"optim.weight_decay": 1e300}, *({"train.mesh": mesh} for mesh in MESHES),
)  # fmt: skip


def give(rng: random.Random, world: World, scratch: pathlib.Path) -> Given:
    """Returns a config that is wrong in a random way, to parse, plan and set up."""
    c = world.config_dict()
    way = rng.choice(
        [_anything, _anything, _near, _together, _together, _together, _missing, _misspelt]
    )
    changes = {}
    for _ in range(rng.choice([1, 1, 1, 2])):
        changes |= way(rng, c)
    for key, value in changes.items():
        put(c, key, value)
    data, workdir = scratch / "data", scratch / "run"
    about = (
        ["source", "picture", "picture size"]
        if any(key.startswith("data.") for key in changes)
        else []
    )
    return Given(
        told=", ".join(f"{key}={value!r:.60}" for key, value in changes.items()),
        names=(*(name for key, value in changes.items() for name in _names(key, value)), *about),
        act=lambda: _until_compiled(parse(c), world.data, data, workdir),
        new=(workdir,),
    )


def _anything(rng, c) -> dict[str, Any]:
    return {rng.choice(_keys(c)): rng.choice(ANYTHING)}


def _near(rng, c) -> dict[str, Any]:
    """A value of the right type, close to the right one."""
    key = rng.choice([k for k in _leaves(c) if type(_at(c, k)) in (int, float)])
    value = _at(c, key)
    return {
        key: type(value)(
            rng.choice([value + 1, value - 1, value * 2, value * 7, value / 3, -value, 1, 0])
        )
    }


def _together(rng, c) -> dict[str, Any]:
    return dict(rng.choice(TOGETHER))


class Missing:
    """Stands for a removed key."""

    def __repr__(self):
        return "(removed)"


def _missing(rng, c) -> dict[str, Any]:
    return {rng.choice(_keys(c)): Missing()}


def _misspelt(rng, c) -> dict[str, Any]:
    key = rng.choice(_keys(c))
    at = rng.randrange(len(key.rpartition(".")[2])) + 1
    wrong = key[:-at] + rng.choice(["", "x", "-", " ", "é"]) + key[len(key) - at + 1 :]
    return {wrong: rng.choice(ANYTHING)}


def _leaves(c: ConfigDict, where: str = "") -> list[str]:
    found = []
    for name, value in c.items():
        inner = isinstance(value, ConfigDict)
        found += _leaves(value, f"{where}{name}.") if inner else [f"{where}{name}"]
    return found


def _keys(c: ConfigDict) -> list[str]:
    """Returns every key, those of whole parts too."""
    leaves = _leaves(c)
    return leaves + sorted(
        {leaf[:i] for leaf in leaves for i, char in enumerate(leaf) if char == "."}
    )


def _at(c: ConfigDict, key: str) -> Any:
    for name in key.split("."):
        c = c[name]
    return c


def put(c: ConfigDict, key: str, value: Any):
    """Sets a key as any config file might, whatever was there."""
    *parts, last = key.split(".")
    for part in parts:
        if not isinstance(c, ConfigDict) or not isinstance(c.get(part), ConfigDict):
            return  # another change removed it
        c = c[part]
    if isinstance(value, int) and abs(value) > 1e300 and type(c.get(last)) is float:
        return  # ml_collections refuses it
    with c.unlocked(), c.ignore_type():
        if isinstance(value, Missing):
            if last in c:
                del c[last]
        else:
            c[last] = value


def _names(key: str, value: Any) -> list[str]:
    """Returns what may name a key in an error line: the key, its parent, or its value."""
    parts = key.split(".")
    words = [parts[-1], *parts[-1].split("_"), *(parts[-2:-1])]
    inner = value if isinstance(value, (tuple, list)) else [value]
    words += [str(v) for v in inner] + [repr(v) for v in inner]
    words += [f"{v}x" for v in inner] + ["x".join(map(str, inner))]
    return [w for w in words if w.strip()]


def _until_compiled(config: Config, read: pathlib.Path, data: pathlib.Path, workdir: pathlib.Path):
    """Does everything that is done with a config before anything is compiled."""
    preparation.prepare_plan(config, data)
    run = opening.set_up(config, read, workdir)
    t = config.train
    run.reader.specs(t.batch_size, 0, 1)
    run.metrics()
    if t.preview_every:
        inputs = run.task.preview_inputs(run.reader)
        like = run.like
        jax.eval_shape(functools.partial(_preview, run), like.ema, like.constants, inputs)


def _preview(run, ema, constants, inputs):
    rows = jax.numpy.arange(len(jax.tree.leaves(inputs)[0]))
    keys = rng.per_sample(rng.key(run.config.seed, "preview"), rows)
    model = nnx.merge(run.graphdef, ema, constants)
    return run.task.preview(model, inputs, keys)
