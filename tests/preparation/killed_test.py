"""Real processes: killed at any moment and resumed, or sharing the work, they make one process's bytes."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import tiny_sources
from tests.tiny_prepared import assert_same

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def command(tmp_path_factory, llms):
    """Returns the command that prepares a data set of a hundred pictures into a folder."""
    root = tmp_path_factory.mktemp("killed")
    for k in range(10):
        tiny_sources.write_folder(root / "raw" / str(k))
    options = [
        f"--config.data.options.path={root / 'raw'}", "--config.data.shards=24",
        "--config.data.min_bin=1", "--config.data.rules=()",
        f"--config.text.encoders.smollm2.model={llms[0]}",
    ]  # fmt: skip

    def prepare(folder, *flags):
        door = ["lidit_jax.prepare", "--config=configs/own_data.py:folder", f"--data={folder}"]
        return [sys.executable, "-m", *door, *options, *flags]

    return prepare


def start(command):
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=env, **quiet)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The set that one process makes."""
    folder = tmp_path_factory.mktemp("whole") / "set"
    assert start(command(folder)).wait() == 0
    return folder


def entries(folder):
    return sum(1 for _ in folder.rglob("*"))


@pytest.mark.slow
def test_killed_at_ten_random_moments_the_bytes_are_the_same(command, whole, tmp_path):
    """A moment is when so many more files have come, temporary ones among them.

    A machine may be so quick that a set is done before ten kills: then another one is begun.
    """
    rng, killed, folders = np.random.default_rng(0), 0, [tmp_path / "0"]
    for _ in range(30):
        if (folders[-1] / "dataset.json").exists():
            folders.append(tmp_path / str(len(folders)))
        process = start(command(folders[-1]))
        limit = entries(folders[-1]) + rng.integers(1, entries(whole) // 8)
        while process.poll() is None and entries(folders[-1]) < limit:
            time.sleep(rng.random() * 0.004)
        if process.poll() is None and not (folders[-1] / "dataset.json").exists():
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        if killed == 10:
            break
    assert killed == 10
    for folder in folders:
        assert start(command(folder)).wait() == 0
        for left in folder.glob("**/.*.tmp"):  # of the plan, which others may be writing too
            assert not left.name.startswith((".latents", ".features")) or ".json." in left.name
            left.unlink()
        assert_same(whole, folder)


@pytest.mark.slow
def test_two_processes_at_once_make_the_set_of_one(command, whole, tmp_path):
    both = [start(command(tmp_path / "set", f"--share={i}/2")) for i in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert start(command(tmp_path / "set", "--merge")).wait() == 0
    assert_same(whole, tmp_path / "set")
