"""What comes to the devices is what the model reads, however each LLM's features are stored."""

import dataclasses

import numpy as np

from lidit_jax import sharding
from lidit_jax.batch import BatchShape, Int8Features, TextFeatures, fake
from lidit_jax.training.feed import Feed


class Reader:
    @staticmethod
    def restored(text):
        def states(stored):
            if isinstance(stored, TextFeatures):
                return stored
            hidden_BxSxE = stored.int8_BxSxE * stored.scale_BxS[..., None]
            return TextFeatures(hidden_BxSxE, stored.mask_BxS, stored.mask_BxS)

        return tuple(map(states, text))


def test_one_llm_may_be_stored_as_int8_beside_another_that_is_not():
    batch = fake(BatchShape(8, (4, 4, 3), ((5, 6), (5, 6))))
    exact, other = batch.text
    scale_BxS = np.full((8, 5), 0.5, np.float32)
    coarse = Int8Features(np.full((8, 5, 6), 3, np.int8), scale_BxS, other.mask_BxS)
    feed = Feed(Reader(), sharding.make_mesh((1, 8, 1)), 8)
    for text, place in (((exact, coarse), 1), ((coarse, exact), 0)):
        given = feed(dataclasses.replace(batch, text=text)).text
        np.testing.assert_array_equal(given[place].hidden_BxSxE, 1.5)
        np.testing.assert_array_equal(given[1 - place].hidden_BxSxE, exact.hidden_BxSxE)
