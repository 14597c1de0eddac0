"""An LLM's continuation of a prompt: does it read it as something to be drawn? (Fig. 4)"""

import importlib.util
import os
import pathlib

from lidit_jax import pretrained
from lidit_jax.errors import InputError
from lidit_jax.text import instruct, llm
from lidit_jax.text.instruct import EncoderConfig

PROMPT = "a blue backpack and a red orange"  # the paper's
TOKENS = 64


def continuation(
    config: EncoderConfig, prompt: str, cache_dir: pathlib.Path, tokens: int = TOKENS
) -> str:
    """Returns what the LLM writes next, by greedy decoding, at most `tokens` tokens.

    A chat model answers the turn that its template makes of instruction and prompt; a base model
    continues the text; an encoder-decoder, such as T5, decodes what it has read.
    Raises InputError if the weights are not available, not finite, or those of an encoder alone,
    which writes nothing; and if prompt and tokens exceed the LLM's context.
    """
    _refuse_encoder(config)
    found, tokenizer, hf_config = llm.opened(config, cache_dir)
    _check_says(config, hf_config)
    llm.check_unpacked(config, found, hf_config)
    import torch
    import transformers

    encoder_decoder = hf_config.is_encoder_decoder
    with pretrained.loading(config.model):
        read = _ids(tokenizer, config, prompt, encoder_decoder)
        most = llm.most_tokens(tokenizer, hf_config.get_text_config())
        if not encoder_decoder and len(read) + tokens > most:
            raise InputError(
                f"{config.model} reads and writes at most {most} tokens, but the prompt in its "
                f"template has {len(read)} and --tokens is {tokens}; give fewer --tokens, or a "
                f"shorter prompt"
            )
        model = _model(config, found.folder, hf_config)
    ids = torch.tensor([read])
    eos = tokenizer.eos_token_id
    # Of the folder's generation_config.json, only the special tokens are used.
    own = model.generation_config.to_dict()
    model.generation_config = transformers.GenerationConfig(
        **{name: value for name, value in own.items() if name.endswith("token_id")}
    )
    with torch.inference_mode():
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
    if not written.logits[0].isfinite().all():
        raise InputError(
            f"{config.model}: its logits are not finite: the weights are damaged; "
            f"get a complete copy"
        )
    new = written.sequences[0] if encoder_decoder else written.sequences[0, ids.shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip()


def _refuse_encoder(config: EncoderConfig):
    """Raises InputError if a folder's config.json is an encoder's, before its weights are located.

    Any other model is located first, which reports what is missing.
    """
    folder = pathlib.Path(os.path.expanduser(config.model))
    installed = importlib.util.find_spec("transformers")
    if config.template == "encoder" and installed and (folder / "config.json").is_file():
        import transformers

        with pretrained.loading(config.model):
            hf_config = transformers.AutoConfig.from_pretrained(folder, **pretrained.SAFE)
        _check_says(config, hf_config)


def _check_says(config: EncoderConfig, hf_config):
    """Raises InputError for a transformers config of an encoder alone."""
    if config.template == "encoder" and not hf_config.is_encoder_decoder:
        raise InputError(f"{config.model} is an encoder, which writes no text; name another LLM")


def _model(config: EncoderConfig, folder: pathlib.Path, hf_config):
    """Returns the model that writes, in eval mode.

    Raises InputError if its weights are not complete.
    """
    import torch
    import transformers

    if hf_config.is_encoder_decoder:
        auto = transformers.AutoModelForSeq2SeqLM
    elif type(hf_config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        auto = transformers.AutoModelForCausalLM
    else:
        auto = transformers.AutoModelForImageTextToText  # only its language model is used
    # In the dtype that it was saved in, but never in fp16: late blocks overflow it.
    half = getattr(hf_config.get_text_config(), "dtype", None) == torch.float16
    model, info = auto.from_pretrained(
        folder, dtype=torch.float32 if half else "auto", output_loading_info=True,
        use_safetensors=True, **pretrained.SAFE,
    )  # fmt: skip
    pretrained.check_complete(config.model, info)
    llm.check_used(config, hf_config, info, model)
    return model.eval()


def _ids(tokenizer, config: EncoderConfig, prompt: str, encoder_decoder: bool) -> list[int]:
    """Returns the ids that the LLM reads, up to where it starts to write."""
    prefix, suffix = instruct.prompt_parts(tokenizer, config)
    kept, cut = instruct.tokenize_prompt(tokenizer, prompt, suffix, config.max_prompt_tokens)
    instruct.warn_truncated(config, int(cut), 1, prompt)
    if encoder_decoder:
        return prefix + kept
    read = prefix + kept[: -len(suffix)]
    return read if config.template == "base" else read + instruct.reply_ids(tokenizer)
