"""Several processes train as one: to the last bit, or not at all."""

import errno
import json
import shutil
import signal

import pytest

from lidit_jax import files
from lidit_jax.processes import Stopped, heeding_sigterm
from tests import several
from tests.same_run import assert_same_run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder that JAX may keep programs in, and must not: see `processes.start`."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def keeping(cache):
    return several.environment(JAX_COMPILATION_CACHE_DIR=str(cache))


@pytest.fixture(scope="module")
def one(config_file, data, keeping, tmp_path_factory):
    """The run of one process with four devices, whose collectives are those of several."""
    folder = tmp_path_factory.mktemp("several") / "one"
    (alone,) = several.train(1, 4, config_file, data, folder, env=keeping)
    assert alone.status == 0, alone.err
    return folder


# The law.


def test_two_processes_train_as_one_bit_for_bit(one, config_file, data, keeping, cache, tmp_path):
    more = ["--profile_steps=2,3"]
    ends = several.train(2, 2, config_file, data, tmp_path / "run", *more, env=keeping)
    assert [e.status for e in ends] == [0, 0], ends
    assert not list(cache.iterdir())
    assert_same_run(tmp_path / "run", one)
    assert "step 4/4" in ends[0].out and "step" not in ends[1].out
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    left = {p.name for p in (tmp_path / "run").iterdir()}
    assert left == {
        "checkpoints",
        "config.json",
        "heartbeats",
        "lock",
        "metrics.jsonl",
        "profile",
        "tensorboard",
    }


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["(1,-1,1)", "(1,1,4)", "(1,2,2)", "(2,1,2)", "(2,2,1)"])
def test_any_mesh_and_any_number_of_processes_give_the_same_run(
    mesh, config_file, data, held_out, tmp_path
):
    """Among them meshes whose tensor axis joins processes: these read the same rows."""
    more = [
        f"--config.train.mesh={mesh}",
        "--config.train.preview_every=4",
        f"--held_out={held_out}",
    ]
    for processes in (1, 2, 4):
        ends = several.train(
            processes, 4 // processes, config_file, data, tmp_path / f"{processes}", *more
        )
        assert not any(e.status for e in ends), ends
        assert ends[0].out.count("held_out_loss") == 2
    for processes in ("2", "4"):
        assert_same_run(tmp_path / processes, tmp_path / "1")
        drawn = [(tmp_path / p / "samples" / "step-0000004.png") for p in ("1", processes)]
        assert drawn[0].read_bytes() == drawn[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("joined", [False, True])
def test_a_lone_process_that_is_told_to_stop_saves_and_continues(
    joined, config_file, data, tmp_path
):
    """Whether JAX knows of no others, or was told by the flags that there are none."""
    workdir, place = tmp_path / "run", several.flags(1, 0, several.free_port()) if joined else []
    command = several.door(config_file, data, workdir, "--cpu_devices=1", *place)
    endless = ["--config.train.steps=4000", "--config.train.save_every=1000000"]
    running = several.start(*command, *endless)
    several.wait_for(
        workdir / "metrics.jsonl", [running], lambda path: path.read_text().count("\n") >= 2
    )
    running.send_signal(signal.SIGTERM)
    (end,) = several.ended(running)
    assert end.status == Stopped.STATUS, end
    (saved,) = (workdir / "checkpoints").iterdir()
    assert f"{workdir} is saved at step {saved.name}; the same command resumes" in end.err
    (end,) = several.ended(several.start(*command, f"--config.train.steps={int(saved.name) + 1}"))
    assert end.status == 0 and f"resuming {workdir} at step {saved.name}" in end.out, end
    lines = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").open()]
    assert lines == list(range(1, int(saved.name) + 2))


def test_what_jax_says_but_once_of_a_stop_is_remembered(monkeypatch):
    said = iter([False, True])  # a third question would raise
    monkeypatch.setattr("jax.distributed.is_initialized", lambda: True)
    asked = "lidit_jax.processes.multihost_utils.reached_preemption_sync_point"
    monkeypatch.setattr(asked, lambda _: next(said))
    with heeding_sigterm() as told_to_stop:
        assert [told_to_stop() for _ in range(4)] == [False, True, True, True]


@pytest.mark.slow
def test_training_that_diverges_ends_on_every_process(config_file, data, tmp_path):
    more = [
        "--config.optim.learning_rate=1e30",
        "--config.optim.warmup_steps=0",
        "--config.guard.patience=2",
    ]
    ends = several.train(2, 2, config_file, data, tmp_path / "run", *more)
    assert [e.status for e in ends] == [2, 2], ends
    assert all("2 steps in a row were skipped, the last at step" in e.error for e in ends), ends


LATE = """
import sys, time, jax, numpy as np
from lidit_jax import processes, sharding
from lidit_jax.processes import Place

processes.use_cpu(2)
processes.start(Place(f"localhost:{sys.argv[2]}", 2, int(sys.argv[1])), dict, 60)
mesh = sharding.make_mesh((1, 2, 2))
processes.connect(mesh)
where = sharding.batch_sharding(mesh)
x = jax.make_array_from_callback((4,), where, lambda index: np.arange(4.0)[index])
time.sleep(40 * int(sys.argv[1]))
print(f"sum {float(jax.jit(jax.numpy.sum)(x))}\\n", end="")  # in one piece: Gloo writes there too
processes.end()
"""


@pytest.mark.slow
def test_a_process_that_compiles_longer_is_waited_for():
    port = several.free_port()
    ends = several.ended(*(several.start("-c", LATE, i, port) for i in range(2)))
    assert [e.status for e in ends] == [0, 0] and "sum 6.0" in ends[0].out, ends


ROWS = """
import sys, jax, numpy as np
from lidit_jax import processes, sharding
from lidit_jax.batch import BatchShape, fake
from lidit_jax.processes import Place
from lidit_jax.training.feed import to_devices

processes.use_cpu(2)
processes.start(Place(f"localhost:{sys.argv[2]}", 2, int(sys.argv[1])), dict, 60)
whole = fake(BatchShape(8, (2, 2, 3), ((3, 5),)))
for sizes, order in [((1, 4, 1), (0, 1, 2, 3)), ((1, 4, 1), (0, 2, 1, 3)), ((2, 1, 2), (0, 2, 1, 3)),
                     ((1, 1, 4), (3, 2, 1, 0)), ((1, 2, 2), (0, 1, 2, 3)), ((4, 1, 1), (3, 0, 2, 1))]:
    devices = np.array(jax.devices())[list(order)].reshape(sizes)
    mesh = jax.sharding.Mesh(devices, sharding.MESH_AXES)
    rows = sharding.rows_here(mesh, 8)
    mine = jax.tree.map(lambda a: a[rows], whole)
    there = to_devices(mine, mesh, 8)
    for want, got in zip(jax.tree.leaves(whole), jax.tree.leaves(there)):
        assert got.shape == want.shape
        for shard in got.addressable_shards:
            np.testing.assert_array_equal(shard.data, want[shard.index])
    print(f"rows {sizes} {order} {rows.tolist()}\\n", end="")
processes.end()
"""


def test_every_device_gets_its_rows_whatever_the_order_of_devices():
    """No two devices in a row need be of one process: a TPU's mesh follows its wires."""
    port = several.free_port()
    ends = several.ended(*(several.start("-c", ROWS, i, port) for i in range(2)))
    assert [e.status for e in ends] == [0, 0], ends
    assert "rows (1, 4, 1) (0, 1, 2, 3) [0, 1, 2, 3]" in ends[0].out
    assert "rows (1, 4, 1) (0, 2, 1, 3) [0, 1, 4, 5]" in ends[0].out
    assert "rows (2, 1, 2) (0, 2, 1, 3) [0, 1, 2, 3, 4, 5, 6, 7]" in ends[1].out


@pytest.mark.slow
def test_what_any_process_replaced_is_told_once_and_too_many_end_all(config_file, poor, tmp_path):
    """Among them two processes that read the same rows: their devices share each sample."""
    told = []
    for name, mesh in (("shared", "(1,1,4)"), ("own", "(1,4,1)")):
        more = f"--config.train.mesh={mesh}", "--config.train.log_every=2"
        ends = several.train(2, 2, config_file, poor, tmp_path / name, *more)
        assert [e.status for e in ends] == [0, 0], ends
        told.append((tmp_path / name / "ledger.jsonl").read_text().splitlines())
    assert told[0] == told[1] and len(told[0]) == len({(line) for line in told[0]}) > 3
    ends = several.train(2, 2, config_file, poor, tmp_path / "few", "--config.data.bad_records=1")
    assert [e.status for e in ends] == [2, 2], ends
    lines = [e.error.partition(": ")[2] for e in ends]
    assert lines[0] == lines[1] and "but data.bad_records is 1 (row " in lines[0]


LIMITED = """
import sys, time
from lidit_jax import processes

with processes.within(float(sys.argv[1]), "saving"):
    time.sleep(0.5)
print("in time")
"""


def test_what_takes_longer_than_it_may_ends_the_process():
    ends = several.ended(*(several.start("-c", LIMITED, limit) for limit in (0, 60, 0.1)))
    assert [e.status for e in ends] == [0, 0, 143], ends
    assert [e.out for e in ends] == ["in time\n", "in time\n", ""]
    assert ends[2].error == "error: saving took longer than 0.1 s"


# What cannot be trained.


@pytest.mark.slow
def test_a_missing_process_is_named_by_the_others(config_file, data, tmp_path):
    port, workdir = several.free_port(), tmp_path / "run"
    command = several.door(config_file, data, workdir, "--cpu_devices=1", "--start_timeout=20")
    ends = several.ended(*(several.start(*command, *several.flags(3, i, port)) for i in (0, 2)))
    for i, end in zip((0, 2), ends):
        assert end.status == 1 and end.error.startswith(f"error (process {i} of 3 on "), end
        assert "1 of 3 processes did not connect within 20 s; 0 (" in end.error
        assert "Traceback" not in end.err and "Check failure" not in end.err
    assert not workdir.exists()


def test_processes_of_other_configs_and_data_end_at_once(config_file, data, tmp_path):
    port, workdir = several.free_port(), tmp_path / "run"
    copy = shutil.copytree(data, tmp_path / "data")
    info = json.loads((copy / "dataset.json").read_text())
    files.write_json(copy / "dataset.json", info | {"counts": {}})
    ours = several.door(config_file, data, workdir, "--cpu_devices=2", "--profile_steps=2,3")
    theirs = several.door(config_file, copy, workdir, "--cpu_devices=1", "--config.train.steps=5")
    ends = several.ended(
        several.start(*ours, *several.flags(2, 0, port)),
        several.start(*theirs, *several.flags(2, 1, port)),
    )
    for end in ends:
        assert end.status == 2, end
        assert "config.train.steps is 4 on process 0, 5 on process 1" in end.error
        assert "cpu_devices is 2 on process 0, 1 on process 1" in end.error
        assert "profile_steps is [2, 3] on process 0, None on process 1" in end.error
        assert "data set's dataset.json is '" in end.error
    assert not workdir.exists()


@pytest.mark.slow
def test_a_process_without_the_data_set_ends_all(config_file, data, tmp_path):
    port, workdir = several.free_port(), tmp_path / "run"
    ends = several.ended(
        *(
            several.start(
                *several.door(config_file, folder, workdir, "--cpu_devices=1"),
                *several.flags(2, i, port),
            )
            for i, folder in enumerate([data, tmp_path / "none"])
        )
    )
    for end in ends:
        assert end.status == 2 and "process 1 (" in end.error, end
        assert "no finished data set at" in end.error


TOGETHER = """
import errno, os, sys
from lidit_jax import errors, processes
from lidit_jax.processes import Place

processes.use_cpu(1)
processes.start(Place(f"localhost:{sys.argv[2]}", 2, int(sys.argv[1])), dict, 60)
for number in (errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.ESTALE):
    for file in ["there"] if number != errno.ESTALE else ["there", None]:
        try:
            with processes.together():
                if sys.argv[1] == "0":
                    raise OSError(number, os.strerror(number), *[file] * bool(file))
        except (errors.InputError, errors.Passing) as e:
            print(f"{type(e).__name__}: {e}")
processes.end()
"""


def test_what_process_0_alone_cannot_write_is_told_to_all():
    """And where it may pass for process 0, it may for all; also where the system names no file."""
    port = several.free_port()
    ends = several.ended(*(several.start("-c", TOGETHER, i, port) for i in range(2)))
    for end in ends:
        assert end.status == 0, ends
        assert [line for line in end.out.splitlines() if ": process 0" in line] == [
            "InputError: process 0: cannot use there: Read-only file system; give another path",
            "InputError: process 0: the disk is full for there; finished work is kept: free some space, and run it again",
            "InputError: process 0: cannot use there: Not a directory; give another path",
            "Passing: process 0: cannot use there: Stale file handle",
            f"Passing: process 0: [Errno {errno.ESTALE}] Stale file handle",
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("5,6", "the run has 4 steps; name some of those"),
        ("5", "want FIRST,LAST, such as 10,15"),
    ],
)
def test_steps_that_cannot_be_traced_end_all(steps, message, config_file, data, tmp_path):
    more = f"--profile_steps={steps}"
    ends = several.train(2, 1, config_file, data, tmp_path / "run", more)
    for i, end in enumerate(ends):
        assert end.status == 2 and f"(process {i} of 2" in end.error, end
        assert end.error.endswith(f"{more}: {message}"), end
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_file_in_the_place_of_the_workdir_ends_all(config_file, data, tmp_path):
    (tmp_path / "run").touch()
    for end in several.train(2, 1, config_file, data, tmp_path / "run" / "one"):
        assert end.status == 2 and "run: File exists; give another path" in end.error, end
        assert "Traceback" not in end.err


