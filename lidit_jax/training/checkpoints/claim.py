"""Which run owns a folder: <workdir>/config.json, its config with `prepare`'s measurements."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from lidit_jax import errors, files
from lidit_jax.data import sources
from lidit_jax.training.config import Config, build

# Keys that may differ between the run in a workdir and the config that resumes it: they change how
# far and how fast it goes, its memory, and what it shows and keeps, but not what it computes.
FREE = {
    "train": (
        "steps", "mesh", "accumulate", "log_every", "save_every", "keep", "keep_hours",
        "keep_best", "preview_every", "watchdog_minutes", "grace",
    ),
    "guard": ("patience",),
    "model": ("remat", "unroll"),
    # codec_hash identifies the codec; bad_records only decides when a run ends.
    "data": (
        "shards", "workers", "threads", "codec", "bad_records",
    ),
}  # fmt: skip
# Paths that may change, because the contents are compared; but not between set and unset.
MAY_MOVE = ("vae.perceptual",)
RESTORE = "put back a copy of it, or train in another folder"  # for a damaged run config


def claim(workdir: pathlib.Path, config: Config, write: bool = True):
    """Makes `workdir` this config's run, or checks that it already is. Only process 0 writes.

    write: False only checks.

    Raises InputError, naming each key that differs, if it holds another config's run.
    """
    path = workdir / "config.json"
    if (workdir / "recipe.json").exists():
        raise errors.InputError(
            f"--workdir {workdir} is a data set; give the run a separate folder"
        )
    saved = workdir / "checkpoints"
    if not path.exists() and saved.is_dir() and any(saved.iterdir()):
        raise errors.InputError(
            f"{path} is missing, but {saved} holds a run's "
            "checkpoints; put it back, or give another --workdir"
        )
    read = None
    if path.exists():
        read = files.read_json(path, "run's config", remedy=RESTORE)
        saved = build(Config, read, str(path))  # adds keys that are newer than the file
        if different := changes(saved, config):
            longer = any(line.startswith("train.steps:") for line in different)
            onward = f", with train.init_from={workdir} to continue from this one" if longer else ""
            raise errors.InputError(
                f"{workdir} holds another config's run ({'; '.join(different)}); "
                f"give another --workdir{onward}, or the same config"
            )
    # Do not rewrite it: others may be reading, and NFS removes a replaced file under a reader.
    if write and read != to_json(config) and jax.process_index() == 0:
        files.write_json(path, to_json(config))


def changes(old: Config, new: Config, fixed: tuple[str, ...] = ()) -> list[str]:
    """Returns what makes two configs compute different things: a clause for each key not in FREE.

    fixed: prefixes of keys that must not differ here, although a run may resume with other values.
    """
    return [
        f"{key}: {was!r} there, {now!r} now"
        for key, was, now in differences(to_json(old), to_json(new))
        if key.startswith(fixed) or not (_is_free(key, new) or key in MAY_MOVE and was and now)
    ]


def to_json(config: Config) -> dict:
    """Returns the config as plain JSON values (tuples are lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _is_free(key: str, config: Config) -> bool:
    section, _, rest = key.partition(".")
    if key == "train.steps" and config.optim.decay != "constant":
        return False  # the learning rate depends on it
    if key.startswith("data.options.") and sources.is_place(key.removeprefix("data.options.")):
        return True
    return section == "sample" or rest in FREE.get(section, ())


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields differences of two nests of dicts and lists of dicts: (key, old, new).

    A key is a path such as "train.steps".
    """
    if _names(old) and _names(old) == _names(new):
        old, new = (dict(zip(_names(each), each)) for each in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        for k in sorted(old.keys() | new.keys()):
            yield from differences(old.get(k), new.get(k), f"{key}.{k}" if key else k)
    elif old != new:
        yield key, old, new


def _names(value: Any) -> list[str] | None:
    """Returns the names in a list of named dicts, such as the config's encoders; else None."""
    named = isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value)
    return [v["name"] for v in value] if named else None
