"""The command-line doors: a mistake is one clear line, and nothing is half-written."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
# Runs doors, each in a process that has imported already what takes seconds to import.
FORKS = """
import json, os, runpy, sys, traceback
from lidit_jax import ablation, benchmarking, doors, evaluation, generation, preparation, probing
from lidit_jax.training import loop
for line in sys.stdin:
    name, args, stderr = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    sys.argv, status = [name, *args], 1
    try:
        runpy.run_module(f"lidit_jax.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as e:
        status = e.code
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)
"""


def python(code, *args):
    """Runs a program; returns (exit status, stderr)."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """Returns a function that runs a door: (name, *args) -> (exit status, stderr)."""
    told = tmp_path_factory.mktemp("doors") / "stderr"
    with subprocess.Popen(
        [sys.executable, "-c", FORKS],
        cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as forks:  # fmt: skip

        def run(name, *args):
            told.unlink(missing_ok=True)
            forks.stdin.write(json.dumps([name, args, str(told)]) + "\n")
            forks.stdin.flush()
            return int(forks.stdout.readline()), told.read_text()

        yield run


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("prepare", [], "error: no --config given"),
        ("prepare", ["--config=configs/quickstart.py"], "error: no --data given"),
        ("train", ["--config=configs/quickstart.py", "--config.train.step=5"], "error: config key or flag: step Did you mean \"steps\" instead of \"step\""),
        ("train", ["--config=configs/quickstart.py", "--config.data.foo=5"], "error: config key or flag: .*foo.*; configs/base.py lists every config key"),
        ("prepare", ["--config=configs/shapes.py:smoke", "--data={tmp}/out", "--pictures=9"], "error: --pictures only works with --estimate"),
        ("prepare", ["--data={tmp}/out", "--verify", "--price=2"], "error: --price only works with --estimate, not with --verify"),
        ("prepare", ["--config=configs/shapes.py:smoke", "--data={tmp}/out", "--estimate", "--price=nan"], "error: --price=nan: want the price of one hour"),
        ("benchmark", ["--config=configs/shapes.py:smoke"], "error: no flag says what to do; want one of --plan, --train"),
        ("benchmark", ["--sample", "--config=configs/benchmark_cpu.py:smoke", "--peer=diffusers", "--devices=8"], "error: --devices only works with --plan, not with --sample"),
        ("benchmark", ["--sample", "--config=configs/benchmark_cpu.py:smoke", "--peer=diffusers"], "error: --peer only works with --train, not with --sample"),
        ("benchmark", ["--train", "--config=configs/benchmark_cpu.py:smoke", "--nosearch"], "error: --nosearch only works with --plan, not with --train"),
        ("benchmark", ["--input", "--config=configs/lidit_1b.py", "--mesh=1,1,1"], "error: --mesh only works with --plan or --train or --sample, not with --input"),
        ("benchmark", ["--input", "--config=configs/lidit_1b.py", "--rows=10"], "error: --rows=10 is less than four batches of 64"),
        ("benchmark", ["--plan", "--config=configs/shapes.py:smoke", "--devices=4", "--out=/dev/null/x"], "error: --out /dev/null/x: /dev/null is a file; give another folder"),
        ("benchmark", ["--plan", "--config=configs/shapes.py:smoke", "--devices=4", "--out=gs://b/x"], "error: --out=gs://b/x: want a folder on a mounted filesystem"),
        ("benchmark", ["--plan", "--config=configs/shapes.py:smoke", "--devices=4", "--mesh=1,4"], "error: --mesh=1,4: want replica,fsdp,tensor"),
        ("benchmark", ["--plan", "--config=configs/lidit_10b_512.py", "--devices=8", "--mesh=1,1,8"], r"error: parameter .*its side of 44.*a mesh of \(2, 1, 4\) .* would work"),
        ("prepare", ["--config=configs/no_such.py", "--data={tmp}/out"], "error: (cannot load --config|config key or flag): .*no_such.py"),
        ("prepare", ["--config=configs/shapes.py:smoke", "--data=README.md/x"], "error: --data README.md/x: .*README.md is a file; give another folder"),
        ("prepare", ["--config=configs/lidit_1b.py:smok"], "error: config key or flag: unknown argument of the config smok; known: smoke"),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out", "--prompt=a", "--llm=x"], "error: --llm=x: want NAME=MODEL"),
        ("train", ["--workdir={tmp}/run", "--checkpoint_info", "--replay=3"], "error: --checkpoint_info and --replay are different jobs"),
        ("train", ["--workdir={tmp}/run", "--checkpoint_info", "--profile_steps=1,1"], "error: --profile_steps has no effect with --checkpoint_info"),
        ("train", ["--config=configs/quickstart.py", "--data=/none", "--workdir={tmp}/run", "--replay=3", "--held_out=/none"], "error: --held_out has no effect with --replay"),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out", "--prompt=a", "--llm=a=b", "--llm=a=c"], "error: --llm is given twice with the name a"),
        ("train", ["--config=configs/quickstart.py", "--data=/none", "--workdir={tmp}/run"], "error: no finished data set .run `prepare` first. at /none"),
        ("train", ["--config=configs/quickstart.py", "--data=/none", "--workdir=gs://bucket/run"], "error: --workdir=gs://bucket/run: want a folder on a mounted filesystem"),
        ("train", ["--config=configs/quickstart.py", "--data=/none", "--workdir={tmp}/run", "--processes=2"], "error: --coordinator and --process_id missing: give --coordinator=HOST:PORT"),
        ("train", ["--config=configs/quickstart.py", "--data=/none", "--workdir={tmp}/run", "--coordinator=a:1", "--processes=2", "--process_id=2"], "error: process_id 2 of 2 processes"),
        ("prepare", ["--config=configs/shapes.py:smoke", "--config.text.encoders.smollm2.model=/no/such.gguf", "--data={tmp}/data"], "error: no such model folder or GGUF file: /no/such.gguf"),
        ("prepare", ["--config=configs/shapes.py:smoke", "--data={tmp}/out", "--share=2/2"], "error: --share=2/2: want i/n"),
        ("prepare", ["--config=configs/shapes.py:smoke", "--data={tmp}/out", "--merge", "--verify"], "error: --merge and --verify are different jobs"),
        ("prepare", ["--config=configs/shapes.py:smoke", "--data={tmp}/out", "--merge"], "error: no plan .run `prepare` first. at "),
        ("prepare", ["--config=configs/own_data.py:folder", "--data={tmp}/out"], "error: source folder needs its option 'path'"),
        ("prepare", ["--data={tmp}/out", "--verify"], "error: no plan "),
        ("prepare", ["--data={tmp}/out", "--report"], "error: no finished data set "),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out", "--prompt=a", "--config=configs/quickstart.py"], "error: config key or flag: Unknown command line flag config"),
        ("export", ["--workdir={tmp}", "--out={tmp}/out"], "error: no run's config .train there first. at "),
        ("reconstruct", ["--config=configs/vae.py:smoke", "--vae={tmp}/none", "--out={tmp}/out"], "error: unknown codec .*; known: pixels; or name a folder"),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out"], "error: no prompt given"),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out", "--prompt=a", "--share=2/2"], "error: --share=2/2: want i/n"),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out", "--prompt=a", "--mesh=2,1,1"], "error: mesh .* needs 2 devices, but there are 1; use .1, -1, 1."),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out", "--prompt=a", "--mesh=1,-1"], "error: --mesh=1,-1: want replica,fsdp,tensor, such as 1,-1,1"),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out", "--prompt=a", "--mesh=a,1,1"], "error: --mesh=a,1,1: want replica,fsdp,tensor, such as 1,-1,1"),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out", "--prompt=a", "--size=32"], "error: --size=32: want height,width"),
        ("sample", ["--workdir={tmp}", "--out={tmp}/out", "--prompt=a"], "error: no run's config .train there first. at "),
        ("prepare", ["--config={tmp}/bad.py", "--data={tmp}/out"], "error: config key or flag: .*boom"),
        ("ablate", ["--config=configs/ablations.py", "--out={tmp}/bad.py"], "error: --out .*bad.py: .* is a file"),
        ("ablate", ["--config=configs/ablations.py", "--out={tmp}/trained"], "error: --out .*trained is a run; give a separate folder"),
        ("ablate", ["--config=configs/shapes.py", "--out={tmp}/out"], "error: config.base is missing"),
        ("probe", ["--workdir=a={tmp}", "--out={tmp}/bad.py"], "error: --out .*bad.py: .* is a file"),
        ("probe", ["--workdir=a={tmp}", "--out={tmp}/out", "--llm=x"], "error: --llm=x: want NAME=MODEL"),
        ("probe", ["--workdir={tmp}", "--out={tmp}/out"], "error: --workdir=.*: want NAME=FOLDER"),
        ("probe", ["--workdir=a=gs://b/c", "--out={tmp}/out"], "error: --workdir=gs://b/c: want a folder on a mounted"),
        ("probe", ["--workdir=a=b", "--workdir=a=c", "--out={tmp}/out"], "error: --workdir is given twice with the name a"),
        ("continuations", ["--config=configs/vae.py"], "error: the config has no LLM"),
        ("evaluate", ["--suite=recal", "--samples={tmp}", "--out={tmp}/out"], "error: unknown suite 'recal'; known: recall"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(door, name, args, message, tmp_path):
    (tmp_path / "bad.py").write_text("def get_config():\n    raise RuntimeError('boom')\n")
    (tmp_path / "trained" / "checkpoints").mkdir(parents=True)
    status, stderr = door(name, *[a.format(tmp=tmp_path) for a in args])
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert status == 2, stderr
    assert re.match(message, lines[-1]), stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "run").exists()


def test_every_flag_of_the_benchmark_is_read_by_a_mode():
    """A flag that is in no row of the table could not be refused."""
    code = """
