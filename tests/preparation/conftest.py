"""A folder of ten pictures, and the data set made of it in three pieces."""

import pytest

from lidit_jax import preparation
from tests import tiny_sources
from tests.tiny_prepared import config_of


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return tiny_sources.write_folder(tmp_path_factory.mktemp("raw") / "folder")


@pytest.fixture(scope="module")
def config(llms, raw):
    return config_of(llms, "folder", {"path": str(raw)}, shards=3)


@pytest.fixture(scope="module")
def prepared(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "set"
    preparation.prepare(config, folder)
    return folder
