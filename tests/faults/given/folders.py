"""Data sets and runs with damaged, swapped or missing files, opened as `train` and `sample` do."""

import os
import pathlib
import random
import shutil

from lidit_jax import generation, preparation
from lidit_jax.data import plan
from lidit_jax.training import checkpoints, opening, trained
from lidit_jax.training.config import parse
from lidit_jax.training.inputs import open_inputs
from tests.faults.given.given import Given
from tests.faults.given.pictures import changed
from tests.faults.given.world import World

READ = (
    "*.json", "config.json", "metrics.jsonl", "checkpoints/2/_*", "checkpoints/2/*/_METADATA", "checkpoints/2/*/manifest.ocdbt",
    "checkpoints/2/ema/d/*", "checkpoints/2/params/d/*", "checkpoints/2/record/metadata", "plan/*", "*.array_record",
    "features/*/*", "images/*", "images/*/*",
)  # fmt: skip
WAYS = (
    "bytes",
    "bytes",
    "bytes",
    "gone",
    "swap",
    "folder",
    "loop",
    "png",
    "socket",
    "json",
    "no access",
)
JSON = (
    b"{}",
    b"[]",
    b"null",
    b"NaN",
    b"[" * 100_000,
    b'{"sealed": "by hand"}',
    b'"\\ud800"',
    b"9" * 5000,
)


def give_data(rng: random.Random, world: World, scratch: pathlib.Path) -> Given:
    """Returns a damaged data set, to read, prepare further, merge, or train on."""
    folder = shutil.copytree(world.data, scratch / "data")
    told, names = _damage(rng, folder)
    config, workdir = parse(world.config_dict()), scratch / "run"

    def read():
        _, reader, _ = open_inputs(config, folder)
        rows = range(len(reader.dataset))
        reader.drawn([(row, 0) for row in rows])
        plan.check_prompts(folder / "prompts.jsonl")

    acts = {
        "read": read,
        "prepared": lambda: preparation.prepare(config, folder),
        "merged": lambda: preparation.merge(config, folder),
        "trained on": lambda: opening.set_up(config, folder, workdir).close(),
    }
    act = rng.choice(list(acts))
    kept = () if act in ("prepared", "merged") else (folder,)
    names = (*names, "pieces", "shards") if act == "merged" else names
    return Given(f"data set, {told}, {act}", names, acts[act], kept, (workdir,))


def give_run(rng: random.Random, world: World, scratch: pathlib.Path) -> Given:
    """Returns a damaged run, to sample from, train further, describe or open."""
    folder = shutil.copytree(world.run, scratch / "run")
    told, names = _damage(rng, folder)
    config = parse(world.config_dict())
    acts = {
        "drawn from": lambda: generation.Generator(folder),
        "continued": lambda: opening.set_up(config, world.data, folder).saved_state(),
        "told of": lambda: list(checkpoints.info(folder)),
        "opened": lambda: trained.open_to_draw(folder),
    }
    act = rng.choice(list(acts))
    names = (*names, "no checkpoint in") if "checkpoints/" in told else names
    return Given(f"run, {told}, {act}", names, acts[act], (folder,))


def _damage(rng: random.Random, folder: pathlib.Path) -> tuple[str, tuple[str, ...]]:
    """Damages one file or two; returns what was done, and what may name it."""
    told, names = [], []
    for _ in range(rng.choice([1, 1, 2])):
        found = _files(folder, "*")
        if rng.random() < 0.7:  # files that are certain to be read: most of a run's are not
            found = [p for glob in READ for p in _files(folder, glob)] or found
        path, other = rng.choice(found), rng.choice(found)
        way = rng.choice(WAYS)
        how = _damaged(rng, path, other, way)
        touched = [path, other] if way == "swap" else [path]
        told.append(f"{way} {how} of {' and '.join(str(p.relative_to(folder)) for p in touched)}")
        names += [name for p in touched for name in _names(p, folder)]
    return "; ".join(told), tuple(names)


def _files(folder: pathlib.Path, glob: str) -> list[pathlib.Path]:
    return sorted(p for p in folder.rglob(glob) if p.is_file() and not p.is_symlink())


def _damaged(rng, path: pathlib.Path, other: pathlib.Path, way: str) -> str:
    if way == "bytes":
        content, how = changed(rng, path.read_bytes())
        path.write_bytes(content)
        return how
    if way == "swap":
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)
        return ""
    if way == "no access":
        path.chmod(0)  # no effect on root
        return ""
    path.unlink()
    if way == "folder":
        path.mkdir()
    elif way == "loop":
        path.symlink_to(path)
    elif way == "png":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + rng.randbytes(200))
    elif way == "json":
        path.write_bytes(rng.choice(JSON))
    elif way == "socket":
        os.mknod(path, 0o140600)
    return ""


def _names(path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Returns the file's name and parent folders, except the folder of all checkpoints."""
    parts = path.relative_to(folder).parts
    return [
        parts[-1],
        *("/".join(parts[:k]) for k in range(1, len(parts)) if parts[:k] != ("checkpoints",)),
    ]
