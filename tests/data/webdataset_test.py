"""Tars: samples are neighbours with one name; pictures stay in the tar; a cut tar gives what it has."""

import gzip
import io
import json
import tarfile

from lidit_jax.data import sources
from lidit_jax.data.sources import Example, Unusable, images
from tests import tiny_sources
from tests.tiny_sources import SAMPLES, add, encode, every, picture

PICTURE = encode(picture(20, 30), "JPEG")


def write(path, files, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, content in files:
            add(tar, name, content)
    return path


def test_pictures_stay_in_the_tar(tmp_path):
    tiny_sources.write_tars(tmp_path)
    for sample, example in zip(SAMPLES, every("webdataset", path=tmp_path), strict=True):
        place = example.picture.place
        assert isinstance(place, images.FileSlice) and place.path.endswith(".tar")
        with place.open() as file:
            assert file.read() == sample.content
        assert example.metadata["original_width"] == 999
        assert (example.metadata["height"], example.metadata["width"]) == example.picture.size()


def test_listing_reads_headers_and_texts_alone(tmp_path, monkeypatch):
    """Of 64 KiB of pictures, little is read."""
    noise = bytes(2**16)
    write(
        tmp_path / "a.tar",
        [("1.jpg", noise), ("1.txt", b"a cat"), ("2.jpg", noise), ("2.txt", b"x")],
    )
    read = 0

    class Counting(io.FileIO):
        def read(self, size=-1):
            nonlocal read
            content = super().read(size)
            read += len(content)
            return content

    monkeypatch.setattr(tarfile, "bltn_open", lambda path, mode: Counting(path, "r"))
    assert len(every("webdataset", path=tmp_path)) == 2
    assert 0 < read < 2**14


def test_samples_are_neighbours_with_one_name(tmp_path):
    write(
        tmp_path / "a.tar",
        [
            ("./1.seg.png", PICTURE),
            ("./1.JPG", PICTURE),
            ("./1.txt", b"one"),
            ("x/1.txt", b"no picture"),
            ("x/2.jpg", PICTURE),
            ("._3.jpg", b"hidden"),
            ("4.jpg", PICTURE),
            ("4.json", b'{"caption": "four", "synthetic": ["vier", "quatre"]}'),
            ("5.jpg", PICTURE),
            ("5.txt", b"caf\xe9"),
            ("6.jpg", PICTURE),
            ("6.json", b"{"),
        ],
        format=tarfile.GNU_FORMAT,
    )
    found = every("webdataset", path=tmp_path / "a.tar")
    assert {e.key: [c.text for c in e.captions] for e in found if isinstance(e, Example)} == {
        "a/1": ["one"],
        "a/4": ["four", "vier", "quatre"],
    }
    assert [e for e in found if isinstance(e, Unusable)] == [
        Unusable("a/x/1", "image-missing"),
        Unusable("a/x/2", "caption-missing"),
        Unusable("a/5", "caption-not-utf8"),
        Unusable("a/6", "caption-unreadable"),
    ]


def test_long_names_are_read(tmp_path):
    name = "folder/" * 30 + "n" * 120
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        write(tmp_path / "a.tar", [(f"{name}.jpg", PICTURE), (f"{name}.txt", b"x")], format=format)
        (example,) = every("webdataset", path=tmp_path)
        assert example.key == f"a/{name}" and example.picture.size() == (20, 30)


def test_a_cut_tar_gives_what_is_before_the_cut(tmp_path):
    """Wherever it is cut: whole samples, then one word about the tar, and the next tar is read."""
    tiny_sources.write_tars(tmp_path)
    tar = tmp_path / "00000.tar"
    content, whole = tar.read_bytes(), every("webdataset", path=tar)
    with tarfile.open(tar) as opened:
        ends = [m.offset_data + m.size for m in opened if m.name.endswith(".json")]
    for cut in (1, 511, 700, 1024, *ends, ends[2] + 300, ends[3] + 600, len(content) // 2):
        tar.write_bytes(content[:cut])
        *before, last = every("webdataset", path=tar)
        assert last == Unusable("00000.tar", "tar-damaged")
        assert before == whole[: len(before)]
        assert len(before) >= sum(cut > end for end in ends) - 1
        assert (
            sum(isinstance(e, Example) for e in every("webdataset", path=tmp_path))
            == len(before) + 5
        )


def test_a_damaged_header_is_not_the_end(tmp_path):
    tiny_sources.write_tars(tmp_path, tars=1)
    tar = tmp_path / "00000.tar"
    content = bytearray(tar.read_bytes())
    with tarfile.open(tar) as opened:
        offset = opened.getmember("0004.jpg").offset
    content[offset : offset + 100] = b"\xff" * 100
    tar.write_bytes(content)
    found = every("webdataset", path=tar)
    assert len(found) == 4 and found[-1] == Unusable("00000.tar", "tar-damaged")


def test_what_is_no_tar_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "b.tar").write_bytes(b"<html>not a tar</html>" * 100)
    (tmp_path / "c.tar").write_bytes(
        gzip.compress(write(tmp_path / "d", [("1.jpg", PICTURE)]).read_bytes())
    )
    write(tmp_path / "e.tar", [])
    found = every("webdataset", path=tmp_path)
    why = {"a.tar": "tar-damaged", "b.tar": "tar-damaged", "c.tar": "tar-compressed"}
    assert found == [Unusable(name, reason) for name, reason in why.items()]


def test_tars_are_told_by_small_and_capital_suffixes_and_compressed_ones_are_counted(tmp_path):
    plain = write(tmp_path / "a.TAR", [("1.jpg", PICTURE), ("1.txt", b"a cat")])
    write(tmp_path / "BZh.tar", [("BZh1.jpg", PICTURE), ("BZh1.txt", b"a dog")])
    for name in ("b.tar.gz", "c.tgz"):
        (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    dog, one, *others = every("webdataset", path=tmp_path)
    assert dog.key == "BZh/BZh1" and one.key == "a/1" and one.captions[0].text == "a cat"
    assert others == [Unusable(name, "tar-compressed") for name in ("b.tar.gz", "c.tgz")]


def test_what_is_behind_the_end_of_a_tar_is_told(tmp_path):
    files = [(f"{k}.jpg", PICTURE) for k in range(9)]
    one, other = (write(tmp_path / f"{n}.tar", files) for n in "ab")
    joined = tmp_path / "joined" / "c.tar"
    joined.parent.mkdir()
    joined.write_bytes(one.read_bytes() + other.read_bytes())
    *before, last = every("webdataset", path=joined)
    assert len(before) == 9 and last == Unusable("c.tar", "tar-damaged")
    content = bytearray(one.read_bytes())
    with tarfile.open(one) as opened:
        offset = opened.getmember("5.jpg").offset
    content[offset : offset + tarfile.BLOCKSIZE] = bytes(tarfile.BLOCKSIZE)
    joined.write_bytes(content)
    assert every("webdataset", path=joined)[-1] == Unusable("c.tar", "tar-damaged")


def test_nothing_of_a_sample_is_lost_without_a_word(tmp_path):
    twice = [(name, text) for text in (b"a cat", b"a dog") for name in ("0.jpg", "0.txt")]
    files = [(name, PICTURE if name.endswith("jpg") else text) for name, text in twice]
    files += [("1.avif", PICTURE), ("1.png", PICTURE), ("1.txt", b"a cat")]
    files += [(f"at 10.{k}{suffix}", PICTURE) for k in "01" for suffix in (".png", ".txt")]
    found = every("webdataset", path=write(tmp_path / "a.tar", files))
    assert [e.captions[0].text for e in found[:2]] == ["a cat", "a dog"]
    assert [e.key for e in found[:3]] == ["a/0", "a/0", "a/1"]
    assert found[2].picture.size() == (20, 30)
    assert found[3:] == [
        Unusable("a/1.avif", "image-second"),
        Unusable("a/at 10.0.png", "name-dots"),
        Unusable("a/at 10.1.png", "name-dots"),
    ]


def test_accents_may_be_composed_in_one_name_alone(tmp_path):
    files = [("cafe\u0301.jpg", PICTURE), ("caf\u00e9.txt", b"a cat"), ("d.jpg", PICTURE)]
    one, _ = every("webdataset", path=write(tmp_path / "a.tar", files))
    assert one.key == "a/cafe\u0301" and one.captions[0].text == "a cat"


def test_the_number_of_samples_is_known_or_estimated(tmp_path):
    tiny_sources.write_tars(tmp_path, tars=2)
    assert len(sources.make("webdataset", path=tmp_path)) == 10
    (tmp_path / "00000_stats.json").write_text(json.dumps({"successes": 700}))
    assert len(sources.make("webdataset", path=tmp_path)) == 705
    (tmp_path / "00001_stats.json").unlink()
    assert len(sources.make("webdataset", path=tmp_path)) == 705
    (tmp_path / "00000_stats.json").write_text("{")
    assert 7 <= len(sources.make("webdataset", path=tmp_path)) <= 13


def test_tars_are_found_by_folder_and_glob(tmp_path):
    tiny_sources.write_tars(tmp_path / "cc12m", tars=3)
    (tmp_path / "cc12m/more").mkdir()
    write(tmp_path / "cc12m/more/00000.tar", [("1.jpg", PICTURE), ("1.txt", b"x")])
    found = every("webdataset", path=tmp_path / "cc12m")
    assert found[0].key == "00000/0000" and found[-1].key == "more/00000/1"
    assert len(found) == len({e.key for e in found}) == 11
    assert len(every("webdataset", path=tmp_path / "cc12m/0000[12].tar")) == 7


def test_a_tar_that_a_mac_wrote_has_the_samples_of_any_other(tmp_path):
    """Before each file it has one that is hidden, of what else the Mac knows of it."""
    plain = [(f"{k}{s}", c) for k in "12" for s, c in ((".jpg", PICTURE), (".txt", b"a cat"))]
    from_mac = [
        f for name, content in plain for f in ((f"./._{name}", b"x"), (f"./{name}", content))
    ]
    both = [
        every("webdataset", path=write(tmp_path / f"{stem}.tar", content))
        for stem, content in (("plain", plain), ("mac", from_mac))
    ]
    assert [[(e.key[-1], e.captions) for e in found] for found in both] == [
        [(k, both[0][0].captions) for k in "12"]
    ] * 2


def test_a_tar_that_is_not_there_is_named_and_brackets_in_a_name_are_no_pattern(tmp_path):
    write(tmp_path / "set[1].tar", [("1.jpg", PICTURE), ("1.txt", b"a cat")])
    assert len(every("webdataset", path=tmp_path / "set[1].tar")) == 1
    (tmp_path / "a.tar").symlink_to(tmp_path / "nothing")
    source = sources.make("webdataset", path=str(tmp_path))
    assert len(source) >= 0
    gone, there = source.piece(0, 1)
    assert gone == Unusable("a.tar", "tar-damaged") and there.key == "set[1]/1"
