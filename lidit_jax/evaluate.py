r"""Scores a folder of pictures: writes results.json and prints a table.

python -m lidit_jax.evaluate --suite=recall --config=configs/quickstart.py \
    --samples=out/quickstart/samples --out=out/quickstart/recall

A benchmark uses its own prompts; those of the paper need their official prompt files, and judges:

python -m lidit_jax.evaluate --suite=scenes --workdir=out/scenes/run --out=out/scenes/judged
python -m lidit_jax.evaluate --suite=geneval --fetch
python -m lidit_jax.evaluate --suite=geneval --prompts=GENEVAL --workdir=RUN \
    --judges=detector=MASK2FORMER --judges=clip=CLIP --out=out/geneval

Pictures are drawn with the run's sampling settings. `lidit_jax.sample` can draw them with other
settings, or on several machines, from the file of --write_prompts; then use --samples in place of
--workdir.

Results of several models, side by side in one figure:

python -m lidit_jax.evaluate --suite=positional --results=base=out/base --results=ltr=out/ltr \
    --out=out/both
"""

import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from absl import flags

from lidit_jax import doors, errors, files, prompts, share
from lidit_jax.evaluation import SUITES, figures, pictures, results
from lidit_jax.evaluation.benchmarks import (
    BENCHMARKS,
    FIGURES,
    comparability,
    matching,
    measuring,
    prompt_files,
)
from lidit_jax.evaluation.benchmarks.benchmark import MODES, Benchmark, Item
from lidit_jax.evaluation.judges import TINY, open_judges
from lidit_jax.evaluation.recall import Reference
from lidit_jax.generation import Generator, generate
from lidit_jax.preparation import references

KNOWN = (*SUITES, *BENCHMARKS)
_samples = doors.define_folder("samples", "folder written by lidit_jax.sample")
_out = doors.define_folder("out", "folder for results.json")
_workdir = doors.define_folder("workdir", "folder of a trained run that draws OUT/samples")
_prompts = doors.define_folder("prompts", "folder of the benchmark's official prompt files")
_moved = doors.define_moved()
_SUITE = flags.DEFINE_string("suite", None, f"what to measure: {', '.join(KNOWN)}")
_FETCH = flags.DEFINE_bool(
    "fetch", False, "print where the prompt files are published, and check them; downloads nothing"
)
_WRITE_PROMPTS = flags.DEFINE_string(
    "write_prompts", None, "write the benchmark's prompts to this .jsonl, for lidit_jax.sample"
)
_RESULTS = flags.DEFINE_multi_string(
    "results", [], "NAME=FOLDER, the --out of a measurement; give several to plot them side by side"
)
_JUDGES = flags.DEFINE_multi_string(
    "judges", [], "detector=FOLDER, vqa=FOLDER, clip=FOLDER; or tiny, to test without weights"
)
_MODE = flags.DEFINE_enum("mode", MODES[0], MODES, "score like the published code, or repaired")
_share = doors.define_share(
    "draw only the i-th of n shares and, once all are drawn, judge it; other machines do the others"
)
_PER_PROMPT = flags.DEFINE_integer(
    "per_prompt", None, "pictures to draw per prompt; default: as published", lower_bound=1
)
# The flag that selects what to do with a benchmark -> the flags that it reads; others are refused.
_PROMPTS, _OUT, _LLM, _VAE, _SHARE = (
    flags.FLAGS[name] for name in ("prompts", "out", "llm", "vae", "share")
)
READ = {
    "fetch": (_PROMPTS,),
    "write_prompts": (_PROMPTS,),
    "samples": (_PROMPTS, _JUDGES, _MODE, _SHARE, _OUT),
    "workdir": (_PROMPTS, _JUDGES, _MODE, _SHARE, _OUT, _PER_PROMPT, _LLM, _VAE),
    "results": (_OUT,),
}
# Flag -> the suites that read it.
READERS = dict.fromkeys((*READ, *(f.name for f in READ["workdir"])), tuple(BENCHMARKS)) | {
    "samples": KNOWN,
    "out": KNOWN,
    "judges": ("clip_score", "fid", *(n for n, b in BENCHMARKS.items() if b.judges)),
    "mode": tuple(n for n, b in BENCHMARKS.items() if b.modes),
    "config": ("fid", "recall"),
    "results": tuple(FIGURES),
    **dict.fromkeys(("prompts", "fetch"), tuple(n for n, b in BENCHMARKS.items() if b.official)),
}


