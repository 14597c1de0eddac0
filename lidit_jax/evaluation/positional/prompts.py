"""Prompts of four segments, made from T2I-CompBench's words as in the paper's appendix A.3.

The paper publishes neither its prompts nor how it chose them. The design here is a Latin square, so
that a segment's content cannot explain an effect of its place.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.errors import InputError

SEGMENTS = 4
# How many of 1,000 prompts each family has. A prompt's segments have one family, as in the paper's
# samples.
FAMILIES = {"color": 400, "texture": 300, "shape": 300}
ADJECTIVES = {
    "color": "red orange yellow green blue purple pink brown black white gray gold silver".split(),
    "texture": "metallic wooden plastic fabric leather glass fluffy rubber".split(),
    "shape": "round rectangular teardrop spherical pyramidal diamond pentagonal conical "
    "cylindrical triangular cubic small short oblong big tall".split(),
}  # fmt: skip
_LINE = re.compile(r"an? (\w+) (\w[\w ]*?) and an? (\w+) (\w[\w ]*)")

_WHERE = "it is published at https://github.com/Karine-Huang/T2I-CompBench, in examples/dataset"


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt, its family and segments.

    Prompts of one `base` are rotations of one set of segments.
    """

    text: str
    family: str
    segments: tuple[str, ...]
    base: int
    rotation: int


def sources(folder: Path) -> dict[str, list[Path]]:
    """Returns each family's files in a folder: T2I-CompBench's FAMILY_{train,val}.txt, or one.

    Raises InputError if a family has none.
    """
    found = {}
    for family in FAMILIES:
        names = [f"{family}_{part}.txt" for part in ("train", "val")]
        found[family] = [folder / name for name in names if (folder / name).is_file()]
        if not found[family]:
            raise InputError(
                f"{folder} has neither {' nor '.join(names)} of T2I-CompBench; {_WHERE}"
            )
    return found


def vocabulary(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Returns each family's (adjective, noun) pairs that occur in its `sources`, sorted.

    Only lines of the form "a ADJECTIVE NOUN and a ADJECTIVE NOUN" count, with adjectives from
    ADJECTIVES, so that no pair is nonsense. Raises InputError if a family has no file, or one that
    is not UTF-8.
    """
    found = {}
    for family, paths in sources(folder).items():
        lines = [line for path in paths for line in _lines(path)]
        matches = [m for line in lines if (m := _LINE.fullmatch(line.strip().rstrip(".")))]
        pairs = {pair for m in matches for pair in (m.group(1, 2), m.group(3, 4))}
        found[family] = sorted(p for p in pairs if p[0] in ADJECTIVES[family])
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); {_WHERE}") from error


def generate(
    pairs: dict[str, list[tuple[str, str]]], count: int = 1_000, seed: int = 0
) -> list[Prompt]:
    """Returns prompts such as "A red car, a blue bowl, an orange cat, and a green bench."

    Each set of segments appears in all of its four rotations. Nouns of a set are distinct;
    adjectives may repeat, as in the paper's samples. No two sets are equal.

    Args:
      pairs: as returned by `vocabulary`.
      count: number of prompts, a multiple of 40, divided among families as in FAMILIES.
    Raises InputError for another count, or if a family has too few pairs.
    """
    if count < 40 or count % 40:
        raise InputError(f"{count} prompts requested; want a multiple of 40")
    rng, prompts, seen = np.random.default_rng(seed), [], set()
    for family, share in FAMILIES.items():
        wanted = len(prompts) + count * share // sum(FAMILIES.values())
        _check_enough(family, pairs[family], (wanted - len(prompts)) // SEGMENTS)
        while len(prompts) < wanted:
            segments = _set(pairs[family], rng)
            if frozenset(segments) in seen:
                continue
            seen.add(frozenset(segments))
            base = len(seen) - 1
            prompts += [_prompt(family, segments, base, r) for r in range(SEGMENTS)]
    return prompts


def _check_enough(family: str, pairs: Sequence[tuple[str, str]], wanted: int):
    """Raises InputError unless the pairs make that many different sets of segments."""
    nouns = collections.Counter(noun for _, noun in pairs)
    sets = [1] + [0] * SEGMENTS  # number of sets of each size
    for adjectives in nouns.values():
        for size in range(SEGMENTS, 0, -1):
            sets[size] += adjectives * sets[size - 1]
    if sets[-1] < wanted:
        raise InputError(
            f"family {family} has {len(pairs)} pairs of {len(nouns)} nouns, which make {sets[-1]} "
            f"sets of {SEGMENTS}; want {wanted}: use T2I-CompBench's complete train and val files"
        )


def _set(pairs: Sequence[tuple[str, str]], rng: np.random.Generator) -> tuple[str, ...]:
    """Returns four segments with different nouns."""
    while True:
        chosen = [pairs[i] for i in rng.choice(len(pairs), SEGMENTS, replace=False)]
        if len({noun for _, noun in chosen}) == SEGMENTS:
            return tuple(" ".join(pair) for pair in chosen)


def _prompt(family: str, segments: tuple[str, ...], base: int, rotation: int) -> Prompt:
    turned = segments[rotation:] + segments[:rotation]
    *first, last = map(with_article, turned)
    text = ", ".join([*first, f"and {last}"]) + "."
    return Prompt(text[0].upper() + text[1:], family, turned, base, rotation)


def with_article(segment: str) -> str:
    """Returns "a red car" or "an orange cat"; a plural, such as "red shoes", has no article."""
    head = segment.split(" of ")[0]  # a set of keys is one
    if head.endswith("s") and not head.endswith(("ss", "us", "is")):
        return segment
    return f"{'an' if segment[0] in 'aeiou' else 'a'} {segment}"
