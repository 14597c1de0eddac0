"""Laws of every source: finite, lazy, in a fixed order, in pieces; what it describes is what it gives."""

import importlib.util
import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from lidit_jax.data import sources
from lidit_jax.data.sources import Example, images
from lidit_jax.errors import InputError
from tests import tiny_sources

PARTS = {
    "round": {"source": "shapes", "count": 40},
    "wide": {"source": "scenes", "count": 70},
}
DRAWN = {
    "mixture": {"parts": PARTS},
    "openmoji": {"languages": ("en", "zh")},
    "scenes": {"count": 40},
    "shapes": {"count": 40},
}
CHANGED = {
    "mixture": {"parts": {"round": PARTS["round"] | {"seed": 1}}},
    "openmoji": {"trim": True},
    "scenes": {"count": 40, "languages": ("zh",)},
    "shapes": {"count": 40, "seed": 1},
}
READ = (
    "folder",
    "table-csv",
    "table-jsonl",
    "webdataset",
    "parquet",
    "tfds-labels",
    "tfds-captions",
)


def read(kind: str, root: pathlib.Path) -> sources.Source:
    """Writes a tiny input of a kind below `root`, if it is not there, and returns its source."""
    name, _, variant = kind.partition("-")
    path = root / kind
    if name == "tfds":
        set_name = f"tiny_{variant}"
        if not path.exists():
            tiny_sources.write_tfds(path, captions=variant == "captions")
        return sources.make("tfds", **{"name": set_name, "data_dir": path})
    if not path.exists():
        write = {
            "folder": tiny_sources.write_folder,
            "webdataset": tiny_sources.write_tars,
            "parquet": tiny_sources.write_parquet,
            "table": lambda p: tiny_sources.write_table(p, f".{variant}"),
        }[name]
        write(path)
    return sources.make("folder" if name == "table" else name, path=path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("raw")


@pytest.fixture(params=(*READ, *DRAWN))
def source(request, root):
    kind = request.param
    return sources.make(kind, **DRAWN[kind]) if kind in DRAWN else read(kind, root)


@pytest.fixture(params=READ)
def read_source(request, root):
    return read(request.param, root)


def whole(source) -> list:
    return list(source.piece(0, 1))


def facts(examples) -> list:
    return [(e.key, e.captions, e.metadata, e.picture.digest()) for e in examples]


def test_every_source_is_tested():
    kinds = {kind.partition("-")[0] for kind in READ} - {"table"}
    assert kinds | set(DRAWN) == set(sources.SOURCES)


def test_a_source_is_finite_and_always_the_same(source):
    examples = whole(source)
    assert len(source) == len(examples) == len({e.key for e in examples}) > 0
    assert facts(examples[::50]) == facts(whole(source)[::50])
    assert all(c.text == c.text.strip() != "" for e in examples for c in e.captions)
    json.dumps([e.metadata for e in examples], allow_nan=False)
    for example in examples[:3]:
        pixels = example.picture.pixels(32, 48)
        assert pixels.shape == (32, 48, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("n", [1, 3, 50])
def test_pieces_put_together_are_the_whole(source, n):
    pieces = [[e.key for e in source.piece(i, n)] for i in range(n)]
    assert sum(pieces, []) == [e.key for e in whole(source)]


def test_a_source_and_its_examples_survive_pickling(source):
    again = pickle.loads(pickle.dumps(source))
    assert again.describe() == source.describe()
    one, other = next(source.piece(0, 1)), next(again.piece(0, 1))
    assert one.captions == other.captions
    copy = pickle.loads(pickle.dumps(one)).picture
    assert (copy.pixels(32, 32) == other.picture.pixels(32, 32)).all()


def test_every_picture_has_a_digest_of_its_own(source):
    digests = [e.picture.digest() for e in whole(source)]
    assert len(set(digests)) == len(digests)


def test_every_kind_gives_the_same_pictures_and_captions(read_source):
    labels = "tiny_labels" in read_source.describe()["version"]
    for sample, example in zip(tiny_sources.SAMPLES, in_order(read_source), strict=True):
        assert (
            example.picture.size() == sample.size == example.picture.pixels(*sample.size).shape[:2]
        )
        assert (example.picture.pixels(*sample.size) == decoded(sample)).all()
        if labels:
            continue
        texts = [(sample.caption, "original")]
        texts += [(sample.synthetic, "synthetic")] if sample.synthetic else []
        assert [(c.text, c.origin) for c in example.captions] == texts
        known = example.metadata
        assert {
            n: known[n] for n in ("aesthetic", "punsafe", "url")
        }.items() <= sample.metadata.items()
        if "language" in known:
            languages = {"en": "en", "zh": "zh", "fr": ""}
            assert example.captions[0].language == languages[sample.metadata["language"]]
        if "width" in known:
            assert (known["height"], known["width"]) == sample.size


def in_order(source) -> list[Example]:
    """Returns the examples in the order of the samples, which a folder keeps in two parts."""
    in_parts = source.describe()["name"] == "folder"
    return sorted(whole(source), key=lambda e: e.key.rpartition("/")[2] if in_parts else "")


def decoded(sample) -> np.ndarray:
    return images.Encoded(images.InMemory(sample.content)).pixels(*sample.size)


def test_listing_reads_no_picture(root, monkeypatch):
    """Metadata may be read and a record is read whole, but nothing is opened or decoded for its pixels."""

    def refuse(*_):
        raise AssertionError("a picture was opened")

    for place in (images.FilePath, images.FileSlice, images.InMemory):
        monkeypatch.setattr(place, "open", refuse)
    for kind in READ:
        assert len(whole(read(kind, root))) == 10


def test_a_description_follows_the_options():
    for name in DRAWN:
        one, same, other = (sources.make(name, **o[name]) for o in (DRAWN, DRAWN, CHANGED))
        assert one.describe() == same.describe() != other.describe()


@pytest.mark.parametrize("kind", READ)
def test_a_description_changes_with_the_data(kind, tmp_path):
    before = read(kind, tmp_path).describe()
    assert set(before) == {"name", "version", "licence", "options"}
    json.dumps(before)
    assert read(kind, tmp_path).describe() == before
    data = [p for p in sorted((tmp_path / kind).rglob("*")) if p.is_file()]
    longest = max(data, key=lambda p: p.stat().st_size)
    longest.write_bytes(longest.read_bytes() + b"\0")
    if kind != "parquet":
        assert read(kind, tmp_path).describe()["version"] != before["version"]
    else:  # a file with bytes behind its footer is refused
        with pytest.raises(InputError, match="cannot read"):
            read(kind, tmp_path)


def test_a_prompt_is_given_only_where_captions_do_not_serve(source):
    name = source.describe()["name"]
    assert len(source.prompts(5)) == (5 if name in ("shapes", "scenes") else 0)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("height, width", [(32, 32), (24, 40), (41, 24)])
def test_a_drawing_is_made_at_the_size_asked_for(name, height, width):
    picture = next(sources.make(name, **DRAWN[name]).piece(0, 1)).picture
    image = picture.pixels(height, width)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    top, left = (height - 24) // 2, (width - 24) // 2
    if height != width:  # a square in the middle, white beside it
        assert (image[top : top + 24, left : left + 24] == picture.pixels(24, 24)).all()
        image[top : top + 24, left : left + 24] = 255
        assert (image == 255).all()


def test_wrong_names_are_refused_with_the_known_ones():
    for name, options, message in (
        ("openmojis", {}, "unknown source 'openmojis'; known: openmoji"),
        ("web", {}, "unknown source 'web'; known: "),
        (
            "parquet",
            {"path": ".", "images": "x"},
            "option of source parquet 'images'; known: image",
        ),
        ("folder", {}, "source folder needs its option 'path'"),
        ("tfds", {}, "source tfds needs its option 'name'"),
        ("shapes", {"number": 3}, "unknown option of source shapes 'number'; known: count"),
        ("shapes", {"split": "test"}, "known: held_out, train"),
        ("shapes", {"count": -1}, "count is -1"),
        ("openmoji", {"subset": "al"}, "unknown subset of source openmoji 'al'; known: all"),
        ("openmoji", {"languages": ("en", "fr")}, "language of source openmoji 'fr'; known: en"),
        ("openmoji", {"languages": ()}, "no language"),
    ):
        with pytest.raises(InputError, match=message):
            sources.make(name, **options)


def mixture(**parts):
    return sources.make("mixture", parts=parts)


def test_a_mixture_has_every_example_of_its_parts_under_their_names():
    found = facts(mixture(**PARTS).piece(0, 1))
    wanted = []
    for name, part in PARTS.items():
        source, options = part["source"], {k: v for k, v in part.items() if k != "source"}
        rows = facts(sources.make(source, **options).piece(0, 1))
        wanted += [(f"{name}/{key}", *rest) for key, *rest in rows]
    assert found == wanted


def test_pieces_of_a_mixture_are_about_equally_long_whatever_its_parts():
    parts = {
        name: {"source": "shapes", "count": n} for name, n in (("a", 1000), ("b", 100), ("c", 3900))
    }
    lengths = [len(list(mixture(**parts).piece(i, 5))) for i in range(5)]
    assert sum(lengths) == 5000 and max(lengths) - min(lengths) <= 0.05 * 5000


def test_a_share_of_a_part_is_chosen_by_key_alone():
    part = {"source": "shapes", "count": 4000}
    quarter, half, all_of_it = (
        [e.key for e in mixture(a=part | {"share": share}).piece(0, 1)]
        for share in (0.25, 0.5, 1.0)
    )
    assert set(quarter) < set(half) < set(all_of_it) and len(all_of_it) == 4000
    assert abs(len(quarter) - 1000) < 100 and abs(len(half) - 2000) < 100
    assert len(mixture(a=part | {"share": 0.25})) == 1000  # an estimate


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "needs its option 'parts'"),
        ({"a b": PARTS["wide"]}, "a part of the mixture is called 'a b'"),
        ({"a": {"count": 3}}, "data.options.parts.a is .*want the options of a source"),
        ({"a": PARTS["wide"] | {"share": 0}}, "data.options.parts.a.share is 0; use a value in"),
        ({"a": {"source": "shapes", "cout": 3}}, "parts.a: unknown option of source shapes 'cout'"),
        ({"a": {"source": "folder", "path": "/none"}}, "parts.a: .*/none"),
    ],
)
def test_a_mixture_says_what_is_wrong_with_which_part(parts, message):
    with pytest.raises(InputError, match=message):
        sources.make("mixture", parts=parts)