def main():
    if not _SUITE.value:
        raise errors.InputError(f"no --suite given; known: {', '.join(KNOWN)}")
    if _SUITE.value not in KNOWN:
        raise errors.unknown_name("suite", _SUITE.value, KNOWN)
    for name, suites in READERS.items():
        if flags.FLAGS[name].present and _SUITE.value not in suites:
            raise errors.InputError(
                f"--{name} does not apply to --suite={_SUITE.value}; it is for {', '.join(suites)}"
            )
    told = _suite() if _SUITE.value in SUITES else _benchmark(BENCHMARKS[_SUITE.value])
    if told:
        print(told)


def _suite() -> str:
    out, judged, told = _out_folder(), pictures.read(_samples()), {}
    trained_on = _counted(references(doors.config()), told) if doors.CONFIG.value else None
    folders = measuring.judge_folders(_JUDGES.value, ("clip",), optional=True)
    judges = open_judges(folders)
    if folders:
        told["judges"] = {kind: getattr(judges, kind).identity for kind in folders}
    if TINY in folders.values():
        told["notes"] = [comparability.RANDOM]
    scores = SUITES[_SUITE.value](judged, trained_on, judges)
    told |= pictures.how_drawn(judged)
    written = results.write_results(
        out, _SUITE.value, len(judged), scores, doors.command("evaluate"), **told
    )
    return results.table(written)


def _out_folder() -> pathlib.Path:
    """Returns --out. Raises InputError early if it is not writable, or holds other results."""
    files.check_own_folder(_out(), "out")
    results.check_place(_SUITE.value, _out())
    return _out()


def _counted(shown: Iterable[Reference], told: dict[str, Any]) -> Iterator[Reference]:
    """Yields the references, and counts the decoded ones in told["n_references"] for FIDs."""
    told["n_references"] = 0
    for captions, image in shown:
        told["n_references"] += image is not None
        yield captions, image


def _benchmark(benchmark: Benchmark) -> str | None:
    doors.check_read(doors.chosen(*READ, required=True), READ)
    if _SUITE.value in FIGURES:
        figures.check()
    if _FETCH.value:
        folder = _prompts() if _PROMPTS.value else None
        return prompt_files.fetch_instructions(_SUITE.value, folder)
    if _WRITE_PROMPTS.value:
        return _write_prompts(benchmark)
    if _RESULTS.value:
        out = _out_folder()
        return f"{measuring.side_by_side(_SUITE.value, doors.named_folders(_RESULTS), out)}"
    return _measure(benchmark, _items(benchmark))


def _items(benchmark: Benchmark) -> list[Item]:
    return benchmark.items(_prompts() if benchmark.official else None)


def _write_prompts(benchmark: Benchmark) -> str:
    path = pathlib.Path(_WRITE_PROMPTS.value).expanduser()
    if path.suffix != ".jsonl" or path.is_dir():
        raise errors.InputError(
            f"--write_prompts={path}: want a file that ends in .jsonl, not a folder"
        )
    items = _items(benchmark)
    told = [{"prompt": i.text, "id": i.id, "group": i.group, "meta": i.meta} for i in items]
    with files.atomic(path) as temporary:
        text = "".join(json.dumps(of, ensure_ascii=False) + "\n" for of in told)
        temporary.write_text(text, encoding="utf-8")
    return f"{len(items)} prompts: {path}"


def _measure(benchmark: Benchmark, items: list[Item]) -> str | None:
    folders = measuring.judge_folders(_JUDGES.value, benchmark.judges)
    mine = _share()
    llms, vae = _moved()
    out, drawing = _out_folder(), flags.FLAGS["workdir"].value
    if not drawing:
        matching.check(items, pictures.read(_samples()))
    judges = open_judges(folders, benchmark.any_words)  # before hours of drawing
    drawn = _drawn(items, benchmark, mine, llms, vae) if drawing else _samples()
    if drawn is None:
        return "not judged yet: run the same command again when the other shares have been drawn"
    given = {
        "mode": _MODE.value,
        "command": doors.command("evaluate"),
        "tiny": TINY in folders.values(),
    }
    found = pictures.read(drawn)
    return measuring.measure(_SUITE.value, items, found, judges, out, mine, **given)


def _drawn(
    items: list[Item],
    benchmark: Benchmark,
    mine: share.Share,
    llms: dict[str, str],
    vae: str | None,
) -> pathlib.Path | None:
    """Draws what is missing in OUT/samples, like `lidit_jax.sample`; None if a share is missing."""
    each = _PER_PROMPT.value or benchmark.per_prompt
    wanted = [prompts.Prompt(item.text) for item in items for _ in range(each)]
    folder, seeds = _out() / "samples", list(range(len(wanted)))
    generator = Generator(_workdir(), llms=llms, vae=vae)
    return folder if generate(generator, wanted, seeds, folder, mine) else None


if __name__ == "__main__":
    doors.run(main, reads=True, less="draw with lidit_jax.sample, fewer at once (--batch_size)")
