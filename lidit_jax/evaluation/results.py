"""Scores on disk (results.json) and in print."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lidit_jax import files


def write_results(
    out: str | Path, suite: str, n: int, scores: dict[str, float], command: str
) -> dict[str, Any]:
    """Writes out/results.json, whole or not at all, and returns its content.

    suite: which one; n: how many pictures were judged; command: what to type to get this again.
    Raises ValueError for a score that JSON cannot hold (NaN, infinity).
    """
    results = {"suite": suite, "n": n, "scores": scores, "command": command}
    files.write_json(Path(out) / "results.json", results, sealed=False)
    return results


def table(results: Iterable[dict[str, Any]]) -> str:
    """Returns one line for each score of each of the results, in aligned columns."""
    rows = [("suite", "n", "score", "value")]
    for r in results:
        rows += [(r["suite"], str(r["n"]), k, f"{v:.4f}") for k, v in r["scores"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
