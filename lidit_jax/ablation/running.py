"""One run of a family: prepare, train, draw, judge; each finds its own work done."""

import dataclasses
import json
import pathlib
import time
from typing import Any

import jax

from lidit_jax import errors, files, preparation
from lidit_jax.ablation.family import Family
from lidit_jax.evaluation import pictures
from lidit_jax.evaluation.benchmarks.benchmark import Item, Record
from lidit_jax.evaluation.benchmarks.scenes import Scenes
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.generation import Generator, generate
from lidit_jax.prompts import Prompt
from lidit_jax.training.config import Config
from lidit_jax.training.loop import train

BENCHMARK = Scenes()


@dataclasses.dataclass(frozen=True)
class Job:
    """A run of a family with one seed, and its folder: workdir of the training, drawn/, judged.json."""

    name: str
    seed: int
    config: Config
    folder: pathlib.Path

    @property
    def identity(self) -> str:
        return files.digest(json.loads(json.dumps(dataclasses.asdict(self.config))))


def jobs(family: Family, seeds: int, out: pathlib.Path) -> list[Job]:
    """Returns every run with seeds 0, 1, ..., all runs of a seed before the next seed's."""
    errors.check_range("--seeds", seeds, 1)
    return [
        Job(name, seed, dataclasses.replace(config, seed=seed), out / "runs" / name / f"seed{seed}")
        for seed in range(seeds)
        for name, config in family.runs.items()
    ]


def items(family: Family) -> list[Item]:
    """Returns the prompts that every run is judged by."""
    return BENCHMARK.items(count=family.prompts)


def run(job: Job, wanted: list[Item], data: pathlib.Path):
    """Trains, draws and judges, unless it is done; continues where it was stopped.

    wanted: the prompts. data: the data set, which all runs share; what a run's encoders lack is added.
    Raises InputError if the folder holds another run, or what the doors of each part refuse.
    """
    if judged(job, wanted) is not None:
        return
    started = time.time()
    preparation.prepare(job.config, data)
    train(job.config, data, job.folder)
    prompts = [Prompt(item.text) for item in wanted]
    drawn = job.folder / "drawn"
    generate(Generator(job.folder), prompts, list(range(len(prompts))), drawn)
    records = [
        BENCHMARK.judge(picture.load(), item, Judges())
        for picture, item in zip(pictures.read(drawn), wanted, strict=True)
    ]
    told = {"run": job.identity, "prompts": _digest(wanted), "records": records}
    told["seconds"] = round(time.time() - started, 1)
    files.write_json(job.folder / "judged.json", told)
    jax.clear_caches()  # the next run's programs are others


def judged(job: Job, wanted: list[Item]) -> dict[str, Any] | None:
    """Returns what was judged of a run: its records, one a prompt; None if it is not there.

    Raises InputError if it is of another config or of other prompts.
    """
    path = job.folder / "judged.json"
    if not path.exists():
        return None
    found = files.read_json(path, "judged run", holds=("run", "prompts", "records"))
    for what, ours in (("run", job.identity), ("prompts", _digest(wanted))):
        if found[what] != ours:
            raise errors.InputError(
                f"{path} is of another config ({what} differs); give another --out, or delete {job.folder}"
            )
    return found


def records(job: Job, wanted: list[Item]) -> list[list[Record]] | None:
    """Returns the records of each prompt's picture; None if the run is not done."""
    found = judged(job, wanted)
    return None if found is None else [[record] for record in found["records"]]


def _digest(wanted: list[Item]) -> str:
    return files.digest([item.text for item in wanted])
