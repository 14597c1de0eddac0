"""A run that is killed, damaged or out of disk equals an undisturbed one or says what is wrong."""

import dataclasses
import signal

import pytest

from lidit_jax.processes import Stopped
from tests import same_run, several
from tests.faults import damage, disk, kills, worlds
from tests.faults.kills import Campaign, Whole

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(llms, tmp_path_factory):
    return worlds.make("pixels", tmp_path_factory.mktemp("worlds"), llms)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    return Whole(world, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def short_whole(llms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    return Whole(worlds.make("pixels", folder / "worlds", llms, steps=40, every=4), folder)


def test_a_run_killed_in_every_phase_is_the_run_that_was_not(
    record_property, short_whole, tmp_path
):
    phases = ["start", "removal", "restore", "compile", "save", "steps"]
    totals = Campaign(short_whole, tmp_path, 0, phases).run(len(phases))
    record_property("totals", totals.line(0))
    assert totals.ok and totals.kills.total() == len(phases), totals
    assert totals.arrays.compared > 200 and totals.lines.compared >= 40, totals
    assert totals.resumed >= 2, totals


@pytest.mark.parametrize("name", list(worlds.MORE))
def test_a_run_killed_many_times_is_the_run_that_was_not(record_property, name, llms, tmp_path):
    totals = kills.kills(worlds.make(name, tmp_path / "worlds", llms), tmp_path, 1, times=30)
    record_property("totals", totals.line(1))
    assert totals.ok and totals.pictures.compared, totals
    assert len(totals.kills) >= 5, "no kill hit some of the phases"


def test_twenty_kills_during_saves_leave_a_whole_checkpoint_each_time(
    record_property, world, tmp_path
):
    totals = kills.kills(world, tmp_path, seed=2, times=20, phases=["save"])
    record_property("totals", totals.line(2))
    assert totals.ok, totals
    assert totals.kills["save"] >= 15, "most of these kills should hit a save"


# What the harness must detect.


def test_a_lost_or_changed_checkpoint_is_counted(short_whole, tmp_path):
    """Otherwise every campaign would pass."""
    whole, world = short_whole, short_whole.world
    step, other = (str(world.every * k) for k in (1, 2))
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    saved = whole.workdir / "checkpoints"
    same_run.copy_checkpoint(saved / other, run / "checkpoints" / step)
    tally = whole.compare_state(run, int(step))
    assert 50 < len(tally.different) < tally.compared and tally.bits > 1000
    empty = whole.compare_state(run, int(other))
    assert len(empty.different) == empty.compared > 50
    totals = whole.compare(run)
    assert not totals.ok and len(totals.lines.different) == totals.lines.compared > world.steps
    assert len(totals.pictures.different) == totals.pictures.compared == 2


# A full disk.

mounts = pytest.mark.skipif(not disk.available(), reason="cannot mount in a namespace")


@mounts
@pytest.mark.parametrize("free_kib", [1000, 4300, 4700])
def test_a_disk_that_fills_during_a_save_is_told_and_nothing_is_lost(
    free_kib, world, whole, tmp_path
):
    """During the first, the third and the fourth save."""
    found = disk.fill(world, tmp_path, free_kib)
    assert found["status"] == 2, found
    (told,) = found["errors"]
    assert told.startswith("error: the disk is full") and "free some space" in told
    assert found["saved"] or free_kib == 1000
    assert found["status_after"] == 0 and (found["resumed"] or 0) == max(found["saved"], default=0)
    assert whole.compare(tmp_path / "run").ok


@mounts
def test_a_disk_that_fills_between_saves_ends_the_run(world, whole, tmp_path):
    """Not even the metrics fit; their writer must not wait for room."""
    found = disk.fill(world, tmp_path, 16, "--config.train.save_every=100000")
    assert found["status"] == 2 and "the disk is full" in found["errors"][0], found
    assert found["status_after"] == 0 and whole.compare(tmp_path / "run").ok


# Damaged files.


def test_no_damage_is_silent(record_property, world, tmp_path):
    outcomes, bad = damage.damages(world, tmp_path, seed=3, times=40)
    record_property("totals", damage.line(3, 40, outcomes))
    assert not bad, "\n".join(bad)


# Several processes.


def _all(config, data, workdir, processes, devices, *more):
    """Starts processes that train together."""
    port = several.free_port()
    command = several.door(config, data, workdir, f"--cpu_devices={devices}", *more)
    return [several.start(*command, *several.flags(processes, i, port)) for i in range(processes)]


def _killed_after(running, workdir, step):
    """Kills all processes once the checkpoint of a step exists, whatever they are doing by then."""
    several.wait_for(workdir / "checkpoints" / str(step), running)
    for process in running:
        process.kill()
    several.ended(*running)


@pytest.mark.parametrize("layout", [(1, 4), (2, 2), (4, 1)])
def test_a_run_killed_and_resumed_by_other_numbers_of_processes_is_the_same(
    layout, of_four, tmp_path
):
    """Four devices throughout; `of_four` is the single-process run."""
    world, whole, more = of_four
    workdir = tmp_path / "run"
    layouts = [(1, 4), (2, 2), (4, 1)]
    at = layouts.index(layout)
    for step, (processes, devices) in zip((5, 10), layouts[at:] + layouts[:at]):
        running = _all(world.config, world.data, workdir, processes, devices, *more)
        _killed_after(running, workdir, step)
    ends = several.train(*layout, world.config, world.data, workdir, *more)
    assert not any(end.status for end in ends), ends
    assert whole.compare(workdir).ok


@pytest.fixture(scope="module")
def of_four(llms, tmp_path_factory):
    """A world of twenty steps, its run on one process with four devices, and the flags for both."""
    folder = tmp_path_factory.mktemp("four")
    world = worlds.make("pixels", folder / "worlds", llms, steps=20)
    more = ["--config.train.save_every=5", "--config.train.keep=20"]
    (end,) = several.train(1, 4, world.config, world.data, folder / "whole", *more)
    assert end.status == 0, end
    return world, Whole(world, folder), more


DIGESTS = (
    "batch",
    "noise",
)  # in lines of metrics.jsonl: the rows that were trained on, and their noise


def test_any_number_of_devices_sees_the_same_rows_and_noise(of_four, tmp_path):
    world, whole, more = of_four
    lines = {4: same_run.metrics(whole.workdir)}
    for devices in (1, 2, 8):
        workdir = tmp_path / str(devices)
        (end,) = several.train(1, devices, world.config, world.data, workdir, *more)
        assert end.status == 0, end
        lines[devices] = same_run.metrics(workdir)
    wanted = lines[4]
    for devices, found in lines.items():
        assert [line["loss"] for line in found] == pytest.approx(
            [line["loss"] for line in wanted], rel=1e-5
        ), devices
        for name in DIGESTS:
            assert [a[name] for a in found] == [b[name] for b in wanted], (devices, name)


def test_a_run_of_two_that_is_told_to_stop_saves_and_continues_to_equal_bits(of_four, tmp_path):
    """SIGTERM to one process, as a scheduler sends before it takes a machine."""
    world, workdir = dataclasses.replace(of_four[0], steps=400), tmp_path / "run"
    more = [f"--config.train.{key}=400" for key in ("steps", "save_every", "preview_every")]
    (end,) = several.train(1, 4, world.config, world.data, tmp_path / "whole", *more)
    assert end.status == 0, end
    running = _all(world.config, world.data, workdir, 2, 2, *more)
    several.wait_for(
        workdir / "metrics.jsonl", running, lambda path: path.read_text().count("\n") >= 2
    )
    running[1].send_signal(signal.SIGTERM)
    ends = several.ended(*running, timeout=30)
    assert [e.status for e in ends] == [Stopped.STATUS] * 2, ends
    (saved,) = same_run.steps_saved(workdir)
    assert f"{workdir} is saved at step {saved}; the same command resumes" in ends[0].err
    assert [line["step"] for line in same_run.metrics(workdir)] == list(range(1, saved + 1))
    ends = several.train(2, 2, world.config, world.data, workdir, *more)
    assert [e.status for e in ends] == [0, 0], ends
    assert f"resuming {workdir} at step {saved}" in ends[0].out and saved < 400
    assert Whole(world, tmp_path).compare(workdir).ok


def test_a_resumed_run_of_two_that_is_told_to_stop_before_its_first_step_saves(of_four, tmp_path):
    """While it compiles, which may take minutes."""
    world, workdir = of_four[0], tmp_path / "run"
    more = ["--config.train.steps=4000", "--config.train.save_every=20"]
    running = _all(world.config, world.data, workdir, 2, 2, *more)
    several.wait_for(workdir / "checkpoints" / "20", running)
    for process in running:
        process.kill()
    several.ended(*running)
    begun = same_run.steps_saved(workdir)[-1]
    running = _all(world.config, world.data, workdir, 2, 2, *more)
    while not running[0].stdout.readline().startswith(f"resuming {workdir} at step {begun}"):
        assert running[0].poll() is None, running[0].stderr.read()
    running[1].send_signal(signal.SIGTERM)
    ends = several.ended(*running, timeout=60)
    assert [e.status for e in ends] == [Stopped.STATUS] * 2, ends
    assert same_run.steps_saved(workdir)[-1] == begun + 1, ends
