"""The input of a frozen LLM: instruction, prompt and end token, as token ids.

Every prompt of an LLM becomes `prefix + prompt + suffix`. The prefix (system prompt and
instruction) and the suffix (one end token) are constants, and the prompt is tokenised on its own,
so no token straddles a boundary. Features are kept of the prompt and the end token; an empty
prompt, the null prompt of classifier-free guidance, keeps the end token alone.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from absl import logging

from lidit_jax import files
from lidit_jax.errors import InputError, check_range, in_one_line, unknown_name

# LI-DiT, figures 4 and 5.
INSTRUCTION = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, "
    "and spatial relationships of the objects:"
)
TEMPLATES = ("chat", "base", "encoder")
_FEWEST = 8  # known tokens of the instruction, at least; a byte tokenizer has 27
_SENTINEL = "PROMPT-GOES-HERE"
# Some chat templates tell the model the date. Features must not change from day to day, so it is
# always this one, the fallback of Llama 3.2's own template.
_FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"

Tokenizer = Any  # transformers.PreTrainedTokenizerBase; this module does not import transformers


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """One frozen text encoder, and how it is read.

    name: the start of the feature store's folder name, e.g. "smollm2".
    model: a Hugging Face id, a local folder, a GGUF file, or "package:smollm2" or
      "package:gemma3-270m" for weights installed as Python packages.
    instruction: whether `INSTRUCTION` precedes the prompt.
    template: "chat" (the model's own chat template, its default system prompt, one user turn),
      "base" (BOS, instruction, prompt, EOS) or "encoder" (T5 or BERT: their own special tokens).
    layer: index from the end into `hidden_states`; -1 is after the final norm.
    max_prompt_tokens: a longer prompt is cut on the right; the end token is not counted.
    codec: how features are stored, a name in `data.feature_codecs`: bf16 or int8.
    width, prefix_len, null_len: E, P and the tokens kept of an empty prompt; 0 means as measured
      when the features are written.
    """

    name: str
    model: str
    instruction: bool = True
    template: str = "chat"
    layer: int = -3
    max_prompt_tokens: int = 255
    codec: str = "bf16"
    width: int = 0
    prefix_len: int = 0
    null_len: int = 0

    @property
    def store(self) -> str:
        """The feature store's folder: another model, or another way of reading it, has another."""
        read = files.digest([self.model, self.template, self.max_prompt_tokens])[:8]
        instruction = "instruction" if self.instruction else "plain"
        return f"{self.name}-{instruction}-layer{self.layer}-{self.codec}-{read}"

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(
                f"encoder name {self.name!r} is not a folder name; use letters, digits, - and _"
            )
        if not self.model:
            raise InputError(
                f"encoder {self.name!r}: model is empty; "
                "name a Hugging Face id, folder or GGUF file"
            )
        for key in ("width", "prefix_len", "null_len"):
            check_range(f"text.encoders.{self.name}.{key}", getattr(self, key), 0)
        if self.template not in TEMPLATES:
            raise unknown_name(f"text.encoders.{self.name}.template", self.template, TEMPLATES)
        if self.template == "encoder" and self.instruction:
            raise InputError(
                f"encoder {self.name!r}: template='encoder' takes no instruction; "
                "set instruction=False"
            )
        if self.layer >= 0:
            raise InputError(
                f"encoder {self.name!r}: layer {self.layer} must count from the end: -1, -2, ..."
            )
        if self.max_prompt_tokens < 1:
            raise InputError(
                f"encoder {self.name!r}: max_prompt_tokens is {self.max_prompt_tokens}; "
                "use 1 or more"
            )


def moved(
    encoders: Iterable[EncoderConfig], models: Mapping[str, str]
) -> tuple[EncoderConfig, ...]:
    """Returns the encoders with their models moved: `models` maps names to new places.

    Raises InputError for a name that no encoder has.
    """
    encoders = tuple(encoders)
    names = [e.name for e in encoders]
    for name in models:
        if name not in names:
            raise unknown_name("encoder of the run", name, names)
    return tuple(dataclasses.replace(e, model=models.get(e.name, e.model)) for e in encoders)


def prompt_parts(tokenizer: Tokenizer, config: EncoderConfig) -> tuple[list[int], list[int]]:
    """Returns (prefix ids, suffix ids); the suffix is one end-of-turn or end-of-text token.

    A causal LLM's prefix is never empty: the first token of a sequence is an attention sink whose
    norm dwarfs the others', and it must not fall on a prompt token. Raises InputError if the
    tokenizer lacks what the template needs.
    """
    if config.template == "encoder":
        return _encoder_parts(tokenizer)
    before = INSTRUCTION + "\n" if config.instruction else ""
    if config.template == "chat":
        prefix, suffix = _chat_parts(tokenizer, before)
        return prefix or [_opener(tokenizer)], suffix
    return [_opener(tokenizer), *_ids(tokenizer, before)], [_end_of_text(tokenizer)]


def check_reads(tokenizer: Tokenizer, config: EncoderConfig, vocabulary: int | None):
    """Raises InputError unless a tokenizer has what the template needs, and is the model's.

    vocabulary: the number of ids that the model knows, if stated. A folder without tokenizer files
    may open with a tokenizer that knows no word, to which all prompts are the same.
    """
    known = {*_ids(tokenizer, INSTRUCTION)} - {tokenizer.unk_token_id}
    remedy = "save the model's own tokenizer in its folder, with the tokenizer's save_pretrained"
    if len(known) < _FEWEST:
        raise InputError(
            f"{config.model}: its tokenizer knows {len(known)} tokens "
            f"of the instruction's text, want {_FEWEST} or more; {remedy}"
        )
    prefix, suffix = prompt_parts(tokenizer, config)
    most = max(*known, *prefix, *suffix, tokenizer.pad_token_id or 0)
    if vocabulary and most >= vocabulary:
        raise InputError(
            f"{config.model}: its tokenizer gives id {most}, but the model only knows ids below "
            f"{vocabulary}; {remedy}"
        )


def keep_as_text(tokenizer: Tokenizer, config: EncoderConfig, vocabulary: int | None):
    """Makes `tokenize_prompt` read the spelling of some tokens as text.

    They are tokens that the template adds, and tokens that the model does not know. Some tokenizers
    do not mark these as special. Words that a template has, too, such as line ends, stay tokens.
    """
    used = {*itertools.chain(*prompt_parts(tokenizer, config))} - {*_ids(tokenizer, INSTRUCTION)}
    known = vocabulary or math.inf
    added = [(i, t) for i, t in tokenizer.added_tokens_decoder.items() if not t.special]
    control = [t for i, t in added if i >= known or i in used and t.content.strip()]
    if control:
        tokenizer.add_tokens(control, special_tokens=True)


def tokenize_prompt(
    tokenizer: Tokenizer, prompt: str, suffix_ids: list[int], max_tokens: int
) -> tuple[list[int], bool]:
    """Returns the kept ids of a prompt (at most `max_tokens`, then the suffix),
    and whether it was cut.

    Text that spells a special token, such as "<|im_end|>", stays text; see `keep_as_text`.
    """
    ids = tokenizer(prompt, add_special_tokens=False, split_special_tokens=True).input_ids
    return ids[:max_tokens] + suffix_ids, len(ids) > max_tokens


def warn_truncated(config: EncoderConfig, count: int, total: int, example: str) -> None:
    """Logs how many of `total` prompts were cut, with the first of them."""
    if count:
        logging.warning(
            "encoder %s: %d of %d prompts are longer than max_prompt_tokens=%d and were cut, "
            "such as %r",
            config.name, count, total, config.max_prompt_tokens, example[:200],
        )  # fmt: skip


def template_hash(prefix_ids: list[int], suffix_ids: list[int], layer: int) -> str:
    """Returns the SHA-256 of what determines a feature beside the prompt and the weights."""
    return hashlib.sha256(json.dumps([prefix_ids, suffix_ids, layer]).encode()).hexdigest()


def reply_ids(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids that a chat template puts between a user's prompt and the model's answer."""
    return _ids(tokenizer, _rendered(tokenizer, "", reply=True).split(_SENTINEL)[1])


def _rendered(tokenizer, before: str, reply: bool = False) -> str:
    """Renders one user turn around a sentinel; with `reply`, up to where the model answers.

    The turn is a text or, if the template does not show that, a list of parts, which templates of
    multi-modal models may expect.
    """
    text, template = before + _SENTINEL, _FIXED_DATE + tokenizer.get_chat_template()

    def rendered(content) -> str:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=reply,
        )

    error = None
    for content in (text, [{"type": "text", "text": text}]):
        try:
            whole = rendered(content)
        except Exception as raised:  # a template may raise anything
            error = error or raised
        else:
            if _SENTINEL in whole:
                return whole
    if error is None:
        return whole
    raise InputError(
        "the model's chat template renders no user turn "
        f"({in_one_line(error)}); use template='base'"
    ) from error


def _chat_parts(tokenizer, before):
    """Cuts a rendered user turn at the sentinel."""
    if not tokenizer.chat_template:
        raise InputError("the model's tokenizer has no chat template; use template='base'")
    text = _rendered(tokenizer, before)
    if text.count(_SENTINEL) != 1:
        raise InputError(
            "the model's chat template renders a user turn "
            f"{text.count(_SENTINEL)} times instead of once; use template='base'"
        )
    opening, closing = text.split(_SENTINEL)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ends = [i for i in _ids(tokenizer, closing) if i in special]
    # Templates that close a turn with plain text ("[/INST]") have no end-of-turn token.
    return _ids(tokenizer, opening), ends[:1] or [_end_of_text(tokenizer)]


def _encoder_parts(tokenizer):
    """Returns the special tokens that the tokenizer itself puts around a text."""
    content = _ids(tokenizer, _SENTINEL)
    whole = tokenizer(_SENTINEL, split_special_tokens=False).input_ids
    starts = [i for i in range(len(whole)) if whole[i : i + len(content)] == content]
    end = starts[0] + len(content) if starts else len(whole)
    if end == len(whole):
        raise InputError(
            "the tokenizer puts no end token after a text; use template='base' or 'chat'"
        )
    return whole[: starts[0]], whole[end : end + 1]


def _ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=False).input_ids


def _end_of_text(tokenizer):
    if tokenizer.eos_token_id is None:
        raise InputError(
            "the model's tokenizer has no end-of-text token, which must close a prompt"
        )
    return tokenizer.eos_token_id


def _opener(tokenizer):
    """The beginning-of-text token; Qwen has none and opens a text with its end-of-text token."""
    return _end_of_text(tokenizer) if tokenizer.bos_token_id is None else tokenizer.bos_token_id
