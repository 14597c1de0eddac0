"""Door: trained runs -> what the tokens of one thing know of another, in the LLM and after the refiners.

python -m lidit_jax.probe --workdir=base=RUN --workdir=ltr=OTHER_RUN --out=out/probe
"""

import pathlib
import shlex
import sys

import numpy as np
from absl import flags

from lidit_jax import doors, errors
from lidit_jax.probing import linear, prompts, report, states
from lidit_jax.scenes.things import COLOURS

_WORKDIRS = flags.DEFINE_multi_string(
    "workdir", [], "NAME=FOLDER of a run with one LLM; may be given several times"
)
_out = doors.define_folder("out", "folder for probe.md, probe.json and probe.png")
_COUNT = flags.DEFINE_integer("prompts", 3_000, "how many are read", lower_bound=8)


def main():
    if not _WORKDIRS.value:
        raise errors.InputError("no --workdir given; want NAME=FOLDER of a trained run")
    named = [_named(text) for text in _WORKDIRS.value]
    runs = dict(named)
    if len(runs) < len(named):
        raise errors.InputError("two of --workdir have one name; give each run its own")
    out, drawn = _out(), prompts.draw(_COUNT.value)
    colours_PxK = np.array([p.colours for p in drawn])
    found, read = {}, {}
    for name, workdir in runs.items():
        encoder = states.only_encoder(workdir)
        if encoder not in read:
            read[encoder] = states.Read(encoder, drawn)
            pooled = read[encoder].pooled(read[encoder].features)
            found[f"features: {encoder.store}"] = linear.between(pooled, colours_PxK, len(COLOURS))
        pooled = read[encoder].pooled(states.conditions(workdir, read[encoder]))
        found[name] = linear.between(pooled, colours_PxK, len(COLOURS))
    command = shlex.join(["python", "-m", "lidit_jax.probe", *sys.argv[1:]])
    print(report.write(found, len(COLOURS), len(drawn), out, command).read_text())


def _named(text: str) -> tuple[str, pathlib.Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise errors.InputError(
            f"--workdir={text}: want NAME=FOLDER, such as ltr=out/ablations/runs/ltr/seed0"
        )
    return name, pathlib.Path(folder).expanduser()


if __name__ == "__main__":
    doors.run(main)
