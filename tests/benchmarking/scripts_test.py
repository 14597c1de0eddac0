"""Each script of benchmarks/ can be started."""

import importlib
import pathlib

import pytest

import benchmarks

SCRIPTS = sorted(p.stem for p in pathlib.Path(benchmarks.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports_what_there_is(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").main)
