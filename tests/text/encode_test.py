"""Encode: captions in their order, statistics as numpy gives them, a description that JSON can hold."""

import json
import subprocess
import sys
import types

import numpy as np
import pytest

from lidit_jax.errors import InputError
from lidit_jax.text import encode
from lidit_jax.text.encode import ChannelStatistics, Features
from lidit_jax.text.instruct import EncoderConfig


class FakeLLM:
    """One token per letter; a token's feature is its letter's number. Prompts above 9 letters are cut."""

    config = EncoderConfig("fake", "fake/model", template="base", max_prompt_tokens=9)
    dtype, width, prefix_ids, suffix_ids = "float32", 2, [1, 5], [2]
    weights = types.SimpleNamespace(sha256="abc")

    def __init__(self):
        self.windows = []

    def prefix(self):
        return np.ones((2, 2), np.float32)

    def tokenize(self, text):
        return [ord(c) for c in text[:9]] + self.suffix_ids, len(text) > 9

    def encode_ids(self, kept, batch_size, static_length):
        self.windows.append(len(kept))
        return [np.stack([ids, np.ones(len(ids))], 1).astype(np.float32) for ids in kept]


def test_imports_no_torch():
    code = "import lidit_jax.text.encode, lidit_jax.text.llm, sys; assert not {'torch', 'transformers'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_captions_come_in_order_from_a_stream():
    llm, taken, done = FakeLLM(), [], []
    texts = [chr(97 + i % 26) * (i % 12) for i in range(100)]
    stream = encode.encode_captions(llm, map(lambda t: taken.append(t) or t, texts), 2, done.append)
    first = next(stream)
    assert len(taken) == 32  # one window, not the whole stream
    for text, features in zip(texts, [first, *stream], strict=True):
        assert features.hidden_SxE[:, 0].tolist() == llm.tokenize(text)[0]
        assert features.truncated == (len(text) > 9)
    assert llm.windows == done == [32, 32, 32, 4]
    assert list(encode.encode_captions(llm, [])) == []


def test_statistics_are_those_of_all_kept_tokens():
    rng = np.random.default_rng(0)
    # The first channel's mean dwarfs its deviation, as in real LLMs; f32 sums of squares would lose it.
    captions = [
        (rng.normal(size=(n, 3)) * [0.1, 1, 5] + [1e5, 0, -7]).astype(np.float32)
        for n in rng.integers(1, 20, 200)
    ]
    stats = ChannelStatistics(3)
    for i, x in enumerate(captions):
        stats.add(f"caption {i}", Features(x, truncated=i in (5, 9)))
    tokens = np.concatenate(captions).astype(np.float64)
    np.testing.assert_allclose(stats.mean_E, tokens.mean(0), rtol=1e-10)
    np.testing.assert_allclose(stats.std_E, tokens.std(0), rtol=1e-8)
    assert (stats.captions, stats.tokens) == (200, len(tokens))
    assert stats.longest == max(map(len, captions))
    assert (stats.truncated, stats.example) == (2, "caption 5")


def test_std_has_a_floor():
    stats = ChannelStatistics(3)
    stats.add("", Features(np.float32([[0, 0, 5], [2, 4, 5]]), False))
    np.testing.assert_allclose(stats.std_E, [1, 2, encode.STD_FLOOR * 1])
    constant = ChannelStatistics(2)
    constant.add("", Features(np.float32([[3, 4]]), False))
    assert constant.std_E.tolist() == [1, 1]
    np.testing.assert_array_equal(encode.floored(np.float64([0, 0, 0, 0.05])), [1, 1, 1, 0.05])


def test_statistics_of_parts_merge_into_those_of_the_whole():
    rng = np.random.default_rng(0)
    features = [
        Features(rng.normal(1000, 3, (n, 4)).astype(np.float32), n > 5) for n in (3, 9, 1, 7)
    ]
    whole, first, second, merged = (ChannelStatistics(4) for _ in range(4))
    for i, f in enumerate(features):
        whole.add(f"text {i}", f)
        (first if i < 2 else second).add(f"text {i}", f)
    for part in (first, second):
        merged.merge(json.loads(json.dumps(part.to_json())))
    np.testing.assert_allclose(merged.mean_E, whole.mean_E, rtol=1e-12)
    np.testing.assert_allclose(merged.std_E, whole.std_E, rtol=1e-9)
    counted = ("captions", "tokens", "longest", "truncated", "example")
    assert [getattr(merged, n) for n in counted] == [getattr(whole, n) for n in counted]


def test_features_that_are_not_finite():
    llm = FakeLLM()
    llm.tokenize = lambda text: ([np.nan if c == "z" else 1 for c in text], False)
    stream = encode.encode_captions(llm, ["a cat", "a zebra"])
    assert next(stream).hidden_SxE.shape == (5, 2)
    with pytest.raises(InputError, match="features of 'a zebra' are not finite"):
        next(stream)


def test_description_survives_json_and_says_what_was_cut(caplog):
    llm, stats = FakeLLM(), ChannelStatistics(2)
    texts = ["short", "a caption that is cut"]
    for text, features in zip(texts, encode.encode_captions(llm, texts), strict=True):
        stats.add(text, features)
    description = encode.identity(llm) | encode.describe(llm.config, stats)
    assert json.loads(json.dumps(description)) == description
    expected = {
        "model": "fake/model", "model_hash": "abc", "dtype": "float32", "layer": -3, "template": "base",
        "instruction": True, "max_prompt_tokens": 9, "width": 2, "captions": 2,
        "longest": 10, "truncated": 1,
    }  # fmt: skip
    assert expected.items() <= description.items()
    assert len(description["template_hash"]) == 64
    np.testing.assert_array_equal(description["mean"], stats.mean_E)
    np.testing.assert_array_equal(description["std"], stats.std_E)
    assert "encoder fake: 1 of 2 prompts" in caplog.text
    assert "'a caption that is cut'" in caplog.text
