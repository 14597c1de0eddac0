"""From raw input to a data set that trains: whole or resumed, by one process or several, checked and told."""

import dataclasses
import filecmp
import json
import pathlib
import re
import shutil
import zlib

import msgpack
import numpy as np
import pytest
from ml_collections import ConfigDict

from lidit_jax import errors, files, preparation
from lidit_jax.data import dataset, pipeline, records, sources
from lidit_jax.data.dataset import Dataset
from lidit_jax.data.plan import Plan
from lidit_jax.preparation import estimate, images, report, share, verify
from lidit_jax.training import loop
from lidit_jax.training.config import parse
from lidit_jax.training.inputs import open_inputs
from tests import tiny, tiny_sources


def config_of(llms, source, options, **data):
    """Trains on 32 px squares, and bins around them, of a source of ten pictures."""
    c = tiny.config_dict(llms[:1])
    c.data.source, c.data.options = source, ConfigDict(options)
    c.data.size, c.data.bins, c.data.bin_step, c.data.min_bin = (32, 32), "grid33", 8, 1
    c.data.rules = ("R4-url", "R5-tags")
    c.data.update(data)
    c.train.steps, c.train.batch_size = 2, 8
    c.train.save_every = c.train.log_every = c.train.preview_every = 2
    return parse(c)


SOURCES = {
    "folder": lambda path: ("folder", {"path": str(tiny_sources.write_folder(path))}),
    "table": lambda path: ("folder", {"path": str(tiny_sources.write_table(path))}),
    "webdataset": lambda path: ("webdataset", {"path": str(tiny_sources.write_tars(path))}),
    "parquet": lambda path: ("parquet", {"path": str(tiny_sources.write_parquet(path))}),
    "tfds": lambda path: (
        "tfds",
        {"name": tiny_sources.write_tfds(path, captions=True), "data_dir": str(path)},
    ),
}


def whole(folder):
    """Every file of a data set, but what is never the same twice."""
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


def assert_same(one, other):
    assert whole(one) == whole(other)
    different = [f for f in whole(one) if not filecmp.cmp(one / f, other / f, shallow=False)]
    assert not different


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


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_gives_batches_of_its_pictures(kind, llms, tmp_path):
    config = config_of(llms, *SOURCES[kind](tmp_path / "raw"))
    preparation.prepare(config, tmp_path / "set")
    found = Dataset(tmp_path / "set")
    assert found.info["dropped"] == {"R4-url": 1} and len(found) == 9
    assert found.info["captions_dropped"] == {"R5-tags": 1}
    assert sorted(found.counts) == [1, 1, 2, 2, 3] and found.info["languages"]["zh"] == 3
    measured, reader, _ = open_inputs(config, tmp_path / "set")
    batches = pipeline.batches(reader, 4)
    for _ in range(3):
        batch = next(batches)
        assert batch.latents_BxHxWxC.shape[1:3] in found.bins
        assert np.isfinite(batch.latents_BxHxWxC).all() and batch.text[0].mask_BxS.any(1).all()
    assert verify.verify(tmp_path / "set") == []


