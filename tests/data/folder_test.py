"""Folders: pictures with captions beside them or in a table; what lacks one or the other is named."""

import json
import unicodedata

import pytest

from lidit_jax.data import sources
from lidit_jax.data.sources import Unusable, table
from lidit_jax.data.sources.images import ImageError
from lidit_jax.errors import InputError
from tests.tiny_sources import encode, every, picture, write_folder, write_table

PICTURE = encode(picture(20, 30), "PNG")


@pytest.fixture
def folder(tmp_path):
    """Returns a function that writes files into a folder and gives what the source yields."""

    def write(files: dict[str, bytes | str], **options):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return every("folder", path=tmp_path, **options)

    return write


def test_keys_are_names_without_suffix_in_order(folder):
    names = ["b/z.JPG", "a.b.png", "b/a.webp", "c.TIFF", ".hidden.png", ".git/x.png", "notes.pdf"]
    names += ["d.HEIC"]  # which is not decoded, but told of
    found = folder({name: PICTURE for name in names})
    assert [u.key for u in found] == ["a.b", "b/a", "b/z", "c", "d"]
    assert {u.reason for u in found} == {"caption-missing"}


def test_a_caption_is_all_of_its_text(folder):
    (example,) = folder({"a.png": PICTURE, "a.txt": "\ufeffa lake,\nat dawn \n"})
    assert example.captions[0].text == "a lake,\nat dawn"


def test_what_is_wrong_with_captions_beside_is_named(folder):
    found = folder(
        {
            "a.png": PICTURE,
            "b.png": PICTURE,
            "b.txt": b"caf\xe9",
            "c.png": PICTURE,
            "c.json": '{"caption": "a cat',
            "d.png": PICTURE,
            "d.txt": " \n",
            "e.png": PICTURE,
            "e.json": '{"caption": 3}',
            "f.txt": "a caption without a picture is no picture",
        }
    )
    assert found == [
        Unusable("a", "caption-missing"),
        Unusable("b", "caption-not-utf8"),
        Unusable("c", "caption-unreadable"),
        Unusable("d", "caption-missing"),
        Unusable("e", "caption-unreadable"),
    ]


def test_two_pictures_of_one_name_both_come(folder):
    found = folder({"a.jpg": PICTURE, "a.png": PICTURE, "a.txt": "a cat"})
    assert [e.key for e in found] == ["a", "a"]
    assert found[0].captions == found[1].captions


def test_a_table_names_pictures_and_may_lack_some(folder):
    rows = [
        {"file_name": "b/two.png", "text": ["two", "zwei"], "n": 2},
        {"file_name": "gone.png", "text": "gone"},
        {"file_name": "one.png", "text": None},
        {"file_name": "odd.png", "text": "caf\udce9"},
    ]
    names = ("one.png", "b/two.png", "odd.png", "unnamed.png")
    lines = [json.dumps(row) for row in rows] + ['{"file_name": "x.png", ', "3", '{"text": "x"}']
    found = folder(
        {name: PICTURE for name in names}
        | {"metadata.jsonl": "\n".join(lines), "unnamed.txt": "not read"},
        caption="text",
    )
    (two,) = (e for e in found if not isinstance(e, Unusable))
    assert (two.key, [c.text for c in two.captions]) == ("b/two", ["two", "zwei"])
    assert two.metadata == {"n": 2}
    assert {u.key: u.reason for u in found if isinstance(u, Unusable)} == {
        "gone": "image-missing",
        "one": "caption-missing",
        "odd": "caption-not-utf8",
        "unnamed": "caption-missing",
        "metadata.jsonl:5": "caption-unreadable",
        "metadata.jsonl:6": "caption-unreadable",
        "metadata.jsonl:7": "caption-unreadable",
    }


