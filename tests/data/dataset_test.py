"""A data set belongs to one recipe, and only who asks rightly reads it."""

import pytest

from lidit_jax import errors, files
from lidit_jax.data import dataset


def test_a_folder_belongs_to_one_recipe(tmp_path):
    folder = tmp_path / "set"
    dataset.claim(folder, {"size": [32, 32], "source": "shapes"})
    dataset.claim(folder, {"size": [32, 32], "source": "shapes"})
    with pytest.raises(errors.InputError, match=r"size is \[32, 32\], the config wants \[64, 64\]"):
        dataset.claim(folder, {"size": [64, 64], "source": "shapes"})
    other = tmp_path / "other"
    other.mkdir()
    for name in (".DS_Store", "desktop.ini", "thesis.txt"):
        (other / name).write_text("x")
    with pytest.raises(errors.InputError, match="is not empty .thesis.txt. and holds no data set"):
        dataset.claim(other, {})
    (other / "thesis.txt").unlink()
    dataset.claim(other, {"size": [32, 32]})


@pytest.mark.parametrize("what", ["dataset.json", "encoder.json"])
def test_another_format_is_refused(tmp_path, what):
    files.write_json(tmp_path / what, {"format": 99})
    opened = dataset.Dataset if what == "dataset.json" else dataset.FeatureStore
    with pytest.raises(errors.InputError, match="format 99, but this version reads 3"):
        opened(tmp_path)


def test_no_data_set_says_what_to_run(tmp_path):
    with pytest.raises(errors.InputError, match="run `prepare` first"):
        dataset.Dataset(tmp_path / "nothing")
