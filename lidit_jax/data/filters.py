"""Rules that drop an example, as pure functions: example -> True to keep. The recipe names them by id."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from lidit_jax import errors

_URL = re.compile(
    r"https?://|www\.|\b[a-z0-9-]+\.(com|net|org|cn|co|io|jpg|jpeg|png|html?)\b", re.IGNORECASE
)
_TAG = re.compile(r"<[a-z/!][^>]*>|&[a-z]+;|&#\d+;", re.IGNORECASE)


def no_url(example) -> bool:
    """No caption holds a URL or a bare host or file name (section 4.1: "prompts including URLs")."""
    return not any(_URL.search(c.text) for c in example.captions)


def no_markup(example) -> bool:
    """No caption holds an HTML tag, an entity, or two hashtags (section 4.1: "and tags")."""
    return not any(_TAG.search(c.text) or c.text.count("#") >= 2 for c in example.captions)


def has_caption(example) -> bool:
    """Every caption has something left after Unicode normalisation and stripping white space."""
    texts = [unicodedata.normalize("NFKC", c.text).strip() for c in example.captions]
    return bool(texts) and all(texts)


RULES = {"R4-url": no_url, "R5-tags": no_markup, "R6-empty": has_caption}


def first_failing(example, rules: Iterable[str]) -> str | None:
    """Returns the id of the first rule that drops the example, or None."""
    return next((rule for rule in rules if not RULES[rule](example)), None)


def check_rules(rules: Iterable[str]):
    """Raises InputError on an unknown rule id, listing the known ones."""
    for rule in rules:
        if rule not in RULES:
            raise errors.unknown_name("rule in data.rules", rule, RULES)


def keep(examples: Iterable, rules: Iterable[str]) -> tuple[list, dict[str, int]]:
    """Returns the examples that pass every rule, and how many each rule was the first to drop."""
    rules, kept, dropped = tuple(rules), [], Counter()
    check_rules(rules)
    for example in examples:
        reason = first_failing(example, rules)
        dropped.update([reason] if reason else [])
        kept += [] if reason else [example]
    return kept, {rule: dropped[rule] for rule in rules}
