"""What is on disk is what the source has, each picture's and each text's own; and how it is read in turn."""

import dataclasses

import numpy as np

from lidit_jax.data import pipeline, sources
from lidit_jax.data.dataset import Dataset
from lidit_jax.models.vae.pixels import to_unit
from lidit_jax.text import llm
from lidit_jax.training.inputs import open_inputs


def test_a_record_is_its_keys_picture_with_its_captions(config, data):
    found, source = Dataset(data), sources.make(config.data.source, **config.data.options)
    examples = {e.key: e for e in source.piece(0, 1)}
    for row in range(len(found)):
        image = found.image(row)
        example, size = examples.pop(image.key), found.bins[found.bin_of(row)]
        wanted = to_unit(example.picture.pixels(*size))
        np.testing.assert_allclose(image.latent_HxWxC.astype(np.float32), wanted, atol=2**-8)
        texts = [found.captions[c].text for c in image.captions]
        assert texts == [c.text for c in example.captions]
    assert not examples


def test_features_are_of_their_captions_text(config, data, tmp_path):
    found, (encoder,) = Dataset(data), config.encoders
    store = found.features(encoder.store)
    texts = [found.captions[c].text for c in range(len(found.captions))]
    for caption, wanted in enumerate(llm.load(encoder, tmp_path).encode(texts)):
        stored = store[caption].astype(np.float32)
        np.testing.assert_allclose(stored, wanted, rtol=2**-7, atol=1e-3)


def test_an_order_is_of_the_seed_and_tells_how_often_a_row_has_come(config, data):
    one, other = (
        pipeline.Order(open_inputs(dataclasses.replace(config, seed=seed), data)[1], 5)
        for seed in (0, 1)
    )
    assert [one.samples(k) for k in range(9)] != [other.samples(k) for k in range(9)]
    times = dict.fromkeys(range(len(Dataset(data))), 0)
    for row, epoch in (sample for k in range(40) for sample in one.samples(k)):
        assert epoch == times[row]
        times[row] += 1
    assert min(times.values()) > 2
