"""What a plan says of memory is what the compiler says, and what it chooses fits where more would not."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from lidit_jax import errors, sharding
from lidit_jax.benchmarking import assumed, chips, devices, flops, least_time, plan, program
from lidit_jax.benchmarking.program import Program, Setting, TooLarge
from lidit_jax.training.config import parse
from tests.benchmarking.flops_test import make_step
from tests.tiny import abstract_mesh, load_config


def with_train(config, **changes):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


def on_mesh(sizes, batch_size=64, **model):
    """A small step, on the suite's 8 devices."""
    step = make_step(width=64, depth=2, **model)
    shape = dataclasses.replace(step.task.shape, batch_size=batch_size)
    return program.Step(
        with_train(step.config, batch_size=batch_size),
        dataclasses.replace(step.task, shape=shape),
        sharding.make_mesh(sizes),
    )


@pytest.mark.parametrize(
    ("sizes", "over"), [((1, 64, 1), 0.02), ((4, 64, 1), 0.02), ((2, 128, 1), 0.05), ((1, 256, 1), 0.08)]
)  # fmt: skip
def test_a_parameter_takes_sixteen_bytes_over_the_devices_that_share_it(sizes, over):
    """Itself, two moments and its average, in f32; biases are not split, and weigh more on more devices."""
    config = assumed.measured(parse(load_config("lidit_10b_512")), assumed.Lengths())
    step = program.Step(config, assumed.task(config, assumed.Lengths()), abstract_mesh(sizes))
    parts = program.state_bytes(step.like)
    each = 10_463_117_120 * 16 / (sizes[1] * sizes[2])
    found = sum(parts[k] for k in ("parameters", "optimizer", "EMA"))
    assert 1 <= found / each <= 1 + over
    assert parts["optimizer"] == pytest.approx(2 * parts["parameters"], rel=0.001)


