"""Part-of-speech tags of a prompt's words, by rule: from function words and neighbouring words.

Tags are those of Universal Dependencies. Between function words there are runs of open words:
nouns, their adjectives, and sometimes a verb. A run's last word is a noun, and so are the words
before it that are not adjectives; a verb is recognised by its form and its neighbours.
"""

import re
from collections.abc import Sequence

from lidit_jax.evaluation.benchmarks.compbench import words as known

_WORD = re.compile(r"\d+(?::\d+)+|\w+(?:['’-]\w+)*['’]?|[^\w\s]")
_OPENS_NOUN = ("DET", "NUM")


def split(prompt: str) -> list[tuple[int, int]]:
    """Returns the positions of a prompt's words and punctuation marks, as (start, end)."""
    return [m.span() for m in _WORD.finditer(prompt)]


def tag(words: Sequence[str]) -> list[str]:
    """Returns a tag per word.

    DET, NUM, ADJ, NOUN, VERB, AUX, ADP, ADV, CCONJ, SCONJ, PRON or PUNCT.
    """
    words = [word.lower() for word in words]
    tags = [_function(word) for word in words]
    start = 0
    while start < len(words):
        end = start
        while end < len(words) and not tags[end]:
            end += 1
        if end > start:
            _tag_run(words, tags, start, end)
        start = end + 1
    return tags


def _function(word: str) -> str:
    """Returns the tag of a function word or punctuation mark, "" for an open word."""
    if not word[0].isalnum():
        return "PUNCT"
    if word[0].isdigit():
        return "NUM"
    return known.FUNCTION_WORDS.get(word, "ADV" if known.is_adverb(word) else "")


def _tag_run(words: list[str], tags: list[str], start: int, end: int):
    """Tags the open words from start to end: a noun with its modifiers, maybe a verb, a noun."""
    verb = _verb(words, tags, start, end)
    if verb is None:
        _tag_noun(words, tags, start, end)
        return
    tags[verb] = "VERB"
    if verb > start:
        _tag_noun(words, tags, start, verb)
    if end > verb + 1:
        _tag_run(words, tags, verb + 1, end)


def _verb(words: list[str], tags: list[str], start: int, end: int) -> int | None:
    before = tags[start - 1] if start else ""
    after = tags[end] if end < len(words) else ""
    if before not in (*_OPENS_NOUN, "VERB") and _begins_with_verb(words, start, end, before, after):
        return start
    for k in range(start + 1, end):
        following = words[k + 1] if k + 1 < len(words) else ""
        if _is_verb(words[k - 1], words[k], following, after if k == end - 1 else "open"):
            return k
    return None


def _begins_with_verb(words: list[str], start: int, end: int, before: str, after: str) -> bool:
    """Whether a run without a determiner begins with a verb: was resting on, and hold the ..."""
    word, alone = words[start], end == start + 1
    verbal = known.is_past(word) or word.endswith("ing") or word in known.SURE_VERBS
    verbal = verbal or word in known.VERBS_OR_NOUNS
    if before in ("AUX", "PRON") or (start and words[start - 1] == "to"):
        return verbal or (alone and after in _OPENS_NOUN)
    followed = end < len(words) and words[end] in known.AFTER_VERBS
    return alone and (after in _OPENS_NOUN or followed or (verbal and after in ("ADP", "ADV")))


def _is_verb(previous: str, word: str, following: str, after: str) -> bool:
    """Whether a word after a noun is a verb.

    after: the tag of the next word, "" at the end, "open" if the run continues.
    """
    last = after != "open"
    if last and (after in _OPENS_NOUN or following in known.AFTER_VERBS):
        return True  # a word before a determiner is not a noun: bowl mix the ...
    if last and known.is_past(word) and word not in known.PASTS:
        return True
    if known.is_adjective(previous):
        return False  # a white rose, the rough rest
    if word in known.PASTS:
        return after not in ("", "PUNCT")
    if word in known.SURE_VERBS:
        return after in ("ADP", "ADV") or (not last and known.SURE_VERBS[word] != "ing")
    several = previous.endswith("s") and not previous.endswith("ss")
    if several and word.endswith("ing"):
        return after == "ADP"
    return word in known.VERBS_OR_NOUNS and (after in ("ADP", "ADV") or (several and not last))


def _tag_noun(words: list[str], tags: list[str], start: int, end: int):
    """Tags a run without a verb: adjectives and nouns; the last noun is the head."""
    for k in range(start, end):
        tags[k] = "ADJ" if known.is_adjective(words[k]) else "NOUN"
    before = tags[start - 1] if start else ""
    if "NOUN" in tags[start:end]:
        while known.is_plain(words[end - 1]) and "NOUN" in tags[start : end - 1]:
            end -= 1  # keep the wearer warm: an adjective after its noun
        tags[end - 1] = "NOUN"
    elif not _joins(words, tags, end):
        object_of = before == "VERB" and words[start].endswith("ing")  # provided seating
        if before in (*_OPENS_NOUN, "ADP") or end - start > 1 or object_of:
            tags[end - 1] = "NOUN"


def _joins(words: list[str], tags: list[str], end: int) -> bool:
    """Whether adjectives follow "and" or a comma: a black and white cat, the soft, warm glow."""
    if end + 1 >= len(words) or tags[end + 1]:
        return False
    return words[end] == "," or (tags[end] == "CCONJ" and not words[end - 1].endswith("ing"))
