"""FrozenLLM: the cached, batched, truncated run gives what one plain Hugging Face run gives."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest
import torch
import transformers

from lidit_jax import files
from lidit_jax.data.pipeline import padded_length
from lidit_jax.errors import InputError
from lidit_jax.text import instruct, llm, weights
from lidit_jax.text.instruct import EncoderConfig
from tests import tiny_llms

PROMPTS = ["a red cat", "", "two dogs left of a tree, <|im_end|> and 3 birds", "x", "a red car"]


@pytest.fixture
def load(tiny_llm, tmp_path):
    """Returns a function that loads a tiny model of a family."""

    def load(family, **changes):
        changes = changes | ({} if family in tiny_llms.CAUSAL else {"template": "encoder"})
        changes = {"instruction": changes.get("template") != "encoder"} | changes
        return llm.load(EncoderConfig(family, tiny_llm(family), **changes), tmp_path)

    return load


def plain_states(model, frozen, prompt):
    """Runs Hugging Face on one whole sequence; returns the states [P+S, E] of each layer."""
    import torch

    ids = frozen.prefix_ids + frozen.tokenize(prompt)[0]
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return [state[0].numpy() for state in output.hidden_states]


def relative_error(x_SxE, y_SxE):
    """The largest error of a token, relative to the token's norm."""
    return (np.linalg.norm(x_SxE - y_SxE, axis=-1) / np.linalg.norm(y_SxE, axis=-1)).max()


@pytest.mark.parametrize("layer", [-1, -2, -3, -4])
@pytest.mark.parametrize("family", tiny_llms.FAMILIES)
def test_features_are_hidden_states_of_the_whole_sequence(load, family, layer):
    frozen = load(family, layer=layer)
    model = tiny_llms.tiny_model(family)
    model = model.get_encoder() if family == "t5" else model
    for prompt, features in zip(PROMPTS, frozen.encode(PROMPTS), strict=True):
        expected = plain_states(model.eval(), frozen, prompt)[layer]
        P = len(frozen.prefix_ids)
        assert features.dtype == np.float32
        assert features.shape == (len(frozen.tokenize(prompt)[0]), 16)
        assert relative_error(features, expected[P:]) < 1e-5
        if family in tiny_llms.CAUSAL:  # so the prefix's features do not depend on the prompt
            assert relative_error(frozen.prefix(), expected[:P]) < 1e-5
        else:
            assert frozen.prefix().shape == (0, 16)


@pytest.mark.parametrize("family", tiny_llms.FAMILIES)
def test_batches_and_padding_change_nothing(load, family):
    frozen = load(family)
    alone = [frozen.encode([prompt])[0] for prompt in PROMPTS]
    long = "a much longer prompt " * 10
    for batch_size in (1, 2, 32):
        for x, y in zip(alone, frozen.encode([*PROMPTS, long], batch_size), strict=False):
            assert relative_error(x, y) < 1e-5


def in_bf16(frozen):
    import torch

    model = frozen._model.to(torch.bfloat16)
    return llm.FrozenLLM(model, frozen.tokenizer, frozen.config, frozen.weights)


@pytest.mark.parametrize("family", tiny_llms.FAMILIES)
def test_in_bf16_and_static_shapes_what_is_read_beside_a_prompt_changes_nothing(load, family):
    frozen = in_bf16(load(family, layer=-1))
    kept = [frozen.tokenize(prompt)[0] for prompt in [*PROMPTS, "x" * 30, "y" * 31, "z" * 32]]
    together = frozen.encode_ids(kept, 3, padded_length)
    for ids, features in zip(kept, together, strict=True):
        assert features.shape == (len(ids), 16)
        np.testing.assert_array_equal(frozen.encode_ids([ids], 3, padded_length)[0], features)
        assert relative_error(frozen.encode_ids([ids])[0], features) < 0.1


