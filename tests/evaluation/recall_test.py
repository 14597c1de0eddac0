"""Recall: perfect on the references themselves, chance on noise, fair to twins."""

import numpy as np
import pytest

from lidit_jax.errors import InputError
from lidit_jax.evaluation.recall import recall


def smooth(rng, size=64):
    """Random colours on a 4x4 grid: pictures that differ also when small."""
    return np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((size // 4, size // 4, 1))).astype(
        np.uint8
    )


@pytest.fixture
def references():
    rng = np.random.default_rng(0)
    return [((f"thing {i}", f"东西 {i}"), smooth(rng)) for i in range(20)]


def test_references_recall_themselves_in_every_language_size_and_through_noise(samples, references):
    rng = np.random.default_rng(1)
    noisy = [
        (captions[i % 2], np.clip(image[::2, ::2] + rng.normal(0, 20, (32, 32, 3)), 0, 255))
        for i, (captions, image) in enumerate(references)
    ]
    read = samples((prompt, image.astype(np.uint8)) for prompt, image in noisy)
    assert recall(read, references) == {"top1": 1.0, "top5": 1.0}


def test_wrong_pictures_score_zero_and_halves_half(samples, references):
    shifted = [
        (captions[0], references[i - 1][1] if i % 2 else image)
        for i, (captions, image) in enumerate(references)
    ]
    assert recall(samples(shifted), references)["top1"] == 0.5


def test_top5_counts_the_five_nearest(samples):
    grey = [((f"{level}",), np.full((8, 8, 3), 20 * level, np.uint8)) for level in range(10)]
    black = np.zeros((8, 8, 3), np.uint8)
    read = samples((str(level), black) for level in range(10))
    assert recall(read, grey) == {"top1": 0.1, "top5": 0.5}


def test_twins_do_not_push_one_another_back(samples, references):
    twins = references + [((f"twin {i}",), image) for i, (_, image) in enumerate(references)]
    read = samples((captions[0], image) for captions, image in twins)
    assert recall(read, twins) == {"top1": 1.0, "top5": 1.0}


def test_any_of_several_pictures_of_a_prompt_is_right(samples, references):
    rng = np.random.default_rng(2)
    seconds = [(captions, smooth(rng)) for captions, _ in references]
    read = samples((captions[0], image) for captions, image in seconds)
    assert recall(read, references + seconds)["top1"] == 1.0


def test_the_whole_picture_counts(samples, references):
    below = [(captions, np.vstack([np.zeros_like(image), image])) for captions, image in references]
    beside = [(captions, image.swapaxes(0, 1)) for captions, image in below]
    for layout in (below, beside):
        read = samples((captions[0], layout[i - 1][1]) for i, (captions, _) in enumerate(layout))
        assert recall(read, layout)["top1"] == 0.0


def test_a_prompt_whose_only_picture_cannot_be_decoded_is_not_judged(samples, references):
    read = samples((captions[0], image) for captions, image in references[:6])
    references[3] = (references[3][0], None)
    references.append((references[5][0], None))  # which has another one
    assert recall(read, references) == {"top1": 1.0, "top5": 1.0, "not_judged": 1.0}
    read = samples((captions[0], references[0][1]) for captions, _ in references[:4])
    assert recall(read, references)["top1"] == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="no prompt has a reference that can be decoded"):
        recall(samples([("thing 3", references[0][1])]), references)


def test_a_prompt_without_reference_is_refused(samples, references):
    read = samples([("a stranger", references[0][1])])
    with pytest.raises(InputError, match="'a stranger' is not a caption of the references"):
        recall(read, references)
    with pytest.raises(InputError, match="recall needs references.*give --config="):
        recall(read, None)
