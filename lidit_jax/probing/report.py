"""The probe's results: a table for each source of tokens, and a figure of all."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from lidit_jax import files, tables
from lidit_jax.evaluation import figures
from lidit_jax.evaluation.intervals import Score

Found = Mapping[str, Sequence[Sequence[Score]]]  # name -> [place of tokens][place of the colour]
_IN_A_ROW = 3  # heat maps


def write(
    found: Found, classes: int, count: int, folder: pathlib.Path, command: str
) -> pathlib.Path:
    """Writes probe.md, probe.json and probe.png to a folder; returns the path of probe.md."""
    (folder / "probe.md").unlink(missing_ok=True)  # it would not match the new figure
    plot(found, classes, folder / "probe.png")
    rows = {n: [[vars(a) for a in row] for row in table] for n, table in found.items()}
    files.write_json(folder / "probe.json", {"command": command, "found": rows}, sealed=False)
    sections = [
        "# What tokens know\n\nAccuracy of a linear probe that reads the colour of each thing "
        f"in a list of four from the tokens of each thing, in {count:,} prompts, measured on "
        f"the last quarter. Chance is {100 / classes:.1f}%. In percent, with 95% intervals.\n\n"
        "![accuracies](probe.png)",
        *(f"## {name}\n\n{_table(table)}" for name, table in found.items()),
        f"```\n{command}\n```",
    ]
    with files.atomic(folder / "probe.md") as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return folder / "probe.md"


def _table(table: Sequence[Sequence[Score]]) -> str:
    places = range(1, len(table) + 1)
    rows = [["tokens of", *(f"colour of thing {j}" for j in places)]]
    for k, row in zip(places, table):
        told = [f"{100 * a.value:.1f} ({100 * a.low:.1f} to {100 * a.high:.1f})" for a in row]
        rows.append([f"thing {k}", *told])
    return tables.markdown(rows)


def plot(found: Found, classes: int, path: pathlib.Path):
    """Plots a heat map of accuracies for each source of tokens: dark is known, white is chance."""
    plt = figures.pyplot()
    columns = min(len(found), _IN_A_ROW)
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.9 * columns + 0.6, 3.3 * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, (name, table) in zip(axes.flat, found.items()):
        values = 100 * np.array([[a.value for a in row] for row in table])
        image = axis.imshow(values, cmap="Blues", vmin=100 / classes, vmax=100)
        for k, j in np.ndindex(values.shape):
            dark = values[k, j] > 60
            axis.text(
                j, k, f"{values[k, j]:.0f}", ha="center", va="center",
                color="white" if dark else "black",
            )  # fmt: skip
        axis.set_title("\n".join(textwrap.wrap(name, 34)), fontsize=10, parse_math=False)
        axis.set_xticks(range(len(values)), range(1, len(values) + 1))
        axis.set_yticks(range(len(values)), range(1, len(values) + 1))
        axis.set_xlabel("colour of thing")
    for axis in axes[:, 0]:
        axis.set_ylabel("read from the tokens of thing")
    figure.colorbar(image, ax=axes, label="right, %", shrink=0.8 / rows)
    figures.save(figure, path)