def test_a_run_trains_on_several_bins_and_logs_its_tokens(config, prepared, tmp_path):
    loop.train(config, prepared, tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    sizes = [h * w // 16 * 8 for h, w in Dataset(prepared).bins]  # patch 4, batch 8
    assert min(sizes) <= line["tokens"] <= max(sizes)


def test_an_epoch_shows_every_picture_once_whatever_its_bin(config, prepared):
    _, reader, _ = open_inputs(config, prepared)
    counts, batch = reader.dataset.counts, 2
    assert len(counts) > 2
    seen = {bin: [] for bin in range(len(counts))}
    first = np.concatenate([[0], np.cumsum(counts)])
    batches = pipeline.batches(reader, batch)
    for _ in range(sum(counts) * 4 // batch):
        rows = next(batches).row_B
        bins = set(np.searchsorted(first, rows, side="right") - 1)
        assert len(bins) == 1  # one size a batch
        seen[bins.pop()] += rows.tolist()
    for bin, rows in seen.items():
        every = list(range(first[bin], first[bin + 1]))
        assert len(rows) >= 3 * len(every)
        for epoch in range(len(rows) // len(every)):  # what is left of an epoch starts a batch
            part = rows[epoch * len(every) : (epoch + 1) * len(every)]
            assert sorted(part) == every


def test_hosts_draw_the_same_bin_at_every_step(config, prepared):
    _, reader, _ = open_inputs(config, prepared)
    whole = pipeline.batches(reader, 4)
    parts = [pipeline.batches(reader, 4, process_index=i, process_count=2) for i in range(2)]
    for _ in range(12):
        batch, halves = next(whole), [next(part) for part in parts]
        np.testing.assert_array_equal(batch.row_B, np.concatenate([h.row_B for h in halves]))
        np.testing.assert_array_equal(
            batch.latents_BxHxWxC, np.concatenate([h.latents_BxHxWxC for h in halves])
        )


def test_half_of_the_epochs_show_the_synthetic_caption(config, prepared):
    _, reader, _ = open_inputs(config, prepared)
    image = records.ImageRecord("k", None, (1, 2), (3, 4))
    shown = []
    for k in range(2000):
        keyed = records.ImageRecord(f"k{k}", None, (1, 2), (3, 4))
        shown += [reader.caption(keyed, epoch) for epoch in range(50)]
    share_of = [np.mean(np.asarray(shown) == c) for c in (1, 2, 3, 4)]
    assert abs(share_of[2] + share_of[3] - 0.5) < 0.005
    assert np.abs(np.asarray(share_of) - 0.25).max() < 0.01
    per_key = np.asarray(shown).reshape(2000, 50) > 2
    assert abs((per_key[:, 0] != per_key[:, 1]).mean() - 0.5) < 0.05
    only = records.ImageRecord("k", None, (), (9,))
    assert reader.caption(only, 0) == reader.caption(only, 1) == 9
    assert reader.caption(image, 7) == reader.caption(image, 7)


@pytest.mark.parametrize("workers", [0, 2])
def test_shares_of_several_processes_are_the_set_of_one(
    config, llms, raw, prepared, tmp_path, workers, capsys
):
    config = config_of(llms, "folder", {"path": str(raw)}, shards=3, workers=workers)
    folder = tmp_path / "set"
    preparation.prepare(config, folder, share.parse("1/2"))
    told = capsys.readouterr().out
    assert "pieces 0, 2 of 3 of the pictures are missing" in told and "--merge" in told
    assert not (folder / "dataset.json").exists()
    with pytest.raises(errors.InputError, match="is not complete: pieces 0, 2 of 3"):
        preparation.merge(config, folder)
    preparation.prepare(config, folder, share.parse("0/2"))
    preparation.merge(config, folder)
    assert_same(prepared, folder)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_continues_to_the_same_bytes(config, prepared, tmp_path, seed, monkeypatch):
    """Killed at a random record, again and again; the real SIGKILL is in `killed_test`."""
    rng, write, replace = np.random.default_rng(seed), records.Writer.write, pathlib.Path.replace
    left = [0]

    def mortal(self, record):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        write(self, record)

    def renamed(self, target):
        left[0] -= 1
        if left[0] == 0:  # just before
            raise Killed
        replace(self, target)
        if left[0] < 0:  # just after
            raise Killed

    monkeypatch.setattr(records.Writer, "write", mortal)
    monkeypatch.setattr(pathlib.Path, "replace", renamed)
    for _ in range(100):
        left[0] = int(rng.integers(1, 25))
        try:
            preparation.prepare(config, tmp_path / "set")
            break
        except Killed:
            continue
    assert_same(prepared, tmp_path / "set")


def test_a_disk_that_fills_up_loses_nothing(config, prepared, tmp_path, monkeypatch):
    """The file that is written when the disk is full is on a device that always is."""
    opened, full = records.ArrayRecordWriter, [2]

    def writer(path, options):
        full[0] -= 1
        return opened("/dev/full" if full[0] == 0 else path, options)

    monkeypatch.setattr(records, "ArrayRecordWriter", writer)
    with pytest.raises(OSError, match="No space left on device"):
        preparation.prepare(config, tmp_path / "set")
    assert not list((tmp_path / "set").rglob("piece*.json"))
    for path in (tmp_path / "set").rglob("latents*"):
        assert path.read_bytes() == (prepared / path.relative_to(tmp_path / "set")).read_bytes()
    assert not [p for p in (tmp_path / "set").rglob("*") if p.name.endswith(".tmp")]
    preparation.prepare(config, tmp_path / "set")
    assert_same(prepared, tmp_path / "set")


def test_a_source_that_changed_is_not_mixed_in(llms, tmp_path):
    raw = tiny_sources.write_folder(tmp_path / "raw")
    config = config_of(llms, "folder", {"path": str(raw)})
    preparation.prepare(config, tmp_path / "set", share.parse("0/2"))
    (raw / "even" / "0000.jpg").unlink()
    with pytest.raises(errors.InputError, match="the source has changed since .*set was made"):
        preparation.prepare(config, tmp_path / "set", share.parse("1/2"))
    found = json.loads((tmp_path / "set" / "recipe.json").read_text())
    plan, source = Plan(tmp_path / "set"), sources.make("folder", path=str(raw))
    found["described"] = source.describe()  # as if names and sizes told nothing
    assert "path" in found["described"]["options"] and "path" not in found["options"]
    files.write_json(tmp_path / "set" / "recipe.json", found)
    with pytest.raises(errors.InputError, match="the source has changed since .* was planned"):
        list(images.planned(source, plan, 0))


def test_int8_features_are_half_as_large_and_nearly_the_same(llms, config, prepared, raw, tmp_path):
    c = config_of(llms, "folder", {"path": str(raw)}, shards=3)
    int8 = shutil.copytree(prepared, tmp_path / "set")
    before = {f: (int8 / f).read_bytes() for f in whole(int8)}
    encoder = type(c.encoders[0])(**vars(c.encoders[0]) | {"codec": "int8"})
    c = type(c)(**vars(c) | {"encoders": (encoder,)})
    preparation.prepare(c, int8)
    assert all((int8 / f).read_bytes() == content for f, content in before.items())
    exact, coarse = (Dataset(int8).features(e.store) for e in (config.encoders[0], encoder))
    std_E = np.asarray(exact.info["std"])
    off = [(exact[i].astype(np.float32) - coarse[i]) / std_E for i in range(len(exact))]
    assert 0 < np.sqrt(np.mean(np.square(np.concatenate(off)))) < 0.02
    packed = [Dataset(int8).features(e.store)._rows for e in (config.encoders[0], encoder)]
    full, half = (sum(len(rows[i]) for i in range(len(rows))) for rows in packed)
    assert half < 0.8 * full  # of so narrow an LLM's, where names and scales are a large part
    assert coarse.info["error"]["mean"] < 0.02 and coarse.info["codec"] == "int8"
    assert exact.info["error"]["mean"] < 0.01
    _, reader, _ = open_inputs(c, int8)
    assert np.isfinite(next(pipeline.batches(reader, 4)).text[0].hidden_BxSxE).all()


def broken(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "broken")


def flip_a_byte(folder):
    path = next(folder.rglob("latents-00001*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite_a_record(folder, change):
    """A picture that was written wrong, with the checksum of what was written."""
    path = next(folder.rglob("latents-00001*"))
    rows = records.read_shards([path])
    images = [records.unpack_image(rows[i]) for i in range(len(rows))]
    images[0] = records.ImageRecord(**vars(images[0]) | change(images[0]))
    del rows
    records.write_records(path, map(records.pack_image, images))
    marker = folder / "images" / "piece-00001-of-00003.json"
    text = json.loads(marker.read_text())
    bin = [f"{h}x{w}" for h, w in json.loads((folder / "plan.json").read_text())["bins"]].index(
        path.parent.name
    )
    text["sha256"][bin] = records.checksum(path)
    files.write_json(marker, text)


def change_json(path, **entries):
    files.write_json(path, json.loads(path.read_text()) | entries)


def poison_features(folder):
    path = next(folder.rglob("features-00000*.array_record"))
    rows = records.read_shards([path])
    packed = [msgpack.unpackb(rows[i]) for i in range(len(rows))]
    numbers = np.frombuffer(packed[0]["bf16"], np.uint16).copy()
    numbers[3] = 0x7FC0  # NaN
    packed[0]["bf16"] = numbers.tobytes()
    del rows
    records.write_records(path, map(msgpack.packb, packed))
    change_json(path.with_suffix(".json"), sha256=records.checksum(path))


PROBLEMS = {
    "a changed byte": (flip_a_byte, r"latents-00001.*its checksum is not the one"),
    "NaN": (
        lambda f: rewrite_a_record(f, lambda r: {"latent_HxWxC": r.latent_HxWxC * np.nan}),
        "its latent is not finite",
    ),
    "a shape": (
        lambda f: rewrite_a_record(f, lambda r: {"latent_HxWxC": r.latent_HxWxC[:-8]}),
        r"a latent of \d+ x \d+ in bin",
    ),
    "a caption id": (
        lambda f: rewrite_a_record(f, lambda r: {"captions": (999,), "synthetic": ()}),
        r"its captions are \(999,\), of",
    ),
    "a shard": (
        lambda f: next(f.rglob("latents-00002*")).unlink(),
        "piece 2 of the pictures is not whole",
    ),
    "statistics": (
        lambda f: change_json(f / "dataset.json", latent_mean=[1.0, 1.0, 1.0]),
        "dataset.json: its statistics are not those",
    ),
    "a marker": (
        lambda f: (f / "images" / "piece-00001-of-00003.json").write_text("{"),
        "piece 1 of the pictures cannot be read: .*is damaged",
    ),
    "a count": (
        lambda f: change_json(f / "dataset.json", count=3),
        "dataset.json counts",
    ),
    "a piece of the plan": (
        lambda f: next((f / "plan").glob("piece-00001*")).unlink(),
        "a file of the plan is missing",
    ),
    "captions": (
        lambda f: records.write_records(f / "captions.array_record", []),
        "captions.array_record",
    ),
    "features": (poison_features, "the features of caption 0 are not finite"),
    "a feature shard": (
        lambda f: next(f.rglob("features-00001*.json")).unlink(),
        "shard 1 is not whole",
    ),
    "the instruction": (
        lambda f: next(f.rglob("prefix.npy")).write_bytes(b""),
        "prefix.npy cannot be read",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_verify_tells_a_problem(problem, prepared, tmp_path):
    folder = broken(prepared, tmp_path)
    breaking, message = PROBLEMS[problem]
    breaking(folder)
    found = verify.verify(folder)
    assert any(re.search(message, line) for line in found), found


def test_verify_finds_nothing_in_a_sound_set_and_everything_in_a_broken_one(prepared, tmp_path):
    assert verify.verify(prepared) == []
    folder = broken(prepared, tmp_path)
    PROBLEMS["NaN"][0](folder)
    PROBLEMS["features"][0](folder)
    assert len(verify.verify(folder)) >= 2


def test_what_is_missing_is_made_again_to_the_same_bytes(config, prepared, tmp_path):
    folder = broken(prepared, tmp_path)
    next(folder.rglob("latents-00002*")).unlink()
    next(folder.rglob("features-00001*.array_record")).unlink()
    preparation.prepare(config, folder)
    assert_same(prepared, folder)


def test_a_report_shows_pictures_of_every_bin_and_every_drop(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "set")
    page = report.write(folder).read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(Dataset(folder).bins)
    for told in ("9 pictures of 10 rows", "R4-url", "R5-tags", "zh", "两只猫坐在沙发上", "images"):
        assert told in page


def test_an_estimate_is_near_what_is_written(config, prepared):
    plan, source = preparation.prepare_plan(config, prepared)
    pictures, captions = estimate.estimate(config, plan, source)
    assert (pictures.count, captions.count) == (9, plan.info["captions"])
    for line, pattern in ((pictures, "latents*"), (captions, "features*.array_record")):
        rows = records.read_shards(sorted(prepared.rglob(pattern)))  # a file itself has 128 kB more
        written = sum(len(rows[i]) for i in range(len(rows)))
        assert line.seconds_each > 0
        assert abs(line.count * line.bytes_each / written - 1) < 0.25
    many = estimate.estimate(config, plan, source, pictures=9000)
    assert [line.count for line in many] == [9000, 1000 * captions.count]
    assert "9,000" in estimate.table(many, price=2.0) and "cost" in estimate.table(many, price=2.0)


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
        {captions[0] for captions, _ in preparation.references(split, held_out)}
        for held_out in (False, True)
    )
    assert kept and out and kept | out == texts and not kept & out


def test_what_cannot_work_is_told_before_anything_is_written(llms, raw, tmp_path):
    options = {"path": str(raw)}
    for config, folder, message in (
        (config_of(llms, "folder", options), raw / "set", "is inside .*, its own source"),
        (config_of(llms, "folder", {"path": ""}), tmp_path / "a", "needs its option 'path'"),
        (config_of(llms, "folder", options, size=(32, 33), bins="square", bin_step=0), tmp_path / "a", "33 does not divide by 4"),
    ):  # fmt: skip
        with pytest.raises(errors.InputError, match=message):
            preparation.prepare(config, folder)
        assert not folder.exists()
    with pytest.raises(errors.InputError, match="8 shares of 2 pieces; data.shards"):
        preparation.prepare(config_of(llms, "folder", options), tmp_path / "a", share.parse("7/8"))


@pytest.mark.parametrize("pattern", ["latents-00001*", "features-00001*.array_record", "captions*"])
@pytest.mark.parametrize("how", ["cut", "changed"])
def test_reading_what_is_damaged_is_one_error_that_says_what_to_do(pattern, how, config, prepared, tmp_path):  # fmt: skip
    folder = broken(prepared, tmp_path)
    path = next(folder.rglob(pattern))
    content = bytearray(path.read_bytes())
    content[100:] = b"" if how == "cut" else bytes(b ^ 255 for b in content[100:])
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match="is damaged .*(prepare|verify)"):
        found = Dataset(folder)
        store = found.features(config.encoders[0].store)
        for i in range(len(found)):
            found.image(i)
        for i in range(len(store)):
            store[i], found.captions[i]


def test_a_plan_that_failed_leaves_the_folder_to_another_recipe(llms, raw, tmp_path):
    options = {"path": str(raw)}
    with pytest.raises(errors.InputError, match="no picture is left: .*R1-aesthetic|held-out"):
        preparation.prepare(config_of(llms, "folder", options, hold_out=0.999), tmp_path / "set")
    preparation.prepare(config_of(llms, "folder", options), tmp_path / "set")
    assert verify.verify(tmp_path / "set") == []


def test_the_instructions_features_are_made_again(config, prepared, tmp_path):
    folder = broken(prepared, tmp_path)
    lost = next(folder.rglob("prefix.npy"))
    lost.write_bytes(b"")
    with pytest.raises(errors.InputError, match="prefix.npy is missing or damaged; delete it"):
        open_inputs(config, folder)
    lost.unlink()
    preparation.prepare(config, folder)
    assert_same(prepared, folder)


def test_a_bin_that_the_network_does_not_divide_is_refused_before_training(llms, raw, prepared):
    c = config_of(llms, "folder", {"path": str(raw)}, shards=3)
    wide = dataclasses.replace(c, model=dataclasses.replace(c.model, patch=16))
    with pytest.raises(errors.InputError, match="does not divide by 16"):
        open_inputs(wide, prepared)


def test_an_unknown_share_is_refused():
    for text in ("2/2", "1", "-1/2", "a/b", "1/0"):
        with pytest.raises(errors.InputError, match="want i/n"):
            share.parse(text)


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
    with pytest.raises(errors.InputError, match="format 1, this version|codec is .*'abc'"):
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
