"""Every config parses, builds, and has the size that it claims."""

import ast
import dataclasses
import functools
import math
import pathlib
import re
import typing

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.extend import core as jex

from configs import ablations, base
from lidit_jax import ablation, errors, sharding
from lidit_jax.data.buckets import make_bins
from lidit_jax.diffusion import schedules
from lidit_jax.training import optim, state, step
from lidit_jax.training.config import Config, parse
from lidit_jax.training.tasks import without_data
from lidit_jax.training.tasks.diffusion import diffusion_task
from tests.tiny import config_of_flags, load_config

ROOT = pathlib.Path(__file__).parent.parent
FAMILIES = ["ablations"]  # of several runs
FREE = ("data.options", "text.encoders")  # keys below these are a source's or an encoder's
NAMES = sorted(
    p.stem
    for p in (ROOT / "configs").glob("*.py")
    if p.stem not in ("__init__", "base", "ablations_paper", *FAMILIES)
)

PAPER = ["lidit_1b", "lidit_10b_512", "lidit_10b_1024"]


def parameter_count(config):
    measured = tuple(
        dataclasses.replace(e, width=e.width or 576, prefix_len=50) for e in config.encoders
    )
    data = config.data
    if pathlib.PurePath(data.codec).parts[1:]:  # the folder of a VAE, which is trained before
        data = dataclasses.replace(data, codec="pixels")
    task = without_data(dataclasses.replace(config, encoders=measured, data=data))
    model = jax.eval_shape(lambda: task.init(nnx.Rngs(0)))
    return sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("argument", ["", "smoke"])
def test_a_config_builds(name, argument):
    config = parse(load_config(name, argument))
    assert parameter_count(config) > 0
    if argument == "smoke":
        part = config.vae.model if config.task == "vae" else config.model
        assert config.train.steps <= 4 and part.dtype == "float32"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_run_of_a_family_builds(name):
    for config in ablation.parse(load_config(name)).runs.values():
        assert parameter_count(config) > 0
    small = ablation.parse(load_config(name, "smoke")).runs.values()
    assert all(config.train.steps <= 4 for config in small)


@pytest.mark.parametrize("argument", ["smoke", "ltr1,smoke"])
def test_a_run_at_the_papers_scale_can_be_made_small(argument):
    config = parse(load_config("ablations_paper", argument))
    assert parameter_count(config) > 0 and config.train.steps <= 4
    assert config.model.conditioner.n_ltr == (2 if argument == "smoke" else 1)


@pytest.mark.parametrize("argument", ["ltr9", "ltr,ltr1"])
def test_a_run_at_the_papers_scale_that_there_is_not(argument):
    with pytest.raises(errors.InputError, match="unknown argument of the config"):
        load_config("ablations_paper", argument)


@pytest.mark.parametrize("run", [*ablations.RUNS, *ablations.EXTRA])
def test_a_run_at_the_papers_scale_has_its_switches(run):
    config = parse(load_config("ablations_paper", run))
    switches = (ablations.RUNS | ablations.EXTRA)[run]
    assert (config.model.width, config.model.depth, config.train.batch_size) == (1152, 28, 256)
    assert config.data.size == (256, 256) and config.train.steps == 300_000
    assert len(config.encoders) == len(switches.llms)
    for encoder, llm in zip(config.encoders, switches.llms):
        assert encoder.name.startswith(llm) and encoder.instruction == switches.instruction
        assert encoder.layer == (-1 if llm == "t5" else -3)
        assert (encoder.template == "chat") == switches.tuned
    counted = parameter_count(config)
    blocks = switches.refiners * len(switches.llms) + (switches.fusion == "refiner") * (
        len(switches.llms) - 1
    )
    alone = parameter_count(parse(load_config("ablations_paper", "base")))
    assert (counted - alone > 10_000_000) == (blocks > 0), (counted, alone)


def test_seventeen_runs_stand_in_the_papers_tables():
    assert len(ablations.RUNS) == 17
    assert ablations.RUNS["full"].paper == (60.31, 80.25)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("argument", ["", "smoke"])
