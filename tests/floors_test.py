"""Imports go down, never sideways between rooms on one floor, never up."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = [
    {
        "errors",
        "rng",
        "digests",
        "batch",
        "sharding",
        "files",
        "moments",
        "prompts",
        "pretrained",
        "share",
        "tables",
        "shapes_world",
        "scenes",
        "processes",
    },
    {"diffusion", "models", "evaluation"},
    {"text", "data"},
    {"training"},
    {"preparation", "generation", "autoencoding"},
    {"benchmarking", "ablation", "probing"},
    {"doors"},
    {
        "prepare",
        "train",
        "sample",
        "evaluate",
        "export",
        "reconstruct",
        "benchmark",
        "ablate",
        "probe",
        "continuations",
    },
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Who may import what, whatever the floor. torch and transformers also arrive lazily.
ONLY_IN = {
    "torch": {"text", "evaluation", "benchmarking"},
    "transformers": {"text", "evaluation"},
    "optax": {"training"},
    "orbax": {"training"},
    "clu": {"training"},
    "grain": {"data"},
    "array_record": {"data"},
    "tensorflow_datasets": {"data"},
    "pyarrow": {"data"},
    "diffusers": {"benchmarking"},
    "tensorflow": set(),
}


def violations(room: str, source: str, where: str) -> list[str]:
    """Returns a line for each import in `source`, a file of `room`, that goes up or sideways."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if room not in ONLY_IN.get(package, {room}):
                found.append(f"{where}:{node.lineno} {room} imports {package}")
            if package == "lidit_jax" and rest:
                other = rest[0]
                if other != room and FLOOR[other] >= FLOOR[room] > 0:
                    found.append(
                        f"{where}:{node.lineno} {room} imports {other}, which is not below it"
                    )
    return found


def test_every_import_goes_down():
    found = []
    for path in (ROOT / "lidit_jax").rglob("*.py"):
        room = path.relative_to(ROOT / "lidit_jax").parts[0].removesuffix(".py")
        if room != "__init__":
            found += violations(room, path.read_text(), str(path.relative_to(ROOT)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("models", "from lidit_jax import training"),
        ("models", "from lidit_jax.diffusion import samplers"),
        ("text", "import lidit_jax.data.records"),
        ("training", "def f():\n    import torch"),
        ("data", "import optax"),
    ],
)
def test_a_broken_floor_is_found(room, line):
    assert violations(room, line, "x.py")


def test_telemetry_knows_nothing_else_of_training():
    for path in (ROOT / "lidit_jax/training/telemetry").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", "")
                for name in (f"{module}.{alias.name}".strip(".") for alias in node.names):
                    known = name.startswith("lidit_jax.training.telemetry")
                    assert known or not name.startswith("lidit_jax.training"), (path, name)


def test_models_inside():
    """In models/, layers and mixing know no one, stacking what mixing keeps, attention both, and lidit all but the VAE."""
    below = {
        "layers": set(),
        "mixing": set(),
        "stacking": {"mixing"},
        "attention": {"layers", "mixing"},
        "conditioners": {"layers", "attention", "stacking"},
        "vae": {"layers"},
        "lidit": {"layers", "attention", "stacking", "conditioners"},
    }
    for path in (ROOT / "lidit_jax/models").rglob("*.py"):
        own = path.relative_to(ROOT / "lidit_jax/models").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "lidit_jax.models"
            ):
                rest = node.module.split(".")[2:]
                used = rest[:1] or [a.name for a in node.names]
                assert set(used) <= below[own] | {own}, f"{path.name}:{node.lineno} imports {used}"