def test_a_csv_may_have_quotes_commas_lines_and_a_mark(folder):
    csv = (
        b'\xef\xbb\xbffile_name,caption,n\r\na.png,"a ""red"" cat,\na dog",5\r\nb.png,caf\xe9,\r\n'
    )
    a, b = folder({"a.png": PICTURE, "b.png": PICTURE, "metadata.csv": csv})
    assert a.captions[0].text == 'a "red" cat,\na dog' and a.metadata == {"n": "5"}
    assert b == Unusable("b", "caption-not-utf8")


def test_a_row_with_too_many_cells_is_named(folder):
    csv = "file_name,caption\na.png,a cat\nb.png,a cat, and a dog\n"
    found = folder({"a.png": PICTURE, "b.png": PICTURE, "metadata.csv": csv})
    assert [e for e in found if isinstance(e, Unusable)] == [Unusable("b", "caption-unreadable")]


def test_several_rows_of_a_picture_are_its_captions(folder):
    csv = "file_name,caption,synthetic,url\na.png,one,first,x\nb.png,a dog,,y\n./a.png,two,,z\n"
    one, other = folder({"a.png": PICTURE, "b.png": PICTURE, "metadata.csv": csv})
    found = [(c.text, c.origin) for c in one.captions]
    assert found == [("one", "original"), ("two", "original"), ("first", "synthetic")]
    assert one.metadata == {"url": "x"} and [c.text for c in other.captions] == ["a dog"]


def test_a_bad_row_takes_no_good_one_of_its_picture(folder):
    rows = ["file_name,caption", "a.png,one", "a.png,caf\udce9", "a.png,", "a.png,two, or three"]
    csv = "\n".join(rows).encode(errors="surrogateescape")
    *bad, good = folder({"a.png": PICTURE, "metadata.csv": csv})
    assert bad == [Unusable("a", "caption-not-utf8"), Unusable("a", "caption-unreadable")]
    assert [c.text for c in good.captions] == ["one"]


def test_a_picture_that_is_decoded_comes_before_one_that_is_not(folder):
    files = {"a.heic": b"x", "a.png": PICTURE, "a.txt": "a cat", "b.heic": b"x", "b.txt": "a dog"}
    assert [(e.key, e.captions[0].text) for e in folder(files)] == [("a", "a cat"), ("b", "a dog")]


def test_spreadsheets_may_have_columns_without_a_name(folder):
    (example,) = folder({"a.png": PICTURE, "metadata.csv": "file_name,caption,,\na.png,x,,\n"})
    assert example.captions[0].text == "x"


def test_pictures_of_a_table_that_differ_in_their_suffix_alone_are_two(folder):
    csv = "file_name,caption\na.jpg,a cat\na.png,two dogs\n"
    one, other = folder({"a.jpg": PICTURE, "a.png": PICTURE, "metadata.csv": csv})
    assert (one.key, other.key) == ("a", "a.png") and other.captions[0].text == "two dogs"


