"""The paper's positional-bias benchmark (section 2.2, A.3), as a benchmark like the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks import prompt_files
from lidit_jax.evaluation.benchmarks.benchmark import Item, Record, Tallies
from lidit_jax.evaluation.benchmarks.prompt_files import COMPBENCH
from lidit_jax.evaluation.intervals import Score
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.evaluation.positional import bias, plot, prompts


class Positional:
    """The metrics of `bias.tallies`, in percent, with intervals over sets of segments.

    A segment's score is P(yes) for a question such as "a red car?", as T2I-CompBench asks BLIP.
    """

    official = True
    version = 1
    per_prompt = 4
    judges = ("vqa",)
    modes = False
    any_words = False
    paper: dict = {}

    def items(self, folder: Path) -> list[Item]:
        """Returns 1,000 prompts with T2I-CompBench's words from a folder; see `prompts.vocabulary`.

        An item's group is its family; meta has "segments", "base" and "rotation" as in `Prompt`,
        and "words": the names of the files that its family's words come from.
        Raises InputError if a _val file is not the published one.
        """
        words = {f: [p.name for p in paths] for f, paths in prompts.sources(folder).items()}
        for family, names in words.items():
            if COMPBENCH[family].name in names:
                prompt_files.read_lines(folder, COMPBENCH[family])
        made = prompts.generate(prompts.vocabulary(folder))
        return [_item(f"{i:04d}", prompt, words[prompt.family]) for i, prompt in enumerate(made)]

    def judge(self, image: np.ndarray, item: Item, judges: Judges) -> Record:
        """Returns {"segments": each segment's P(yes), in the order of the prompt}."""
        questions = [f"{prompts.with_article(segment)}?" for segment in item.meta["segments"]]
        return {"segments": [answer.p_yes for answer in judges.vqa.ask(image, questions)]}

    def score(
        self, items: Sequence[Item], records: Sequence[Sequence[Record]], mode: str
    ) -> Tallies:
        """Returns the metrics of the class; both modes are the same."""
        scores_PxK = [np.mean([r["segments"] for r in of], axis=0) for of in records]
        words = sorted({name for item in items for name in item.meta["words"]})
        note = f"the prompts use the words of {', '.join(words)}"
        if any(name.endswith("_train.txt") for name in words):
            note += "; train files are not checked against the published ones"
        return Tallies(
            bias.tallies(scores_PxK),
            {},
            units=[item.meta["base"] for item in items],
            notes=[note],
        )


def _item(name: str, prompt: prompts.Prompt, words: list[str]) -> Item:
    meta = {"segments": prompt.segments, "base": prompt.base, "rotation": prompt.rotation}
    return Item(name, prompt.text, prompt.family, meta | {"words": words})


def draw(out: Path, results: Mapping[str, Mapping[str, Any]]) -> Path:
    """Writes out/position.png, the bars of Fig. 3, and returns its path.

    results: label -> the content of its results.json.
    Raises InputError if a score is missing or not a number.
    """
    path = out / "position.png"
    plot.plot(path, {label: _bias(label, of) for label, of in results.items()})
    return path


def _bias(label: str, results: Mapping[str, Any]) -> bias.Bias:
    found = {}
    for name in (*bias.QUARTERS, "slope", "drop"):
        try:
            numbers = [float(n) for n in (results["scores"][name], *results["ci95"][name])]
            if not np.isfinite(numbers).all():
                raise ValueError
            found[name] = Score(*numbers)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(
                f"the results.json of {label} lacks {name}: a number in scores, two in ci95; "
                "measure again"
            ) from None
    return bias.of_scores(found)
