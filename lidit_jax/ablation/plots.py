"""The report's figures. matplotlib is imported when one is drawn."""

import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from lidit_jax import files

# Okabe and Ito's colours, which colour-blind people tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_STYLES = ("-", "--", ":")


def learning_curves(path: pathlib.Path, workdirs: Mapping[str, Sequence[pathlib.Path]]):
    """Draws the training loss of each run, the mean over its seeds, beside the first run's.

    What differs between runs is small beside what all learn, so the second panel shows the ratio.
    """
    plt = _pyplot()
    figure, (whole, ratio) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    curves = {name: _mean_curve(of) for name, of in workdirs.items()}
    steps, reference = next(iter(curves.values()))
    for i, (name, (x, loss)) in enumerate(curves.items()):
        style = {"color": COLOURS[i % 8], "linestyle": _STYLES[i // 8 % 3], "linewidth": 1.4}
        whole.plot(x, loss, label=name, **style)
        if len(x) == len(steps):
            ratio.plot(x, loss / reference, label=name, **style)
    whole.set(xlabel="step", ylabel="training loss", yscale="log")
    ratio.set(xlabel="step", ylabel=f"training loss / that of {next(iter(curves))}")
    ratio.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    for axes in (whole, ratio):
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _mean_curve(workdirs: Sequence[pathlib.Path]) -> tuple[np.ndarray, np.ndarray]:
    every = []
    for workdir in workdirs:
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        every.append([(row["step"], row["loss"]) for row in map(json.loads, lines)])
    steps_x2 = np.mean(np.array(every), axis=0)
    return steps_x2[:, 0], steps_x2[:, 1]


def side_by_side(
    path: pathlib.Path,
    prompts: Mapping[str, str],
    drawn: Mapping[str, Sequence[pathlib.Path]],
):
    """Draws a table of pictures: a row for each prompt, a column for each run.

    prompts: file name of a picture -> what it was to show. drawn: run -> folders of its seeds' pictures;
    all seeds of a run stand side by side.
    """
    plt = _pyplot()
    seeds = max(len(folders) for folders in drawn.values())
    width = 1.05 * seeds * len(drawn)
    figure, axes = plt.subplots(
        len(prompts), len(drawn), figsize=(width, 1.45 * len(prompts)), squeeze=False
    )
    for row, (file, text) in zip(axes, prompts.items()):
        for axis, (name, folders) in zip(row, drawn.items()):
            pictures = [np.asarray(Image.open(folder / file)) for folder in folders]
            axis.imshow(files.picture_grid(pictures, len(pictures)), interpolation="nearest")
            axis.set_axis_off()
            if file == next(iter(prompts)):
                axis.set_title(name, fontsize=9, pad=16)
        row[0].text(0, 1.04, text, transform=row[0].transAxes, fontsize=8, va="bottom")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.93, bottom=0.01, hspace=0.28, wspace=0.05)
    _save(figure, path)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure, path: pathlib.Path):
    with files.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    _pyplot().close(figure)
