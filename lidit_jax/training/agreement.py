"""What must be equal on all processes of a run: the config, the code and the data set."""

import hashlib
import importlib.metadata
import pathlib
from collections.abc import Iterator
from typing import Any

import lidit_jax
from lidit_jax import errors
from lidit_jax.data import sources
from lidit_jax.training.checkpoints import to_json
from lidit_jax.training.config import Config

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


def facts(
    config: Config, data: pathlib.Path, held_out: pathlib.Path | None = None
) -> dict[str, Any]:
    """Returns this process's facts: plain JSON values by name.

    Raises InputError if there is no data set at `data` or `held_out`; OSError if one cannot be read
    now.
    """
    stores = [
        f"features/{e.store}/encoder.json" for e in config.encoders if config.task == "diffusion"
    ]
    told = {
        key: value
        for key, value in _flat(to_json(config), "config")
        if not sources.is_place(key.removeprefix("config.data.options."))
    }
    return (
        told
        | {"code of lidit_jax": _code()}
        | {f"version of {name}": importlib.metadata.version(name) for name in LIBRARIES}
        | {
            f"{whose} {name}": _content(folder / name) if folder else None
            for whose, folder in (("data set's", data), ("held-out set's", held_out))
            for name in ("dataset.json", *stores)
        }
    )


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of each leaf; a list is a leaf unless it contains dicts."""
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        value = dict(enumerate(value))
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}")
    else:
        yield name, value


def _code() -> str:
    """Returns a hash of the package's source files."""
    root = pathlib.Path(lidit_jax.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def _content(path: pathlib.Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as e:
        if errors.is_unreachable(e):
            raise
        raise errors.InputError(
            f"no finished data set at {path.parent} (run `prepare` first): {path}: {e.strerror}"
        ) from e
