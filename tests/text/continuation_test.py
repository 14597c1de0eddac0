"""What an LLM writes next is what its logits say, after what it is given to read."""

import pathlib
import shutil
from unittest import mock

import pytest
import safetensors.torch
import torch
import transformers

from lidit_jax.errors import InputError
from lidit_jax.text import instruct, weights
from lidit_jax.text.continuation import continuation
from lidit_jax.text.instruct import EncoderConfig
from tests import tiny_llms

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


def greedy(model, ids, tokens=5):
    """What a model that is asked token by token says."""
    count = len(ids)
    for _ in range(tokens):
        ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[count:]


def test_the_folders_own_way_of_writing_changes_nothing(tiny_llm, tmp_path):
    folder = shutil.copytree(tiny_llm("llama"), tmp_path / "llama")
    config = EncoderConfig("x", str(folder))
    said = continuation(config, PROMPT, tmp_path, tokens=12)
    own = transformers.GenerationConfig(
        repetition_penalty=9.0, no_repeat_ngram_size=1, num_beams=4, suppress_tokens=[60]
    )
    own.save_pretrained(folder)
    assert continuation(config, PROMPT, tmp_path, tokens=12) == said


def test_the_language_model_of_a_multi_modal_model_speaks(tmp_path):
    folder = str(tmp_path / "llava")
    tiny_llms.save_multi_modal(folder)
    said = continuation(EncoderConfig("x", folder), PROMPT, tmp_path, tokens=5)
    model = tiny_llms.tiny_model("llama").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    turn = [{"role": "user", "content": f"{instruct.INSTRUCTION}\n{PROMPT}"}]
    read = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    wanted = greedy(model, tokenizer(read, add_special_tokens=False).input_ids)
    assert said == tokenizer.decode(wanted, skip_special_tokens=True).strip() and said


def test_a_turn_that_plain_text_closes_is_read_as_its_template_has_it(tiny_llm, tmp_path):
    folder = shutil.copytree(tiny_llm("llama"), tmp_path / "llama")
    template = "{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"
    tokenizer = tiny_llms.tokenizer_of("llama")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    config = EncoderConfig("x", str(folder), instruction=False)
    said = continuation(config, PROMPT, tmp_path, tokens=5)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    read = tokenizer(f"<bos>[INST] {PROMPT} [/INST]", add_special_tokens=False).input_ids
    wanted = tokenizer.decode(greedy(model, read), skip_special_tokens=True)
    assert said == wanted.strip() and said


def test_an_encoder_decoder_decodes_what_it_has_read(tiny_llm, tmp_path):
    folder = shutil.copytree(tiny_llm("t5"), tmp_path / "t5")
    transformers.GenerationConfig(decoder_start_token_id=0).save_pretrained(folder)
    config = EncoderConfig("x", str(folder), instruction=False, template="encoder")
    said = continuation(config, PROMPT, tmp_path, tokens=5)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read, ids = torch.tensor([tokenizer(PROMPT).input_ids]), [0]
    for _ in range(5):
        logits = model(input_ids=read, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
    assert said == tokenizer.decode(ids, skip_special_tokens=True).strip() and said
    with mock.patch.object(transformers.T5ForConditionalGeneration, "generate") as generate:
        generate.side_effect = RuntimeError("stop here")
        with pytest.raises(RuntimeError, match="stop here"):
            continuation(config, "a </s> b", tmp_path)
        given = generate.call_args.args[0][0].tolist()
    end = tokenizer.convert_tokens_to_ids("</s>")
    assert given.count(end) == 1 and given[-1] == end  # what the prompt spells is text


def test_what_cannot_be_written_is_told(tiny_llm, tmp_path):
    folder = shutil.copytree(tiny_llm("llama"), tmp_path / "llama")
    config = EncoderConfig("x", str(folder))
    with pytest.raises(
        InputError, match="reads and writes at most .* tokens, but the prompt in its template has"
    ):
        continuation(config, PROMPT, tmp_path, tokens=10**6)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="its logits are not finite"):
        continuation(config, PROMPT, tmp_path, tokens=5)
    tokenizer = tiny_llms.tokenizer_of("llama")
    tokenizer.chat_template = "{{ raise_exception('no turn') }}"
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="renders no user turn .no turn."):
        continuation(config, PROMPT, tmp_path)


def test_a_model_that_lacks_a_tensor_says_nothing(tiny_llm, tmp_path):
    folder = shutil.copytree(tiny_llm("llama"), tmp_path / "llama")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lack 1 .*model.layers.1.mlp.up_proj.weight"):
        continuation(EncoderConfig("x", str(folder)), PROMPT, tmp_path, tokens=5)


def test_a_model_saved_in_fp16_speaks_where_that_overflows(tiny_llm, tmp_path):
    folder = shutil.copytree(tiny_llm("llama"), tmp_path / "llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    mlp = model.model.layers[-1].mlp
    with torch.no_grad():
        for part in (mlp.up_proj, mlp.down_proj):
            part.weight *= 1e3
        assert not model(torch.tensor([[5, 6, 7]])).logits.isfinite().all()
    model.save_pretrained(folder)
    said = continuation(EncoderConfig("x", str(folder), False, "base"), PROMPT, tmp_path, tokens=5)
    exact = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = tokenizer(f"<bos>{PROMPT}", add_special_tokens=False).input_ids
    assert said == tokenizer.decode(greedy(exact, read), skip_special_tokens=True).strip() and said


def test_an_encoder_says_nothing_and_its_weights_are_not_read(tiny_llm, tmp_path):
    """The same where its config.json is known only once the weights are located, as in a package."""
    folder = pathlib.Path(tiny_llm("bert"))
    shutil.copy(folder / "config.json", tmp_path)
    located = weights.Weights(folder)
    for model, locate in ((str(tmp_path), None), ("package:x", lambda *_: located)):
        config = EncoderConfig("x", model, instruction=False, template="encoder")
        with (
            mock.patch.object(weights, "locate", locate),
            pytest.raises(InputError, match="is an encoder, which writes no text"),
        ):
            continuation(config, PROMPT, tmp_path)