def test_in_static_shapes_every_row_has_a_masked_token(load, monkeypatch):
    """Where nothing is masked transformers gives no mask to attention, which takes another kernel."""
    frozen, masks = load("bert"), []
    forward = frozen._forward

    def seen(ids, **inputs):
        masks.append(inputs["attention_mask"].numpy())
        return forward(ids, **inputs)

    monkeypatch.setattr(frozen, "_forward", seen)
    frozen.encode_ids([frozen.tokenize("z" * n)[0] for n in range(5, 17)], 3, padded_length)
    assert {len(mask) for mask in masks} == {3} and all((m == 0).any(1).all() for m in masks)


def test_order_is_the_callers(load):
    frozen = load("llama")
    lengths = [len(f) for f in frozen.encode(["aaa", "", "aaaaaaa", "a"], batch_size=2)]
    assert lengths == [4, 1, 8, 2]
    assert frozen.encode([]) == []


def test_only_the_needed_blocks_are_kept(load):
    assert len(load("llama", layer=-3)._model.layers) == 2
    assert len(load("gemma3", layer=-1)._model.layers) == 4


def test_empty_prompt_keeps_the_end_token_alone(load):
    for family in tiny_llms.FAMILIES:
        assert load(family).encode([""])[0].shape == (1, 16)


def test_a_long_prompt_is_cut_and_said_so(load, caplog):
    frozen = load("llama", max_prompt_tokens=4)
    long, short = frozen.encode(["abcdefgh", "abcd"])
    assert frozen.tokenize("abcdefgh")[0] == frozen.tokenize("abcd")[0]
    assert len(long) == len(short) == 5
    # Not bit for bit: a product may sum a row in an order that depends on the row's place.
    assert relative_error(long, short) < 1e-5
    assert "encoder llama: 1 of 2 prompts are longer than max_prompt_tokens=4" in caplog.text
    assert "'abcdefgh'" in caplog.text


def test_language_model_of_a_multi_modal_model(tmp_path):
    import torch

    text = tiny_llms.tiny_model("llama")
    tiny_llms.save_multi_modal(tmp_path / "llava")
    frozen = llm.load(EncoderConfig("llava", str(tmp_path / "llava")), tmp_path)
    assert len(frozen._model.layers) == 2
    expected = plain_states(text.eval(), frozen, "a cat")[-3]
    assert relative_error(frozen.encode(["a cat"])[0], expected[len(frozen.prefix_ids) :]) < 1e-5
    assert frozen.dtype == ("bfloat16" if torch.cuda.is_available() else "float32")


