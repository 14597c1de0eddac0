"""Scores on disk (results.json) and in print."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lidit_jax import files, tables
from lidit_jax.errors import InputError

COLUMNS = ("LI-DiT-1B", "LI-DiT-10B")  # of the paper, shown next to ours
# Keys that must be equal in results that are compared.
ALIKE = (
    "suite", "mode", "judges", "prompts_sha256", "per_prompt", "guidance", "negative_prompt",
    "sampler",
)  # fmt: skip


def write_results(
    out: str | Path,
    suite: str,
    n_images: int,
    scores: Mapping[str, float],
    command: str,
    **more: Any,
) -> dict[str, Any]:
    """Writes out/results.json, atomically, and returns its content.

    suite: its name; n_images: the number of judged pictures; command: how to reproduce this;
    more: what else determined the scores, and their intervals, as JSON values.
    Raises ValueError for a score that JSON cannot hold (NaN, infinity), and names it.
    """
    if unknown := [name for name, score in scores.items() if not math.isfinite(score)]:
        raise ValueError(f"suite {suite} gave {unknown[0]} the score {scores[unknown[0]]}")
    results = {
        "suite": suite,
        **more,
        "n_images": n_images,
        "scores": dict(scores),
        "command": command,
    }
    files.write_json(Path(out) / "results.json", results, sealed=False)
    return results


def check_place(suite: str, out: Path):
    """Raises InputError if a folder holds the results of another suite."""
    path = out / "results.json"
    if (
        path.exists()
        and (other := files.read_json(path, "results", sealed=False).get("suite")) != suite
    ):
        raise InputError(f"--out {out} holds the results of {other}; use another folder")


def read_alike(suite: str, folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Returns the content of each folder's results.json; all agree in the keys ALIKE.

    folders: label -> folder with a benchmark's results.
    Raises InputError if a folder has no results, or if they differ from the first in these keys.
    """
    wanted, found = {"suite": suite}, {}
    for label, folder in folders.items():
        path = folder / "results.json"
        value = files.read_json(path, "results", sealed=False)
        for key in wanted:
            if value.get(key) != wanted[key]:
                raise InputError(
                    f"{path}: its {key} is {value.get(key)!r}, want {wanted[key]!r}; "
                    f"only results with the same {', '.join(ALIKE)} can be compared"
                )
        wanted, found[label] = {key: value.get(key) for key in ALIKE}, value
    return found


def table(results: Mapping[str, Any]) -> str:
    """Returns one line per score, in aligned columns; then the notes."""
    suite, count = results["suite"], str(results["n_images"])
    rows = [("suite", "images", "score", "value")]
    rows += [(suite, count, name, f"{value:.4f}") for name, value in results["scores"].items()]
    return "\n".join([*tables.aligned(rows), *results.get("notes", ())])


def comparison(results: Mapping[str, Any], paper: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a benchmark's results as a Markdown table, each score next to the paper's.

    Each score is followed by its 95% interval. Notes below say what makes it differ from the
    paper's measure.

    results: with "scores", "ci95" and "notes" from `benchmarks.measuring`.
    paper: row of the paper's Table 1 -> score -> number; the rows in COLUMNS are shown, if present.
    """
    columns = [column for column in COLUMNS if column in paper]
    rows = [(f"{results['suite']}, {results['mode']}", "ours", *columns)]
    for name, value in results["scores"].items():
        low, high = results["ci95"][name]
        published = (paper[column].get(name) for column in columns)
        ours = f"{value:.2f} ({low:.2f} to {high:.2f})"
        rows.append(
            (name, ours, *("" if number is None else f"{number:.2f}" for number in published))
        )
    table = tables.markdown(rows, numbers=True) + "\n"
    notes = "".join(f"- {note}\n" for note in results["notes"])
    return f"{table}\n{notes}" if notes else table
