"""A run of an encoder, before whose prompts nothing stands: an array of no tokens is trained with."""

import shutil

import numpy as np
import pytest

from lidit_jax import generation, preparation
from lidit_jax.prompts import Prompt
from lidit_jax.training import loop
from lidit_jax.training.config import parse
from tests import tiny
from tests.same_run import arrays

pytestmark = pytest.mark.slow


def config(folder, **train):
    c = tiny.config_dict([folder], **{"steps": 4, "save_every": 2, "preview_every": 0} | train)
    c.text.encoders.tiny0.update({"template": "encoder", "instruction": False})
    return parse(c)


@pytest.fixture(scope="module")
def run(tiny_llm, tmp_path_factory):
    """Returns the LLM's folder, the data and the run's folder."""
    folder, llm = tmp_path_factory.mktemp("encoder"), tiny_llm("bert")
    preparation.prepare(config(llm), folder / "data")
    loop.train(config(llm), folder / "data", folder / "run")
    return llm, folder / "data", folder / "run"


def test_it_resumes_bit_for_bit(run, tmp_path):
    llm, data, whole = run
    halved = shutil.copytree(whole, tmp_path / "halved")
    shutil.rmtree(halved / "checkpoints" / "4")
    loop.train(config(llm), data, halved)
    expected, found = arrays(whole, 4), arrays(halved, 4)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(expected[name], found[name], err_msg=name)


def test_it_draws(run, tmp_path):
    _, _, workdir = run
    generation.generate(generation.Generator(workdir), [Prompt("a red circle")], [0], tmp_path)
    assert (tmp_path / "000000.png").exists()


def test_a_second_stage_begins_from_it(run, tmp_path):
    llm, data, workdir = run
    loop.train(config(llm, init_from=str(workdir), steps=2), data, tmp_path / "second")
    assert (tmp_path / "second" / "checkpoints" / "2").is_dir()
