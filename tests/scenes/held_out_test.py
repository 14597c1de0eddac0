"""What training never sees is never in it, and every prompt of the judged ones is new as it says."""

import collections

import numpy as np
import pytest

from lidit_jax.data import sources
from lidit_jax.errors import InputError
from lidit_jax.scenes import held_out, phrasing, things

PROMPTS = held_out.prompts(held_out.MOST)


def test_a_tenth_of_pairs_and_triples_is_held_out():
    kinds = len(things.COLOURS) * len(things.SHAPES)
    every = kinds * (kinds - len(things.COLOURS)) // 2  # of different shapes
    assert len(held_out.pairs()) == round(0.1 * every)
    triples = len(things.COLOURS) * len(things.TEXTURES) * len(things.SHAPES)
    assert len(held_out.triples()) == round(0.1 * triples)


def test_training_shows_no_held_out_pair_triple_or_phrasing():
    rng = np.random.default_rng(0)
    for group in things.GROUPS:
        for _ in range(200):
            scene = held_out.draw(group, "", rng)
            assert not things.pairs(scene) & held_out.pairs()
            assert not things.triples(scene) & held_out.triples()
    train = {e.captions[0].text for e in sources.make("scenes", count=1_000).piece(0, 1)}
    assert len(train) > 900 and not train & {p.text for p in PROMPTS}


def test_training_shows_every_other_pair_triple_and_every_place():
    """So that what is held out is new as a combination alone."""
    rng, pairs, triples, places = np.random.default_rng(0), set(), set(), set()
    for _ in range(6_000):
        scene = held_out.draw("four", "", rng)
        pairs |= things.pairs(scene)
        triples |= things.triples(scene)
        places |= {(k, t.looks.colour) for k, t in enumerate(scene.things)}
        places |= {(k, t.shape) for k, t in enumerate(scene.things)}
    kinds = len(things.COLOURS) * len(things.SHAPES)
    every = kinds * (kinds - len(things.COLOURS)) // 2
    assert len(pairs) == every - len(held_out.pairs())
    assert len(places) == things.MOST * (len(things.COLOURS) + len(things.SHAPES))
    total = len(things.COLOURS) * len(things.TEXTURES) * len(things.SHAPES)
    assert len(triples) == total - len(held_out.triples())


def test_each_prompt_is_new_as_its_kind_says():
    for p in PROMPTS:
        novelty = held_out.novelty(p.scene)
        assert novelty == ("" if p.kind == "phrasings" else p.kind), p
        known = phrasing.HELD_OUT if p.kind == "phrasings" else phrasing.PHRASINGS["en"]
        assert known[p.phrasing](p.scene) == p.text
    assert {p.kind for p in PROMPTS} == set(held_out.KINDS)


def test_prompts_are_different_and_the_same_each_time():
    assert len({p.text for p in PROMPTS}) == len(PROMPTS) == held_out.MOST
    assert held_out.prompts(64) == PROMPTS[:64]
    held_out._every.cache_clear()
    assert held_out.prompts(64) == PROMPTS[:64]


def test_every_block_has_the_same_make_up():
    for start in range(0, held_out.MOST, held_out.BLOCK_SIZE):
        block = PROMPTS[start : start + held_out.BLOCK_SIZE]
        assert collections.Counter(p.group for p in block) == held_out.BLOCK


def test_four_things_stand_once_at_each_place():
    bases = collections.defaultdict(list)
    for p in PROMPTS:
        if p.group == "four":
            bases[p.base].append(p)
    for rotations in bases.values():
        assert len(rotations) == 4
        assert len({p.phrasing for p in rotations}) == 1
        for place in range(4):
            assert {p.scene.things[place] for p in rotations} == set(rotations[0].scene.things)


@pytest.mark.parametrize("count", [0, -32, 33, held_out.MOST + held_out.BLOCK_SIZE])
def test_other_counts_are_refused(count):
    with pytest.raises(InputError, match=f"{count} prompts .* want a multiple of 32 up to 2048"):
        held_out.prompts(count)
