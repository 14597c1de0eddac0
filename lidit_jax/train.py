"""Door: a data set -> a trained run. Started again, it continues from the last checkpoint.

python -m lidit_jax.train --config=configs/quickstart.py --data=out/quickstart/data --workdir=out/quickstart/run
"""

from lidit_jax import doors
from lidit_jax.training.loop import train

_data = doors.define_folder("data", "folder of the data set, made by lidit_jax.prepare")
_workdir = doors.define_folder("workdir", "folder of the run: checkpoints, metrics, samples")


def main():
    train(doors.config(), _data(), _workdir())


if __name__ == "__main__":
    doors.run(main)
