"""Tiny random models of several families, a byte tokenizer, and a GGUF file."""

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = ("llama", "gemma3", "gpt2", "lfm2", "bert", "t5")
CAUSAL = ("llama", "gemma3", "gpt2", "lfm2")


def byte_tokenizer(special=("<bos>", "<eos>", "<|im_start|>", "<|im_end|>"), around=None, **kwargs):
    """A tokenizer with one token per byte; `around` is a template such as "[CLS] $A [SEP]"."""
    import tokenizers
    import transformers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*special, *alphabet])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    if around:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            around, special_tokens=[(s, vocab[s]) for s in special]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **kwargs)


def tokenizer_of(family):
    """The byte tokenizer that the tiny model of a family is saved with."""
    if family == "bert":
        return byte_tokenizer(("[PAD]", "[CLS]", "[SEP]", "[MASK]"), "[CLS] $A [SEP]")
    if family == "t5":
        return byte_tokenizer(("<pad>", "</s>", "<unk>", "<x>"), "$A </s>")
    return byte_tokenizer(
        bos_token="<bos>", eos_token="<eos>", pad_token="<eos>", chat_template=CHATML
    )


def save(family, folder):
    """Saves the tiny model of a family with its tokenizer, as `transformers` does."""
    tokenizer_of(family).save_pretrained(folder)
    tiny_model(family).save_pretrained(folder)


def save_multi_modal(folder):
    """Saves a LLaVA-NeXT whose language model is the tiny llama."""
    import transformers as hf

    text = tiny_model("llama")
    vision = hf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28
    )  # fmt: skip
    config = hf.LlavaNextConfig(text_config=text.config, vision_config=vision)
    model = hf.LlavaNextForConditionalGeneration(config)
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.lm_head.load_state_dict(text.lm_head.state_dict())
    model.save_pretrained(folder)
    tokenizer_of("llama").save_pretrained(folder)


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
    if family == "lfm2":  # of which some blocks keep a state instead of keys and values
        del decoder["head_dim"]
        kinds = ["conv", "full_attention"] * 2
        return hf.Lfm2ForCausalLM(hf.Lfm2Config(**decoder, layer_types=kinds))
    if family == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(**common, n_embd=16, n_layer=4, n_head=4))
    if family == "bert":
        return hf.BertModel(hf.BertConfig(**common, **heads, intermediate_size=32))
    # T5's attention is not scaled: with weights half as large again, f32 itself is 7e-5 from what f64 gives.
    sizes = dict(vocab_size=260, d_model=16, d_kv=4, d_ff=32, num_layers=4, num_heads=4)
    config = hf.T5Config(**sizes, initializer_factor=2.0)
    return hf.T5ForConditionalGeneration(config)


def write_gguf(path, leave_out=None, scaling=None, factors=None, parts=1):
    """Writes a GGUF file whose f32 weights equal those of `tiny_model("llama")`, less one tensor.

    scaling: of rotary positions; factors: the same in a tensor; parts: as if it were one of several.
    """
    import gguf
    import numpy as np
    import tokenizers

    model = tiny_model("llama")
    config = model.config
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_rope_dimension_count(config.head_dim)
    out.add_rope_freq_base(10000.0)
    if scaling:
        out.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        out.add_rope_scaling_factor(scaling)
    if factors:
        out.add_tensor("rope_freqs.weight", np.full(config.head_dim // 2, factors, np.float32))
    if parts > 1:
        out.add_uint16("split.count", parts)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_vocab_size(config.vocab_size)
    special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    out.add_tokenizer_model("gpt2")
    out.add_token_list([*special, *alphabet, "ab"])
    out.add_token_types([3] * len(special) + [1] * (len(alphabet) + 1))
    out.add_token_merges(["a b"])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_chat_template(CHATML)
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    parts = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for i in range(config.num_hidden_layers):
        names |= {f"model.layers.{i}.{a}.weight": f"blk.{i}.{b}.weight" for a, b in parts.items()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        tensor = tensor.numpy()
        if (part := names[name].split(".")[-2]) in heads:  # GGUF interleaves the rotary halves
            rows = tensor.reshape(heads[part], 2, -1, tensor.shape[-1])
            tensor = rows.swapaxes(1, 2).reshape(tensor.shape).copy()
        if names[name] != leave_out:
            out.add_tensor(names[name], tensor)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
