"""The benchmarks' official prompt files: where they are published, and how they are checked.

None of them is part of this project. A file must have the published number of prompts and the
published SHA-256 of its bytes, line ends included. DPG-Bench is a folder of texts, or one
prompts.jsonl with {"item_id": ..., "text": ...} per line; its hash is of the content, which is the
same in both forms.
"""

import dataclasses
import json
from pathlib import Path

from lidit_jax import files
from lidit_jax.errors import InputError, unknown_name


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file of prompts, or a folder of them: its name, number of prompts, hash, and URL."""

    name: str
    count: int
    sha256: str
    url: str


_COMPBENCH_URL = "https://github.com/Karine-Huang/T2I-CompBench/raw/HEAD/examples/dataset"
_DPG_URL = "https://github.com/TencentQQGYLab/ELLA/tree/HEAD/dpg_bench"

GENEVAL = PublishedFile(
    "evaluation_metadata.jsonl",
    553,
    "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
    "https://github.com/djghosh13/geneval/raw/HEAD/prompts/evaluation_metadata.jsonl",
)
COMPBENCH = {
    category: PublishedFile(
        f"{category}_val.txt", 300, sha256, f"{_COMPBENCH_URL}/{category}_val.txt"
    )
    for category, sha256 in {
        "color": "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d",
        "shape": "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae",
        "texture": "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f",
        "spatial": "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988",
        "numeracy": "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
        "non_spatial": "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d",
        "complex": "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4",
    }.items()
}
DPG = PublishedFile(
    "prompts",
    1065,
    "981902c0d010e5a6f1077aa125d4577c5e80f0adedea9b9e9034d4b963618a77",
    f"{_DPG_URL}/prompts",
)
DPG_QUESTIONS = "dpg_bench.csv"  # its hash is not known here
DPG_QUESTIONS_URL = f"{_DPG_URL}/{DPG_QUESTIONS}"

PUBLISHED: dict[str, tuple[PublishedFile, ...]] = {
    "geneval": (GENEVAL,),
    "compbench": tuple(COMPBENCH.values()),
    "dpg": (DPG,),
    "positional": tuple(COMPBENCH[category] for category in ("color", "texture", "shape")),
}


def read_lines(folder: Path, published: PublishedFile) -> list[str]:
    """Returns the non-empty lines of a file, stripped of white space.

    Raises InputError if the file is missing, has the wrong number of prompts, or is altered.
    """
    path = folder / published.name
    lines = [line.strip() for line in _read(path, published).split("\n") if line.strip()]
    _check(path, len(lines), files.checksum(path), published)
    return lines


def read_texts(folder: Path, published: PublishedFile = DPG) -> dict[str, str]:
    """Returns id -> text, sorted by id, from a folder of texts named <id>.txt, or from a .jsonl.

    folder: holds the folder `published.name`, or a .jsonl of that name. White space around a text
      is stripped.
    Raises InputError like `read_lines`.
    """
    path = folder / published.name
    if path.is_dir():
        texts = {file.stem: _read(file, published).strip() for file in path.glob("*.txt")}
    else:
        path = path.with_suffix(".jsonl")
        texts = _parsed(path, published)
    pairs = sorted(texts.items())
    _check(path, len(pairs), files.digest(pairs), published)
    return dict(pairs)


def _parsed(path: Path, published: PublishedFile) -> dict[str, str]:
    lines = [line for line in _read(path, published).split("\n") if line.strip()]
    try:
        entries = [json.loads(line) for line in lines]
        return {entry["item_id"]: entry["text"].strip() for entry in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = 'lines of {"item_id": ..., "text": ...}'
        raise InputError(f"{path}: want {wanted} ({error!r}); {_where(published)}") from error


def _read(path: Path, published: PublishedFile) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"no {path.name} in {path.parent}; {_where(published)}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); {_where(published)}") from error


def _check(path: Path, count: int, sha256: str, published: PublishedFile):
    """Raises InputError unless the content of a path is the published one."""
    if count != published.count:
        raise InputError(
            f"{path} has {count or 'no'} prompts, the published "
            f"one {published.count}; {_where(published)}"
        )
    if sha256 != published.sha256:
        raise InputError(
            f"{path} is altered: its SHA-256 is {sha256}, but the published one is "
            f"{published.sha256} (line ends count: copy it unchanged); {_where(published)}"
        )


def _where(published: PublishedFile) -> str:
    return f"it is published at {published.url}"


def fetch_instructions(benchmark: str, folder: Path | None = None) -> str:
    """Returns what to download for a benchmark, and where from; nothing is downloaded here.

    benchmark: a key of PUBLISHED. folder: where the files belong; those that exist are checked.
    Raises InputError for an unknown benchmark, or for a file that is not the published one.
    """
    if benchmark not in PUBLISHED:
        raise unknown_name("benchmark", benchmark, PUBLISHED)
    lines = [f"{benchmark} reads these, all in one folder:"]
    for published in PUBLISHED[benchmark]:
        state = f" ({_state(folder, published)})" if folder else ""
        lines.append(f"{published.name}{state}: {published.count} prompts from {published.url}")
        lines.append(f"    SHA-256 {published.sha256}")
    if benchmark == "dpg":
        lines.append(f"{_unknown(folder, DPG_QUESTIONS)}: questions from {DPG_QUESTIONS_URL}")
    if benchmark == "positional":
        lines += [
            f"{_unknown(folder, p.name.replace('_val', '_train'))}, to use with "
            f"or instead of {p.name}: from {p.url.replace('_val', '_train')}"
            for p in PUBLISHED[benchmark]
        ]
    return "\n".join(lines)


def _unknown(folder: Path | None, name: str) -> str:
    """Returns the text about a file whose hash is not known here."""
    there = "" if folder is None else " (there)" if (folder / name).exists() else " (missing)"
    return f"{name}{there}, whose hash is not known here"


def _state(folder: Path, published: PublishedFile) -> str:
    path = folder / published.name
    if not path.exists() and not path.with_suffix(".jsonl").exists():
        return "missing"
    read = read_texts if published is DPG else read_lines
    read(folder, published)
    return "there, as published"
