"""Probes what the tokens of one thing encode about another, in the LLM and after a run's refiners.

python -m lidit_jax.probe --workdir=base=RUN --workdir=ltr=OTHER_RUN --out=out/probe
"""

import pathlib

import numpy as np
from absl import flags

from lidit_jax import doors, errors, files
from lidit_jax.evaluation import figures
from lidit_jax.probing import linear, prompts, report, states
from lidit_jax.scenes.things import COLOURS
from lidit_jax.text import instruct

_WORKDIRS = flags.DEFINE_multi_string(
    "workdir", [], "NAME=FOLDER of a run with one LLM; may be given several times"
)
_out = doors.define_folder("out", "folder for probe.md, probe.json and probe.png")
_moved = doors.define_moved()
_COUNT = flags.DEFINE_integer("prompts", 3_000, "number of prompts", lower_bound=400)


def main():
    if not _WORKDIRS.value:
        raise errors.InputError("no --workdir given; want NAME=FOLDER of a trained run")
    runs = doors.named_folders(_WORKDIRS)
    out, drawn = _out(), prompts.draw(_COUNT.value)
    files.check_folder(out, "out")
    figures.check()
    command = doors.command("probe")
    page = report.write(_found(runs, drawn, *_moved()), len(COLOURS), len(drawn), out, command)
    print(page.read_text(encoding="utf-8"))


def _found(
    runs: dict[str, pathlib.Path],
    drawn: list[prompts.MarkedPrompt],
    models: dict[str, str],
    vae: str | None,
) -> report.Found:
    own = [states.only_encoder(workdir) for workdir in runs.values()]
    encoders = dict(zip(runs, instruct.moved(own, models)))
    readings = {e: states.Reading(e, drawn) for e in dict.fromkeys(encoders.values())}
    colours_PxK = np.array([p.colours for p in drawn])

    def told(reading, states_PxSxD):
        return linear.between(reading.pooled(states_PxSxD), colours_PxK, len(COLOURS))

    found = {f"features: {e.store}": told(r, r.features) for e, r in readings.items()}
    for name, encoder in encoders.items():
        reading = readings[encoder]
        found[name] = told(reading, states.conditions(runs[name], reading, vae))
    return found


if __name__ == "__main__":
    doors.run(main, reads=True, configured=False)