def test_the_network_divides_every_bin_also_in_a_vaes_latents(name, argument):
    config = parse(load_config(name, argument))
    data, vae = config.data, 1 if config.data.codec == "pixels" else 8
    for size in make_bins(data.bins, data.size, data.bin_step).sizes:
        assert all(side % (vae * config.cells) == 0 for side in size), size


@pytest.mark.parametrize(
    "name", [PAPER[0], *(pytest.param(name, marks=pytest.mark.slow) for name in PAPER[1:])]
)
@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_step_in_bf16_keeps_the_whole_state_in_f32(name, accumulate):
    c = load_config(name)
    c.train.accumulate = accumulate
    config = parse(c)
    assert config.model.dtype == "bfloat16"
    task, optimizer = diffusion_task(config, (64, 64)), optim.make_optimizer(config.optim, 10)
    mesh = sharding.make_mesh((1, 8, 1))
    graphdef, like = state.abstract(task, optimizer, mesh)
    update = step.make_step(task, graphdef, optimizer, config, mesh, like)
    after, metrics = jax.eval_shape(update, like, task.batch_spec())
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), like
    )
    told = [a for a in metrics.values() if jnp.issubdtype(a.dtype, jnp.floating)]
    found = {a.dtype for a in jax.tree.leaves((after.params, after.ema, told))}
    assert found == {jnp.dtype("float32")} and len(told) >= 3


def test_the_vae_has_the_parameters_that_its_header_claims():
    header = (ROOT / "configs" / "vae.py").read_text()
    claimed = [int(n.replace(",", "")) for n in re.findall(r"[\d,]{9,}", header)]
    c = load_config("vae")
    whole = parameter_count(parse(c))
    c.vae.discriminator_weight = 0.0
    alone = parameter_count(parse(c))
    assert claimed == [alone, whole - alone]


@pytest.mark.parametrize("name", PAPER)
def test_a_config_has_the_parameters_that_its_header_claims(name):
    header = (ROOT / "configs" / f"{name}.py").read_text()
    claimed = int(re.search(r"([\d,]{10,}) trained parameters", header)[1].replace(",", ""))
    assert parameter_count(parse(load_config(name))) == claimed


