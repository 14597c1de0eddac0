"""What an LLM writes next is what its logits say, after what it is given to read."""

import pathlib

import pytest
import torch
import transformers

from lidit_jax.errors import InputError
from lidit_jax.text import instruct
from lidit_jax.text.continuation import continuation
from lidit_jax.text.instruct import EncoderConfig

PROMPT = "a red star"


@pytest.mark.parametrize("template", ["chat", "base"])
@pytest.mark.parametrize("instruction", [False, True])
def test_it_is_the_greedy_one(tiny_llm, template, instruction, tmp_path):
    folder = tiny_llm("llama")
    config = EncoderConfig("x", folder, instruction, template)
    said = continuation(config, PROMPT, tmp_path, tokens=5)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    before = instruct.INSTRUCTION + "\n" if instruction else ""
    text = f"<bos>{before}{PROMPT}"
    if template == "chat":
        text = "<|im_start|>system\nYou help.<|im_end|>\n"
        text += f"<|im_start|>user\n{before}{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    count = len(ids)
    for _ in range(5):
        logits = model(torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    assert said == tokenizer.decode(ids[count:], skip_special_tokens=True).strip()


def test_an_encoder_says_nothing(tiny_llm):
    config = EncoderConfig("x", tiny_llm("bert"), instruction=False, template="encoder")
    with pytest.raises(InputError, match="is an encoder: it reads and says nothing"):
        continuation(config, PROMPT, pathlib.Path("nowhere"))