def test_an_encoder_that_was_saved_alone(load, tmp_path):
    """T5's, which transformers marks as no encoder-decoder then."""
    alone = tmp_path / "alone"
    tiny_llms.tokenizer_of("t5").save_pretrained(alone)
    whole = transformers.T5EncoderModel.from_pretrained(load("t5").config.model)
    whole.save_pretrained(alone)
    config = EncoderConfig("x", str(alone), template="encoder", instruction=False)
    found, wanted = llm.load(config, tmp_path).encode(PROMPTS), load("t5").encode(PROMPTS)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_tokenizer_of_sentencepiece_alone_is_read(load, tmp_path):
    """As T5's and Llama-2's repositories have it, some without a tokenizer.json."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path / "t5"
    whole = transformers.T5EncoderModel.from_pretrained(load("t5").config.model)
    whole.save_pretrained(folder)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([instruct.INSTRUCTION, *PROMPTS] * 9), model_prefix=str(folder / "spiece"),
        vocab_size=60, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=9,
    )  # fmt: skip
    frozen = llm.load(
        EncoderConfig("x", str(folder), template="encoder", instruction=False), tmp_path
    )
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "spiece.model"))
    assert frozen.tokenize("a red cat")[0] == [*pieces.encode("a red cat"), 1]
    before = frozen.weights.sha256
    (folder / "spiece.model").write_bytes((folder / "spiece.model").read_bytes() + b"x")
    assert weights.locate(str(folder), tmp_path).sha256 != before


def test_loading_reads_the_weights_once(tiny_llm, tmp_path, monkeypatch):
    """Without the hash of all of them, which only `prepare` asks for."""
    hashed = []
    monkeypatch.setattr(files, "checksum", lambda path: hashed.append(path.name) or "0")
    frozen = llm.load(EncoderConfig("x", str(tiny_llm("llama"))), tmp_path)
    frozen.encode(PROMPTS)
    assert hashed == []
    assert frozen.weights.sha256 and "model.safetensors" in hashed


def test_a_hybrid_whose_state_is_not_carried_into_several_tokens_is_refused(tmp_path):
    """Or read right, by a transformers that carries it: Jamba's, in 5.23, is right for one token alone."""
    config = transformers.JambaConfig(
        vocab_size=260, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, num_experts=1, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=4,
        mamba_dt_rank=4, initializer_range=0.3, use_mamba_kernels=False,
    )  # fmt: skip
    model = transformers.JambaForCausalLM(config)
    model.save_pretrained(tmp_path)
    tiny_llms.tokenizer_of("llama").save_pretrained(tmp_path)
    try:
        frozen = llm.load(EncoderConfig("x", str(tmp_path), layer=-1), tmp_path)
    except InputError as error:
        assert "gives other features after the cached prefix than in one pass" in str(error)
    else:
        expected = plain_states(model.eval(), frozen, "a red cat")[-1]
        found = frozen.encode(["a red cat"])[0]
        assert relative_error(found, expected[len(frozen.prefix_ids) :]) < 1e-5


def test_a_model_that_keeps_no_keys_and_values(tmp_path):
    config = transformers.MambaConfig(
        vocab_size=260, hidden_size=16, num_hidden_layers=2, state_size=4
    )
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    tiny_llms.tokenizer_of("llama").save_pretrained(tmp_path)
    # Which of the two depends on the version of transformers.
    told = "does not return the keys and values|cannot continue after the cached prefix"
    with pytest.raises(InputError, match=f"({told}).*use another LLM"):
        llm.load(EncoderConfig("x", str(tmp_path), layer=-1), tmp_path)


def test_an_encoder_decoder_is_read_by_its_encoder(tmp_path):
    config = transformers.BartConfig(
        vocab_size=260, d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BartForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer = tiny_llms.tokenizer_of("t5")
    tokenizer.save_pretrained(tmp_path)
    config = EncoderConfig("x", str(tmp_path), False, "encoder", layer=-1)
    (found,) = llm.load(config, tmp_path).encode(["a cat"])
    ids = torch.tensor([tokenizer("a cat").input_ids])
    wanted = model.get_encoder()(ids).last_hidden_state[0].detach()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_cannot_be_run_is_told_in_one_line(tmp_path):
    config = transformers.CLIPConfig(
        text_config={"vocab_size": 260, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32},
    )  # fmt: skip
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    tiny_llms.tokenizer_of("t5").save_pretrained(tmp_path)
    config = EncoderConfig("x", str(tmp_path), False, "encoder", layer=-1, max_prompt_tokens=60)
    with pytest.raises(InputError, match="cannot load .*: "):
        llm.load(config, tmp_path)


@pytest.mark.parametrize(
    ("positions", "told"), [(300, "must be at most 151"), (100, "that leaves none for a prompt")]
)
def test_a_model_that_reads_too_little_is_told_without_its_weights(
    tiny_llm, tmp_path, positions, told
):
    folder = shutil.copytree(tiny_llm("llama"), tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = positions
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=f"reads at most {positions} tokens, 148 of them.*{told}"):
        llm.check(EncoderConfig("llama", str(folder)), tmp_path)


def test_how_much_is_read_is_the_least_of_what_is_said():
    def most(length, **config):
        tokenizer = types.SimpleNamespace(model_max_length=length)
        return llm.most_tokens(tokenizer, types.SimpleNamespace(**config))

    scaling = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
    assert most(300.0, max_position_embeddings=512) == 300
    assert most(1e30, max_position_embeddings=-1) >= 2**31
    assert most(1e30, max_position_embeddings=2**17, rope_parameters=scaling) == 4096
    assert most(1e30, max_position_embeddings=2**17, rope_scaling={"type": "yarn"}) == 2**17


def test_an_encoder_needs_no_pooler(tiny_llm, tmp_path):
    import transformers

    copy = shutil.copytree(tiny_llm("bert"), tmp_path / "copy")
    model = transformers.BertModel.from_pretrained(copy, add_pooling_layer=False)
    model.save_pretrained(copy)
    config = EncoderConfig("bert", str(copy), instruction=False, template="encoder")
    assert llm.load(config, tmp_path).width == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"layer": -6}, "has 4 blocks"), ({"width": 32}, "width is 16, but the config has 32")],
)
def test_a_shape_that_is_not_the_models_is_told_without_its_weights(
    tiny_llm, tmp_path, changes, message
):
    folder = shutil.copytree(tiny_llm("llama"), tmp_path / "llama")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match=message):
        llm.check(EncoderConfig("llama", str(folder), **changes), tmp_path)


