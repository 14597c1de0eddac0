"""Rules that drop a picture and its caption, as pure functions of the pair: True = keep.

The paper (arXiv 2406.11831, section 4.1) names its filters: low aesthetic scores, low resolution,
URLs and tags. Thresholds are the paper's where it gives them, else ours; R6 to R9 are ours.
"""

import dataclasses
import hashlib
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from lidit_jax import errors
from lidit_jax.data.buckets import Size

# Rules whose verdicts have changed since the first data sets; the suffix goes into `rules_hash`.
_CHANGED = {"R5-tags": ".2"}
DUPLICATE = "R9-duplicate"  # not a function of one pair: judged by code that sees all pairs

_LEAST_AESTHETIC = 4.699999809  # 4.7 as the float32 that predictors store, so that 4.7 passes

# Word boundaries are ASCII, since Chinese puts no space around a host. The search for a host starts
# at its dot, which most captions lack. "dot.com" alone is an English noun: "the dot.com era".
_URL = re.compile(
    r"https?://|www\.|\.(?<=[a-z0-9-]\.)(?!(?<=(?<![\w.-])dot\.)com\b(?!/))"
    r"(?:com|net|org|cn|co|io|jpg|jpeg|png|html?)\b",
    re.ASCII | re.IGNORECASE,
)
_MARKUP = re.compile(r"<[a-z/!][^<>]*>|&[a-z]+;|&#x?[0-9a-f]+;", re.IGNORECASE)
_HASHTAG = re.compile(r"#\w*[^\W\d_]")
_SEPARATOR = re.compile(r"[,|;，｜；]")
_FILE_NAME = re.compile(r"[\w-]++\.(?:jpe?g|png|gif|webp)|IMG_\d+|DSC\d+", re.IGNORECASE)

_HAN_RANGE = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA_RANGE = "\u3041-\u30ff"
_LATIN_RANGE = "A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff"
_HAN = re.compile(f"[{_HAN_RANGE}]+")
_KANA = re.compile(f"[{_KANA_RANGE}]+")
_LATIN = re.compile(f"[{_LATIN_RANGE}]+")
_NO_LETTERS = re.compile(r"[\W\d_]+")
_NO_ASCII_LETTERS = bytes(b for b in range(128) if not chr(b).isalpha())
_WORD = re.compile(f"[^\\s{_HAN_RANGE}]+")
_STUTTER = re.compile(f"([{_HAN_RANGE}{_KANA_RANGE}]{{1,4}}?)\\1{{5}}")


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A picture as the rules see it, with one of its captions.

    size: (height, width) of the picture in pixels. bin: (height, width) it would be trained at.
    side: the stage's side in pixels; bins have about side ** 2 pixels.
    metadata: what the source knows; `aesthetic`, `punsafe` and `watermark` are read if present.
    """

    text: str
    size: Size
    bin: Size
    side: int
    metadata: dict[str, Any]


def has_fair_shape(pair: Pair) -> bool:
    """Height / width is in [0.25, 4], as it is for every bin."""
    height, width = pair.size
    return 0 < width <= 4 * height and height <= 4 * width


def is_aesthetic(pair: Pair) -> bool:
    """The aesthetic score is 4.7 or more (the paper drops what is "lower than 4.7").

    A score that is missing, NaN or not numeric fails.
    """
    return _score(pair, "aesthetic") >= _LEAST_AESTHETIC


def is_beautiful(pair: Pair) -> bool:
    """The aesthetic score is 6 or more, for a last training stage on few, better pictures.

    A score that is missing, NaN or not numeric fails.
    """
    return _score(pair, "aesthetic") >= 6.0


def is_large(pair: Pair) -> bool:
    """The picture covers its bin without upscaling, and half the stage's side both ways."""
    height, width = pair.size
    return height >= pair.bin[0] and width >= pair.bin[1] and 2 * min(pair.size) >= pair.side


def is_text(pair: Pair) -> bool:
    """The caption has 3 to 1000 characters, at least half of them letters, and has content.

    Judged after NFKC and whitespace folding; whitespace does not count for the half. A bare file
    name has no content, nor has a token repeated over and over (see `_is_repetitive`).
    """
    text = pair.text if pair.text.isascii() else unicodedata.normalize("NFKC", pair.text)
    text = " ".join(text.split())
    if not 3 <= len(text) <= 1000:
        return False
    enough = 2 * len(_letters(text)) >= len(text) - text.count(" ")
    return enough and not _FILE_NAME.fullmatch(text) and not _is_repetitive(text)


def has_no_url(pair: Pair) -> bool:
    """The caption has no URL, and no bare host or file name such as "mugs.com" or "mug.jpg"."""
    text = pair.text
    return not (("." in text or "://" in text) and _URL.search(text))


