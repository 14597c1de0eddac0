"""The notebook runs from the first cell to the last, on a tiny run."""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

from tests import compiling

NOTEBOOK = pathlib.Path(__file__).parent.parent / "notebooks" / "prompt_to_image.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_pictures(workdir, monkeypatch):
    monkeypatch.setenv("LIDIT_WORKDIR", str(workdir))
    for name, value in compiling.environment().items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(c.get("outputs") for c in notebook.cells), "commit the notebook without outputs"
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 3
