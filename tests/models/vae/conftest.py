"""Folders that diffusers wrote: one a layout to read, and a copy to spoil."""

import shutil

import pytest

from tests.models.vae.layouts import theirs


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Returns the folder of a layout, saved by diffusers on first use."""
    root = tmp_path_factory.mktemp("vae")

    def path(layout):
        if not (root / layout).exists():
            theirs(layout).save_pretrained(root / layout)
        return root / layout

    return path


@pytest.fixture
def copy(saved, tmp_path):
    """A folder that a test may spoil."""
    return shutil.copytree(saved("plain"), tmp_path / "copy")
