"""From raw input to a data set that trains: whole or resumed, by one process or several."""

import json
import pathlib
import shutil
import types

import jax
import numpy as np
import pytest

from lidit_jax import errors, files, preparation, sharding, share
from lidit_jax.data import dataset, pipeline, records, sources
from lidit_jax.data.dataset import Dataset
from lidit_jax.data.plan import Plan
from lidit_jax.data.sources.example import Example
from lidit_jax.models.vae.pixels import Pixels
from lidit_jax.preparation import estimate, images, report, verify
from lidit_jax.training import checkpoints, feed, loop
from lidit_jax.training.inputs import open_inputs
from tests import tiny_sources
from tests.tiny_prepared import SOURCES, assert_same, change_json, config_of, whole


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
        batch = next(batches).batch
        assert batch.latents_BxHxWxC.shape[1:3] in found.bins
        assert np.isfinite(batch.latents_BxHxWxC).all() and batch.text[0].mask_BxS.any(1).all()
    assert verify.verify(tmp_path / "set") == []


def test_a_mixture_is_prepared_and_its_parts_may_move(llms, tmp_path):
    places = {kind: SOURCES[kind](tmp_path / kind)[1]["path"] for kind in ("folder", "parquet")}
    parts = {f"of_{k}": {"source": k, "path": str(path)} for k, path in places.items()}
    config = config_of(llms, "mixture", {"parts": parts})
    preparation.prepare(config, tmp_path / "set")
    found = Dataset(tmp_path / "set")
    keys = [found.image(row).key for row in range(len(found))]
    assert sorted({key.partition("/")[0] for key in keys}) == ["of_folder", "of_parquet"]
    assert len(found) == 18 and found.info["dropped"] == {"R4-url": 2}
    moved = {name: part | {"path": "/elsewhere"} for name, part in parts.items()}
    elsewhere = config_of(llms, "mixture", {"parts": moved})
    open_inputs(elsewhere, tmp_path / "set")
    assert checkpoints.changes(config, elsewhere) == []
    other = {name: part | {"caption": "text"} for name, part in parts.items()}
    with pytest.raises(errors.InputError, match="was made otherwise|differs|options"):
        open_inputs(config_of(llms, "mixture", {"parts": other}), tmp_path / "set")
    with pytest.raises(errors.InputError, match="inside .*its own source"):
        preparation.prepare(config, pathlib.Path(places["folder"]) / "set")


