"""All user input is accepted, or refused in one line that names it; nothing half-made is left."""

import collections
import dataclasses

import pytest

from lidit_jax import errors, files
from lidit_jax.training.config import parse
from tests.faults import fuzz
from tests.faults.given import given, world
from tests.faults.given.configs import put
from tests.faults.given.given import ACCEPTED, BAD, REFUSED, Given, outcome


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return world.make(tmp_path_factory.mktemp("world"))


def _assert_none_is_bad(record_property, seed, numbers, sound, tmp_path, but=()):
    totals = collections.defaultdict(collections.Counter)
    for number, kind, what, found in fuzz.cases(seed, numbers, sound, tmp_path, but):
        assert found.what != BAD, f"--seed={seed} --case={number}: {what.told}: {found.line}"
        totals[kind][found.what] += 1
    record_property("totals", fuzz.line(seed, totals))
    return totals


@pytest.mark.slow
def test_thirty_things_are_accepted_or_refused_in_a_clear_line(
    record_property, sound, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    totals = _assert_none_is_bad(record_property, 0, range(33), sound, tmp_path, but=["commands"])
    assert sum(t.total() for t in totals.values()) >= 30
    assert sum(t[REFUSED] for t in totals.values()) >= 10


@pytest.mark.slow
def test_many_things_are_accepted_or_refused_in_a_clear_line(
    record_property, sound, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    totals = _assert_none_is_bad(record_property, 1, range(250), sound, tmp_path)
    assert all(t[REFUSED] for t in totals.values()) and len(totals) == len(fuzz.KINDS)


# What the harness must detect.


def _refuses(line):
    raise errors.InputError(line)


def _half_written(folder):
    (folder / ".x.json.1234.tmp").write_text("{")


def _changed(folder):
    (folder / "kept").write_text("other")
    _refuses("heads is 5")


def _made(folder):
    (folder / "new").mkdir()
    _refuses("heads is 5")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda folder: 1 / 0, "ZeroDivisionError from .*fuzz_test.py"),
        (lambda folder: _refuses("something is wrong"), r"names none of \['heads'\]: something"),
        (lambda folder: _refuses("\nheads is 5"), "names none"),
        (lambda folder: _refuses("overheads"), "names none"),
        (_half_written, "accepted, and leaves .*x.json.1234.tmp"),
        (_changed, "refused, but files are changed"),
        (_made, "refused, but .*new is there"),
        (lambda folder: _until_stopped(), "hangs: not done after 1 s"),
    ],
)
def test_what_is_bad_is_seen(act, message, tmp_path):
    (tmp_path / "kept").write_text("one")
    what = Given(
        "a thing",
        ("heads",),
        lambda: act(tmp_path),
        kept=(tmp_path / "kept",),
        new=(tmp_path / "new",),
    )
    found = outcome(what, tmp_path, seconds=1)
    assert found.what == BAD
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found.line)


def _until_stopped():
    while True:
        pass


def test_what_is_sound_is_accepted_and_what_is_clear_is_refused(tmp_path):
    what = Given("a thing", ("heads",), lambda: None)
    assert outcome(what, tmp_path).what == ACCEPTED
    refused = dataclasses.replace(what, act=lambda: _refuses("model.heads is 5; use 4"))
    assert outcome(refused, tmp_path) == given.Outcome(REFUSED, "model.heads is 5; use 4")
    full = dataclasses.replace(what, act=lambda: open(tmp_path / "heads" / "x"))
    assert outcome(full, tmp_path).what == REFUSED


# Bugs that it has found.


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("text", 1e-300, "config.text is 1e-300; want use, encoders"),
        ("text.use", None, "config.text.use is None; want tuple"),
        ("text.use", ((16, 16),), r"config.text.use\[0\] is \[16, 16\]; want str"),
        ("text.encoders", "x", "config.text.encoders is 'x'; want dict"),
        ("text.encoders.tiny0", 3, "config.text.encoders.tiny0 is 3; want "),
        ("data.preview", ("a", "\ud800"), r"config.data.preview\[1\] is '\\ud800'; want text"),
        ("data.options.path", "\ud800", r"config.data.options.path is '\\ud800'; want text"),
        ("data.options.x", float("nan"), "config.data.options.x is nan; want a finite number"),
        ("data.limit", 10**400, "config.data.limit is of more than 30 digits"),
        (
            "optim.warmup_steps",
            2**40,
            "optim.warmup_steps is 1099511627776; use 2147483647 or less",
        ),
        ("train.steps", 2**31, "train.steps is 2147483648; use 2147483647 or less"),
        ("sample.sampler.steps", 10**10, "steps 10000000000 must be between 1 and 10000"),
    ],
)
def test_a_config_that_cannot_be_is_told(key, value, message):
    c = world.World(*[__file__] * 3).config_dict()
    put(c, key, value)
    with pytest.raises(errors.InputError, match=message):
        parse(c)


def test_a_whole_file_of_another_kind_is_told(tmp_path):
    path = tmp_path / "marker.json"
    files.write_json(path, {"other": 1})
    with pytest.raises(errors.InputError, match="marker.json is damaged.*: it has no 'counts'"):
        files.read_json(path, "marker", holds=["counts"])