def test_places_of_parts_are_places():
    options = {"parts": {"path": {"source": "folder", "path": "/a", "caption": "c"}}}
    assert sources.placeless(options) == {"parts": {"path": {"source": "folder", "caption": "c"}}}
    assert list(sources.folders(options)) == ["/a"] and list(sources.folders({"path": "/b"})) == [
        "/b"
    ]
    keys = ("path", "names", "parts.cc12m.path", "parts.path.caption", "parts.cc12m", "caption")
    assert [sources.is_place(key) for key in keys] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("name", ["folder", "webdataset", "parquet"])
def test_a_place_without_data_is_refused(name, tmp_path):
    (tmp_path / "readme.md").write_text("nothing here")
    for path in (tmp_path / "none", tmp_path, tmp_path / "*.jpg"):
        with pytest.raises(InputError, match=str(tmp_path).replace("\\", ".")):
            sources.make(name, path=path)


def test_importing_sources_imports_no_large_library():
    large = (
        "jax",
        "torch",
        "tensorflow",
        "tensorflow_datasets",
        "pyarrow",
        "grain",
        "array_record",
    )
    code = f"import sys, lidit_jax.data.sources; print([m for m in {large} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "module", "options"),
    [
        ("openmoji", "resvg_py", {}),
        ("parquet", "pyarrow", {"path": "x.parquet"}),
        ("tfds", "tensorflow_datasets", {"name": "mnist", "split": "train"}),
    ],
)
def test_a_missing_package_is_named_with_its_extra(name, module, options, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda m: None if m == module else find(m))
    with pytest.raises(InputError, match=rf"{name} needs {module}, .*\.\[data\]"):
        sources.make(name, **options)
