"""All user input is accepted, or refused in one line that names it, and nothing half-made is left.

python -m tests.faults.fuzz --seed=0 --cases=250
"""

import argparse
import collections
import os
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

from tests import compiling
from tests.faults.given import commands, configs, folders, pictures, texts
from tests.faults.given.given import ACCEPTED, BAD, REFUSED, Given, Outcome, outcome
from tests.faults.given.world import World, make

KINDS: dict[str, Callable[[random.Random, World, pathlib.Path], Given]] = {
    "configs": configs.give,
    "prompts": texts.give,
    "pictures": pictures.give,
    "data sets": folders.give_data,
    "runs": folders.give_run,
    "commands": commands.give,
}
# How many of 25 cases are of each kind, in the order of KINDS.
SHARES = (10, 3, 4, 3, 3, 2)
ORDER = [kind for kind, share in zip(KINDS, SHARES) for _ in range(share)]


def case(seed: int, number: int, world: World, scratch: pathlib.Path) -> tuple[str, Given, Outcome]:
    """Runs one case, determined by seed and number alone. Returns its kind, input and outcome."""
    kind = ORDER[number * 7 % len(ORDER)]  # 7 and 25 are coprime, so that kinds are mixed
    folder = scratch / f"{number}"
    folder.mkdir(parents=True)
    try:
        given = KINDS[kind](random.Random(f"{seed}/{number}"), world, folder)
        return kind, given, outcome(given, folder)
    finally:
        shutil.rmtree(folder)


def cases(
    seed: int, numbers: Sequence[int], world: World, scratch: pathlib.Path, but: Sequence[str] = ()
) -> Iterator[tuple[int, str, Given, Outcome]]:
    """Yields each case whose kind is not in `but`, with its number."""
    for number in numbers:
        if ORDER[number * 7 % len(ORDER)] not in but:
            yield number, *case(seed, number, world, scratch)


def line(seed: int, totals: dict[str, collections.Counter]) -> str:
    """Returns a one-line summary of all totals."""
    told = [
        f"{kind} {t[ACCEPTED]} accepted, {t[REFUSED]} refused, {t[BAD]} {BAD}"
        for kind, t in totals.items()
    ]
    count = sum(t.total() for t in totals.values())
    return f"fuzz: seed {seed}: {count} cases: {'; '.join(told)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=250)
    parser.add_argument("--case", type=int, nargs="+", help="run only these, with details")
    parser.add_argument("--but", nargs="+", choices=KINDS, default=[], help="kinds to leave out")
    parser.add_argument(
        "--folder",
        type=pathlib.Path,
        help="keep the intact inputs here; default: a temporary folder",
    )
    given = parser.parse_args()
    totals, bad = {kind: collections.Counter() for kind in KINDS}, []
    with tempfile.TemporaryDirectory() as temporary:
        world = make(given.folder or pathlib.Path(temporary) / "world")
        numbers = given.case or range(given.cases)
        for number, kind, what, found in cases(
            given.seed, numbers, world, pathlib.Path(temporary), given.but
        ):
            totals[kind][found.what] += 1
            told = f"  {found.what}: {kind}: {what.told}\n    {found.line}\n    --seed={given.seed} --case={number}"
            if found.what == BAD:
                bad.append(told)
            if given.case:
                print(told, flush=True)
    print(line(given.seed, totals), *bad, sep="\n", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    compiling.set_up()
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # hides Orbax's messages about missing files
    sys.exit(main())
