"""The report's figures."""

import json
import pathlib
import textwrap
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.evaluation import figures
from lidit_jax.evaluation.pictures import Picture

_STYLES = ("-", "--", ":")
_RIGHT, _WRONG = {"color": "#118833", "linewidth": 2.5}, {"color": "#bbbbbb"}  # frames


def learning_curves(path: pathlib.Path, workdirs: Mapping[str, Mapping[int, pathlib.Path]]):
    """Plots each run's training loss, averaged over its seeds, and its ratio to the first run's.

    The differences between runs are small compared with what all of them learn, so the second panel
    shows the ratio. It uses the seeds that both runs have, since runs of one seed have the same
    batches.
    workdirs: run -> seed -> folder.
    """
    plt = figures.pyplot()
    figure, (whole, ratio) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    losses = {
        name: {seed: _losses(workdir / "metrics.jsonl") for seed, workdir in of.items()}
        for name, of in workdirs.items()
    }
    first = next(iter(losses))
    for i, (name, of) in enumerate(losses.items()):
        style = {
            "color": figures.COLOURS[i % 8],
            "linestyle": _STYLES[i // 8 % 3],
            "linewidth": 1.4,
        }
        whole.plot(*_mean(of.values()), label=name, **style)
        beside = [_ratio(of[seed], losses[first][seed]) for seed in of if seed in losses[first]]
        if beside:
            ratio.plot(*_mean(beside), label=name, **style)
    whole.set(xlabel="step", ylabel="training loss", yscale="log")
    ratio.set(xlabel="step", ylabel=f"training loss / that of {first}")
    ratio.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    for axes in (whole, ratio):
        axes.spines[["top", "right"]].set_visible(False)
    figures.save(figure, path)


def _mean(curves: Iterable[Mapping[int, float]]) -> tuple[list[int], list[float]]:
    """Returns the steps that all curves have, and the mean at each."""
    curves = list(curves)
    steps = sorted(set.intersection(*map(set, curves)))
    return steps, [float(np.mean([of[step] for of in curves])) for step in steps]


def _ratio(losses: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    return {step: losses[step] / others[step] for step in losses.keys() & others.keys()}


def _losses(path: pathlib.Path) -> dict[int, float]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row["step"]: row["loss"] for row in rows if "loss" in row}
    except (ValueError, TypeError, KeyError) as e:
        raise InputError(
            f"{path} is damaged ({e}); delete the run's folder and run it again"
        ) from e


def side_by_side(
    path: pathlib.Path,
    prompts: Mapping[str, str],
    drawn: Mapping[str, pathlib.Path],
    right: Mapping[str, Collection[str]],
):
    """Plots a table of pictures: a row per prompt, with the prompt above it, and a column per run.

    prompts: file name of a picture -> its prompt. drawn: run -> folder of its pictures.
    right: run -> names of the pictures that show the whole prompt; they get a green frame.
    """
    plt = figures.pyplot()
    width = max(1.1 * len(drawn), 6.0)  # inches, like all sizes here
    wrapped = {file: textwrap.wrap(text, int(14 * width)) for file, text in prompts.items()}
    heights = [0.2]
    for lines in wrapped.values():
        heights += [0.16 * len(lines) + 0.06, 1.1]
    figure = plt.figure(figsize=(width, sum(heights)))
    grid = figure.add_gridspec(
        len(heights), len(drawn), height_ratios=heights, left=0.005, right=0.995, top=0.995,
        bottom=0.005, wspace=0.04, hspace=0.04,
    )  # fmt: skip
    for column, name in enumerate(drawn):
        _text(figure, grid[0, column], name, x=0.5, ha="center", weight="bold", fontsize=6.5)
    for k, (file, lines) in enumerate(wrapped.items()):
        _text(figure, grid[1 + 2 * k, :], "\n".join(lines), x=0, ha="left")
        for column, (name, folder) in enumerate(drawn.items()):
            axes = figure.add_subplot(grid[2 + 2 * k, column])
            axes.imshow(
                Picture(folder / file, prompts[file], None, folder).load(), interpolation="nearest"
            )
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set(**(_RIGHT if file in right[name] else _WRONG))
    figures.save(figure, path)


def _text(figure, place, text: str, x: float, **style):
    axes = figure.add_subplot(place)
    axes.set_axis_off()
    style = {"fontsize": 8, "va": "bottom", "transform": axes.transAxes} | style
    axes.text(x, 0.0, text, **style)
