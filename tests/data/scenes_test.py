"""The scenes source: an example depends on seed and key alone, in the languages asked for."""

import collections

import numpy as np
import pytest

from lidit_jax.data import sources
from lidit_jax.data.sources.scenes import MIXTURE
from lidit_jax.errors import InputError
from lidit_jax.scenes import held_out


def test_an_example_depends_on_seed_and_key_alone():
    few, many = (sources.make("scenes", count=n, seed=3) for n in (8, 40))
    for a, b in zip(few.piece(0, 1), many.piece(0, 1), strict=False):
        assert (a.key, a.captions) == (b.key, b.captions)
        assert (a.picture.pixels(48, 48) == b.picture.pixels(48, 48)).all()
    other = next(iter(sources.make("scenes", count=8, seed=4).piece(0, 1)))
    assert other.captions != next(iter(few.piece(0, 1))).captions
    assert [e.key for i in range(3) for e in many.piece(i, 3)] == [e.key for e in many.piece(0, 1)]


def test_each_language_has_a_caption_and_synthetic_ones_say_so():
    examples = list(sources.make("scenes", count=300, languages=("en", "zh")).piece(0, 1))
    for e in examples:
        english, chinese = e.captions
        assert (english.language, chinese.language) == ("en", "zh")
        assert english.text.isascii() and not chinese.text.isascii()
        assert (english.origin == "synthetic") == english.text.startswith("The picture shows")
    share = np.mean([e.captions[0].origin == "synthetic" for e in examples])
    assert 0.15 < share < 0.35


def test_the_mixture_is_as_it_says():
    texts = [e.captions[0].text for e in sources.make("scenes", count=2_000).piece(0, 1)]
    related = np.mean([any(r in t for r in (" of ", "above", "below", "next to")) for t in texts])
    assert abs(related - MIXTURE["relation"]) < 0.03
    assert collections.Counter(texts).most_common(1)[0][1] < 20


def test_prompts_are_the_first_held_out_ones():
    source, every = sources.make("scenes", count=4), held_out.prompts(held_out.MOST)
    for count in (1, 16, 64, 100):
        assert source.prompts(count) == [p.text for p in every[:count]]
    assert len(source.prompts(10**6)) == held_out.MOST


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ("fr",)}, "unknown language of source scenes 'fr'; known: en, zh"),
        ({"languages": ()}, "number of languages is 0"),
        ({"count": -1}, "count is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"languages": "en"}, "is 'en'; want"),
    ],
)
def test_other_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        sources.make("scenes", **options)
