"""Trains a model on a data set. The same command resumes from the last checkpoint.

python -m lidit_jax.train --config=configs/quickstart.py --data=DATA --workdir=RUN
python -m lidit_jax.train --workdir=RUN --checkpoint_info
"""

from typing import Any

from absl import flags

from lidit_jax import doors, errors, processes
from lidit_jax.training import agreement, checkpoints, heap
from lidit_jax.training.loop import train
from lidit_jax.training.replay import replay

_data = doors.define_folder("data", "folder of the data set, made by lidit_jax.prepare")
_workdir = doors.define_folder("workdir", "folder of the run: checkpoints, metrics, samples")
_held_out = doors.define_folder(
    "held_out",
    "folder of a data set to score each checkpoint on; it is not trained on",
    optional=True,
)
_joined = doors.define_processes()
_PROFILE_STEPS = flags.DEFINE_list(
    "profile_steps", None, "FIRST,LAST: write a trace of these steps to <workdir>/profile"
)
_REPLAY = flags.DEFINE_integer(
    "replay", None, "instead of training, print each sample's loss at this step", lower_bound=1
)
_CHECKPOINT_INFO = flags.DEFINE_bool(
    "checkpoint_info", False, "only describe what the run in --workdir holds; reads no arrays"
)


def main():
    trains = (_PROFILE_STEPS, flags.FLAGS["held_out"])
    doors.check_read(doors.chosen("checkpoint_info", "replay"), {"": trains})
    if _CHECKPOINT_INFO.value:
        processes.use_cpu(1)  # the run itself may be using the accelerator
        for line in checkpoints.info(_workdir()):
            print(line)
        return
    heap.compute_here()
    with _joined(_facts):
        config, data, workdir = _arguments()
        if _REPLAY.value is None:
            train(config, data, workdir, _profile_steps(), _held_out())
        else:
            replay(config, data, workdir, _REPLAY.value)


def _facts() -> dict[str, Any]:
    steps = _profile_steps()
    asked = {"profile_steps": steps and list(steps), "replay": _REPLAY.value}
    return agreement.facts(*_arguments()[:2], _held_out()) | asked


def _arguments():
    return doors.config(), _data(), _workdir()


def _profile_steps() -> tuple[int, int] | None:
    given = _PROFILE_STEPS.value
    if given is None:
        return None
    if len(given) != 2 or not all(s.strip().isdecimal() for s in given):
        raise errors.InputError(
            f"--profile_steps={','.join(given)}: want FIRST,LAST, such as 10,15"
        )
    first, last = map(int, given)
    if not 1 <= first <= last:
        raise errors.InputError(f"--profile_steps={first},{last}: want 1 <= FIRST <= LAST")
    return first, last


if __name__ == "__main__":
    doors.run(main, less=doors.TRAIN_LESS)
