"""A benchmark from pictures to results.json: judging, scoring, and comparison with the paper."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lidit_jax import files
from lidit_jax.errors import InputError, unknown_name
from lidit_jax.evaluation import intervals, results
from lidit_jax.evaluation.benchmarks import BENCHMARKS, FIGURES, comparability, judging
from lidit_jax.evaluation.benchmarks.benchmark import Item
from lidit_jax.evaluation.judges import TINY
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.evaluation.pictures import Picture, how_drawn
from lidit_jax.share import WHOLE, Share


def measure(
    suite: str,
    items: Sequence[Item],
    pictures: Sequence[Picture],
    judges: Judges,
    out: Path,
    share: Share = WHOLE,
    *,
    mode: str,
    command: str,
    tiny: bool = False,
) -> str | None:
    """Judges and scores pictures; writes results.json, results.md and the suite's figure, if any.

    Args:
      suite: a key of BENCHMARKS. items: all of its prompts.
      pictures: those of the prompts, in the manifest's order.
      out: folder for the results and the journals of records.
      share: which of the pictures to judge here.
      mode: one of MODES. command: the command that reproduces this.
      tiny: whether a judge has random weights; the results then say so.
    Returns the text of results.md; None if other shares have not judged theirs yet.
    Raises InputError like `judge_pictures`.
    """
    benchmark = BENCHMARKS[suite]
    records = judging.judge_pictures(benchmark, items, pictures, judges, out, share)
    if records is None:
        return None
    found = benchmark.score(items, records, mode)
    groups_P = [item.group for item in items]
    scores = intervals.scores(found.metrics, found.averages, groups_P, units_P=found.units)
    identities, per_prompt = judging.identities(benchmark, judges), len(records[0])
    differ = comparability.judge_differences(suite, identities.values(), tiny)
    alike = [name for name, score in scores.items() if score.low == score.high]
    chunkers = {item.meta["chunker"] for item in items if "chunker" in item.meta}
    (out / "results.md").unlink(missing_ok=True)  # it would not match the new results
    written = results.write_results(
        out,
        suite,
        len(pictures),
        {name: found.scale * score.value for name, score in scores.items()},
        command,
        mode=mode,
        judges=identities,
        **how_drawn(pictures),
        prompts_sha256=judging.prompts_digest(items),
        n_prompts=len(items),
        per_prompt=per_prompt,
        ci95={name: [found.scale * s.low, found.scale * s.high] for name, s in scores.items()},
        notes=[
            *found.notes,
            *comparability.notes(differ, per_prompt, benchmark.per_prompt, chunkers, alike),
        ],
    )
    text = results.comparison(written, comparability.comparable(benchmark.paper, differ))
    with files.atomic(out / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    if suite in FIGURES:
        FIGURES[suite](out, {out.absolute().name: written})
    return text


def side_by_side(suite: str, folders: Mapping[str, Path], out: Path) -> Path:
    """Plots several results in the figure of their suite, in `out`, and returns its path.

    suite: a key of FIGURES. folders: label -> folder that `measure` has written to.
    Raises InputError like `results.read_alike`.
    """
    return FIGURES[suite](out, results.read_alike(suite, folders))


def judge_folders(
    given: Sequence[str], wanted: Sequence[str], optional: bool = False
) -> dict[str, str]:
    """Returns kind of judge -> folder, from texts such as "detector=FOLDER", or "tiny" for all.

    wanted: the kinds of judges that the benchmark uses. optional: whether they may be missing.
    A folder takes precedence over "tiny". Raises InputError for any other text, and for a judge
    that is not used, given twice, or missing.
    """
    folders = {}
    for text in given:
        kind, equals, folder = text.partition("=")
        if text == TINY:
            continue
        if not (equals and folder):
            raise InputError(f"--judges={text}: want KIND=FOLDER, or {TINY} for all")
        if kind not in wanted:
            raise unknown_name("judge of this benchmark", kind, wanted)
        if kind in folders:
            raise InputError(
                f"--judges={kind}={folders[kind]} and --judges={text}: want only one {kind}"
            )
        folders[kind] = folder
    if TINY in given:
        folders = dict.fromkeys(wanted, TINY) | folders
    lacking = [f"--judges={kind}=FOLDER" for kind in wanted if kind not in folders]
    if lacking and not optional:
        raise InputError(
            f"a judge is missing; give {' and '.join(lacking)}, or --judges={TINY} for a test"
        )
    return folders
