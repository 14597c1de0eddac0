"""What an LLM says to a prompt, in words: whether it reads it as something to be drawn (Fig. 4)."""

import pathlib

from lidit_jax import pretrained
from lidit_jax.errors import InputError
from lidit_jax.text import instruct, weights
from lidit_jax.text.instruct import EncoderConfig

PROMPT = "a blue backpack and a red orange"  # the paper's
TOKENS = 64


def continuation(
    config: EncoderConfig, prompt: str, cache_dir: pathlib.Path, tokens: int = TOKENS
) -> str:
    """Returns what the LLM writes next, greedily, at most so many tokens.

    A chat model answers the turn that its template makes of instruction and prompt; a base model goes on
    with the text; an encoder-decoder, such as T5, decodes what it has read.
    Raises InputError if the weights cannot be had, or are those of an encoder alone, which says nothing.
    """
    found = weights.locate(config.model, cache_dir)
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, **pretrained.SAFE)
    hf_config = transformers.AutoConfig.from_pretrained(found.folder, **pretrained.SAFE)
    auto = transformers.AutoModelForCausalLM
    if hf_config.is_encoder_decoder:
        auto = transformers.AutoModelForSeq2SeqLM
    elif config.template == "encoder":
        raise InputError(
            f"{config.model} is an encoder: it reads and says nothing; name another LLM"
        )
    model, info = auto.from_pretrained(
        found.folder,
        dtype="auto",
        output_loading_info=True,
        use_safetensors=True,
        **pretrained.SAFE,
    )
    pretrained.check_complete(config.model, info)
    ids = torch.tensor([_ids(tokenizer, config, prompt, hf_config.is_encoder_decoder)])
    eos = tokenizer.eos_token_id
    with torch.inference_mode():
        written = model.eval().generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        )[0]
    new = written if hf_config.is_encoder_decoder else written[ids.shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip()


def _ids(tokenizer, config: EncoderConfig, prompt: str, encoder_decoder: bool) -> list[int]:
    """Returns what the LLM is given to read, up to where it is to write."""
    if encoder_decoder:
        return tokenizer(prompt).input_ids
    prefix, suffix = instruct.prompt_parts(tokenizer, config)
    kept, _ = instruct.tokenize_prompt(tokenizer, prompt, suffix, config.max_prompt_tokens)
    if config.template == "base":
        return prefix + kept[: -len(suffix)]
    return prefix + kept + instruct.reply_parts(tokenizer, suffix)
