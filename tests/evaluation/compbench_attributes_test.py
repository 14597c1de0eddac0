"""BLIP-VQA by hand: which questions are asked, and what is multiplied."""

import pytest

from lidit_jax.evaluation.benchmarks.compbench import attributes
from lidit_jax.evaluation.benchmarks.compbench.chunks import Parse


def questions(*chunks):
    return attributes.questions(Parse((), (), chunks, "rule"))


def test_a_question_is_the_chunk_in_lower_case_without_marks():
    assert questions("A Red Cup") == ["a red cup?"]
    assert questions('a.b!c"d(e)f*g#h:i;j~k') == ["abcdefghijk?"]
    assert questions("the baker's well-worn, old hat") == ["the baker's well-worn, old hat?"]


def test_places_are_dropped_as_they_are_written():
    assert questions("top", "the side", "the left", "the right", "a cup") == ["a cup?"]
    kept = ("the top", "side", "The left", "the right shoe", "the bottom")
    assert questions(*kept) == [f"{chunk.lower()}?" for chunk in kept]


def test_eight_questions_are_asked_of_what_is_not_dropped():
    chunks = [f"thing {k}" for k in range(10)]
    assert questions("top", *chunks) == [f"{chunk}?" for chunk in chunks[:8]]


@pytest.mark.parametrize(
    ("p_yes", "wanted"),
    [
        ([0.5, 0.5], 0.25),
        ([0.5], 0.5),  # a missing chunk counts 1
        ([], 1.0),
        ([0.9, 0.0], 0.0),
        ([0.1236, 0.5], 0.0618),
        ([0.1237, 0.1], 0.0124),  # the product is rounded, too
    ],
)
def test_the_score_is_the_product(p_yes, wanted):
    assert attributes.score(p_yes) == pytest.approx(wanted, abs=1e-12)


def test_factors_are_rounded_each():
    assert attributes.score([0.44446, 0.44446]) == 0.1976  # 0.4445^2 = 0.19758; unrounded 0.19754
    assert attributes.score([0.99994] * 8) == 0.9992  # 0.9999^8; unrounded 0.99952
