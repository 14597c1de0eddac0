"""What a run needs and how fast it is, measured or estimated. One mode at a time.

python -m lidit_jax.benchmark --plan --config=configs/lidit_10b_512.py --devices=64 --mesh=1,64,1
python -m lidit_jax.benchmark --plan --config=configs/lidit_1b.py --topology=v5e:2x4
python -m lidit_jax.benchmark --plan --config=configs/lidit_10b_512.py --topology=H200:8x8
python -m lidit_jax.benchmark --train --peer=diffusers --config=configs/benchmark_cpu.py
python -m lidit_jax.benchmark --sample --config=configs/benchmark_cpu.py
python -m lidit_jax.benchmark --sample --config=configs/lidit_10b_512.py --topology=H200:1x1
python -m lidit_jax.benchmark --input --config=configs/lidit_1b.py
"""

import contextlib
import pathlib
import tempfile

from absl import flags

from lidit_jax import doors, errors, files, sharding
from lidit_jax.benchmarking import (
    assumed,
    made_up,
    peer,
    plan,
    reading,
    report,
    sampling,
    sampling_memory,
    training,
)
from lidit_jax.data.feature_codecs import FEATURE_CODECS
from lidit_jax.training import heap

flags.DEFINE_bool(
    "plan", False, "memory, FLOPs and collectives of a train step, compiled but not run"
)
flags.DEFINE_bool(
    "train",
    False,
    "the train step's time on this process's devices, compared with the peak of matrix products",
)
_PEER = flags.DEFINE_enum(
    "peer", None, ["diffusers"], "--train: compare with PixArt of the same size, in turn"
)
flags.DEFINE_bool(
    "sample",
    False,
    "the time to sample a guided picture, and its share outside the denoiser; with --topology, the "
    "memory that it takes instead, compiled but not run",
)
_ROUNDS = flags.DEFINE_integer("rounds", 10, "how often everything is timed", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 28, "--sample: sampler steps", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 4, "--sample: pictures at once", lower_bound=1)
_GUIDANCE = flags.DEFINE_float("guidance", 4.5, "--sample: 1 = off")
flags.DEFINE_bool(
    "input", False, "how fast batches are made from a data set's files, and what limits it"
)
_DATA = flags.DEFINE_string(
    "data",
    "",
    "--input: folder for the made-up data set, reused if it exists; temporary if not given",
)
_ROWS = flags.DEFINE_integer("rows", 2048, "--input: pictures in the data set, 0.5 MB each")
_HOSTS = flags.DEFINE_integer("hosts", 32, "--input: number of hosts that share a batch")
_CODEC = flags.DEFINE_enum(
    "codec", "int8", sorted(FEATURE_CODECS), "--input: how features are stored"
)
_DEVICES = flags.DEFINE_integer("devices", 0, "--plan: number of virtual devices")
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    "",
    "--plan, --sample: TPUs or GPUs that need not be here, such as v5e:8x8 or H200:4x8; needs "
    "their compiler",
)
_MESH = flags.DEFINE_string("mesh", None, "replica,fsdp,tensor; the config's if not given")
_SEARCH = flags.DEFINE_bool(
    "search", True, "--plan: try remat policies and micro-batches; if off, only the config's own"
)
_TEXT = flags.DEFINE_integer("text_tokens", 128, "tokens that prompts are padded to, for each LLM")
_PREFIX = flags.DEFINE_integer(
    "prefix_tokens", 50, "instruction tokens, if the config does not set them"
)
_OUT = flags.DEFINE_string("out", "", "folder for the result as JSON; only printed if not given")


def main():
    mode = doors.chosen(*MODES, required=True)
    doors.check_read(mode, {each: read for each, (_, read) in MODES.items()})
    if _OUT.value:
        files.check_folder(doors.folder(_OUT), _OUT.name)  # before work that takes minutes
    run, _ = MODES[mode]
    text, told = run()
    print(text)
    if _OUT.value:
        path = doors.folder(_OUT) / f"{mode}.json"
        files.write_json(path, {"command": doors.command("benchmark")} | told, sealed=False)


def _plan():
    config = doors.config()
    asked = plan.Asked(
        config, _mesh(config), _DEVICES.value, _TOPOLOGY.value, _lengths(), _SEARCH.value
    )
    made = plan.make(asked)
    return report.text(made), report.as_json(made)


def _train():
    heap.compute_here()
    if _PEER.value:
        doors.leave_room()
    config = assumed.measured(doors.config(), _lengths())
    task = assumed.task(config, _lengths())
    mesh = sharding.make_mesh(_mesh(config))
    against = peer.pixart(task) if _PEER.value else None
    with heap.kept():  # as in training; this covers the peer too, which is in the same process
        speed = training.measure(config, task, mesh, against, _ROUNDS.value)
    return speed.table(), speed.as_json()


def _sample():
    config = assumed.measured(doors.config(), _lengths())
    asked = sampling.Asked(config, _STEPS.value, _GUIDANCE.value, _BATCH.value, _TEXT.value)
    sizes = doors.mesh_sizes(_MESH.value) if _MESH.value else None
    if _TOPOLOGY.value:
        if _ROUNDS.present:
            raise errors.InputError("--rounds has no effect with --topology, which times nothing")
        found = sampling_memory.plan(asked, _TOPOLOGY.value, sizes)
    else:
        mesh = sharding.make_mesh(sizes) if sizes else None
        found = sampling.measure(asked, _ROUNDS.value, mesh)
    return found.table(), found.as_json()


def _input():
    wanted = made_up.made(doors.config(), _ROWS.value, _CODEC.value)
    with contextlib.ExitStack() as stack:
        temporary = None if _DATA.value else stack.enter_context(tempfile.TemporaryDirectory())
        folder = pathlib.Path(temporary) if temporary else doors.folder(_DATA)
        asked = reading.Asked(wanted, folder, _HOSTS.value)
        made_up.write(wanted, asked.folder)
        found = reading.measure(asked)
    return found.table(), found.as_json()


# The flag that selects a mode -> its function, which returns text and JSON, and the flags that it
# reads; others are refused.
MODES = {
    "plan": (_plan, (_DEVICES, _TOPOLOGY, _MESH, _SEARCH, _TEXT, _PREFIX, _OUT)),
    "train": (_train, (_PEER, _MESH, _ROUNDS, _TEXT, _PREFIX, _OUT)),
    "sample": (
        _sample,
        (_STEPS, _BATCH, _GUIDANCE, _TOPOLOGY, _MESH, _ROUNDS, _TEXT, _PREFIX, _OUT),
    ),
    "input": (_input, (_DATA, _ROWS, _HOSTS, _CODEC, _OUT)),
}


def _lengths() -> assumed.Lengths:
    return assumed.Lengths(_TEXT.value, _PREFIX.value)


def _mesh(config) -> tuple[int, int, int]:
    """Returns the mesh of --mesh, or else the config's."""
    return doors.mesh_sizes(_MESH.value) if _MESH.value else config.train.mesh


if __name__ == "__main__":
    doors.run(main, less=f"fewer pictures at once (--batch); of --train, {doors.TRAIN_LESS}")
