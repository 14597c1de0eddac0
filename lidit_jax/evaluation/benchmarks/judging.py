"""Pictures of a benchmark's prompts -> the judges' records of each.

Machines that share the work do not communicate: each writes a journal of its own in one folder, and
reads those of the others.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lidit_jax import files
from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks import journal, matching
from lidit_jax.evaluation.benchmarks.benchmark import Benchmark, Item, Record
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.evaluation.pictures import MANIFEST, Picture
from lidit_jax.share import WHOLE, Share


def judge_pictures(
    benchmark: Benchmark,
    items: Sequence[Item],
    pictures: Sequence[Picture],
    judges: Judges,
    out: Path,
    share: Share = WHOLE,
) -> list[list[Record]] | None:
    """Judges the pictures of this share that no journal in `out` has, and returns all records.

    A picture that was replaced after it was judged is judged again.

    Args:
      items: all items of the benchmark.
      pictures: in the manifest's order: those of the first item, then those of the second, ...
      out: folder of the journals, common to the machines that share the work.
    Returns the records of each item's pictures; None if other shares have not judged theirs yet.
    Raises InputError if the pictures do not match the items (see `matching`), if a judge is
    missing, if a picture cannot be read, or if a journal is damaged or about something else.
    """
    per_prompt = matching.check(items, pictures)
    manifest = files.checksum(pictures[0].folder / MANIFEST)
    head = _head(benchmark, items, judges) | {"manifest": manifest}
    known = journal.read_all(out, head)
    keys = [(picture.name, files.checksum(picture.path)) for picture in pictures]
    mine = [k for k in share.of(len(keys)) if keys[k] not in known]
    told = (
        (keys[k], _judged(benchmark, pictures[k], items[k // per_prompt], judges))
        for k in tqdm(mine, desc="judged", disable=not mine)
    )
    journal.write(out, share, head, told)
    known = journal.read_all(out, head)  # including what others have judged meanwhile
    if missing := [key for key in keys if key not in known]:
        print(f"{len(missing)} of {len(keys)} pictures, from other shares, are not judged yet")
        return None
    return [
        [known[key] for key in keys[k : k + per_prompt]] for k in range(0, len(keys), per_prompt)
    ]


def _judged(benchmark: Benchmark, picture: Picture, item: Item, judges: Judges) -> Record:
    image = picture.load()
    with picture.named():
        return benchmark.judge(image, item, judges)


def _head(benchmark: Benchmark, items: Sequence[Item], judges: Judges) -> dict[str, Any]:
    """Returns what determines a picture's record. Raises InputError if a judge is missing."""
    lacking = [kind for kind in benchmark.judges if getattr(judges, kind) is None]
    if lacking:
        wanted = " and ".join(f"--judges={kind}=FOLDER" for kind in lacking)
        raise InputError(f"{type(benchmark).__name__} lacks a judge; give {wanted}")
    return {
        "benchmark": f"{type(benchmark).__name__} {benchmark.version}",
        "judges": identities(benchmark, judges),
        "prompts": prompts_digest(items),
    }


def identities(benchmark: Benchmark, judges: Judges) -> dict[str, str]:
    """Returns kind of judge -> identity, for all of a benchmark's judges. None may be missing."""
    return {kind: getattr(judges, kind).identity for kind in benchmark.judges}


def prompts_digest(items: Sequence[Item]) -> str:
    """Returns a SHA-256 of prompts and all their fields for scoring, which must be JSON values."""
    return files.digest([[i.id, i.text, i.group, dict(i.meta)] for i in items])
