"""Scores on disk (results.json) and in print."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lidit_jax import files

COLUMNS = ("LI-DiT-1B", "LI-DiT-10B")  # of the paper, beside ours


def write_results(
    out: str | Path,
    suite: str,
    n_images: int,
    scores: Mapping[str, float],
    command: str,
    **more: Any,
) -> dict[str, Any]:
    """Writes out/results.json, whole or not at all, and returns its content.

    suite: which one; n_images: how many pictures were judged; command: what to type to get this again;
    more: what else decided the scores, and their intervals, as JSON holds it.
    Raises ValueError for a score that JSON cannot hold (NaN, infinity).
    """
    results = {
        "suite": suite,
        **more,
        "n_images": n_images,
        "scores": dict(scores),
        "command": command,
    }
    files.write_json(Path(out) / "results.json", results, sealed=False)
    return results


def table(results: Iterable[dict[str, Any]]) -> str:
    """Returns one line for each score of each of the results, in aligned columns."""
    rows = [("suite", "images", "score", "value")]
    for r in results:
        rows += [(r["suite"], str(r["n_images"]), k, f"{v:.4f}") for k, v in r["scores"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def comparison(results: Mapping[str, Any], paper: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a benchmark's results as a Markdown table, each score beside the paper's.

    A score stands before its 95% interval. What makes it another measure than the paper's is told below.

    results: with "scores", "ci95" and "notes" of `benchmarks.measuring`.
    paper: row of the paper's Table 1 -> score -> number; the rows COLUMNS are shown.
    """
    rows = [(results["suite"], "ours", *COLUMNS), ("---", *["---:"] * (1 + len(COLUMNS)))]
    for name, value in results["scores"].items():
        low, high = results["ci95"][name]
        published = (paper.get(column, {}).get(name) for column in COLUMNS)
        ours = f"{value:.2f} ({low:.2f} to {high:.2f})"
        rows.append(
            (name, ours, *("" if number is None else f"{number:.2f}" for number in published))
        )
    told = "\n".join(f"- {note}" for note in results["notes"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + f"\n\n{told}\n"
