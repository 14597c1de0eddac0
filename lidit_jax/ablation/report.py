"""The results of a family of runs, as a Markdown page with figures."""

import dataclasses
import math
import os
import pathlib
import platform
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from lidit_jax import files, tables
from lidit_jax.ablation import plots, running
from lidit_jax.ablation.comparing import Comparison
from lidit_jax.ablation.family import Family
from lidit_jax.ablation.running import Job
from lidit_jax.evaluation.benchmarks.benchmark import Item, Record
from lidit_jax.evaluation.intervals import Score
from lidit_jax.evaluation.positional import bias
from lidit_jax.evaluation.positional import plot as bars
from lidit_jax.evaluation.positional.bias import Bias
from lidit_jax.models.conditioners import CONDITIONERS
from lidit_jax.scenes import held_out
from lidit_jax.training import checkpoints, tasks
from lidit_jax.training.config import Config
from lidit_jax.training.state import abstract_model
from lidit_jax.training.trained import read_config

Records = Sequence[Sequence[Record]]  # per item, one record per picture
_CATEGORIES = ("shape", "colour", "texture", "size", "count", "position")


def write(
    family: Family, jobs: Sequence[Job], items: Sequence[Item], folder: pathlib.Path, command: str
) -> pathlib.Path:
    """Writes report.md, results.json and figures for finished runs; returns report.md's path."""
    done: dict[str, list[Job]] = {}
    for job in jobs:
        if running.is_drawn(job, items):
            done.setdefault(job.name, []).append(job)
    done = {name: done[name] for name in family.runs if name in done}
    family = family.only(list(done))
    records = {n: {j.seed: running.judge(j, items) for j in of} for n, of in done.items()}
    compared = compare(records, items, family.unsteady)
    biases = {name: _bias(of.values(), items) for name, of in records.items()}
    sections = [
        _head(family, done, items) + " " + _certainty(family, compared),
        _claims(family, compared),
        _runs(family, done, compared),
        _shares("What is right", compared, (*_CATEGORIES, *held_out.KINDS), _CATEGORIES_TEXT),
        _position(biases),
        "## Learning\n\n![training loss](learning_curves.png)",
        "## Pictures\n\nPrompts that training never saw, drawn by each run with its first seed; a "
        "green frame marks pictures that are right in every respect.\n\n![pictures](pictures.png)",
        f"## Reproduce\n\n```\n{command}\n```\n\nIf it was stopped, the same command resumes it.",
    ]
    (folder / "report.md").unlink(missing_ok=True)  # it would not match the new figures
    _draw(done, items, records, biases, folder)
    files.write_json(folder / "results.json", _results(family, compared, command), sealed=False)
    with files.atomic(folder / "report.md") as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return folder / "report.md"


def _draw(
    done: Mapping[str, Sequence[Job]],
    items: Sequence[Item],
    records: Mapping[str, Mapping[int, Records]],
    biases: Mapping[str, Bias],
    folder: pathlib.Path,
):
    workdirs = {name: {job.seed: job.folder for job in of} for name, of in done.items()}
    plots.learning_curves(folder / "learning_curves.png", workdirs)
    shown = {f"{k:06d}.png": k for k in _shown(items)}
    right = {
        name: [file for file, k in shown.items() if records[name][of[0].seed][k][0]["all_correct"]]
        for name, of in done.items()
    }
    prompts = {file: items[k].text for file, k in shown.items()}
    drawn = {name: of[0].folder / "drawn" for name, of in done.items()}
    plots.side_by_side(folder / "pictures.png", prompts, drawn, right)
    bars.plot(folder / "position.png", biases)


def compare(
    records: Mapping[str, Mapping[int, Records]], items: Sequence[Item], unsteady: Sequence[str]
) -> Comparison:
    """Returns the scores of runs. records: run -> seed -> the records of each item."""
    tallies = {
        name: {seed: running.BENCHMARK.score(items, of, "fixed") for seed, of in seeds.items()}
        for name, seeds in records.items()
    }
    return Comparison(tallies, [item.group for item in items], unsteady)


