"""Words with a known part of speech: English function words, common verbs, and plain adjectives.

Nouns are not listed: any other word may be one. `tagging` decides by the neighbouring words.
"""

import re

FUNCTION_WORDS = {
    word: tag
    for tag, words in {
        "DET": "a an the this these those its his her their my your our",
        "NUM": "one two three four five six seven eight nine ten hundred many several few some any "
        "no each every all another other",
        "ADP": "of in on at by with from to into onto over under above below beneath between among "
        "near next beside behind against across along around through during for about as like off "
        "up down out inside outside within without toward towards than upon alongside beyond past",
        "CCONJ": "and or but nor",
        "SCONJ": "while when where because if though although",
        "PRON": "it they them he him she i we us you who which what that "
        "there itself himself herself themselves someone something everyone",
        "AUX": "is are was were be been being am has have had do does did will would could should "
        "may might must",
        "ADV": "not very so too also just even still almost otherwise nearby "
        "away together apart now then here forward lazily neatly both most more",
    }.items()
    for word in words.split()
}
# Words that directly follow verbs only: particles and object pronouns.
AFTER_VERBS = frozenset("up down out away back off forward it them him me us you".split())
PEOPLE = frozenset("girl boy man woman".split())  # a detector labels them as persons

# Verbs that are rarely nouns, then verbs that often are.
_VERBS = (
    "sit hang lie lay hold keep provide serve bake boil lean eat read write wear carry "
    "bring give make take tell put grow hover contain surround attract decorate illuminate "
    "adorn feature reflect walk display propel create add showcase accentuate capture"
)
_NOUNS_TOO = (
    "rest stand nap perch float fly run jump swim ride drive play drink look watch show shine glow "
    "fall rise move flow drift flash mix cook stir shape cover fill sail climb graze dance help"
)
# Past forms that do not end in -ed.
PASTS = frozenset(
    "sat hung lay held kept made gave took told brought ate drank wore wrote grew "
    "stood flew ran swam rode drove shone fell rose stuck led sped left slept leapt "
    "cut cast spun fled burned burnt sank sang woke blew strode swung went came "
    "saw got drew beat burst spread slid lit froze flung clung stung bent".split()
)

COLOURS = frozenset(
    "red orange yellow green blue purple pink brown black white grey gray beige "
    "tan gold golden silver violet turquoise maroon navy teal crimson".split()
)
_PLAIN = frozenset(
    "big small large little tiny huge tall short long wide narrow thick thin deep high "
    "low flat round square oval oblong cubic curved straight sharp blunt bumpy spiky rough "
    "smooth soft hard warm cool cold hot dry wet damp clean dirty bright dark dim dull "
    "pale shiny glossy matte sleek crisp crunchy crispy juicy fresh ripe raw sweet sour "
    "tart spicy bitter savory savoury sugary tasty rich earthy old new young ancient modern "
    "rusty dusty rustic fluffy furry fuzzy silky lush plush plump sturdy heavy busy quiet "
    "loud calm choppy murky hazy cozy cosy empty full open closed slimy sticky greasy icy "
    "slushy rocky thorny prickly reedy curvy lumpy bulky stormy sunny cloudy foggy rainy "
    "snowy windy muddy grassy sandy leafy gooey pillowy chewy fiery chilly steep bold grand "
    "rugged sheer clear plain blank main only whole single same unlikely favorite favourite "
    "wild tame loose tight opaque angular ornate delicate intricate elegant brilliant "
    "vibrant fragrant pungent distant different translucent transparent iridescent wooden "
    "woolen woollen stainless happy sad angry hungry tired lazy free simple gentle graceful "
    "unique visible perfect ready necessary firm human savvy grim western eastern".split()
)
_NAMES_TOO = frozenset("square oval round oblong cold only".split())  # nouns too, after adjectives
_ADJECTIVAL = re.compile(
    r".{2,}(?:ous|ful|less|able|ible|ic|ical|ive|ular|esque|ish)|.{3,}(?:[rgnctdiu]al|ing)"
)
_NOT_ADJECTIVAL = frozenset(
    "fabric plastic picnic traffic music mosaic vegetable olive finish "
    "radish polish crystal hospital pedestal journal signal terminal sandal "
    "string spring ceiling wedding building evening morning duckling".split()
)
_PAST = re.compile(r".*[aeiouy].*[^e]ed$")  # covered, but not red, sled or seed


def is_plain(word: str) -> bool:
    """Whether a word is an adjective, but not a colour or a shape that also names things."""
    return word in _PLAIN and word not in _NAMES_TOO


def is_adjective(word: str) -> bool:
    """Whether a lower-case word before a noun is an adjective: by the lists, or by its ending."""
    last = word.rpartition("-")[2]  # tech-savvy, rough-edged
    if last in _NOT_ADJECTIVAL:
        return False
    by_ending = _PAST.fullmatch(last) or _ADJECTIVAL.fullmatch(last)
    return word in COLOURS or last in _PLAIN or bool(by_ending)


def is_adverb(word: str) -> bool:
    """Whether a lower-case word is an adverb of an adjective: brightly, not lily or butterfly."""
    return word.endswith("ly") and is_adjective(word[:-2])


def is_past(word: str) -> bool:
    """Whether a lower-case word has a past form: sat, covered."""
    return word in PASTS or bool(_PAST.fullmatch(word))


def _forms(verb: str) -> dict[str, str]:
    """Returns the regular forms of a verb: form -> "base", "s", "ed" or "ing"."""
    if verb == "lie":
        return {"lie": "base", "lies": "s", "lying": "ing"}
    stem = verb.removesuffix("e")
    if verb in ("sit", "put", "run", "swim", "nap", "stir", "propel"):
        stem += verb[-1]
    third = re.sub(r"(ss|sh|x|ch)$", r"\1e", re.sub(r"([^aeiou])y$", r"\1ie", verb)) + "s"
    return {verb: "base", third: "s", stem + "ed": "ed", stem + "ing": "ing"}


SURE_VERBS = {form: kind for verb in _VERBS.split() for form, kind in _forms(verb).items()}
VERBS_OR_NOUNS = {form: kind for verb in _NOUNS_TOO.split() for form, kind in _forms(verb).items()}
