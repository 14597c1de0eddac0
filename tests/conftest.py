"""Eight virtual devices for the whole suite, no silent rank promotion, and tiny LLMs."""

import os
import pathlib

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402

from tests import tiny_llms  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # the suite is mostly compilation

# Most of the suite's time is compilation, and several tests compile the same programs.
_CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def chat_tokenizer():
    return tiny_llms.byte_tokenizer(
        bos_token="<bos>", eos_token="<eos>", pad_token="<eos>", chat_template=tiny_llms.CHATML
    )


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory, chat_tokenizer):
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
