"""One run of a family: prepare, train, sample, judge; each step skips work that is already done."""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

import jax

from lidit_jax import errors, files, preparation, sharding
from lidit_jax.ablation.family import Family
from lidit_jax.evaluation import pictures
from lidit_jax.evaluation.benchmarks import matching
from lidit_jax.evaluation.benchmarks.benchmark import Item, Record
from lidit_jax.evaluation.benchmarks.scenes import Scenes
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.generation import Generator, generate
from lidit_jax.prompts import Prompt
from lidit_jax.training import checkpoints
from lidit_jax.training.config import Config
from lidit_jax.training.loop import train
from lidit_jax.training.trained import read_config

BENCHMARK = Scenes()


@dataclasses.dataclass(frozen=True)
class Job:
    """A run of a family with one seed, and its folder: a workdir with drawn/ and judged.json."""

    name: str
    seed: int
    config: Config
    folder: pathlib.Path

    @property
    def identity(self) -> str:
        return files.digest(dataclasses.asdict(self.config))


def jobs(family: Family, seeds: int, out: pathlib.Path) -> list[Job]:
    """Returns every run with seeds 0, 1, ..., all runs of a seed before the next seed's."""
    return [
        Job(name, seed, dataclasses.replace(config, seed=seed), out / "runs" / name / f"seed{seed}")
        for seed in range(seeds)
        for name, config in family.runs.items()
    ]


def items(family: Family) -> list[Item]:
    """Returns the prompts that all runs are judged by."""
    return BENCHMARK.items(count=family.prompts)


def check(jobs: Sequence[Job], wanted: list[Item], data: pathlib.Path):
    """Raises InputError for mistakes that would only show at a run's turn, after hours of others.

    data: the data set; features that it already has need no LLM.
    """
    left = [job.config for job in jobs if not is_drawn(job, wanted)]
    for config in left:
        preparation.recipe_of(config)
        mesh = sharding.make_mesh(config.train.mesh)
        sharding.check_batch(mesh, config.train.batch_size, config.train.accumulate)
    encoders = dict.fromkeys(encoder for config in left for encoder in config.encoders)
    preparation.check_encoders(encoders, data)


def run(job: Job, wanted: list[Item], data: pathlib.Path):
    """Trains, samples and judges a run, unless that is done; resumes where it stopped.

    wanted: the prompts. data: the data set, which all runs share; missing features of the run's
    encoders are added.
    Raises InputError if the folder holds another run, or if one of the steps refuses its inputs.
    """
    if not is_drawn(job, wanted):
        started = time.time()
        with files.locked(data.with_name(f"{data.name}.lock")):  # other shares prepare it too
            preparation.prepare(job.config, data)
        train(job.config, data, job.folder)
        prompts = [Prompt(item.text) for item in wanted]
        (job.folder / "judged.json").unlink(missing_ok=True)  # its pictures are replaced
        generate(Generator(job.folder), prompts, list(range(len(prompts))), job.folder / "drawn")
        seconds = round(time.time() - started, 1)  # since this start
        files.write_json(job.folder / "done.json", _bound(job, wanted) | {"seconds": seconds})
        jax.clear_caches()  # the next run compiles other programs
    judge(job, wanted)


def is_drawn(job: Job, wanted: list[Item]) -> bool:
    """Returns whether a run is trained and its pictures are drawn.

    Raises InputError if they were made with another config or other prompts.
    """
    path = job.folder / "done.json"
    if not path.exists() or not (job.folder / "drawn").is_dir():
        return False
    found = files.read_json(path, "run", holds=("run", "prompts", "seconds"))
    of = _bound(job, wanted)
    if found["run"] != of["run"] and (different := _different(job)):
        raise errors.InputError(
            f"{path} is from another config ({'; '.join(different)}); use another --out, or delete "
            f"{job.folder}"
        )
    if found["prompts"] != of["prompts"]:
        raise errors.InputError(
            f"{path} is from other prompts; use another --out, or delete it and "
            f"{job.folder / 'drawn'}: the trained model is kept"
        )
    return True


def _different(job: Job) -> list[str]:
    """Returns how the saved config differs in keys that decide a run's pictures, a clause per key.

    Values that `prepare` measured do not count, nor do keys that did not exist when the run was
    made.
    """
    saved, wanted = read_config(job.folder), job.config
    if [e.name for e in saved.encoders] == [e.name for e in wanted.encoders]:
        encoders = tuple(
            dataclasses.replace(
                old, width=new.width, prefix_len=new.prefix_len, null_len=new.null_len
            )
            for old, new in zip(saved.encoders, wanted.encoders)
        )
        saved = dataclasses.replace(saved, encoders=encoders)
    data = dataclasses.replace(saved.data, codec_hash=wanted.data.codec_hash)
    saved = dataclasses.replace(saved, data=data)
    return checkpoints.changes(saved, wanted, fixed=("sample.", "train.steps", "data.codec"))


def seconds(job: Job) -> float:
    """Returns how many seconds a drawn run took since its last start."""
    return files.read_json(job.folder / "done.json", "run", holds=("seconds",))["seconds"]


def judge(job: Job, wanted: list[Item]) -> list[list[Record]]:
    """Returns the records of each prompt's picture, for a drawn run; they are cached on disk.

    Raises InputError if drawn/ does not hold one picture per prompt, in order.
    """
    path, judged = job.folder / "judged.json", _bound(job, wanted) | {"judge": BENCHMARK.version}
    if path.exists():
        found = files.read_json(path, "judged run")
        if all(found.get(key) == ours for key, ours in judged.items()):
            return [[record] for record in found["records"]]
    drawn = pictures.read(job.folder / "drawn")
    matching.check(wanted, drawn)
    records = []
    for picture, item in zip(drawn, wanted, strict=True):
        with picture.named():
            records.append(BENCHMARK.judge(picture.load(), item, Judges()))
    files.write_json(path, judged | {"records": records})
    return [[record] for record in records]


def _bound(job: Job, wanted: list[Item]) -> dict[str, str]:
    """Returns what a file of the run's folder belongs to: this config, these prompts."""
    return {"run": job.identity, "prompts": files.digest([item.text for item in wanted])}