@pytest.mark.parametrize(
    "family, changes, message",
    [
        ("llama", {"template": "encoder"}, "no end token after a text"),
        ("bert", {"template": "base"}, "no end-of-text token"),
        ("t5", {"template": "chat"}, "no chat template; use template='base'"),
        ("llama", {"layer": -6}, "has 4 blocks: layer must be in -5..-1, not -6"),
        (
            "bert",
            {"max_prompt_tokens": 511},
            "reads at most 512 tokens, 1 of them prefix.*at most 510",
        ),
        ("llama", {"width": 32}, "encoder 'llama': width is 16, but the config has 32"),
        ("llama", {"prefix_len": 7}, "prefix_len is 148, but the config has 7"),
    ],
)
def test_config_that_does_not_fit(tiny_llm, tmp_path, family, changes, message):
    changes = {"template": "chat" if family == "llama" else "encoder"} | changes
    changes["instruction"] = changes["template"] != "encoder"
    with pytest.raises(InputError, match=message):
        llm.load(EncoderConfig(family, tiny_llm(family), **changes), tmp_path)


@pytest.mark.parametrize("name, measured", [("width", 16), ("prefix_len", 148), ("null_len", 1)])
def test_measures_that_are_not_the_models_are_told_without_its_weights(
    tiny_llm, tmp_path, monkeypatch, name, measured
):
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", None)
    config = EncoderConfig("x", tiny_llm("llama"), **{name: measured})
    llm.check(config, tmp_path)
    wrong = dataclasses.replace(config, **{name: 9})
    with pytest.raises(InputError, match=f"{name} is {measured}, .*config has 9"):
        llm.check(wrong, tmp_path)


def test_template_that_does_not_suit_the_model(tiny_llm, tmp_path):
    swapped = tmp_path / "model"
    around = tiny_llms.byte_tokenizer(
        ("[CLS]", "[SEP]"), "[CLS] $A [SEP]", bos_token="[CLS]", eos_token="[SEP]"
    )
    for family, template, message in [
        ("llama", "encoder", "do not depend on later tokens.*use template='chat' or 'base'"),
        ("bert", "base", "features depend on later tokens.*use template='encoder'"),
        ("t5", "base", "is an encoder-decoder; use template='encoder'"),
    ]:
        tiny_llms.tiny_model(family).save_pretrained(swapped)
        around.save_pretrained(swapped)
        with pytest.raises(InputError, match=message):
            llm.load(
                EncoderConfig("x", str(swapped), instruction=False, template=template), tmp_path
            )