def _head(family: Family, done: Mapping[str, Sequence[Job]], items: Sequence[Item]) -> str:
    runs = list(family.runs.values())
    config = runs[0]
    steps = f" for {config.train.steps:,} steps of {config.train.batch_size}"
    if len({(c.train.steps, c.train.batch_size) for c in runs}) > 1:
        steps = ""  # they are in the table of runs
    size = f" (width {config.model.width}, {config.model.depth} blocks)"
    if len({(c.model.width, c.model.depth) for c in runs}) > 1:
        size = ""
    given = config.data.options.get("count")
    count = "" if given is None else f"{given:,} "
    seconds = [running.seconds(j) for of in done.values() for j in of]
    seeds = sorted({len(of) for of in done.values()})
    seeds = f"{' or '.join(map(str, seeds))} seed{'' if seeds == [1] else 's'}"
    return (
        f"# {len(done)} runs compared\n\n"
        f"Each run was trained on {count}pictures of the {config.data.source} world "
        f"at {config.data.size[0]} px{steps}{size}, with {seeds}, and judged on "
        f"{len(items):,} prompts, one picture each, with a pair, triple or phrasing "
        "that training never saw. Median time of a run from its last start until "
        f"its pictures were drawn: {sorted(seconds)[len(seconds) // 2] / 60:.1f} "
        f"minutes; this page was made on {_hardware()}."
    )


def _certainty(family: Family, compared: Comparison) -> str:
    told = "Intervals are 95% bootstrap intervals over prompts"
    known = [spread for spread in compared.spreads if spread.freedom]
    if not known:
        return f"{told}. With so few seeds, the variation between seeds is not known."
    moves = "; ".join(
        f"{100 * s.of[family.metrics[0]]:.1f} points of {family.metrics[0]}, from "
        f"{s.freedom} degrees of freedom, for {', '.join(f'`{run}`' for run in s.runs)}"
        for s in known
    )
    return (
        f"{told}, and over seeds: beyond its common effect on all runs, "
        "and chance in the pictures, a seed moves a run by a standard "
        f"deviation of {moves}. Intervals by position are over prompts alone."
    )


def _claims(family: Family, compared: Comparison) -> str:
    metric = family.metrics[0]
    alike = len({c.train.batch_size for c in family.runs.values()}) == 1
    same = "has the same batches and noise in all runs, and " if alike else ""
    rows = [("claim", "", "the paper's margin", f"margin here, {metric}", "verdict")]
    for name, claim in family.claims.items():
        found = compared.find(claim, metric)
        papers = {run: family.paper[run][0] for run in claim.runs if family.paper.get(run)}
        theirs = f"{claim.margin(papers):+.2f}" if claim.runs <= set(papers) else ""
        rows.append((
            name.replace("_", " "), f"`{claim.text}`", theirs, _points(found.margin, "+"),
            f"**{found.verdict}**",
        ))  # fmt: skip
    return (
        "## The claims\n\nA claim holds or fails if the interval of its margin is on one "
        f"side of zero. Margins are in points of 100 of `{metric}`, and compare runs as if "
        f"each had every seed: a seed {same}is better or worse for all.\n\n{tables.markdown(rows)}"
    )


def _runs(family: Family, done: Mapping[str, Sequence[Job]], compared: Comparison) -> str:
    head = (
        "run", "LLMs", "instruction", "conditioner", "refiner blocks", "gates", "mask", "fusion",
        "else", "parameters", "paper: T2I-avg", "paper: DPG",
    )  # fmt: skip
    first = family.metrics[0]
    rows = [(*head, *family.metrics, f"{first}, each seed")]
    for name, config in family.runs.items():
        paper = [f"{x:.2f}" for x in family.paper.get(name, ())] or ["", ""]
        scores = [_points(compared.score(name, m)) for m in family.metrics]
        seeds = ", ".join(f"{100 * of[first]:.1f}" for of in compared.by_seed[name].values())
        known = (*_switches(config), _else(family, config), f"{parameters(done[name][0]):,}")
        rows.append((f"`{name}`", *known, *paper, *scores, seeds))
    return (
        f"## The runs\n\nScores in percent. Else: differences from the first run that the other "
        f"columns do not show.\n\n{tables.markdown(rows)}"
    )


def _switches(config: Config) -> tuple[str, ...]:
    c = config.model.conditioner
    llms = " + ".join(e.name for e in config.encoders)
    instruction = "yes" if any(e.instruction for e in config.encoders) else "no"
    unused = CONDITIONERS[c.name].unused(c, len(config.encoders))
    shown = {
        "n_ltr": str(c.n_ltr),
        "gating": "yes" if c.gating else "no",
        "ltr_mask": c.ltr_mask,
        "fusion": c.fusion,
    }
    used = ("" if switch in unused else value for switch, value in shown.items())
    return (llms, instruction, c.name, *used)