def has_no_tags(pair: Pair) -> bool:
    """The caption has no HTML tag or entity, at most one hashtag, and is not a list of tags.

    A hashtag has a letter: "#1 and #2" has none.
    """
    text = pair.text
    if ("<" in text or "&" in text) and _MARKUP.search(text):
        return False
    if text.count("#") >= 2 and len(_HASHTAG.findall(text)) >= 2:
        return False
    return not _is_tag_list(text)


def has_known_language(pair: Pair) -> bool:
    """The caption is Chinese or English, according to `language`."""
    return language(pair.text) != "other"


def is_safe(pair: Pair) -> bool:
    """The NSFW and watermark probabilities are below 0.5; an unknown one passes."""
    return not (_score(pair, "punsafe") >= 0.5 or _score(pair, "watermark") >= 0.5)


RULES: dict[str, Callable[[Pair], bool]] = {  # in the order of judging
    "R3-shape": has_fair_shape,
    "R1-aesthetic": is_aesthetic,
    "R1-aesthetic-6": is_beautiful,
    "R2-resolution": is_large,
    "R6-text": is_text,
    "R4-url": has_no_url,
    "R5-tags": has_no_tags,
    "R7-language": has_known_language,
    "R8-safety": is_safe,
}
# The recipe has R9 after R2. It is judged last: the first of two duplicates must be one that stays.
ORDER = (*RULES, DUPLICATE)
_PAPER = ("R3-shape", "R1-aesthetic", "R2-resolution", "R4-url", "R5-tags")
PROFILES = {
    "paper": _PAPER,
    "high-quality": (*_PAPER, "R1-aesthetic-6", "R8-safety"),
    "strict": tuple(rule for rule in ORDER if rule != "R1-aesthetic-6"),
}


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the rule ids that `names` (rules, profiles) stand for: each once, in judging order.

    Raises InputError for an unknown name.
    """
    chosen: set[str] = set()
    for name in names:
        if name not in PROFILES and name not in ORDER:
            raise errors.unknown_name("rule in data.rules", name, (*PROFILES, *ORDER))
        chosen.update(PROFILES.get(name, (name,)))
    return tuple(rule for rule in ORDER if rule in chosen)


def first_failing(pair: Pair, rules: Iterable[str]) -> str | None:
    """Returns the id of the first rule that drops the pair, or None. Ignores `DUPLICATE`."""
    for rule in rules:
        if rule != DUPLICATE and not RULES[rule](pair):
            return rule
    return None


def rules_hash(rules: Iterable[str]) -> str:
    """Returns 12 hex digits that change with the set of rules, or the meaning of one of them."""
    told = f"1 {' '.join(rule + _CHANGED.get(rule, '') for rule in expand(rules))}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def language(text: str) -> str:
    """Returns "zh", "en" or "other", by the script of the letters.

    zh: 30 % or more are Han, and kana (Japanese) do not outnumber them. en: 70 % or more are Latin,
    so French is "en" too.
    """
    if text.isascii():
        return "en" if _LATIN.search(text) else "other"
    letters = _letters(text)
    han = _count(_HAN, letters)
    if letters and han >= 0.3 * len(letters) and han >= _count(_KANA, letters):
        return "zh"
    return "en" if letters and _count(_LATIN, letters) >= 0.7 * len(letters) else "other"


def _letters(text: str) -> str:
    """Returns only the letters of a text."""
    if text.isascii():  # as most captions are, and ten times faster
        return text.encode().translate(None, _NO_ASCII_LETTERS).decode()
    return _NO_LETTERS.sub("", text)


def _count(characters: re.Pattern, text: str) -> int:
    return len(text) - len(characters.sub("", text))


def _score(pair: Pair, name: str) -> float:
    """Returns a number from the metadata, where it may be text; NaN if there is none."""
    try:
        return float(pair.metadata.get(name, "nan"))
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _is_tag_list(text: str) -> bool:
    """Five or more pieces between commas, bars or semicolons, with a median of at most two words,
    and none with more than five.

    A run of n Han characters counts as max(1, n - 1) words, so that the clauses of a Chinese
    sentence (four characters or more) are not tags. The enumeration comma does not separate pieces:
    it occurs inside sentences.
    """
    pieces = _SEPARATOR.split(text)
    if len(pieces) < 5:
        return False
    words = [n for n in map(_words, pieces) if n]
    return len(words) >= 5 and max(words) <= 5 and statistics.median(words) <= 2


def _words(piece: str) -> int:
    return len(_WORD.findall(piece)) + sum(max(1, len(row) - 1) for row in _HAN.findall(piece))


def _is_repetitive(text: str) -> bool:
    """One token occurs more than five times, and fewer than a third of the tokens are distinct.

    Without the second condition, most captions of a hundred words would be dropped for their "the".
    Tokens are split at whitespace, ignoring case. Chinese and Japanese have no spaces: there, one
    to four characters six times in a row count too.
    """
    if not text.isascii() and _STUTTER.search(text):
        return True
    tokens = text.lower().split()
    return 3 * len(set(tokens)) < len(tokens) and max(Counter(tokens).values()) > 5
