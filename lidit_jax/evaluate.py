"""Door: a folder of pictures -> results.json and a table.

python -m lidit_jax.evaluate --suite=recall --config=configs/quickstart.py --samples=out/quickstart/samples --out=out/quickstart/recall
"""

import shlex
import sys

from absl import flags

from lidit_jax import doors, errors
from lidit_jax.evaluation import SUITES, pictures, results
from lidit_jax.preparation import references

_samples = doors.define_folder("samples", "folder that lidit_jax.sample wrote")
_out = doors.define_folder("out", "folder for results.json")
_SUITE = flags.DEFINE_string("suite", None, f"what to measure: {', '.join(SUITES)}")


def main():
    if not _SUITE.value:
        raise errors.InputError(f"no --suite given; known: {', '.join(SUITES)}")
    if _SUITE.value not in SUITES:
        raise errors.unknown_name("suite", str(_SUITE.value), SUITES)
    judged = pictures.read(_samples())
    trained_on = references(doors.config()) if doors.CONFIG.value else None
    scores = SUITES[_SUITE.value](judged, trained_on)
    command = shlex.join(["python", "-m", "lidit_jax.evaluate", *sys.argv[1:]])
    written = results.write_results(_out(), _SUITE.value, len(judged), scores, command)
    print(results.table([written]))


if __name__ == "__main__":
    doors.run(main)