@pytest.mark.slow
def test_a_run_trains_on_several_bins_and_logs_its_tokens(config, prepared, tmp_path):
    loop.train(config, prepared, tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    sizes = [h * w // 16 * 8 for h, w in Dataset(prepared).bins]  # patch 4, batch 8
    assert min(sizes) <= line["tokens"] <= max(sizes)


def test_the_batches_of_a_run_are_foretold_in_shape_and_dtype(config, prepared):
    """So that every program is there before step 1."""
    _, reader, _ = open_inputs(config, prepared)
    batches = pipeline.batches(reader, 4)
    specs = [forms(spec) for spec in reader.specs(4, 0, 40)]
    assert len(specs) == len(reader.dataset.counts) > 2
    drawn = [forms(next(batches).batch) for _ in range(40)]
    assert all(drawn.count(spec) for spec in specs) and all(form in specs for form in drawn)


def forms(batch):
    return jax.tree.structure(batch), [(a.shape, a.dtype) for a in jax.tree.leaves(batch)]


def test_an_epoch_shows_every_picture_once_whatever_its_bin(config, prepared):
    _, reader, _ = open_inputs(config, prepared)
    counts, batch = reader.dataset.counts, 2
    assert len(counts) > 2
    seen = {bin: [] for bin in range(len(counts))}
    first = np.concatenate([[0], np.cumsum(counts)])
    batches = pipeline.batches(reader, batch)
    for _ in range(sum(counts) * 4 // batch):
        rows = next(batches).batch.row_B
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
    parts = [pipeline.batches(reader, 4, rows=range(2 * i, 2 * i + 2)) for i in range(2)]
    for _ in range(12):
        batch, halves = next(whole).batch, [next(part).batch for part in parts]
        np.testing.assert_array_equal(batch.row_B, np.concatenate([h.row_B for h in halves]))
        np.testing.assert_array_equal(
            batch.latents_BxHxWxC, np.concatenate([h.latents_BxHxWxC for h in halves])
        )


def test_any_number_of_threads_gives_the_same_batches(config, prepared):
    _, reader, _ = open_inputs(config, prepared)
    one, four = (pipeline.batches(reader, 4, threads=threads) for threads in (1, 4))
    for _ in range(20):
        jax.tree.map(np.testing.assert_array_equal, next(one).batch, next(four).batch)
    four.set_state(one.get_state())
    jax.tree.map(np.testing.assert_array_equal, next(one).batch, next(four).batch)


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


def test_a_source_that_is_read_otherwise_is_another_plan_with_its_own_pictures_and_features(
    llms, raw, prepared, tmp_path
):
    """Else pictures have captions of others, whose numbers have moved."""
    read = shutil.copytree(raw, tmp_path / "raw")
    path = read / "even" / "0004.json"  # as large as before
    path.write_text(path.read_text().replace("a tall tower", "a small boat"))
    config = config_of(llms, "folder", {"path": str(read)}, shards=3)
    folder = shutil.copytree(prepared, tmp_path / "set")
    (folder / "plan.json").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(errors.InputError, match="another plan, 9 pictures of 10 rows.* are 9 of"):
        preparation.prepare(config, folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shutil.rmtree(folder / "plan")
    preparation.prepare(config, folder)
    preparation.prepare(config, tmp_path / "fresh")
    assert_same(tmp_path / "fresh", folder)


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


def test_a_source_that_ends_early_is_told(config, prepared):
    """Though every row that it still has is what it was."""
    plan, source = Plan(prepared), sources.make("folder", **config.data.options)
    for piece in range(plan.pieces):
        rows = [e for e in source.piece(piece, plan.pieces) if isinstance(e, Example)]
        whole, cut = (types.SimpleNamespace(piece=lambda *_, r=r: r) for r in (rows, rows[:-1]))
        assert list(images.planned(whole, plan, piece))
        with pytest.raises(
            errors.InputError, match=f"piece {piece} .*{len(rows)} .*{len(rows) - 1}"
        ):
            list(images.planned(cut, plan, piece))


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
    batch = reader.batch([(0, epoch) for epoch in range(8)])
    caption_B = [reader.caption(reader.dataset.image(0), epoch) for epoch in range(8)]
    (wanted,) = open_inputs(config, int8)[1].text(caption_B)
    mesh = sharding.make_mesh((1, 8, 1))
    given = feed.Feed(reader, mesh, 8)(batch)
    assert forms(given) == forms(reader.specs(8, 0, 40)[0])
    assert given.text[0].hidden_BxSxE.sharding.is_equivalent_to(sharding.batch_sharding(mesh), 3)
    for found in (given.text, reader.restored(batch.text)):
        np.testing.assert_array_equal(found[0].mask_BxS, wanted.mask_BxS)
        off_BxSxE = np.asarray(found[0].hidden_BxSxE) - wanted.hidden_BxSxE.astype(np.float32)
        assert 0 < np.sqrt(np.mean(np.square(off_BxSxE[wanted.mask_BxS] / std_E))) < 0.02


def test_captions_are_remembered_as_long_as_they_are_few_and_small(config, prepared, monkeypatch):
    def most():
        store = Dataset(prepared).features(config.encoders[0].store)
        return store.stored.cache_info().maxsize, store.info["bytes"] / len(store)

    assert most()[0] == 1024
    monkeypatch.setattr(dataset, "_RECENT_BYTES", 3.5 * most()[1])
    assert most()[0] == 3


def test_the_channels_of_int8_that_are_lost_are_made_again_with_all_that_was_packed_by_them(llms, raw, tmp_path):  # fmt: skip
    c = config_of(llms, "folder", {"path": str(raw)}, shards=3)
    c = type(c)(**vars(c) | {"encoders": (type(c.encoders[0])(**vars(c.encoders[0]) | {"codec": "int8"}),)})  # fmt: skip
    preparation.prepare(c, tmp_path / "set")
    before = shutil.copytree(tmp_path / "set", tmp_path / "before")
    channels = next((tmp_path / "set").rglob("channels.npy"))
    channels.unlink()
    with pytest.raises(errors.InputError, match="shards 0, 1, 2 of 3 of .* are missing"):
        preparation.merge(c, tmp_path / "set")
    shards = sorted(channels.parent.glob("features-*.array_record"))
    old = [shard.stat().st_ino for shard in shards]
    preparation.prepare(c, tmp_path / "set")
    assert_same(before, tmp_path / "set")
    assert all(shard.stat().st_ino != i for shard, i in zip(shards, old, strict=True))


def test_the_vae_encodes_on_every_device_of_the_machine(config, prepared, tmp_path, monkeypatch):
    devices = []

    class Seen(Pixels):
        def on(self, mesh):
            devices.append(sorted(d.id for d in mesh.devices.flat))
            return super().on(mesh)

    for room in (images, estimate):
        monkeypatch.setattr(room, "make_codec", lambda name: Seen())
    preparation.prepare(config, tmp_path / "set")
    estimate.estimate(config, *preparation.prepare_plan(config, tmp_path / "set"))
    assert devices == 2 * [sorted(d.id for d in jax.local_devices())] and len(devices[0]) == 8
    assert_same(prepared, tmp_path / "set")


def test_a_report_shows_pictures_of_every_bin_and_every_drop(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "set")
    page = report.write(folder).read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(Dataset(folder).bins)
    for told in ("9 pictures of 10 rows", "R4-url", "R5-tags", "zh", "两只猫坐在沙发上", "images"):
        assert told in page


def test_a_report_tells_the_size_of_every_part(config, prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "set")
    page = report.write(folder).read_text(encoding="utf-8")
    for part in ("images", f"features/{config.encoders[0].store}"):
        size = sum(p.stat().st_size for p in (folder / part).rglob("*") if p.is_file())
        assert f'<td>{part}</td><td class="n">{estimate.amount(size)}</td>' in page


def test_pictures_are_not_shown_by_another_vae_than_they_were_made_with(prepared, tmp_path):
    """Which may be where that one was."""
    folder = shutil.copytree(prepared, tmp_path / "set")
    change_json(folder / "dataset.json", codec_identity={"name": "pixels", "hash": "another"})
    with pytest.raises(errors.InputError, match="pixels is not the VAE"):
        report.write(folder)
    assert not (folder / "report.html").exists()


def test_an_estimate_is_near_what_is_written(config, prepared):
    plan, source = preparation.prepare_plan(config, prepared)
    pictures, captions = estimate.estimate(config, plan, source)
    assert (pictures.count, captions.count) == (9, plan.info["captions"])
    for line, pattern in ((pictures, "latents*"), (captions, "features*.array_record")):
        rows = records.Shards(sorted(prepared.rglob(pattern)))  # a file itself has 128 kB more
        written = sum(len(rows[i]) for i in range(len(rows)))
        assert line.seconds_each > 0
        assert abs(line.count * line.bytes_each / written - 1) < 0.25
    many = estimate.estimate(config, plan, source, pictures=9000)
    assert [line.count for line in many] == [9000, 1000 * captions.count]
    assert "9,000" in estimate.table(many, price=2.0) and "cost" in estimate.table(many, price=2.0)


def test_numbers_of_an_estimate_have_three_digits_and_a_unit():
    sizes = {1.5: "1.5 B", 999.7: "1 kB", 9.99e5: "999 kB", 2.2e13: "22 TB", 5e18: "5,000 PB"}
    assert {size: estimate.amount(size) for size in sizes} == sizes
    speeds = {3.0: "0.333/s", 0.08: "12.5/s", 1 / 4710: "4,710/s"}
    assert {each: estimate.Line("x", 1, 1, each).row(0)[4] for each in speeds} == speeds
