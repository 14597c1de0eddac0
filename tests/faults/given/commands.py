"""The commands as users start them, with a random value for one or two flags."""

import os
import pathlib
import random
import shutil
import subprocess
import sys

from tests.faults.given.given import SECONDS, Given, Refused
from tests.faults.given.world import World

ROOT = pathlib.Path(__file__).parents[3]
HEAD = """
import pathlib
from tests.faults.given.world import World

def get_config(arg=""):
    return World(*map(pathlib.Path, {paths!r})).config_dict()
"""
VALUES = ("", " ", "x", "-1", "0", "nan", "inf", "1e309", "9" * 30, "/no/such", "\x01", "é", "\udcff", "1,2", "1,,2", ",", "=", "a=b",
    "tiny0=", "0/0", "1/0", "-1/2", "5/4", "0/99999999999999999999", "None", "[]", "{}", "'", '"', "gs://b/x", "~nobody/x", "/dev/null", "true")  # fmt: skip
PLACES = (
    "",
    "file",
    "file/x",
    "/dev/null/x",
    "gs://b/x",
    "/proc/none/x",
    "~nobody/x",
    "\x01",
    "none",
    "\udcff",
    "a" * 300,
)
PLACE_FLAGS = ("data", "held_out", "workdir", "out", "samples", "vae", "config", "prompts")
# Each command's base flags, which are (almost) valid; then other flags of its own.
DOORS = {
    "train": (
        ("config", "data", "workdir"),
        ("profile_steps", "replay", "processes", "process_id", "coordinator", "cpu_devices", "start_timeout", "held_out",
         "config.train.steps", "config.train.mesh", "config.model.heads", "config.data.size", "config.none", "config.text.use"),
    ),
    "prepare": (("config", "data"), ("share", "merge", "verify", "report", "estimate", "pictures", "price", "config.data.size")),
    "sample": (
        ("workdir", "out"),
        ("prompts", "size", "seed", "per_prompt", "guidance", "sampler", "steps", "llm", "vae", "batch_size", "share", "mesh", "eta"),
    ),
    "evaluate": (("samples", "out", "suite"), ("config",)),
    "export": (("workdir", "out"), ("none",)),
    "reconstruct": (("config", "vae", "out"), ("config.data.size", "config.data.hold_out")),
    "benchmark": (("plan", "config"), ("devices", "mesh", "rounds", "out", "text_tokens", "topology", "config.model.width")),
}  # fmt: skip


def give(rng: random.Random, world: World, scratch: pathlib.Path) -> Given:
    """Returns a command with random values for one or two flags."""
    door = rng.choice(list(DOORS))
    base, more = DOORS[door]
    shutil.copytree(world.run, scratch / "workdir")
    shutil.copytree(world.data, scratch / "data")
    (scratch / "file").write_text("a file")
    config = scratch / "given.py"
    config.write_text(HEAD.format(paths=[str(p) for p in (world.llm, world.data, world.run)]))
    values = {"config": str(config), "suite": "recall", "plan": "true"}
    flags = {name: values.get(name, str(scratch / name)) for name in base}
    wrong = rng.sample([*base, *more, *more], rng.choice([1, 1, 2]))
    flags |= {name: rng.choice(PLACES if name in PLACE_FLAGS else VALUES) for name in wrong}
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    if door == "sample" and rng.random() < 0.8:
        arguments.append(f"--prompt={rng.choice(['', ' ', 'a'])}")
    if rng.random() < 0.1:
        arguments.append(rng.choice(["extra", "--", "--=", "--no", "-x"]))
    return Given(
        told=f"{door} {' '.join(map(ascii, arguments))}".replace(str(scratch), "SCRATCH"),
        names=tuple(
            n
            for name, value in flags.items()
            for n in (name, name.split(".")[-1], value, ascii(value))
        )
        + ("argument", "prompt", "flag"),
        act=lambda: _run(door, arguments, scratch),
        kept=(world.run, world.data, world.llm, scratch / "file"),
        new=(scratch / "out",),
    )


def _run(door: str, arguments: list[str], scratch: pathlib.Path):
    """Runs a command. Raises Refused if it ends with its one-line error."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", f"lidit_jax.{door}", *arguments],
        cwd=scratch, env=env, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=SECONDS,
    )  # fmt: skip
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [""]
    if done.returncode == 2 and "Traceback" not in done.stderr and lines[-1].startswith("error"):
        raise Refused(lines[-1])
    raise RuntimeError(f"status {done.returncode}: {' | '.join(lines[-4:])}")
