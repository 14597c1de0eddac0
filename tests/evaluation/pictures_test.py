"""A samples folder is read whole and in order, or refused with what is wrong with it."""

import json

import numpy as np
import pytest
from PIL import ExifTags, Image

from lidit_jax.errors import InputError
from lidit_jax.evaluation import pictures
from lidit_jax.evaluation.pictures import Picture


def test_pictures_come_back_as_written(samples):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (8, 12, 3), dtype=np.uint8) for _ in range(3)]
    prompts = ["a red circle", "红心", "x" * 300]
    read = samples(zip(prompts, images, strict=True))
    assert [p.prompt for p in read] == prompts and [p.seed for p in read] == [0, 1, 2]
    for picture, image in zip(read, images, strict=True):
        assert (picture.load() == image).all()


def entry(**changes):
    return {"pictures": [{"file": "0.png", "prompt": "p", "seed": 0} | changes]}


@pytest.mark.parametrize(
    "manifest, message",
    [
        (None, "has no manifest.json.*for other pictures, write one: .*a red circle"),
        ("{", "is damaged, not the manifest it should be: Expecting"),
        ([], "is damaged, .* not a JSON object"),
        ({}, "lists no pictures"),
        ({"pictures": []}, "lists no pictures"),
        ({"pictures": ["0.png"]}, "picture 0 is '0.png'; want 'file', a str"),
        (entry(prompt=None), "picture 0 is .*; want 'prompt', a str"),
        (entry(seed="0"), "picture 0 has the seed '0'; want a whole number"),
        (entry(seed=0.5), "picture 0 has the seed 0.5; want a whole number"),
        (entry(), "names 1 files that are not in .*: 0.png"),
        *(
            (entry(file=name), "outside .*; want a file in it")
            for name in ("", ".", "a\0b", "\ud800")
        ),
    ],
)
def test_a_bad_folder_is_refused(tmp_path, manifest, message):
    if manifest is not None:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message):
        pictures.read(tmp_path)


def test_a_missing_folder_and_a_broken_picture_are_named(tmp_path):
    with pytest.raises(InputError, match="no folder of samples at .*nowhere"):
        pictures.read(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text(json.dumps(entry()))
    (tmp_path / "0.png").write_text("not a picture")
    (picture,) = pictures.read(tmp_path)
    with pytest.raises(InputError, match="cannot read the picture .*0.png.*redraw it"):
        picture.load()


GREY, COLOUR = (
    np.random.default_rng(0).integers(0, 256, shape, np.uint8) for shape in ((4, 6), (4, 6, 3))
)


def test_pictures_of_other_programs_need_no_seed_and_their_manifest_may_have_a_mark(tmp_path):
    entries = [{"file": "a/0.png", "prompt": "p"}, {"file": "0.png", "prompt": "q", "seed": 7.0}]
    text = json.dumps({"pictures": entries, "guidance": 4})
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8-sig")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").write_text(json.dumps({"pictures": [], "guidance": 99}))
    for name in ("a/0.png", "0.png"):
        Image.fromarray(COLOUR).save(tmp_path / name)
    read = pictures.read(tmp_path)
    assert [(p.name, p.seed) for p in read] == [("a/0.png", None), ("0.png", 7)]
    assert pictures.how_drawn(read) == {"guidance": 4}
    assert pictures.how_drawn(read[1:]) == {"guidance": 4, "seeds": [7, 7]}


def test_a_manifest_may_name_files_absolutely(tmp_path, monkeypatch):
    Image.fromarray(COLOUR).save(tmp_path / "0.png")
    (tmp_path / "manifest.json").write_text(json.dumps(entry(file=str(tmp_path / "0.png"))))
    monkeypatch.chdir(tmp_path.parent)
    assert [p.name for p in pictures.read(tmp_path.name)] == ["0.png"]


def test_a_picture_is_turned_as_it_says(tmp_path):
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 3
    Image.fromarray(COLOUR).save(tmp_path / "0.png", exif=turned)
    assert (Picture(tmp_path / "0.png", "", 0, tmp_path).load() == COLOUR[::-1, ::-1]).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_every_lossless_mode_is_read_as_it_looks(tmp_path, mode):
    image = Image.fromarray(COLOUR).convert(mode)
    image.save(tmp_path / "0.png")
    assert (
        Picture(tmp_path / "0.png", "", 0, tmp_path).load() == np.asarray(image.convert("RGB"))
    ).all()


@pytest.mark.parametrize(
    "image, options",
    [
        (Image.fromarray(np.dstack([COLOUR, np.full((4, 6), 254, np.uint8)])), {}),
        (Image.fromarray(GREY).convert("LA"), {}),
        (Image.fromarray(COLOUR), {"transparency": (0, 0, 0)}),
        (Image.fromarray(GREY).convert("P"), {"transparency": 0}),
        (Image.fromarray(GREY.astype(np.uint16) * 200), {}),
    ],
)
def test_transparency_and_more_than_8_bits_are_refused(tmp_path, image, options):
    image.save(tmp_path / "0.png", **options)
    with pytest.raises(InputError, match="0.png is transparent, or not 8-bit .*; save it as"):
        Picture(tmp_path / "0.png", "", 0, tmp_path).load()
