"""Parquet files: rows are streamed by row group; columns that are wrong or damaged are named."""

import pyarrow
import pytest
from pyarrow import parquet

from lidit_jax.data import sources
from lidit_jax.data.sources import Unusable
from lidit_jax.errors import InputError
from tests import tiny_sources
from tests.tiny_sources import encode, every, picture

PICTURE = encode(picture(20, 30), "PNG")


def write(path, columns, **options):
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def not_utf8(*values: bytes) -> pyarrow.Array:
    """Returns texts as a careless writer leaves them."""
    return pyarrow.array(values, pyarrow.binary()).view(pyarrow.string())


def test_pictures_may_be_plain_bytes(tmp_path):
    for kind in (pyarrow.binary(), pyarrow.large_binary()):
        image = pyarrow.array([PICTURE], kind)
        file = write(tmp_path / "a.parquet", {"jpg": image, "text": ["a cat"], "n": [3]})
        (example,) = every("parquet", path=file, image="jpg", caption="text")
        assert example.picture.size() == (20, 30)
        assert (example.captions[0].text, example.metadata) == ("a cat", {"n": 3})


def test_what_is_wrong_with_a_row_is_named(tmp_path):
    file = write(
        tmp_path / "a.parquet",
        {
            "image": [PICTURE, None, PICTURE, PICTURE],
            "caption": not_utf8(b"a cat", b"x", b"caf\xe9", b" "),
            "note": not_utf8(b"\xe9", b"", b"", b""),
        },
    )
    example, *unusable = every("parquet", path=file)
    assert example.captions[0].text == "a cat" and example.metadata == {"note": "?"}
    assert unusable == [
        Unusable("a/00000001", "image-missing"),
        Unusable("a/00000002", "caption-not-utf8"),
        Unusable("a/00000003", "caption-missing"),
    ]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    image = pyarrow.array([{"bytes": None, "path": "x.jpg"}], kind)
    empty = {"image": image, "caption": ["x"]}
    found = every("parquet", path=write(tmp_path / "b.parquet", empty))
    assert found == [Unusable("b/00000000", "image-missing")]
    image = pyarrow.StructArray.from_arrays(
        [pyarrow.array([PICTURE]), not_utf8(b"caf\xe9.png")], ["bytes", "path"]
    )
    (example,) = every(
        "parquet", path=write(tmp_path / "c.parquet", {"image": image, "caption": ["x"]})
    )
    assert example.picture.size() == (20, 30)


def test_captions_may_be_lists_and_coded_by_a_dictionary(tmp_path):
    columns = {
        "image": [PICTURE] * 2,
        "caption": pyarrow.array([["one", "two"], None]),
        "synthetic": pyarrow.array(["drei", "vier"]).dictionary_encode(),
    }
    first, second = every("parquet", path=write(tmp_path / "a.parquet", columns))
    assert [c.text for c in first.captions] == ["one", "two", "drei"]
    assert [(c.text, c.origin) for c in second.captions] == [("vier", "synthetic")]
    lists = pyarrow.ListArray.from_arrays([0, 1, 2], not_utf8(b"caf\xe9", b"two"))
    columns |= {"caption": lists, "synthetic": [None, "zwei"]}
    found = every("parquet", path=write(tmp_path / "a.parquet", columns))
    assert [getattr(e, "reason", None) for e in found] == ["caption-not-utf8", None]
    columns["caption"] = not_utf8(b"caf\xe9", b"two").dictionary_encode()
    found = every("parquet", path=write(tmp_path / "a.parquet", columns))
    assert [getattr(e, "reason", None) for e in found] == ["caption-not-utf8", None]


def test_only_columns_with_scalars_are_metadata(tmp_path):
    columns = {
        "image": [PICTURE],
        "caption": ["a cat"],
        "AESTHETIC_SCORE": [5.25],
        "pwatermark": pyarrow.array([0.5], pyarrow.float32()),
        "embedding": [[1.0, 2.0]],
        "raw": [b"\0"],
        "exif": [{"a": 1}],
        "seen": [True],
    }
    (example,) = every("parquet", path=write(tmp_path / "a.parquet", columns))
    assert example.metadata == {"aesthetic": 5.25, "watermark": 0.5, "seen": True}


