"""Malformed prompt files, read as `sample` reads them."""

import json
import pathlib
import random

from lidit_jax import prompts
from lidit_jax.data import plan
from lidit_jax.generation import Generator, requests
from lidit_jax.generation.generator import Wanted, check_wanted
from tests.faults.given.given import Given
from tests.faults.given.world import World

VALUES = (
    None, "", " ", "a red heart", "愛" * 50, "\ud800", "\0", 1, -1, 0, 2.5, True, [], {}, [16, 16], [16], [16, "x"], [0, 0],
    [-16, 16], [10**9, 16], [10**400, 16], [2**31, 2**31], [16.0, 16.0], [True, True], [17, 16], "16,16", [16, 16, 16],
    float("nan"), float("inf"), 10**400, "x" * 10**6,
)  # fmt: skip
LINES = (
    b"\xff\xfe",
    b"\x00" * 100,
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\r",
    b"\x85",
    b"\x0c",
    b"{",
    b"[" * 100_000,
    b"null",
    b"[]",
    b'"a"',
    b"1e999",
    b"{}",
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "gb18030", "shift_jis", "cp037")


def give(rng: random.Random, world: World, scratch: pathlib.Path) -> Given:
    """Returns a random prompt file; its request is carried out up to the first image."""
    path, out = (
        scratch / f"prompts{rng.choice(['.txt', '.jsonl', '.jsonl', '.TXT', '.json', ''])}",
        scratch / "out",
    )
    way = rng.choice([_random, _encoded, _objects, _objects, _lines, _place])
    told = way(rng, path)
    return Given(
        told=f"{path.name}: {told}",
        names=(path.name, "prompt", "size", "picture"),
        act=lambda: _until_drawn(path, world, out),
        kept=(path,),
        new=(out,),
    )


def _random(rng, path) -> str:
    path.write_bytes(rng.randbytes(rng.choice([0, 1, 10, 1000, 10**6])))
    return "random bytes"


def _encoded(rng, path) -> str:
    encoding = rng.choice(ENCODINGS)
    text = '{"prompt": "a red heart 心 é"}\n' if rng.random() < 0.5 else "a red heart 心 é\n"
    path.write_bytes(text.encode(encoding, errors="replace"))
    return f"in {encoding}"


def _objects(rng, path) -> str:
    told = []
    for _ in range(rng.choice([1, 1, 3])):
        fields = {"prompt": "a red heart"}
        for key in rng.sample(["prompt", "size", "seed", "size"], rng.choice([1, 2])):
            fields[key] = rng.choice(VALUES)
        told.append(json.dumps(fields))
    path.write_text("\n".join(told), encoding="utf-8")
    return "; ".join(line[:80] for line in told)


def _lines(rng, path) -> str:
    lines = [b'{"prompt": "a red heart"}', *rng.choices(LINES, k=rng.choice([1, 2]))]
    path.write_bytes(rng.choice([b"\n", b"\r\n"]).join(lines))
    return f"{[line[:20] for line in lines]}"


def _place(rng, path) -> str:
    way = rng.choice(["folder", "loop", "missing", "empty", "blank"])
    if way == "folder":
        path.mkdir()
    elif way == "loop":
        path.symlink_to(path)
    elif way in ("empty", "blank"):
        path.write_text("" if way == "empty" else " \n\t\n")
    return way


def _until_drawn(path: pathlib.Path, world: World, out: pathlib.Path):
    """What `sample` and `generate` do before the first image is sampled."""
    wanted = prompts.read(path)
    plan.check_prompts(path)
    generator = _generator(world)
    check_wanted(wanted, range(len(wanted)))
    sizes = [p.size or generator.config.data.size for p in wanted]
    for size in set(sizes):
        generator.latent_size(size)
    pictures = [Wanted(p.text, k, size) for k, (p, size) in enumerate(zip(wanted, sizes))]
    request = requests.Request(out, requests._manifest(generator, pictures))
    request.begun()
    generator._readers.lengths({w.prompt: None for w in pictures})


_OPEN: dict[pathlib.Path, Generator] = {}


def _generator(world: World) -> Generator:
    """Opens the run, only once: it is intact."""
    if world.run not in _OPEN:
        _OPEN[world.run] = Generator(world.run)
    return _OPEN[world.run]
