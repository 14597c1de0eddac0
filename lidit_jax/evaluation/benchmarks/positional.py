"""The paper's positional-bias benchmark (section 2.2, A.3), as a benchmark like the others."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.evaluation.benchmarks.benchmark import Item, Record, Tallies
from lidit_jax.evaluation.intervals import Tally
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.evaluation.positional import bias, prompts


class Positional:
    """Metrics: quarter_1 to quarter_4, the mean score of the segments in each quarter of their prompts;
    drop, the first less the last; all_right, pictures every segment of which scores more than 1/2.
    In percent, with intervals over sets of segments.

    A segment's score is P(yes) of "a red car?", as T2I-CompBench asks BLIP. `bias.estimate` makes drop
    and slope of `segment_scores`.
    """

    version = 1
    per_prompt = 4
    judges = ("vqa",)
    any_words = False
    paper: dict = {}

    def items(self, folder: Path) -> list[Item]:
        """Returns 1,000 prompts of T2I-CompBench's words in a folder; see `prompts.vocabulary`."""
        made = prompts.generate(prompts.vocabulary(folder))
        return [
            Item(f"{i:04d}", p.text, p.family, dataclasses.asdict(p)) for i, p in enumerate(made)
        ]

    def judge(self, image: np.ndarray, item: Item, judges: Judges) -> Record:
        """Returns {"segments": each segment's P(yes), in the order of the prompt}."""
        questions = [f"{prompts.with_article(segment)}?" for segment in item.meta["segments"]]
        return {"segments": [answer.p_yes for answer in judges.vqa.ask(image, questions)]}

    def score(
        self, items: Sequence[Item], records: Sequence[Sequence[Record]], mode: str
    ) -> Tallies:
        """Returns the metrics of the class; both modes are the same."""
        scores_PxK = np.array(segment_scores(records))
        ones_P, K = np.ones(len(items)), scores_PxK.shape[1]
        right_P = np.array([sum(min(r["segments"]) > 0.5 for r in of) for of in records], float)
        metrics = {f"quarter_{k + 1}": Tally(scores_PxK[:, k], ones_P) for k in range(K)}
        metrics["all_right"] = Tally(right_P, np.array([len(of) for of in records], float))
        drop = {"drop": ("quarter_1", f"quarter_{K}")}
        bases = [item.meta["base"] for item in items]
        return Tallies(metrics, {}, scale=100, differences=drop, units=bases)


def segment_scores(records: Sequence[Sequence[Record]]) -> list[list[float]]:
    """Returns for each prompt the mean over its pictures of each segment's score."""
    return [np.mean([r["segments"] for r in of], axis=0).tolist() for of in records]


def estimate(items: Sequence[Item], records: Sequence[Sequence[Record]]) -> bias.Bias:
    """Returns the bias, with intervals over sets of segments."""
    bases = [item.meta["base"] for item in items]
    return bias.estimate(segment_scores(records), bases)