def test_pieces_are_row_groups(tmp_path):
    tiny_sources.write_parquet(tmp_path, files=2, group=2)  # 2, 2, 1 and 2, 2, 1 rows
    source = sources.make("parquet", path=tmp_path)
    assert [len(list(source.piece(i, 6))) for i in range(6)] == [2, 2, 1, 2, 2, 1]
    assert [e.key for e in source.piece(4, 6)] == ["train-00001/00000002", "train-00001/00000003"]


def test_a_damaged_row_group_does_not_take_the_others(tmp_path):
    tiny_sources.write_parquet(tmp_path, files=1, group=2)
    file = tmp_path / "train-00000.parquet"
    column = parquet.ParquetFile(file).metadata.row_group(1).column(0)
    content = bytearray(file.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 200] = b"\xff" * 200
    file.write_bytes(content)
    found = every("parquet", path=tmp_path)
    lost = [Unusable(f"train-00000/0000000{row}", "parquet-damaged") for row in (2, 3)]
    assert len(found) == 10 and found[2:4] == lost
    assert not any(isinstance(e, Unusable) for e in found[:2] + found[4:])


def test_columns_that_are_wrong_are_refused(tmp_path):
    columns = {"image": [PICTURE], "caption": ["x"], "score": [1]}
    file = write(tmp_path / "a.parquet", columns)
    for options, message in (
        ({"image": "imag"}, "column of .*a.parquet .data.options.image. 'imag'; known: image, "),
        ({"caption": "text"}, "'text'; known: caption, image, score"),
        ({"synthetic": "cogvlm"}, "'cogvlm'; known: "),
        ({"image": "score"}, "column 'score' is int64; wanted binary, or a struct"),
    ):
        with pytest.raises(InputError, match=message):
            sources.make("parquet", path=file, **options)


@pytest.mark.parametrize(
    "texts",
    [
        pyarrow.array([{"en": "a cat"}]),
        pyarrow.array([[{"text": "a cat"}]]),
        pyarrow.array([0], pyarrow.timestamp("ns")),
    ],
    ids=lambda texts: str(texts.type),
)
def test_a_caption_column_of_no_texts_is_refused(tmp_path, texts):
    file = write(tmp_path / "a.parquet", {"image": [PICTURE], "caption": texts})
    with pytest.raises(InputError, match="'caption' is .*; wanted texts, or lists of texts"):
        sources.make("parquet", path=file)


def test_captions_may_be_any_texts(tmp_path):
    for texts in (
        pyarrow.array([b"a cat"]),
        pyarrow.array(["a cat"]).dictionary_encode(),
        pyarrow.array([["a cat"]], pyarrow.large_list(pyarrow.large_string())),
        pyarrow.array([["a cat"]], pyarrow.list_(pyarrow.string(), 1)),
        pyarrow.array(["a cat"], pyarrow.string_view()),
    ):
        file = write(tmp_path / "a.parquet", {"image": [PICTURE], "caption": texts})
        (found,) = every("parquet", path=file)
        assert [c.text for c in found.captions] == ["a cat"]
    file = write(tmp_path / "a.parquet", {"image": [PICTURE], "caption": pyarrow.nulls(1)})
    assert every("parquet", path=file) == [Unusable("a/00000000", "caption-missing")]


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    columns = [[PICTURE], ["one"], ["two"]]
    table = pyarrow.Table.from_arrays(
        list(map(pyarrow.array, columns)), ["image", "caption", "caption"]
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has two columns 'caption'; rename one"):
        sources.make("parquet", path=tmp_path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    for content in (b"", b"PAR1 but no more", b"x" * 5000):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(InputError, match="cannot read .*a.parquet: "):
            sources.make("parquet", path=tmp_path)
