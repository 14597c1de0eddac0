"""A samples folder is read whole and in order, or refused with what is wrong with it."""

import json

import numpy as np
import pytest

from lidit_jax.errors import InputError
from lidit_jax.evaluation import pictures


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
        (None, "has no manifest.json"),
        ("{", "is damaged, not the manifest it should be: Expecting"),
        ([], "is damaged, .* no JSON object"),
        ({}, "lists no pictures"),
        ({"pictures": []}, "lists no pictures"),
        ({"pictures": ["0.png"]}, "picture 0 is '0.png'; wanted 'file', a str"),
        (entry(prompt=None), "picture 0 is .*; wanted 'prompt', a str"),
        (entry(seed="0"), "picture 0 is .*; wanted 'seed', a int"),
        (entry(), "names 1 files that are not in .*: 0.png"),
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
    with pytest.raises(InputError, match="cannot read the picture .*0.png"):
        picture.load()
