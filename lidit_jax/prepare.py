"""Door: a source of captioned pictures -> a data set on disk.

python -m lidit_jax.prepare --config=configs/quickstart.py --data=out/quickstart/data
"""

from lidit_jax import doors
from lidit_jax.preparation import prepare

_data = doors.define_folder("data", "folder of the data set to make")


def main():
    prepare(doors.config(), _data())


if __name__ == "__main__":
    doors.run(main)
