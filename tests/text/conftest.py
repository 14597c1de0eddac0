"""A tiny GGUF file."""

import pytest

from tests import tiny_llms


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_llms.write_gguf(path)
    return path
