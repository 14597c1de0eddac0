"""Fig. 3: a bar for each quarter of the prompt, for each model."""

import pathlib
from collections.abc import Mapping

import numpy as np

from lidit_jax.evaluation import figures
from lidit_jax.evaluation.positional.bias import BINS, Bias

_SHADES = (1.0, 0.75, 0.5, 0.3)  # from the prompt's first quarter to its last
_IN_A_ROW = 8  # models


def plot(path: pathlib.Path, biases: Mapping[str, Bias]):
    """Plots each model's bars, with 95% intervals, as a PNG; many models are in several rows."""
    plt = figures.pyplot()
    rows = -(-len(biases) // _IN_A_ROW)
    columns = -(-len(biases) // rows)
    inches = max(4.5, 1.5 + 1.25 * columns)  # the legend needs 4.5
    figure, axes = plt.subplots(
        rows, figsize=(inches, 0.6 + 3 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    for row, axis in enumerate(axes[:, 0]):
        names = list(biases)[row * columns : (row + 1) * columns]
        _bars(axis, {name: biases[name] for name in names})
        axis.set_xlim(-0.6, columns - 0.4)
        axis.set_ylabel("score of segments, %")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylim(0, None)
    axes[0, 0].legend(title="place in the prompt", ncols=BINS, frameon=False, fontsize=8,
                      title_fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    figures.save(figure, path)


def _bars(axis, biases: Mapping[str, Bias]):
    width = 0.8 / BINS
    for k in range(BINS):
        scores = [bias.bins[k] for bias in biases.values()]
        x = np.arange(len(scores)) + (k - (BINS - 1) / 2) * width
        values = np.array([s.value for s in scores])
        ends = np.array([[s.value - s.low for s in scores], [s.high - s.value for s in scores]])
        axis.bar(
            x, values, width * 0.92, color=figures.COLOURS[0], alpha=_SHADES[k],
            label=f"{100 * k // BINS}-{100 * (k + 1) // BINS}%",
            yerr=np.maximum(ends, 0), error_kw={"elinewidth": 0.9, "ecolor": "#444444"},
        )  # fmt: skip
    axis.set_xticks(range(len(biases)), list(biases), fontsize=9, parse_math=False)