from absl import flags
from lidit_jax import benchmark
defined = {flag.name for flag in flags.FLAGS.flags_by_module_dict()[benchmark.__name__]}
read = {flag.name for _, row in benchmark.MODES.values() for flag in row}
assert read and defined == read | set(benchmark.MODES), defined ^ (read | set(benchmark.MODES))
"""
    status, stderr = python(code)
    assert status == 0, stderr


ALLOCATED = "jax.numpy.zeros(2**44)"
COMPUTED = "jax.jit(lambda x: (x[:, None] * x).sort(0)[7])(jax.numpy.ones(2**21)).tolist()"


@pytest.mark.parametrize(
    ("call", "door", "flags", "message"),
    [
        (ALLOCATED, "less=doors.TRAIN_LESS", ["--config=configs/lidit_1b.py:smoke"], r"train.batch_size.*train.accumulate.*model.remat.*train.mesh.*; `python -m lidit_jax.benchmark --plan --config=configs/lidit_1b.py(:smoke)? --devices=1` shows"),
        (COMPUTED, "less='fewer pictures'", [], r"use devices with more memory, or fewer pictures$"),
        (ALLOCATED, "reads=True", ["--config=configs/lidit_1b.py:smoke"], r"use devices with more memory, or JAX_PLATFORMS=cpu$"),
    ],
)  # fmt: skip
def test_too_little_memory_is_one_line_that_says_what_needs_less(call, door, flags, message):
    """64 TiB, which no machine gives, are asked for: at once, or in the midst of a program."""
    code = f"import jax; from lidit_jax import doors; doors.run(lambda: {call}, {door})"
    status, stderr = python(code, *flags)
    assert status == 2 and "Traceback" not in stderr
    told = stderr.splitlines()[-1]
    assert re.match(
        r"error: out of memory on 1 x cpu .*Out of memory allocating \d{14} bytes", told
    ), told
    assert re.search(message, told), told


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ("OSError(errno.ESTALE, 'Stale file handle', '/mnt/a')", 1, "error: cannot use /mnt/a: Stale file handle"),
        ("errors.InputError('x') from OSError(errno.ESTALE, 'Stale file handle')", 1, "error: x"),
        ("errors.InputError('x') from OSError(errno.EIO, 'Input/output error')", 2, "error: x"),
        ("OSError(errno.ENAMETOOLONG, 'File name too long', 'a')", 2, "error: cannot use a: File name too long"),
        ("__import__('torch').OutOfMemoryError('CUDA out of memory. Tried to allocate 14 GiB.')", 2, "error: out of memory for LLMs or judges .CUDA out of memory. Tried to allocate 14 GiB.; use a GPU with more"),
    ],
)  # fmt: skip
def test_an_error_that_may_pass_has_another_status(error, status, message):
    """keep_running.sh tries again what does not end with 2."""
    code = f"""