@pytest.fixture(scope="module")
def compiled():
    step = on_mesh((1, 8, 1))
    return step, {m: step.compile(Setting("full", m, 8 // m)) for m in (1, 2, 4)}


@pytest.mark.slow
def test_the_compiled_program_is_given_as_many_bytes(compiled):
    step, programs = compiled
    counted = sum(program.state_bytes(step.like).values())
    counted += program.batch_bytes(step.task, step.mesh)
    for found in programs.values():
        assert found.arguments == pytest.approx(counted, rel=0.05)


@pytest.mark.slow
def test_a_doubled_micro_batch_takes_at_most_twice_the_temporaries(compiled):
    small, middle, large = (compiled[1][m].temporaries for m in (1, 2, 4))
    assert small < middle <= 2 * small
    assert middle < large <= 2 * middle


@pytest.mark.slow
def test_two_compilations_foretell_a_third(compiled):
    small, middle, large = (compiled[1][m] for m in (1, 2, 4))
    line = plan.Line((small, large))
    assert line.bytes(2) == pytest.approx(middle.bytes, rel=0.1)
    assert line.bytes(1) == small.bytes and line.bytes(4) == large.bytes


@pytest.mark.slow
def test_every_parameter_is_gathered_for_each_step(compiled):
    """At least once; forward and backward of each micro-batch gather it again, or XLA keeps it."""
    step, programs = compiled
    parameters = 8 * program.state_bytes(step.like)["parameters"]
    for m, found in programs.items():
        kinds = found.collectives.by_kind.items()
        gathered = sum(c.bytes for (kind, _), c in kinds if kind == "all-gather")
        assert 0.9 * parameters < gathered < 2 * (8 // m) * parameters


def fake_lines(**first_and_slope):
    """A line per policy: bytes of a micro-batch of 1, and of each more sample."""

    def at(remat, m, first, slope):
        return Program(Setting(remat, m, 8 // m), 0, first + (m - 1) * slope, 0, 0.0, "")

    return {
        remat: plan.Line((at(remat, 1, *numbers), at(remat, 4, *numbers)))
        for remat, numbers in first_and_slope.items()
    }


def test_a_policys_line_neither_falls_nor_goes_below_what_was_compiled():
    for first, slope, wanted in ((40, 20, [40, 60, 100, 180]), (40, -5, [40] * 4)):
        (line,) = fake_lines(none=(first, slope)).values()
        assert [line.bytes(m) for m in (1, 2, 4, 8)] == wanted
    larger = plan.Line(line.probes[1:])
    assert larger.bytes(4) == 25
    with pytest.raises(ValueError, match="one compilation says nothing"):
        larger.bytes(2)


@pytest.mark.parametrize(("sizes", "share"), [((1, 8, 1), 8), ((2, 2, 2), 16), ((1, 1, 8), 64)])
def test_a_setting_is_for_each_way_to_do_a_share_of_the_batch_the_largest_first(sizes, share):
    """Devices that split a layer's tensors share their rows."""
    found = plan.settings(on_mesh((1, 8, 1)).config, abstract_mesh(sizes), "full")
    assert found[0] == Setting("full", share, 1) and found[-1] == Setting("full", 1, share)
    assert [s.micro_batch * s.accumulate for s in found] == [share] * (share.bit_length())


@pytest.mark.parametrize("room", [5, 12, 41, 75, 200])
@pytest.mark.parametrize("link", [1e30, 1e-9], ids=["fast links", "slow links"])
def test_what_is_chosen_fits_and_nothing_that_is_faster_does(monkeypatch, room, link):
    step = on_mesh((1, 8, 1))
    lines = fake_lines(none=(40, 20), full=(10, 5))
    monkeypatch.setitem(chips.CHIPS, "v5e", chips.Chip(room, 1.0, link))
    timed = plan.by_time(step, "v5e", flops.forward(step.task))
    chosen = plan.choose("v5e", timed, lines)
    if room < 10:
        assert chosen.setting is None and chosen.bytes == 10
        assert chosen == plan.choose("v5e", timed[::-1], lines)  # the least of all, not the last
        return
    assert chosen.bytes == lines[chosen.setting.remat].bytes(chosen.setting.micro_batch) <= room
    for remat in plan.POLICIES:
        for other in plan.settings(step.config, step.mesh, remat):
            if lines[remat].bytes(other.micro_batch) <= room:
                chip = chips.CHIPS["v5e"]
                time = least_time.of(step, other, chip, flops.forward(step.task))
                assert time.seconds >= chosen.time.seconds


def test_slow_links_prefer_larger_micro_batches_to_less_recomputation(monkeypatch):
    step, lines = on_mesh((1, 8, 1)), fake_lines(none=(40, 20), full=(10, 5))
    found = {}
    for link in (1e30, 1e-9):
        monkeypatch.setitem(chips.CHIPS, "v5e", chips.Chip(45, 1.0, link))
        timed = plan.by_time(step, "v5e", flops.forward(step.task))
        found[link] = plan.choose("v5e", timed, lines).setting
    assert found == {1e30: Setting("none", 1, 8), 1e-9: Setting("full", 8, 1)}


@pytest.mark.parametrize(
    ("sizes", "joined", "within", "between"),
    [
        # links join all: 4 devices gather 3/4 of every parameter twice and receive 3/4 of every gradient;
        # replicas sum a quarter
        ((2, 4, 1), 0, 3 * 3 / 4 + 2 / 4 / 2, 0),
        ((2, 4, 1), 8, 3 * 3 / 4 + 2 / 4 / 2, 0),  # one machine
        ((2, 4, 1), 4, 3 * 3 / 4, 2 / 4 / 2),  # gathered within a machine, summed between two
        ((2, 4, 1), 2, 3 * (3 / 4 - 1 / 4), 3 / 4 + 2 / 4 / 2),  # half from the other, by two links
        ((1, 8, 1), 1, 0, 3 * 7 / 8),  # each alone
        ((1, 4, 2), 4, 3 / 2 * (3 / 4 - 1 / 4), 3 / 2 / 4),  # two of a group in a machine
    ],
)
def test_what_comes_from_other_machines_comes_once_and_over_the_links_of_all(
    sizes, joined, within, between
):
    step = on_mesh(sizes, dtype="bfloat16")
    whole = 2 * sum(math.prod(p.shape) for p in jax.tree.leaves(step.like.params))
    for far, accumulate in ((1e30, 1), (1.0, 1), (1.0, 8)):
        chip = chips.Chip(0, 1.0, link=9.0, far=far, joined=joined)
        setting = Setting("none", 8 // accumulate, accumulate)
        time = least_time.of(step, setting, chip, flops.forward(step.task))
        assert time.traffic == pytest.approx(accumulate * whole * max(within / 9, between / far))


@pytest.mark.slow
def test_the_compiled_step_receives_hardly_more_than_by_formula(compiled):
    """And not much less: what is gathered outside of the loop over blocks may be kept for the backward pass."""
    step, programs = compiled
    for found in programs.values():
        counted = sum(c.bytes for c in found.collectives.by_kind.values())
        whole, sizes = least_time.collected(step, found.setting), step.mesh.shape
        received = sum(size * (1 - 1 / sizes[axis]) for axis, size in whole.items())
        assert 0.5 < counted / received < 1.1


class StandIn:
    """A step whose compiler has so much room, and needs `each` bytes a sample of a policy."""

    def __init__(self, room, **each):
        self.room, self.each, self.asked = room, each, []
        self.step = on_mesh((1, 8, 1))
        self.config, self.mesh, self.like = self.step.config, self.step.mesh, self.step.like

    def compile(self, setting):
        self.asked.append((setting.remat, setting.micro_batch))
        wanted = self.each[setting.remat] * setting.micro_batch + 1
        if wanted > self.room:
            return TooLarge(setting, f"wants {wanted}", wanted, 0.0)
        return Program(setting, 0, wanted, 0, 0.0, "")


def ask_tpu(monkeypatch, step, room, link=1e30):
    monkeypatch.setitem(chips.CHIPS, "v5e", chips.Chip(room, 1.0, link))
    asked = plan.Asked(step.config, (1, 8, 1), topology="v5e:2x4")
    return plan._search_by_refusals(step, asked, flops.forward(step.step.task), "v5e")


def test_a_tpus_compiler_is_asked_until_something_fits(monkeypatch):
    step = StandIn(room=45, none=20, full=10)
    tried, (chosen,) = ask_tpu(monkeypatch, step, 45)
    assert step.asked == [("none", 8), ("none", 2)]  # what cannot fit is not asked
    assert chosen.setting == Setting("none", 2, 4)
    assert isinstance(tried[-1], Program)


def test_where_links_are_slow_it_is_asked_for_the_largest_micro_batches_first(monkeypatch):
    step = StandIn(room=85, none=20, full=10)
    _, (chosen,) = ask_tpu(monkeypatch, step, 85, link=1e-9)
    assert step.asked == [("none", 8), ("full", 8)]
    assert chosen.setting == Setting("full", 8, 1)


@pytest.mark.parametrize(
    ("remat", "setting", "hopeless"),
    [
        ("full", Setting("full", 4, 1), True),  # the same again
        ("full", Setting("none", 4, 1), True),  # keeps more
        ("none", Setting("full", 4, 1), False),  # keeps less
        ("none", Setting("none", 2, 1), True),  # more than half of 100
        ("none", Setting("none", 1, 1), False),
        ("none", Setting("none", 8, 1), True),
    ],
)
def test_a_refusal_rules_out_what_takes_more(remat, setting, hopeless):
    refused = TooLarge(Setting(remat, 4, 1), "wants 100", 100, 0.0)
    assert plan._cannot_fit(setting, refused, room=40) == hopeless


def test_where_nothing_fits_the_refusals_are_the_answer(monkeypatch):
    step = StandIn(room=5, none=20, full=10)
    tried, (chosen,) = ask_tpu(monkeypatch, step, 5)
    assert chosen.setting is None and chosen.bytes == 81  # full's 8 x 10 + 1; none's are 161
    assert all(isinstance(t, TooLarge) for t in tried)


def test_a_config_that_is_not_to_be_searched_is_compiled_as_it_is():
    step = StandIn(room=1000, none=20, full=10)
    step.config = with_train(step.config, accumulate=4)
    remat, products = step.config.model.remat, flops.forward(step.step.task)
    asked = plan.Asked(step.config, (1, 8, 1), devices=8, search=False)
    for search, known in ((plan._search_by_lines, ["v5e"]), (plan._search_by_refusals, "v5e")):
        step.asked.clear()
        _, (chosen,) = search(step, asked, products, known)
        assert step.asked == [(remat, 2)] and chosen.setting == Setting(remat, 2, 4)


def test_a_line_goes_through_one_sample_and_the_most_that_accumulate():
    """But no more than are soon compiled; a share of one sample is all there is of its line."""
    step = StandIn(room=1000, none=20, full=10)
    for batch_size, asked in ((64, [1, 4]), (512, [1, 16]), (8, [1])):
        step.config = with_train(step.config, batch_size=batch_size)
        step.asked.clear()
        plan.Line.of(step, "full")
        assert step.asked == [("full", micro_batch) for micro_batch in asked]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (dict(), "use either --devices=64, .* or --topology"),
        (dict(devices=8, topology="v5e:2x4"), "use either --devices"),
        (dict(devices=64), "--devices=64, but JAX has 8 here"),
        (dict(devices=-1), "--devices is -1; use 1 or more"),
        (dict(devices=8, mesh=(1, 3, 1)), "needs 3 devices, but there are 8"),
        (dict(devices=8, mesh=(1, 1, 8)), r"does not divide over 8 .*'tensor' .*a mesh of \(2, 1, 4\)"),
        (dict(devices=8, batch=12), "batch_size 12 does not divide over 8 .* use 8 or 16"),
        (dict(devices=8, accumulate=16), "over 8 .* x 16 accumulation steps; use 128"),
        (dict(topology="v9:2x2"), "unknown chip of --topology 'v9'; known: H100, H200, v5e, v5p, v6e"),
        (dict(topology="H200:8"), "--topology=H200:8: want machines x GPUs per machine, such as H200:4x8"),
        (dict(topology="H200:0x8"), "--topology=H200:0x8: want machines x GPUs"),
        (dict(topology="H200:1x64"), "--topology=H200:1x64: a machine has at most 8 GPUs"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(asked, message):
    c = load_config("lidit_10b_512")
    c.train.batch_size, c.train.accumulate = asked.pop("batch", 64), asked.pop("accumulate", 1)
    asked = dict(mesh=(1, -1, 1)) | asked
    with pytest.raises(errors.InputError, match=message):
        plan.make(plan.Asked(parse(c), **asked))


def test_a_vae_is_not_planned():
    with pytest.raises(errors.InputError, match="task is 'vae'; .* task 'diffusion'"):
        plan.make(plan.Asked(parse(load_config("vae", "smoke")), (1, -1, 1), devices=8))


def test_what_a_config_says_of_an_encoder_stays():
    c = load_config("lidit_1b")
    c.text.encoders.qwen.prefix_len = 7
    lengths = assumed.Lengths(text=16, prefix=30)
    llama, qwen = assumed.measured(parse(c), lengths).encoders
    assert (llama.prefix_len, qwen.prefix_len) == (30, 7)
    assert llama.width == 4096


@pytest.fixture(scope="module")
def libtpu():
    return pytest.importorskip("libtpu", reason="the TPU compiler is not installed")


def test_a_slice_of_tpus_can_be_had_without_one(libtpu):
    assert len(devices.of_topology("v5e:8x8")) == 64
    assert len(devices.of_topology("v5e:1x1")) == 1
    mesh = sharding.make_mesh((1, 4, 1), devices.of_topology("v5e:2x2"))
    assert {d.platform for d in mesh.devices.flat} == {"tpu"}
    assert {d.platform for d in jax.devices()} == {"cpu"}
    with pytest.raises(
        errors.InputError, match="--topology=v5e:3x3: .*want a slice such as v5e:8x8"
    ):
        devices.of_topology("v5e:3x3")
    with pytest.raises(errors.InputError, match=r"does not fit these TPUs' torus"):
        sharding.make_mesh((2, 32, 1), devices.of_topology("v5p:4x4x4"))


@pytest.mark.parametrize("name", ["v5e:2x4", "v5p:2x2x2"])
def test_replicas_lie_in_different_slices(libtpu, name):
    devices.of_topology(name)  # libtpu's own settings
    two = topologies.get_topology_desc(platform="tpu", topology_name=name, num_slices=2).devices
    assert len(two) == 16
    for sizes in ((2, 8, 1), (-1, 4, 2), (4, 2, 2)):
        mesh = sharding.make_mesh(sizes, two)
        slices = np.vectorize(lambda d: d.slice_index)(mesh.devices)
        assert (slices == slices[:, :1, :1]).all() and len(set(slices[:, 0, 0])) == 2
    with pytest.raises(errors.InputError, match=r"over 2 TPU slices: .* use \(2, -1, 1\)"):
        sharding.make_mesh((1, 16, 1), two)


def test_a_tpu_compiler_that_refuses_is_an_answer(libtpu):
    """The 1B's blocks without recomputation, at 2,048 pictures a chip; only two of them, to compile soon."""
    c = load_config("lidit_1b")
    c.train.batch_size, c.model.depth, c.model.remat = 4 * 2048, 2, "none"
    asked = plan.Asked(parse(c), (1, 4, 1), topology="v5e:2x2", search=False)
    made = plan.make(asked)
    (refused,), (choice,) = made.tried, made.choices
    assert isinstance(refused, TooLarge) and refused.wanted > chips.CHIPS["v5e"].memory
    assert choice.setting is None and "exceeds available HBM" in refused.told


@pytest.fixture
def cuda():
    """JAX's compiler for NVIDIA's GPUs, which wants CUDA's libraries and no GPU."""
    return pytest.importorskip("jax_cuda13_plugin", reason="the GPU compiler is not installed")


@pytest.mark.slow
def test_a_plan_for_gpus_is_their_own_compilers(cuda):
    """Two blocks of the 1B on two machines of four: cuDNN attends, and nothing is as large as its weights."""
    c = load_config("lidit_1b")
    c.train.batch_size, c.model.depth = 32, 2
    asked = plan.Asked(parse(c), (1, 8, 1), topology="H200:2x4", search=False)
    made = plan.make(asked)
    (found,), (choice,) = made.tried, made.choices
    assert (choice.chip, choice.bytes) == ("H200", found.bytes)
    assert "__cudnn$fmhaSoftmaxBackward" in found.text and ",256,256]" not in found.text
    assert {d.platform for d in jax.devices()} == {"cpu"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            NotImplementedError("cuda"),
            "needs the GPU compiler, but .* pip install 'jax\\[cuda13\\]'",
        ),
        (jax.errors.JaxRuntimeError("no field"), "does not accept its description .*no field"),
    ],
)
def test_a_gpu_compiler_that_is_not_there_or_another_is_told(monkeypatch, error, message):
    def refuse(**_):
        raise error

    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    with pytest.raises(errors.InputError, match=message):
        devices.of_topology("H200:2x4")
