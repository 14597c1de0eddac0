"""From a row to an example: captions from fields, metadata under the names that rules read."""

import json

import pytest

from lidit_jax.data.sources import fields
from lidit_jax.data.sources.example import Caption, Example, Unusable
from lidit_jax.data.sources.fields import Fields
from lidit_jax.errors import InputError


def captions(row, **names):
    example = Fields(**names).example("k", None, row)
    return example.captions if isinstance(example, Example) else example


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("  a cat\n", ["a cat"]),
        (b"\xef\xbb\xbfa cat", ["a cat"]),
        (["a cat", " ", None, "a dog", "a cat "], ["a cat", "a dog"]),
        ("猫", ["猫"]),
        ("", []),
        (None, []),
        (float("nan"), []),
    ],
)
def test_texts_are_stripped_and_given_once(value, expected):
    assert fields.texts(value) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "caption-missing"),
        ({"caption": " \n"}, "caption-missing"),
        ({"caption": b"caf\xe9"}, "caption-not-utf8"),
        ({"caption": "caf\udce9"}, "caption-not-utf8"),
        ({"caption": "fine", "synthetic": ["caf\udce9"]}, "caption-not-utf8"),
        ({"caption": "c\0a\0t\0"}, "caption-not-utf8"),
        ({"caption": bytes(40)}, "caption-not-utf8"),
        ({"caption": 7}, "caption-unreadable"),
        ({"caption": [{"text": "a cat"}]}, "caption-unreadable"),
    ],
)
def test_a_row_without_good_captions_is_unusable(row, reason):
    assert captions(row) == Unusable("k", reason)
    assert reason in fields.REASONS


@pytest.mark.parametrize(
    ("text", "record", "reason"),
    [
        (None, None, "caption-missing"),
        (b"caf\xe9", None, "caption-not-utf8"),
        (None, b'{"caption": "caf\xe9"}', "caption-not-utf8"),
        (None, b'{"caption": "a c', "caption-unreadable"),
        (None, b'["a cat"]', "caption-unreadable"),
    ],
)
def test_files_without_good_captions_are_unusable(text, record, reason):
    assert Fields().example_of_files("k", None, text, record) == Unusable("k", reason)


def test_a_text_comes_before_the_fields():
    example = Fields().example_of_files("k", None, b"one", b'{"caption": ["one", "two"], "n": 3}')
    assert [c.text for c in example.captions] == ["one", "two"]
    assert example.metadata == {"n": 3}


def test_fields_are_chosen_by_name():
    row = {"text": "one", "cogvlm": "two", "caption": "not one"}
    assert captions(row, caption="text", synthetic="cogvlm") == (
        Caption("one"),
        Caption("two", "", "synthetic"),
    )


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("zh-CN", "zh"),
        ("zh_tw", "zh"),
        ("fr", ""),
        ("english", ""),
        (3, ""),
    ],
)
def test_a_known_language_is_the_captions(language, code):
    first, second = captions({"caption": "x", "synthetic": "y", "LANGUAGE": language})
    assert (first.language, second.language) == (code, "")  # a captioner may write another language


def test_metadata_has_the_names_that_rules_read():
    row = {
        "URL": "https://a.b",
        "AESTHETIC_SCORE": "5.5",
        "pwatermark": 0.25,
        "punsafe": "",
        "width": "640.0",
        "height": 480,
        "WIDTH": 2000,
        "LANGUAGE": "en",
        "sha256": "00ff",
    }
    assert fields.metadata(row) == {
        "url": "https://a.b",
        "aesthetic": 5.5,
        "watermark": 0.25,
        "punsafe": None,
        "width": 640,
        "height": 480,
        "WIDTH": 2000,  # of the picture on the web
        "language": "en",
        "sha256": "00ff",
    }
    assert fields.metadata({"aesthetic": None, "aesthetic_score": 6.0}) == {"aesthetic": 6.0}


def test_metadata_is_json():
    row = {
        "nan": float("nan"),
        "inf": float("inf"),
        "aesthetic": float("nan"),
        "width": "wide",
        "raw": b"\0",
        "list": [1],
        "odd": "caf\udce9",
        "none": None,
        "yes": True,
    }
    known = fields.metadata(row)
    json.dumps(known, allow_nan=False, ensure_ascii=False).encode()
    assert known == {
        "nan": None,
        "inf": None,
        "aesthetic": None,
        "width": None,
        "odd": "caf?",
        "none": None,
        "yes": True,
    }


def test_a_missing_column_is_named_with_those_there():
    Fields().check(["image", "caption"], "x")  # "synthetic" need not be there
    with pytest.raises(InputError, match="column of x .data.options.caption. 'caption'; known: c"):
        Fields().check(["image", "captions"], "x")
    with pytest.raises(InputError, match="'cogvlm'; known: "):
        Fields("caption", "cogvlm").check(["image", "caption"], "x")


def test_what_no_record_can_hold_is_left_out():
    huge = int("9" * 400)
    found = fields.metadata(
        {"width": huge, "id": 2**70, "a\ud800": "b", "height": 1e300, "n": 2**40}
    )
    assert found["width"] is None and found["height"] is None and found["id"] is None
    assert found["n"] == 2**40 and all(name.isascii() for name in found)


def test_lines_end_alike_wherever_they_were_written():
    """Else an LLM reads other tokens, and a caption is not found again."""
    assert (
        fields.texts(b"\xef\xbb\xbfa cat\r\non a mat\r\n")
        == ["a cat\non a mat"]
        == fields.texts("a cat\non a mat")
    )
