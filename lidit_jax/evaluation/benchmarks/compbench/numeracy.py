"""Is the number of each object right? (T2I-CompBench++, arXiv 2307.06350, section 4)

The rules are those of the published code; the detector differs, see `detections`. The published
code has a list of the objects' names; here they are the nouns after a number.
"""

import re
from collections.abc import Iterable, Sequence

from lidit_jax.evaluation.benchmarks.compbench.chunks import Parse
from lidit_jax.evaluation.benchmarks.compbench.detections import Found, label, share_of_smaller

NUMBERS = {word: k + 1 for k, word in enumerate("one two three four five six seven eight".split())}
SAME = 0.9  # boxes that overlap more are the same object
_PLURALS = (
    "people men women children mice geese feet teeth buses cactuses octopuses shoes canoes toes "
    "movies cookies brownies zombies selfies hoodies"
)
_SINGULARS = (
    "person man woman child mouse goose foot tooth bus cactus octopus shoe canoe toe "
    "movie cookie brownie zombie selfie hoodie"
)
_IRREGULAR = dict(zip(_PLURALS.split(), _SINGULARS.split(), strict=True))
_ENDINGS = (
    (r"^(.)ies$", r"\1ie"),  # ties, but flies
    (r"([^aeiou])ies$", r"\1y"),
    (r"^(kni|wi|li)ves$", r"\1fe"),
    (r"(lea|loa|shel|cal|hal|wol|scar)ves$", r"\1f"),
    (r"(ss|sh|ch|x|z|o)es$", r"\1"),
    (r"([^su])s$", r"\1"),
)


def wanted(parsed: Parse) -> list[list]:
    """Returns [object, count] from the prompt, with objects in the singular, as labels to detect.

    "a" counts as one only in an enumeration: a cup and three pens, but not: six people at a picnic.
    """
    found = []
    words = [word.lower() for word in parsed.words]
    for k, word in enumerate(words):
        end = k + 1
        while parsed.tags[end : end + 1] and parsed.tags[end] in ("ADJ", "NOUN"):
            end += 1
        if parsed.tags[end - 1] != "NOUN":
            continue
        count = NUMBERS.get(word)
        beside = {*words[k - 1 : k], *words[end : end + 1]}
        if word in ("a", "an") and beside & {",", "and"}:
            count = 1
        if count:
            found.append([label(singular(" ".join(words[k + 1 : end]))), count])
    return found


def singular(noun: str) -> str:
    """Returns the singular of an English noun; singulars, fish and sheep stay as they are."""
    before, space, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        return before + space + _IRREGULAR[last]
    for pattern, ending in _ENDINGS:
        single, changed = re.subn(pattern, ending, last)
        if changed:
            return before + space + single
    return noun


def score(objects: Sequence[Sequence], found: Iterable[Found]) -> float:
    """Returns a picture's score in [0, 1]: the objects' mean, half for presence, half for count.

    A prompt without counts scores 0.
    """
    of_label = [one[0] for one in distinct(found)]
    there = [of_label.count(name) for name, _ in objects]
    right = [n == count for n, (_, count) in zip(there, objects, strict=True)]
    return sum(0.5 * (n > 0) + 0.5 * r for n, r in zip(there, right)) / max(len(objects), 1)


def distinct(found: Iterable[Found]) -> list[Found]:
    """Returns detections without those that overlap an earlier one of the same label.

    Two overlap if their intersection is more than 0.9 of the smaller box.
    """
    kept: list[Found] = []
    for one in found:
        same = (other for other in kept if other[0] == one[0])
        if not any(share_of_smaller(one[2], other[2]) > SAME for other in same):
            kept.append(one)
    return kept
