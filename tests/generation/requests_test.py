"""Shares of a request make the folder of one machine; what is missing or damaged is drawn, and no more."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lidit_jax import errors, files
from lidit_jax.evaluation import pictures
from lidit_jax.generation import generate
from lidit_jax.prompts import Prompt
from lidit_jax.share import Share

PROMPTS = [
    *[Prompt(p) for p in ("a red circle", "a blue star", "a red circle", "", "a cyan ring")],
    *[Prompt(p, (8, 24)) for p in ("a red circle", "a black star")],
]
SEEDS = list(range(7))


@pytest.fixture(scope="module")
def generator(make_generator):
    return make_generator((2, 1, 1), batch_size=2, alone=True)


@pytest.fixture(scope="module")
def whole(generator, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    assert generate(generator, PROMPTS, SEEDS, out) == out / "grid.png"
    return out


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def stamps(folder):
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("0*.png")}


@pytest.mark.parametrize("count", [2, 3])
def test_shares_in_one_folder_are_the_whole_byte_for_byte(generator, whole, tmp_path, count):
    for i in reversed(range(count)):
        grid = generate(generator, PROMPTS, SEEDS, tmp_path / "out", Share(i, count))
        assert (grid is None) == (i > 0)  # who comes last makes it
    assert content(tmp_path / "out") == content(whole)


def test_shares_on_disks_of_their_own_are_put_together(generator, whole, tmp_path, capsys):
    for i in range(2):
        assert generate(generator, PROMPTS, SEEDS, tmp_path / str(i), Share(i, 2)) is None
        assert "pictures are not in" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "0").iterdir()} == {"manifest.json"} | {
        f"{k:06d}.png" for k in range(3)
    }
    shutil.copytree(tmp_path / "1", tmp_path / "0", dirs_exist_ok=True)
    before = stamps(tmp_path / "0")
    generate(generator, PROMPTS, SEEDS, tmp_path / "0")
    assert stamps(tmp_path / "0") == before and content(tmp_path / "0") == content(whole)


def test_a_share_without_pictures_has_nothing_to_do(generator, tmp_path):
    three = PROMPTS[:3], SEEDS[:3]
    assert generate(generator, *three, tmp_path / "out", Share(0, 8)) is None
    assert not (tmp_path / "out").exists()


def test_a_share_of_another_request_is_refused_and_writes_nothing(
    generator, whole, tmp_path, monkeypatch
):
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "000006.png").unlink()
    before = content(out)
    with pytest.raises(errors.InputError, match="holds another request's pictures"):
        generate(generator, PROMPTS, [9, *SEEDS[1:]], out, Share(1, 2))
    assert "negative_prompt" not in pictures.how_drawn(pictures.read(whole))
    monkeypatch.setattr(generator, "negative_prompt", "fog")
    fog = generate(generator, PROMPTS[:1], SEEDS[:1], tmp_path / "fog").parent
    assert pictures.how_drawn(pictures.read(fog))["negative_prompt"] == "fog"
    with pytest.raises(errors.InputError, match="holds another request's pictures"):
        generate(generator, PROMPTS, SEEDS, out, Share(1, 2))
    assert content(out) == before


CHANGES = {
    "guidance": lambda g: {"sample": dataclasses.replace(g.sample, guidance=4.0)},
    "sampler": lambda g: {
        "sample": dataclasses.replace(
            g.sample, sampler=dataclasses.replace(g.sample.sampler, steps=5)
        )
    },
    "step": lambda g: {"step": g.step + 1},
    "run": lambda g: {"identity": "another"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_pictures_drawn_otherwise_are_of_another_request(
    generator, whole, tmp_path, monkeypatch, change
):
    out = shutil.copytree(whole, tmp_path / "out")
    for name, value in change(generator).items():
        monkeypatch.setattr(generator, name, value)
    with pytest.raises(errors.InputError, match="another request's pictures"):
        generate(generator, PROMPTS, SEEDS, out)
    assert content(out) == content(whole)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("run", "run is a run; give a separate folder"),
        ("data", "data is a data set; give"),
        ("file", "file is a file; give another folder"),
        ("file/below", "file is a file; give another folder"),
    ],
)
def test_pictures_want_a_folder_of_their_own(generator, tmp_path, monkeypatch, place, message):
    """Which is told before anything is drawn."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "recipe.json").write_text("{}")
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(generator, "draw", None)
    with pytest.raises(errors.InputError, match=message):
        generate(generator, [Prompt("red")], [0], tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["000001.png", "grid.png"])
def test_pictures_of_the_users_own_are_not_overwritten(name, generator, tmp_path):
    (tmp_path / name).write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    with pytest.raises(errors.InputError, match=f"has {name} but no manifest.json"):
        generate(generator, PROMPTS[:3], SEEDS[:3], tmp_path)
    assert sorted(p.read_text() for p in tmp_path.iterdir()) == ["mine", "mine too"]


def test_a_request_that_comes_second_to_a_folder_is_refused(generator, tmp_path, monkeypatch):
    """Both found the folder empty; the other wrote its manifest while this one drew."""
    out, draw = tmp_path / "out", generator.draw

    def beaten(*args):
        files.write_json(out / "manifest.json", {"pictures": []})
        yield from draw(*args)

    monkeypatch.setattr(generator, "draw", beaten)
    with pytest.raises(errors.InputError, match="holds another request's pictures"):
        generate(generator, PROMPTS, SEEDS, out)
    assert [p.name for p in out.iterdir()] == ["manifest.json"]


DAMAGES = {
    "lost": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a head": lambda path: path.write_bytes(path.read_bytes()[:24]),
    "zeros at the end": lambda path: path.write_bytes(path.read_bytes()[:-40] + bytes(40)),
    "of another size": lambda path: Image.new("RGB", (16, 8)).save(path),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_picture_is_drawn_again_and_no_other(generator, whole, tmp_path, damage):
    out = shutil.copytree(whole, tmp_path / "out")
    before = stamps(out)
    damage(out / "000005.png")
    generate(generator, PROMPTS, SEEDS, out)
    after = stamps(out)
    assert after.pop("000005.png") != before.pop("000005.png") and after == before
    assert content(out) == content(whole)


def test_a_picture_that_cannot_be_written_ends_the_request(generator, tmp_path, monkeypatch):
    write = files.write_png

    def full(path, image):
        if path.name == "000003.png":
            raise OSError(28, "No space left on device", str(path))
        write(path, image)

    monkeypatch.setattr(files, "write_png", full)
    with pytest.raises(OSError, match="No space left"):
        generate(generator, PROMPTS, SEEDS, tmp_path)
    assert not (tmp_path / "000003.png").exists() and not (tmp_path / "grid.png").exists()


def test_the_manifest_tells_the_whole_request_and_the_judges_read_it(whole):
    found = pictures.read(whole)
    assert [(p.prompt, p.seed) for p in found] == [(p.text, k) for k, p in enumerate(PROMPTS)]
    assert [p.load().shape for p in found] == [(16, 16, 3)] * 5 + [(8, 24, 3)] * 2
    assert len({p.load().tobytes() for p in found}) == 7
    listed = json.loads((whole / "manifest.json").read_text())["pictures"]
    assert [entry["size"] for entry in listed] == [[16, 16]] * 5 + [[8, 24]] * 2
    assert np.asarray(Image.open(whole / "grid.png")).std() > 1
