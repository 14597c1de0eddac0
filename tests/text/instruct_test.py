"""Instruct: what is put around a prompt, and where it is cut."""

import dataclasses

import pytest

from lidit_jax.errors import InputError
from lidit_jax.text import instruct
from lidit_jax.text.instruct import INSTRUCTION, EncoderConfig
from tests import tiny_llms


def parts(tokenizer, **changes):
    """Returns the prefix and suffix as text."""
    prefix, suffix = instruct.prompt_parts(tokenizer, EncoderConfig("x", "x", **changes))
    return tokenizer.decode(prefix), tokenizer.decode(suffix)


def test_instruction_is_the_papers():
    assert INSTRUCTION == (
        "Describe the image by detailing the color, shape, size, texture, quantity, text, and spatial "
        "relationships of the objects:"
    )


def test_chat_is_the_rendered_user_turn(chat_tokenizer):
    prefix, suffix = instruct.prompt_parts(chat_tokenizer, EncoderConfig("x", "x"))
    prompt, _ = instruct.tokenize_prompt(chat_tokenizer, "a red cat", suffix, 255)
    turn = [{"role": "user", "content": INSTRUCTION + "\na red cat"}]
    rendered = chat_tokenizer.apply_chat_template(turn, tokenize=False)
    assert chat_tokenizer.decode(prefix + prompt) + "\n" == rendered
    assert rendered.startswith(
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nDescribe"
    )
    assert chat_tokenizer.convert_ids_to_tokens(suffix) == ["<|im_end|>"]


def test_chat_without_instruction_is_the_prompt_alone(chat_tokenizer):
    prefix, suffix = parts(chat_tokenizer, instruction=False)
    assert prefix == "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n"
    assert suffix == "<|im_end|>"


def test_a_template_that_tells_the_date_tells_the_same_every_day():
    tokenizer = tiny_llms.byte_tokenizer(
        eos_token="<eos>",
        chat_template="Today: {{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}<eos>",
    )
    assert parts(tokenizer, instruction=False)[0] == "Today: 26 Jul 2024 "


def test_base_is_bos_instruction_newline_and_eos(chat_tokenizer):
    assert parts(chat_tokenizer, template="base") == (f"<bos>{INSTRUCTION}\n", "<eos>")
    assert parts(chat_tokenizer, template="base", instruction=False) == ("<bos>", "<eos>")


@pytest.mark.parametrize("template", ["base", "chat"])
def test_a_causal_prefix_is_never_empty(template):
    tokenizer = tiny_llms.byte_tokenizer(
        eos_token="<eos>", chat_template="{{ messages[0]['content'] }}<eos>"
    )
    assert parts(tokenizer, template=template, instruction=False) == ("<eos>", "<eos>")


@pytest.mark.parametrize(
    "special, around, expected",
    [
        (("[CLS]", "[SEP]"), "[CLS] $A [SEP]", ("[CLS]", "[SEP]")),
        (("<pad>", "</s>"), "$A </s>", ("", "</s>")),
    ],
)
def test_encoder_is_the_tokenizers_own_special_tokens(special, around, expected):
    tokenizer = tiny_llms.byte_tokenizer(special, around)
    assert parts(tokenizer, template="encoder", instruction=False) == expected


def test_encoder_needs_an_end_token(chat_tokenizer):
    with pytest.raises(InputError, match="no end token after a text"):
        parts(chat_tokenizer, template="encoder", instruction=False)


def chat(template, **kwargs):
    return tiny_llms.byte_tokenizer(
        bos_token="<bos>", eos_token="<eos>", chat_template=template, **kwargs
    )


def test_turn_closed_by_plain_text_ends_with_eos():
    tokenizer = chat("{{ bos_token }}[INST] {{ messages[0]['content'] | trim }} [/INST]")
    assert parts(tokenizer) == (f"<bos>[INST] {INSTRUCTION}\n", "<eos>")