import errno
from lidit_jax import doors, errors
def main():
    raise {error}
doors.run(main)
"""
    found, stderr = python(code)
    assert found == status and re.match(message, stderr.splitlines()[-1]), stderr
    assert "Traceback" not in stderr


def test_a_door_that_reads_llms_leaves_them_room_on_the_gpu():
    code = """
import os
from lidit_jax import doors
os.environ.pop("XLA_PYTHON_CLIENT_PREALLOCATE", None)
def main():
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
doors.run(main, reads=True)
"""
    status, stderr = python(code)
    assert status == 0, stderr


def test_help_shows_every_flag_of_a_door(tmp_path):
    shown = {}
    for door in ("train", "sample"):
        ran = subprocess.run([sys.executable, "-m", f"lidit_jax.{door}", "--help"], capture_output=True, text=True)  # fmt: skip
        shown[door] = set(re.findall(r"^  --(?:\[no\])?(\w+):", ran.stdout, re.M))
    joining = {"coordinator", "processes", "process_id", "cluster", "start_timeout", "cpu_devices"}
    assert {"config", "data", "workdir", "held_out", "replay"} | joining <= shown["train"]
    assert {"workdir", "out", "llm", "vae", "prompt", "mesh"} <= shown["sample"]
    assert "config" not in shown["sample"]


DOORS = ["prepare", "train", "sample", "evaluate", "export", "reconstruct"]


def test_no_door_imports_tensorflow_or_yet_torch():
    """Each in a process of its own, where no other door has defined flags of the same names."""
    code = f"""
import importlib, os, sys
from lidit_jax import evaluation, generation, preparation  # which take seconds
for name in {DOORS}:
    if not os.fork():
        importlib.import_module(f"lidit_jax.{{name}}")
        heavy = {{m.split('.')[0] for m in sys.modules}} & {{'tensorflow', 'torch', 'transformers', 'pyarrow', 'tensorflow_datasets'}}
        assert not heavy, (name, heavy)
        sys.exit()
    assert os.wait()[1] == 0
"""
    status, stderr = python(code)
    assert status == 0, stderr
