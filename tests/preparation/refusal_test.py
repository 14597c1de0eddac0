"""What cannot work is told early; what cannot be used is counted by name, and the rest is kept."""

import collections
import dataclasses
import gzip
import json
import pathlib
import shutil
import zlib

import numpy as np
import pytest

from lidit_jax import errors, files, preparation, share
from lidit_jax.data import dataset, planning
from lidit_jax.data.dataset import Dataset
from lidit_jax.models.vae import make_codec
from lidit_jax.preparation import images, verify
from lidit_jax.training.inputs import open_inputs
from tests import tiny_sources
from tests.tiny_prepared import assert_same, broken, change_json, config_of


def test_merging_is_refused_where_there_is_nothing_or_not_all(config, prepared, tmp_path):
    with pytest.raises(errors.InputError, match="no plan .run `prepare` first"):
        preparation.merge(config, tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
    folder = broken(prepared, tmp_path)
    next(folder.rglob("latents-00002*")).unlink()
    with pytest.raises(errors.InputError, match="pieces 2 of 3 of the pictures are missing"):
        preparation.merge(config, folder)


def test_references_are_what_is_trained_on_and_what_is_held_out(llms, raw):
    texts = {s.caption for s in tiny_sources.SAMPLES}
    few = config_of(llms, "folder", {"path": str(raw)}, rules=(), limit=4)
    assert len(list(preparation.references(few))) == 4
    split = config_of(llms, "folder", {"path": str(raw)}, rules=(), hold_out=0.5)
    kept, out = (
        {captions[0] for captions, _ in preparation.references(config)}
        for config in (split, preparation.held_out(split))
    )
    assert kept and out and kept | out == texts and not kept & out


def test_references_lack_a_picture_whose_size_is_not_what_its_source_says(llms, tmp_path):
    raw = tiny_sources.write_folder(tmp_path / "raw")
    change_json(raw / "even" / "0000.json", width=132)
    config = config_of(llms, "folder", {"path": str(raw)}, rules=("R3-shape",))
    preparation.prepare(config, tmp_path / "set")
    ledger = (tmp_path / "set" / "ledger.jsonl").read_text(encoding="utf-8")
    assert '"R3-size"' in ledger
    shown = [image is not None for _, image in preparation.references(config)]
    assert len(shown) == 10 and sum(shown) == len(Dataset(tmp_path / "set")) == 9


def test_references_have_the_sizes_that_are_trained_at(llms, raw, tmp_path):
    config = config_of(llms, "folder", {"path": str(raw)}, rules=())
    plan, _ = preparation.prepare_plan(config, tmp_path)
    found = collections.Counter(x.shape[:2] for _, x in preparation.references(config))
    counts = np.sum(plan.info["counts"], 1).tolist()
    assert len(found) > 2 and found == dict(zip(plan.bins, counts))
    split = config_of(llms, "folder", {"path": str(raw)}, rules=(), hold_out=0.5)
    held_out = {image.shape[:2] for _, image in preparation.references(preparation.held_out(split))}
    assert held_out == {split.data.size}


def test_what_cannot_work_is_told_before_anything_is_written(llms, raw, tmp_path):
    options = {"path": str(raw)}
    for config, folder, message in (
        (config_of(llms, "folder", options), raw / "set", "is inside .*, its own source"),
        (config_of(llms, "folder", {"path": ""}), tmp_path / "a", "needs its option 'path'"),
        (config_of(llms, "folder", options, size=(32, 33), bins="square", bin_step=0), tmp_path / "a", "33 is not divisible by 4"),
    ):  # fmt: skip
        with pytest.raises(errors.InputError, match=message):
            preparation.prepare(config, folder)
        assert not folder.exists()
    with pytest.raises(errors.InputError, match="8 shares of 2 pieces; use at most data.shards"):
        preparation.prepare(config_of(llms, "folder", options), tmp_path / "a", share.parse("7/8"))


def test_a_plan_that_failed_leaves_the_folder_to_another_recipe(llms, raw, tmp_path):
    options = {"path": str(raw)}
    with pytest.raises(errors.InputError, match="no picture is left: .*R1-aesthetic|held-out"):
        preparation.prepare(config_of(llms, "folder", options, hold_out=0.999), tmp_path / "set")
    preparation.prepare(config_of(llms, "folder", options), tmp_path / "set")
    assert verify.verify(tmp_path / "set") == []


def test_what_to_do_is_said_where_no_picture_is_left(llms, tmp_path):
    raw = tiny_sources.write_table(tmp_path / "raw" / "train").parent
    folder = config_of(llms, "folder", {"path": str(raw)})
    with pytest.raises(errors.InputError, match="metadata.csv in the folder that `path` names"):
        preparation.prepare(folder, tmp_path / "set")
    (raw / "a.tar.gz").write_bytes(gzip.compress(b"x"))
    tars = config_of(llms, "webdataset", {"path": str(raw)})
    with pytest.raises(errors.InputError, match="tar-compressed dropped 1; decompress the tars"):
        preparation.prepare(tars, tmp_path / "set")


def test_a_table_of_paths_that_lead_nowhere_is_the_first_thing_to_mend(llms, tmp_path):
    """One picture without a caption matters less than a table that names no picture there is."""
    raw = tmp_path / "raw"
    raw.mkdir()
    files.write_png(raw / "own.png", np.zeros((32, 32, 3), np.uint8))
    rows = [{"file_name": f"/elsewhere/{i}.png", "caption": f"thing {i}"} for i in range(3)]
    (raw / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(
        errors.InputError,
        match="image-missing dropped 3, .*; file_name is a path relative to .*; the caption of",
    ):
        preparation.prepare(config_of(llms, "folder", {"path": str(raw)}), tmp_path / "set")


def test_a_plan_that_crashed_leaves_nothing(llms, raw, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "_drop_late", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        preparation.prepare(config_of(llms, "folder", {"path": str(raw)}), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_plan_that_crashed_in_a_folder_begun_before_leaves_its_recipe(
    llms, raw, tmp_path, monkeypatch
):
    """As by a start that was killed while it planned: another may go on from there."""
    config = config_of(llms, "folder", {"path": str(raw)})
    preparation.prepare_plan(config, tmp_path / "set")
    recipe = (tmp_path / "set" / "recipe.json").read_bytes()
    for made in (tmp_path / "set").rglob("*"):
        if made.is_file() and made.name != "recipe.json":
            made.unlink()
    monkeypatch.setattr(planning, "make", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        preparation.prepare(config, tmp_path / "set")
    assert (tmp_path / "set" / "recipe.json").read_bytes() == recipe


def test_a_folder_of_a_plan_alone_may_be_removed_for_another(llms, raw, prepared, tmp_path):
    one = config_of(llms, "folder", {"path": str(raw)})
    other = config_of(llms, "folder", {"path": str(raw)}, limit=4)
    preparation.prepare_plan(one, tmp_path / "set")
    with pytest.raises(errors.InputError, match="limit is 0, the config wants 4.*only a plan"):
        preparation.prepare(other, tmp_path / "set")
    with pytest.raises(errors.InputError, match="use another folder$"):
        preparation.prepare(other, prepared)


def test_a_bin_that_the_network_does_not_divide_is_refused_before_training(llms, raw, prepared):
    c = config_of(llms, "folder", {"path": str(raw)}, shards=3)
    wide = dataclasses.replace(c, model=dataclasses.replace(c.model, patch=16))
    with pytest.raises(errors.InputError, match="is not divisible by 16"):
        open_inputs(wide, prepared)


def test_a_source_may_be_elsewhere_on_another_machine(config, llms, raw, prepared, tmp_path):
    moved = config_of(
        llms, "folder", {"path": str(shutil.copytree(raw, tmp_path / "raw"))}, shards=3
    )
    folder = broken(prepared, tmp_path)
    next(folder.rglob("latents-00002*")).unlink()
    preparation.prepare(moved, folder)
    assert_same(prepared, folder)


@pytest.mark.parametrize("key", ["format", "codec_identity"])
def test_a_set_of_another_kind_is_not_trained_on(key, config, prepared, tmp_path):
    folder = broken(prepared, tmp_path)
    if key == "format":
        change_json(folder / "dataset.json", format=1)
    else:
        change_json(folder / "recipe.json", codec={"name": "kl", "hash": "abc"})
    with pytest.raises(errors.InputError, match="format 1, but this version|codec is .*'abc'"):
        open_inputs(config, folder)


def test_bad_files_are_counted_by_name_and_the_rest_is_kept(llms, tmp_path):
    """Each under its reason in the ledger; none of them ends the job."""
    raw = tiny_sources.write_folder(tmp_path / "raw")
    good = tiny_sources.picture(64, 64)
    jpeg = tiny_sources.encode(good, "JPEG")
    huge = tiny_sources.encode(good, "PNG")
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + huge[24:29]
    huge = huge[:12] + header + zlib.crc32(header).to_bytes(4, "big") + huge[33:]
    pictures = {
        "truncated.jpg": jpeg[:-200],
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "huge.png": huge,
        "good.jpg": jpeg,
        "long.jpg": jpeg,
        "emoji.jpg": jpeg,
        "blank.jpg": jpeg,
        "latin.jpg": jpeg,
    }
    captions = {"long": "word " * 20_000, "emoji": "🐈🐈‍⬛", "blank": " \n"}
    for name, content in pictures.items():
        stem = name.split(".")[0]
        (raw / name).write_bytes(content)
        (raw / f"{stem}.txt").write_text(captions.get(stem, f"a {stem} one"), encoding="utf-8")
    (raw / "latin.txt").write_bytes(b"caf\xe9 au lait")
    config = config_of(llms, "folder", {"path": str(raw)}, rules=("R6-text",))
    preparation.prepare(config, tmp_path / "set")
    lines = (tmp_path / "set" / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    found = {entry["key"]: entry["reason"] for entry in map(json.loads, lines)}
    assert found == {
        "truncated": "image-truncated",
        "empty": "image-empty",
        "text": "image-unknown",
        "huge": "image-too-large",
        "long": "R6-text",
        "emoji": "R6-text",
        "blank": "caption-missing",
        "latin": "caption-not-utf8",
    }
    info = dataset.Dataset(tmp_path / "set").info
    assert info["count"] == 11 and sum(info["dropped"].values()) == 8


def test_a_decoder_that_mends_says_so(llms, tmp_path):
    raw = pathlib.Path(tiny_sources.write_folder(tmp_path / "raw"))
    grey = tiny_sources.encode(tiny_sources.picture(64, 64)[..., 0], "PNG")
    (raw / "grey.png").write_bytes(grey)
    (raw / "grey.txt").write_text("a grey one")
    config = config_of(llms, "folder", {"path": str(raw)}, rules=())
    preparation.prepare(config, tmp_path / "set")
    assert Dataset(tmp_path / "set").info["mended"] == {"image-grey": 1}
    assert Dataset(tmp_path / "set").info["count"] == 11


def test_a_picture_that_the_vae_makes_no_numbers_of_is_dropped_by_name(config, prepared, tmp_path):
    class Overflowing(type(make_codec("pixels"))):
        def encode(self, images_BxHxWx3):
            latents = np.array(super().encode(images_BxHxWx3))
            latents[: images_BxHxWx3.shape[1] == 32, 3, 3, 0] = np.inf  # the first of a square
            return latents

    folder, codec = broken(prepared, tmp_path), Overflowing()
    shutil.rmtree(folder / "images")
    plan, source = preparation.prepare_plan(config, folder)
    images.write(config.data, source, plan, share.WHOLE, codec)
    assert images.finish(config.data, plan, codec) == []
    found = Dataset(folder)
    lost = found.info["dropped"]["latent-not-finite"]
    assert lost and len(found) == len(Dataset(prepared)) - lost
    lines = (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(json.loads(line)["reason"] == "latent-not-finite" for line in lines) == lost
    assert verify.verify(folder) == []


def test_a_data_set_in_its_own_source_is_refused_however_that_is_written(
    llms, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny_sources.write_folder(tmp_path / "raw")
    for path in (tmp_path / "raw", "~/raw"):
        with pytest.raises(errors.InputError, match="raw, its own source; give another --data"):
            preparation.prepare(
                config_of(llms, "folder", {"path": str(path)}), tmp_path / "raw" / "set"
            )
