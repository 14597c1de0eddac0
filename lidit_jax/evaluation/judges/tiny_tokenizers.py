"""Character tokenizers for tiny models: of the published types, without their files."""

import string
from pathlib import Path

_SPECIAL_BERT = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
_FIRST_CHARACTER = 999  # the id of "!" in BERT's vocabulary; both are in ASCII order from there
_QWEN_WORDS = ("Yes", "yes", "No", "no")  # one token each, as in the published vocabulary
_QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_bert(folder: Path) -> int:
    """Writes a lower-casing WordPiece tokenizer, and returns its number of tokens.

    Special tokens and ASCII have the ids of bert-base-uncased, because Grounding DINO hard-codes
    the ids of [CLS], [SEP], "." and "?".
    """
    import transformers

    characters = [c for c in map(chr, range(33, 127)) if c not in string.ascii_uppercase]
    pieces = [*characters, *(f"##{c}" for c in string.ascii_lowercase + string.digits)]
    vocabulary = _SPECIAL_BERT | {
        piece: _FIRST_CHARACTER + i for i, piece in enumerate([*pieces, "yes", "no"])
    }
    taken = set(vocabulary.values())
    free = (i for i in range(_FIRST_CHARACTER) if i not in taken)
    vocabulary |= {f"[unused{n}]": i for n, i in enumerate(free)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return len(vocabulary)


def write_clip(folder: Path, longest: int) -> int:
    """Writes a byte-level BPE tokenizer like CLIP's, and returns its number of tokens.

    longest: tokens of a text, start and end tokens included. As in CLIP, these two have the last
    ids.
    """
    import transformers

    byte = _bytes()
    pieces = [*byte, *(f"{b}</w>" for b in byte), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=longest)
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


def write_qwen(folder: Path) -> dict[str, int]:
    """Writes a byte-level BPE tokenizer with Qwen2-VL's chat template; returns its vocabulary."""
    import transformers

    grown = [(word[:n], word[n]) for word in _QWEN_WORDS for n in range(1, len(word))]
    pieces = [*_bytes(), *("".join(pair) for pair in grown), *_QWEN_SPECIAL]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=vocabulary,
        merges=grown,
        additional_special_tokens=list(_QWEN_SPECIAL[1:]),
        chat_template=_CHAT,
    )
    tokenizer.save_pretrained(folder)
    return vocabulary


def _bytes() -> list[str]:
    """Returns the characters that represent the 256 bytes in a byte-level BPE."""
    import tokenizers

    return sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
