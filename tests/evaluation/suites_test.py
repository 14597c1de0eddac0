"""Suites without official prompts: of what they are given, and what they refuse."""

import numpy as np
import pytest

from lidit_jax.errors import InputError
from lidit_jax.evaluation import SUITES, intervals
from lidit_jax.evaluation.benchmarks.scenes import Scenes
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.scenes import held_out
from lidit_jax.scenes.rendering import render


def scenes(samples, count):
    """Pictures of every prompt, every third of another's scene."""
    prompts = held_out.prompts(count)
    shown = [prompts[(k + 32) % count] if k % 3 == 0 else p for k, p in enumerate(prompts)]
    return samples(
        (p.text, render(s.scene, 48, np.random.default_rng(k)))
        for k, (p, s) in enumerate(zip(prompts, shown))
    )


def test_scenes_are_scored_as_the_benchmark_scores_them(samples):
    found = SUITES["scenes"](scenes(samples, 64), None, Judges())
    benchmark, items = Scenes(), Scenes().items(count=64)
    records = [[benchmark.judge(p.load(), i, Judges())] for p, i in zip(scenes(samples, 64), items)]
    tallies = benchmark.score(items, records, "fixed")
    wanted = intervals.scores(tallies.metrics, tallies.averages, resamples=10)
    assert found == pytest.approx({name: score.value for name, score in wanted.items()})
    assert 0.6 < found["all_correct"] < 0.8 and {"t2i_avg", "geneval"} <= found.keys()


def test_scenes_of_other_prompts_are_refused(samples):
    with pytest.raises(InputError, match="'a dog' is none of the 2048 prompts"):
        SUITES["scenes"](samples([("a dog", np.zeros((48, 48, 3), np.uint8))]), None, Judges())


class Half:
    identity = "half"

    def images(self, images):
        return np.array([[1.0, p.mean() / 255] for p in images], np.float32)

    def texts(self, texts):
        return np.array([[0.5, 0.0]] * len(texts), np.float32)


def test_fid_is_of_clip_where_there_is_clip(samples):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(6)]
    drawn, references = samples([("x", i) for i in images]), [((), i) for i in images]
    assert SUITES["fid"](drawn, references, Judges())["fid_pixels"] == pytest.approx(0, abs=1e-6)
    assert SUITES["fid"](drawn, references, Judges(clip=Half()))["fid_clip"] < 1e-6
    with pytest.raises(InputError, match="fid needs the pictures of a data set: give --config"):
        SUITES["fid"](drawn, None, Judges())


def test_clip_score_wants_clip(samples):
    drawn = samples([("x", np.zeros((4, 4, 3), np.uint8))])
    assert SUITES["clip_score"](drawn, None, Judges(clip=Half())) == {"clip_score": 50}
    with pytest.raises(InputError, match="clip_score asks CLIP; give --judges=clip=FOLDER"):
        SUITES["clip_score"](drawn, None, Judges())