def multiply_adds(jaxpr):
    """Returns the multiply-adds of every matrix product and convolution, loops counted out."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            sides = [eqn.invars[0].aval.shape[d] for d in contracted]
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(sides)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel[:-1])
        loops = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        total += loops * sum(map(multiply_adds, jex.jaxprs_in_params(eqn.params)))
    return total


@pytest.mark.parametrize("name", PAPER)
def test_an_image_costs_what_the_header_claims(name):
    """Backward is twice forward; 120 prompt tokens and an instruction of 50 an LLM."""
    config = parse(load_config(name))
    encoders = tuple(dataclasses.replace(e, prefix_len=50) for e in config.encoders)
    train = dataclasses.replace(config.train, batch_size=1)
    config = dataclasses.replace(config, encoders=encoders, train=train)
    task = diffusion_task(config, (120, 120))
    model = jax.eval_shape(lambda: task.init(nnx.Rngs(0)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    forward = jax.make_jaxpr(task.loss)(model, task.batch_spec(), keys)
    header = (ROOT / "configs" / f"{name}.py").read_text()
    claimed = float(re.search(r"([\d.]+) TFLOP an image", header)[1])
    assert 3 * 2 * multiply_adds(forward.jaxpr) / 1e12 == pytest.approx(claimed, rel=5e-3)


@pytest.mark.parametrize(
    ("guidance", "guided"), [(0.0, True), (0.5, True), (1.0, False), (2.0, True)]
)
def test_guidance_of_one_alone_is_none(guidance, guided):
    """Below it the empty prompt counts too: one half is between the two."""
    c = load_config("quickstart")
    c.sample.guidance = guidance
    assert parse(c).sample.is_guided == guided


def test_noise_alone_is_not_asked_for_its_noise(monkeypatch):
    c = load_config("shapes")
    c.objective.prediction = "eps"
    with pytest.raises(errors.InputError, match="'flow' begins at pure noise.* 'v' or 'x0'"):
        parse(c)
    monkeypatch.setitem(schedules.SCHEDULES, "mine", schedules.Flow)  # whatever it is called
    c.objective.schedule = "mine"
    with pytest.raises(errors.InputError, match="'mine' begins at pure noise"):
        parse(c)


def test_a_sampler_that_does_not_fit_the_schedule_is_refused_before_anything_is_made():
    c = load_config("lidit_1b")
    c.sample.sampler.name = "heun"
    with pytest.raises(errors.InputError, match="'heun' is for schedule 'flow'"):
        parse(c)


@pytest.mark.parametrize("key", ["time_mean", "time_std"])
def test_a_law_of_time_that_the_uniform_one_has_not_is_refused(key):
    c = load_config("lidit_1b", "smoke")
    c.objective[key] = 2.2
    with pytest.raises(errors.InputError, match="do not apply to time 'uniform'; set objective"):
        parse(c)
    c.objective.time = "logit_normal"
    assert getattr(parse(c).objective, key) == 2.2


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_argument_is_refused(name):
    with pytest.raises(
        errors.InputError, match="unknown argument of the config 'smok'; known: smoke"
    ):
        load_config(name, "smok")


HEADERS = {
    p.stem: ast.get_docstring(ast.parse(p.read_text())) or ""
    for p in sorted((ROOT / "configs").glob("*.py"))
}
COMMANDS = [
    pytest.param(command.split(), id=f"{name}-{k}")
    for name, header in HEADERS.items()
    for k, command in enumerate(
        re.findall(r"^python -m (.* --config=.*)$", header.replace("\\\n", ""), re.MULTILINE)
    )
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_header_sets_keys_that_there_are(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = config_of_flags(command)
    (ablation.parse if hasattr(config, "base") else parse)(config)
    for word in command:
        if word.startswith("--config."):
            key, value = word.removeprefix("--config.").split("=", 1)
            assert str(functools.reduce(getattr, key.split("."), config)) == value


@pytest.mark.parametrize("name", ["lidit_1b", "vae"])
def test_a_sources_options_are_keys(name):
    c = load_config(name, "webdataset")
    c.data.options.caption = "text"
    assert parse(c).data.source == "webdataset" and parse(c).data.options["caption"] == "text"
    assert (
        load_config("ablations_paper", "ltr,webdataset").data.options
        == load_config(name, "webdataset").data.options
    )


def test_the_base_config_has_every_key_that_is_read_and_no_other():
    def keys(cls, where=""):
        for name, hint in typing.get_type_hints(cls).items():
            inner = dataclasses.is_dataclass(hint)
            yield from keys(hint, f"{where}{name}.") if inner else [f"{where}{name}"]

    def given(config, where=""):
        for name, value in config.items():
            inner = hasattr(value, "items") and where + name not in FREE
            yield from given(value, f"{where}{name}.") if inner else [f"{where}{name}"]

    read = set(keys(Config)) - {"encoders"} | {"text.use", "text.encoders"}
    written = set(given(base.get_config()))
    assert written <= read
    # The others are of VAEs that come from elsewhere.
    assert {key.rpartition(".")[0] for key in read - written} == {"vae.model"}


def test_a_misspelt_key_is_an_error_that_lists_the_known_ones():
    c = load_config("quickstart")
    with c.unlocked():
        c.optim.learning_rat = 1.0
    with pytest.raises(
        errors.InputError, match="unknown key in config.optim 'learning_rat'; known: learning_rate"
    ):
        parse(c)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.text.update(use=("smolm2",)), "unknown encoder in text.use 'smolm2'; known: smollm2"),
        (lambda c: c.train.update(save_every=0), "train.save_every is 0; use 1 or more"),
        (lambda c: c.train.update(preview_every=-1), "train.preview_every is -1"),
        (lambda c: c.train.update(steps=True), "train.steps is True"),
        (lambda c: c.data.update(limit=2**53 + 1), r"data.limit is 9007199254740993.* 2\*\*53"),
        (lambda c: c.vae.update(kl_weight=-1.0), "vae.kl_weight is -1"),
        (lambda c: c.vae.update(perceptual_weight=-1.0), "vae.perceptual_weight is -1"),
        (lambda c: c.vae.update(discriminator_weight=-1.0), "vae.discriminator_weight is -1"),
        (lambda c: c.vae.update(discriminator_width=0), "vae.discriminator_width is 0"),
        (lambda c: c.vae.update(discriminator_width=24), "vae.discriminator_width is 24"),
        (lambda c: c.train.update(drop_prompt=1.5), "train.drop_prompt is 1.5; use a value in"),
        (lambda c: c.train.update(drop_prompt=0.0), "guidance 2.0 needs the empty prompt, which is never"),
        (lambda c: c.text.update(used=("gemma3",)), "unknown key in config.text 'used'; known: use"),
        (lambda c: c.text.update(use=("smollm2", "smollm2")), "want one or more encoders, each once"),
        (lambda c: c.text.update(use=()), "want one or more encoders"),
        (lambda c: c.update(seed=-1), "seed is -1; use a value in"),
        (lambda c: c.optim.update(b1=1.0), "optim.b1 is 1.0; use a value in"),
        (lambda c: c.optim.update(learning_rate=float("inf")), "learning_rate is inf; want a finite"),
        (lambda c: c.objective.update(time_std=float("nan")), "time_std is nan; want a finite number"),
        (lambda c: c.sample.update(guidance=-3.0), "sample.guidance is -3.0; use 0 or more"),
        (lambda c: c.data.update(size=(0, 32)), "height and width, is 0; use 1 or more"),
        (lambda c: c.model.update(patch=0), "model.patch is 0; use 1 or more"),
        (lambda c: c.model.conditioner.update(n_ltr=-1), "n_ltr is -1; use 0 or more"),
        (lambda c: c.data.update(shards=0), r"data.shards is 0; use a value in \[1, 99999\]"),
        (lambda c: c.data.update(workers=10**6), r"data.workers is 1000000; .* \[0, 1024\]"),
        (lambda c: c.optim.update(clip_norm=0.0), "clip_norm is 0.0, which leaves no gradient"),
        (lambda c: c.optim.update(ema=1.5), r"optim.ema is 1.5; use a value in \[0, 1\]"),
        (lambda c: c.data.update(size=(32,)), "config.data.size is .*want 2 values"),
        (lambda c: c.optim.update(decay="cos"), "unknown optim.decay 'cos'; known: cosine"),
        (lambda c: c.data.update(rules=("R4",)), "unknown rule in data.rules 'R4'"),
        (lambda c: c.objective.update(prediction="epsilon"), "'epsilon'; known: "),
        (lambda c: c.sample.sampler.update(name="dpm"), "config.sample.sampler: unknown sampler 'dpm'; known: "),
        (lambda c: c.sample.sampler.update(steps=0), "config.sample.sampler: steps 0 must be"),
        (lambda c: c.vae.model.update(dtype="fp16"), "config.vae.model: unknown dtype 'fp16'"),
        (lambda c: c.train.update(log_every=2**31), "train.log_every is 2147483648; use 2147483647 or less"),
        (lambda c: c.guard.update(window=2**31), r"guard.window is 2147483648; use a value in \[2, "),
        (lambda c: c.objective.update(sigma_floor=1.5), "objective.sigma_floor 1.5 must be at most 1"),
        (lambda c: c.text.encoders.smollm2.update(null_len=-1), "smollm2.null_len is -1; use 0 or more"),
        (lambda c: c.text.encoders.smollm2.update(model=""), "encoder 'smollm2': model is empty"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_early(change, message):
    c = load_config("quickstart")
    change(c)
    with pytest.raises(errors.InputError, match=message):
        parse(c)