@pytest.mark.slow
@pytest.mark.parametrize("began", [False, True])
def test_a_workdir_that_is_not_shared_is_refused(began, one, config_file, data, tmp_path):
    """New, or with a checkpoint that process 0 alone sees, from a run that began at another's weights."""
    more = ["--cpu_devices=1"]
    if began:
        more.append(f"--config.train.init_from={one}")
        shutil.copytree(one, tmp_path / "run0")
    port = several.free_port()
    ends = several.ended(
        *(
            several.start(
                *several.door(config_file, data, tmp_path / f"run{i}", *more),
                *several.flags(2, i, port),
            )
            for i in range(2)
        )
    )
    assert [e.status for e in ends] == [2, 2], ends
    for end in ends:
        assert "run1 is not the folder that process 0 sees by this name" in end.error
    assert (tmp_path / "run0").exists() == began and not (tmp_path / "run1").exists()
    assert not list(tmp_path.glob("run0/.shared*"))


@pytest.mark.slow
def test_processes_begin_again_from_the_same_checkpoint_of_another_run(
    one, config_file, data, tmp_path
):
    """Which has trained on since."""
    source = shutil.copytree(one, tmp_path / "source")
    shutil.rmtree(source / "checkpoints" / "4")
    more = [f"--config.train.init_from={source}", "--config.train.steps=2"]
    for _ in range(2):
        ends = several.train(2, 2, config_file, data, tmp_path / "run", *more)
        assert [e.status for e in ends] == [0, 0], ends
        assert f"beginning from step 2 of {source}" in ends[0].out
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        shutil.copytree(one / "checkpoints" / "4", source / "checkpoints" / "4", dirs_exist_ok=True)
    shutil.rmtree(source / "checkpoints" / "2")
    for end in several.train(2, 2, config_file, data, tmp_path / "run", *more):
        assert end.status == 2 and f"step 2 of {source}, from which " in end.error, end


@pytest.mark.slow
def test_a_run_that_cannot_begin_from_another_leaves_no_workdir(config_file, data, tmp_path):
    more = [f"--config.train.init_from={tmp_path / 'none'}"]
    for end in several.train(2, 1, config_file, data, tmp_path / "new" / "run", *more):
        assert end.status == 2 and "no run's config (train there first)" in end.error, end
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("(1,8,1)", "needs 8 devices, but there are 4"),
        ("(3,1,1)", "needs 3 devices, but there are 4; use (1, -1, 1)"),
        ("(1,1,-1)", None),
    ],
)
def test_a_mesh_that_does_not_fit_all_devices_is_told_by_every_process(
    mesh, message, config_file, data, tmp_path
):
    more = [f"--config.train.mesh={mesh}"]
    if message is None:  # 4 heads do not divide over 3 x 2 devices
        more, devices, message = more, 3, "does not divide over 6 devices of mesh axis 'tensor'"
    else:
        devices = 2
    ends = several.train(2, devices, config_file, data, tmp_path / "run", *more)
    for end in ends:
        assert end.status == 2 and message in end.error, end
    assert not (tmp_path / "run").exists()