_TOLD = tuple(
    f"model.conditioner.{key}" for key in ("name", "n_ltr", "gating", "ltr_mask", "fusion")
)


def _else(family: Family, config: Config) -> str:
    """Returns how a run's config differs from the first's in keys that `_switches` leaves out."""
    first = checkpoints.to_json(next(iter(family.runs.values())))
    found = checkpoints.differences(first, checkpoints.to_json(config))
    told = ("encoders", "seed", *_TOLD)
    return ", ".join(f"{key} {now}" for key, _, now in found if not key.startswith(told))


def parameters(job: Job) -> int:
    """Returns the number of trained parameters of a run."""
    _, params, _ = abstract_model(tasks.without_data(read_config(job.folder)))
    return sum(math.prod(p.shape) for p in jax.tree.leaves(params))


_CATEGORIES_TEXT = (
    "In percent: attributes in the prompt that are right in the picture; "
    "pictures with the right number of things; relations that hold; pictures "
    "that are right in every respect, by what training never saw of their prompt."
)


def _shares(title: str, compared: Comparison, metrics: Sequence[str], text: str) -> str:
    rows = [("run", *(m.replace("_", " ") for m in metrics))]
    for name in compared.value:
        rows.append((f"`{name}`", *(_points(compared.score(name, m)) for m in metrics)))
    return f"## {title}\n\n{text}\n\n{tables.markdown(rows)}"


def _bias(seeds: Iterable[Records], items: Sequence[Item]) -> Bias:
    """Returns the positional bias for prompts of four things, over the pictures of all seeds."""
    four = [k for k, item in enumerate(items) if item.group == "four"]
    right = [[[s["exact"] for s in of[k][0]["segments"]] for k in four] for of in seeds]
    return bias.estimate(np.mean(right, axis=0).tolist(), [items[k].meta["base"] for k in four])


def _position(biases: Mapping[str, Bias]) -> str:
    rows = [("run", *(f"thing {k + 1}" for k in range(bias.BINS)), "drop", "slope")]
    for name, b in biases.items():
        told = [f"{s.value:.1f} ({s.low:.1f} to {s.high:.1f})" for s in (*b.bins, b.drop, b.slope)]
        rows.append((f"`{name}`", *told))
    return (
        "## By position in the prompt\n\n"
        "Prompts of four things: the share of things that are right in every respect, by their "
        "place in the prompt. Every thing appears once at each place, so its identity cannot "
        "explain a difference. The drop is from the first to the last place; intervals are over "
        "sets of things.\n\n"
        f"![right, by position](position.png)\n\n{tables.markdown(rows)}"
    )


def _results(family: Family, compared: Comparison, command: str) -> dict:
    def plain(s: Score) -> list[float]:
        return [s.value, s.low, s.high]

    found = {n: compared.find(c, family.metrics[0]) for n, c in family.claims.items()}
    return {
        "command": command,
        "scores": {
            r: {m: plain(compared.score(r, m)) for m in compared.value[r]} for r in compared.value
        },
        "claims": {
            n: {"claim": family.claims[n].text, "margin": plain(f.margin), "verdict": f.verdict}
            for n, f in found.items()
        },
        "by_seed": compared.by_seed,
        "spreads": [dataclasses.asdict(spread) for spread in compared.spreads],
    }  # fmt: skip


def _shown(items: Sequence[Item]) -> list[int]:
    """Returns which pictures to show: one per group, alternating what is new in their prompts."""
    found = []
    for i, group in enumerate(dict.fromkeys(item.group for item in items), 1):
        wanted = held_out.KINDS[i % len(held_out.KINDS)]
        its = [k for k, item in enumerate(items) if item.group == group]
        found.append(next((k for k in its if items[k].meta["kind"] == wanted), its[0]))
    return found


def _points(s: Score, sign: str = "") -> str:
    return f"{100 * s.value:{sign}.1f} ({100 * s.low:{sign}.1f} to {100 * s.high:{sign}.1f})"


def _hardware() -> str:
    kind = jax.devices()[0].device_kind
    if jax.default_backend() != "cpu":
        return f"{jax.device_count()} x {kind}"
    return f"{os.cpu_count()} cores ({platform.processor() or platform.machine()})"
