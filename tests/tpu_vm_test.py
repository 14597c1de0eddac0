"""launch/tpu_vm.sh and launch/detached.sh, where stand-ins play gcloud and a worker."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests import several

LAUNCH = several.ROOT / "launch"

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
if "scp" in sys.argv:
    statuses = os.environ["COPIES"].split()
    sys.exit(int(statuses[min(sum('"scp"' in line for line in log.open()), len(statuses)) - 1]))
installed = log.with_name("installed")
if "create" in sys.argv:
    installed.unlink(missing_ok=True)
if "apt-get" in sys.argv[-1] + sys.argv[-2]:
    installed.touch()
if "test -e" in sys.argv[-1] + sys.argv[-2]:
    sys.exit(not installed.exists())
if "ssh" in sys.argv and "keep_running" in sys.argv[-2] + sys.argv[-1]:
    runs = sum("keep_running" in line for line in log.open())
    now = os.environ["RUNS"].split()[runs - 1]
    if now.startswith("real"):  # on this machine, for so many seconds, then the connection is lost
        (command,) = [a.removeprefix("--command=") for a in sys.argv if a.startswith("--command=")]
        done = subprocess.run(["timeout", now[4:] or "60", "bash", "-c", command], cwd=os.environ["HOME"])
        sys.exit(255 if done.returncode == 124 else done.returncode)
    sys.exit(int(now))
"""


def tpu_vm(tmp_path, *args, states="ACTIVE", runs="0", copies="0", installed=True):
    """Runs tpu_vm.sh with a gcloud that tells these states, and whose runs and copies end so; returns its calls.

    A run "real2" is the command itself, at home in `tmp_path`, until the connection is lost after 2 s.
    """
    tools = tmp_path / "tools"
    tools.mkdir(parents=True)
    (tools / "gcloud").write_text(f"#!{sys.executable}\n{GCLOUD}")
    (tools / "sleep").write_text("#!/bin/sh\n")
    (tools / "mountpoint").write_text(f"#!/bin/sh\ntest -e {tmp_path}/mounted\n")
    mount = f'#!/bin/sh\ntest "$*" = "mount -t nfs 10.0.0.2:/lidit /mnt/lidit" && echo mounted >> {tmp_path}/mounted\n'
    (tools / "sudo").write_text(mount)
    for tool in tools.iterdir():
        tool.chmod(0o755)
    if installed:
        (tmp_path / "installed").touch()
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "GCLOUD_LOG": f"{tmp_path}/log"}
    env |= {"STATES": states, "RUNS": runs, "COPIES": copies, "HOME": str(tmp_path)}
    done = subprocess.run(
        [LAUNCH / "tpu_vm.sh", *args], cwd=several.ROOT, env=env, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    log = tmp_path / "log"
    calls = [json.loads(line) for line in log.open()] if log.exists() else []
    return done, [c for c in calls if "list" not in c and "test -e" not in " ".join(c)]


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
        ["bash", "-c", f"mountpoint() {{ :; }}; cd() {{ :; }}; launch/detached.sh() {{ printf '%s\\n' \"${{@:3}}\"; }}; {command}"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert shown[:3] == ["launch/keep_running.sh", "/mnt/lidit/run", ".venv/bin/python"]
    assert shown[3:5] == ["-m", "lidit_jax.train"]
    assert shown[-1] == "--config.text.use=('smollm2','gemma3')" and len(shown) == 9


ONCE = ["create", "scp", "apt-get", "keep_running"]


def kept(tmp_path, **more):
    """Returns the status of `keep`, and what it did, in order."""
    done, calls = tpu_vm(tmp_path, "keep", **more)
    words = ("create", "scp", "keep_running", "delete", "apt-get")
    return done.returncode, [next(w for w in words if w in " ".join(c)) for c in calls]


@pytest.mark.parametrize(
    ("states", "runs"),
    [
        ("none none ACTIVE offline SUSPENDED SUSPENDED SUSPENDED SUSPENDED ACTIVE", "255 0"),
        # its machines were told to stop, and saved, some time before its request is
        ("none none ACTIVE ACTIVE ACTIVE SUSPENDING SUSPENDED SUSPENDED ACTIVE", "75 0"),
    ],
)
def test_a_preempted_slice_is_replaced_and_the_run_goes_on(tmp_path, states, runs):
    assert kept(tmp_path, states=states, runs=runs) == (0, [*ONCE, "delete", *ONCE])


def test_a_slice_that_goes_while_it_is_installed_is_replaced(tmp_path):
    found = kept(tmp_path, states="none none ACTIVE SUSPENDED SUSPENDED ACTIVE", copies="255 0")
    assert found == (0, ["create", "scp", "delete", *ONCE])


def test_what_is_installed_in_part_is_installed_again(tmp_path):
    found = kept(tmp_path, states="none none ACTIVE", copies="255 0")
    assert found == (0, ["create", "scp", *ONCE[1:]])


def test_a_slice_that_is_there_with_nothing_installed_is_installed(tmp_path):
    """As where `keep` was ended while it installed."""
    assert kept(tmp_path, installed=False) == (0, ONCE[1:])


def test_a_request_that_fails_is_made_again_but_not_for_ever(tmp_path):
    assert kept(tmp_path / "a", states="none none FAILED FAILED FAILED ACTIVE") == (0, ["create", "delete", *ONCE])  # fmt: skip
    status, did = kept(tmp_path / "b", states="FAILED")
    assert status == 1 and did == ["delete", "create"] * 10


def test_a_request_that_waits_keeps_its_place(tmp_path):
    states = "WAITING_FOR_RESOURCES WAITING_FOR_RESOURCES PROVISIONING ACTIVE"
    assert kept(tmp_path, states=states) == (0, ONCE[1:])


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
    assert (tmp_path / "mounted").read_text() == "mounted\n"  # once: a worker may have started anew


def detached(folder, id, *command):
    return [LAUNCH / "detached.sh", folder, id, *command]


def test_a_detached_command_is_followed_by_whoever_comes_and_told_once_more(tmp_path):
    sleeper = ["bash", "-c", f"echo x >> {tmp_path}/starts; echo begun; sleep 3; echo end; exit 5"]
    first = subprocess.Popen(detached(tmp_path, "a", *sleeper), stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "begun\n"
    first.kill()
    other = subprocess.run(detached(tmp_path, "b", "false"), capture_output=True, text=True)
    assert other.returncode == 5 and other.stdout == "begun\nend\n"
    assert "a command started earlier still runs" in other.stderr
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