PARTS = (  # as LLaVA's: of a turn that is a text it shows nothing
    "{% for m in messages %}<|im_start|>"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


def test_a_turn_is_given_in_parts_to_a_template_that_wants_them():
    tokenizer = chat(PARTS)
    assert parts(tokenizer) == (f"<|im_start|>{INSTRUCTION}\n", "<|im_end|>")
    assert tokenizer.decode(instruct.reply_ids(tokenizer)) == "<|im_end|><|im_start|>"


def test_suffix_is_one_token_where_a_template_closes_with_more():
    tokenizer = chat("<|im_start|>{{ messages[0]['content'] }} <|im_end|>\n<eos>")
    assert parts(tokenizer, instruction=False) == ("<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize("template", ["no turn at all", "{{ messages[0]['content'] * 2 }}"])
def test_template_that_does_not_show_the_prompt_once(template):
    with pytest.raises(InputError, match="times instead of once; use template='base'"):
        parts(chat(template))


def test_a_template_that_takes_no_turn_is_told_by_what_it_says_of_a_text():
    template = "{{ raise_exception('only ' ~ ('parts' if messages[0]['content'] is string else 'texts')) }}"
    with pytest.raises(
        InputError, match=r"renders no user turn \(only parts\); use template='base'"
    ):
        parts(chat(template))


def test_missing_chat_template_names_base():
    with pytest.raises(InputError, match="no chat template; use template='base'"):
        parts(chat(None))


def test_missing_end_of_text():
    with pytest.raises(InputError, match="no end-of-text token"):
        parts(tiny_llms.byte_tokenizer(bos_token="<bos>"), template="base")


def test_empty_prompt_is_the_end_token_alone(chat_tokenizer):
    assert instruct.tokenize_prompt(chat_tokenizer, "", [3], 255) == ([3], False)


@pytest.mark.parametrize(
    "length, kept, cut", [(254, 255, False), (255, 256, False), (256, 256, True)]
)
def test_truncation_keeps_the_beginning_and_the_end_token(chat_tokenizer, length, kept, cut):
    text = ("abcdefghij" * 30)[:length]
    ids, truncated = instruct.tokenize_prompt(chat_tokenizer, text, [3], 255)
    assert (len(ids), truncated, ids[-1]) == (kept, cut, 3)
    assert chat_tokenizer.decode(ids[:-1]) == text[:255]


def test_text_cannot_spell_a_special_token(chat_tokenizer):
    text = "a <|im_end|><eos> cat"
    ids, _ = instruct.tokenize_prompt(chat_tokenizer, text, [], 255)
    assert not set(ids) & set(chat_tokenizer.all_special_ids)
    assert chat_tokenizer.decode(ids) == text


def test_text_cannot_spell_what_a_template_uses_though_it_is_not_called_special():
    """Nor what the model does not know; other added tokens are words."""
    tokenizer = tiny_llms.byte_tokenizer(
        ("<bos>", "<eos>"), bos_token="<bos>", eos_token="<eos>", chat_template=tiny_llms.CHATML
    )
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>", "<b>", "\n", "color", "<image>"])
    config = EncoderConfig("x", "x")
    before = instruct.prompt_parts(tokenizer, config)
    instruct.keep_as_text(tokenizer, config, vocabulary=len(tokenizer) - 1)
    assert instruct.prompt_parts(tokenizer, config) == before
    text = "a <|im_end|><image><b> cat\nof one color"
    ids, _ = instruct.tokenize_prompt(tokenizer, text, [], 255)
    words = [tokenizer.convert_ids_to_tokens(i) for i in ids if i in tokenizer.added_tokens_decoder]
    assert words == ["<b>", "\n", "color"] and tokenizer.decode(ids) == text


def test_a_template_is_read_whole_whatever_the_tokenizer_does_with_special_tokens(chat_tokenizer):
    wanted = parts(chat_tokenizer)
    chat_tokenizer.split_special_tokens = True
    assert parts(chat_tokenizer) == wanted


def test_a_template_that_raises_on_a_text_is_given_parts():
    refuses = "{% if messages[0]['content'] is string %}{{ raise_exception('a list') }}{% endif %}"
    assert parts(chat(refuses + PARTS)) == (f"<|im_start|>{INSTRUCTION}\n", "<|im_end|>")


def test_template_hash_names_prefix_suffix_and_layer():
    same = [instruct.template_hash(*args) for args in [([1, 2], [3], -3)] * 2]
    others = [
        instruct.template_hash(*args)
        for args in [([1], [3], -3), ([1, 2], [4], -3), ([1, 2], [3], -2), ([1], [2, 3], -3)]
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 5


@pytest.mark.parametrize(
    "change, message",
    [
        ({"template": "chta"}, "unknown text.encoders.x.template 'chta'; known: chat"),
        ({"template": "encoder"}, "takes no instruction; set instruction=False"),
        ({"layer": 3}, "layer 3 must count from the end"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens is 0"),
        ({"name": "a/b"}, "'a/b' is not a folder name"),
    ],
)
def test_config_mistakes(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(EncoderConfig("x", "x"), **change)
