"""Kills training processes at random moments and prints what differs from an undisturbed run.

python -m tests.faults --seed=7 --kills=100
"""

import argparse
import functools
import operator
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from absl import logging  # noqa: E402

from tests.faults import kills, worlds  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=100, help="over all configs")
    parser.add_argument(
        "--configs", nargs="+", choices=worlds.MORE, default=list(worlds.MORE), metavar="NAME"
    )
    parser.add_argument(
        "--folder", type=pathlib.Path, help="keep the runs here; default: a temporary folder"
    )
    given = parser.parse_args()
    logging.set_verbosity(logging.ERROR)  # Orbax warns about files that items do not have
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or pathlib.Path(temporary)
        each, more = divmod(given.kills, len(given.configs))
        totals = functools.reduce(
            operator.add,
            (
                kills.kills(
                    worlds.make(name, folder / "worlds"),
                    folder / name,
                    given.seed,
                    each + (i < more),
                )
                for i, name in enumerate(given.configs)
            ),
        )
    print(totals.line(given.seed), flush=True)
    for difference in (*totals.arrays.different, *totals.lines.different)[:10]:
        print(f"  {difference}")
    return 0 if totals.ok else 1


if __name__ == "__main__":
    sys.exit(main())