def test_links_to_folders_are_followed_once(folder, tmp_path):
    away = tmp_path.with_name(tmp_path.name + "_away")
    (away / "in").mkdir(parents=True)
    (away / "in" / "b.png").write_bytes(PICTURE)
    (away / "in" / "round").symlink_to(away)
    for name in ("more", "again"):
        (tmp_path / name).symlink_to(away)
    (tmp_path / "self").symlink_to(tmp_path)
    (tmp_path / "up").symlink_to(tmp_path.parent)
    (tmp_path / "also").symlink_to(tmp_path / "real")
    found = folder({"a.png": PICTURE, "a.txt": "a cat", "real/c.png": PICTURE})
    assert [e.key for e in found] == ["a", "again/in/b", "real/c"]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_composed_in_one_name_alone(folder, forms):
    picture, text = (unicodedata.normalize(form, "caf\u00e9") for form in forms)
    (example,) = folder({f"{picture}.png": PICTURE, f"{text}.txt": "a cat"})
    assert example.key == picture and example.captions[0].text == "a cat"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": "a cat"}, "none of the 1 files below .* is a picture; wanted .jpg"),
        ({"a.png": PICTURE, "metadata.csv": "file,caption\n"}, "metadata.csv has no rows; wanted"),
        (
            {"a.png": PICTURE, "metadata.csv": "file,caption\na.png,x\n"},
            "no column .file_name., but ..caption., .file..; separate",
        ),
        (
            {"a.png": PICTURE, "metadata.csv": "file_name,text\na.png,x\n"},
            r"column of .*metadata.csv .data.options.caption. 'caption'; known: text",
        ),
        (
            {"a.png": PICTURE, "metadata.csv": "", "metadata.jsonl": ""},
            "has metadata.csv and metadata.jsonl; remove one",
        ),
        (
            {"a.png": PICTURE, "metadata.csv": "file_name,caption\na.png,a cat, on a mat\n"},
            "no row of .*metadata.csv can be read: .*file_name, caption; .*in quotes",
        ),
        (
            {"a.png": PICTURE, "metadata.jsonl": '[{"file_name": "a.png"}]'},
            "no line of .*metadata.jsonl is a JSON object",
        ),
        (
            {"a.png": PICTURE, "metadata.csv": "file_name,caption,caption\na.png,one,two\n"},
            "metadata.csv has two columns 'caption'; rename one",
        ),
        (
            {"a.png": PICTURE, "metadata.jsonl": '{"file_name": 7, "caption": "x"}'},
            "no row of .*metadata.jsonl can be read: no line has a text as its 'file_name'",
        ),
    ],
)
def test_a_folder_that_cannot_serve_is_refused(folder, files, message):
    with pytest.raises(InputError, match=message):
        folder(files)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder .*none"):
        sources.make("folder", path=tmp_path / "none")


def test_a_link_to_nothing_is_one_picture_that_cannot_be_read(tmp_path):
    write_folder(tmp_path / "raw")
    (tmp_path / "raw" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "raw" / "gone.txt").write_text("a link")
    examples = {e.key: e for e in every("folder", path=str(tmp_path / "raw"))}
    with pytest.raises(ImageError, match="image-unreadable"):
        examples["gone"].picture.size()


def test_a_table_with_an_open_quote_is_refused(tmp_path):
    write_table(tmp_path / "raw")
    with open(tmp_path / "raw" / "metadata.csv", "a") as file:
        file.write('"0003.jpg","no end of it')
    with pytest.raises(InputError, match="is not a table: .* at line 12; look for a quote"):
        sources.make("folder", path=str(tmp_path / "raw"))


def test_names_are_found_as_they_are_written_elsewhere(folder):
    """By Windows, by a Mac, by `find`; and an empty line is none."""
    rows = [("./one.png", "1"), ("b\\two.png", "2"), ("caf\u00e9.png", "3")]
    lines = [json.dumps({"file_name": name, "caption": text}) for name, text in rows]
    names = ("one.png", "b/two.png", "cafe\u0301.png")
    found = folder(
        {name: PICTURE for name in names} | {"metadata.jsonl": "\n\n".join(lines) + "\n\n"}
    )
    assert [(e.key, e.captions[0].text) for e in found] == [
        ("b/two", "2"), ("cafe\u0301", "3"), ("one", "1"),
    ]  # fmt: skip


def test_suffixes_may_be_capitals(folder):
    (example,) = folder({"A.PNG": PICTURE, "A.TXT": "a cat"})
    assert [c.text for c in example.captions] == ["a cat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file_name;caption\na.png;a cat\n", "no column 'file_name', but .*; separate columns"),
        ("file_name,caption\na.png,a cat\n".encode("utf-16"), "is not UTF-8; save it as that"),
    ],
)  # fmt: skip
def test_a_table_that_a_spreadsheet_wrote_otherwise_is_told(content, message, tmp_path):
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        table.read(tmp_path / "metadata.csv", ("caption",))
