"""Sets of TensorFlow Datasets without TensorFlow: classes become captions that tell them apart."""

import importlib.util
import io
import shutil
import sys

import numpy as np
import pytest

from lidit_jax.data import sources
from lidit_jax.data.sources import Unusable, catalogue
from lidit_jax.errors import InputError
from tests import tiny_sources
from tests.tiny_sources import encode, every, picture


def write(path, features, rows, name="own"):
    tiny_sources.write_tfds_rows(path, name, features, rows)
    return {"name": name, "data_dir": path}


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    return {"name": tiny_sources.write_tfds(path), "data_dir": path}


def image():
    return io.BytesIO(encode(picture(20, 30), "PNG"))


def test_the_caption_is_the_first_name_of_the_class(labels):
    texts = [e.captions[0].text for e in every("tfds", **labels)]
    assert texts == ["a photo of great white shark", "a photo of tabby"] * 5
    texts = [e.captions[0].text for e in every("tfds", **labels, template="{} outside")]
    assert texts[0] == "great white shark outside"


def test_tensorflow_is_neither_there_nor_asked_for(labels):
    assert every("tfds", **labels)
    assert "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is None


def test_pictures_are_the_files_that_were_put_in(labels):
    for sample, example in zip(tiny_sources.SAMPLES, every("tfds", **labels), strict=True):
        assert example.picture.place.content == sample.content


def test_a_split_may_be_a_part(labels):
    examples = every("tfds", **labels, split="train[2:5]")
    assert len(examples) == len(sources.make("tfds", **labels, split="train[2:5]")) == 3
    assert examples[0].picture.digest() == every("tfds", **labels)[2].picture.digest()


def test_captions_may_be_a_sequence_of_texts_with_ids(tmp_path):
    """As in coco_captions."""
    import tensorflow_datasets as tfds

    several = {"text": np.str_, "id": np.int64}
    features = {"image": tfds.features.Image(), "captions": tfds.features.Sequence(several)}
    rows = [
        {"image": image(), "captions": [{"text": t, "id": i} for i, t in enumerate(texts)]}
        for texts in (["a cat", "ein Hund"], [], ["猫"], [b"caf\xe9"])
    ]
    one, none, chinese, broken = every("tfds", **write(tmp_path, features, rows))
    assert [c.text for c in one.captions] == ["a cat", "ein Hund"]
    assert chinese.captions[0].text == "猫"
    assert none == Unusable("train-00000001", "caption-missing")
    assert broken == Unusable("train-00000003", "caption-not-utf8")


def test_a_test_picture_has_no_class(tmp_path):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
    }
    rows = [{"image": image(), "label": k} for k in (-1, 1)]
    nothing, dog = every("tfds", **write(tmp_path, features, rows))
    assert nothing.reason == "caption-missing" and dog.captions[0].text == "a photo of dog"


def wordnet(path):
    """Writes a set whose labels are no names, as ImageNet's."""
    import tensorflow_datasets as tfds

    names = ["n01440764", "n02012849", "n03126707"]
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=names)}
    return write(path, features, [{"image": image(), "label": k} for k in range(3)])


def test_wordnet_ids_need_names_that_tell_them_apart(tmp_path):
    options, names = wordnet(tmp_path), tmp_path / "names.txt"
    with pytest.raises(InputError, match="'n01440764' is a WordNet id, not a name; give `names`"):
        sources.make("tfds", **options)
    names.write_text("n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\n")
    with pytest.raises(
        InputError, match="n02012849 and n03126707 have the same caption, 'a photo of crane'"
    ):
        sources.make("tfds", **options, names=names)
    names.write_text("n01440764 tench, Tinca tinca\nn02012849 crane (bird)\nn03126707 crane\n")
    texts = [e.captions[0].text for e in every("tfds", **options, names=names)]
    assert texts == ["a photo of tench", "a photo of crane (bird)", "a photo of crane"]
    with pytest.raises(InputError, match="cannot read names .*none: No such file"):
        sources.make("tfds", **options, names=tmp_path / "none")


def test_case_tells_classes_apart():
    """ImageNet has the dog Cardigan and the garment."""
    catalogue._check_names([], {"a": "a photo of Cardigan", "b": "a photo of cardigan"})


def test_sets_that_cannot_serve_are_refused(labels, tmp_path):
    import tensorflow_datasets as tfds

    no_image = write(
        tmp_path, {"label": np.int64, "picture": np.int64}, [{"label": 1, "picture": 2}]
    )
    features = {"image": tfds.features.Image(), "score": np.int64}
    no_caption = write(tmp_path, features, [{"image": image(), "score": 1}], "scores")
    for options, message in (
        (labels | {"name": "tiny_label"}, "no set 'tiny_label' in .*; change data_dir, or prepare"),
        (labels | {"split": "trian"}, "unknown split of tiny_labels/1.0.0 'trian'; known: train"),
        (labels | {"template": "a photo"}, "has no {} for the class's name"),
        (no_image, "unknown feature of own 'image'; known: label, picture"),
        (no_caption, "unknown feature of scores 'caption or captions or label'; known: "),
    ):
        with pytest.raises(InputError, match=message):
            sources.make("tfds", **options)


def test_a_set_in_a_format_of_tensorflow_is_refused(tmp_path, labels):
    shutil.copytree(labels["data_dir"], tmp_path / "t")
    info = next((tmp_path / "t").rglob("dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(
        InputError, match="is stored as tfrecord, which needs TensorFlow; prepare it"
    ):
        sources.make("tfds", **labels | {"data_dir": tmp_path / "t"})
