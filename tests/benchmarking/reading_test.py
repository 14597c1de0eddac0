"""A made-up data set is a sound one, and what is told of reading it adds up."""

import dataclasses
import time

import numpy as np
import pytest

from lidit_jax import errors
from lidit_jax.batch import Batch
from lidit_jax.benchmarking import made_up, reading, steps, storage
from lidit_jax.benchmarking.reading import Asked, Reading, Stream
from lidit_jax.preparation import verify
from lidit_jax.training.config import parse
from tests.tiny import load_config

ROWS = 48


def wanted(rows=ROWS, codec="int8", **train):
    """A tiny made-up set of two LLMs, in three bins around 64 px."""
    c = load_config("lidit_1b")
    c.data.size, c.data.bin_step, c.data.codec = (64, 64), 16, "latents:8x4"
    for encoder in (c.text.encoders.llama3, c.text.encoders.qwen):
        encoder.width = 32
    c.model.width, c.model.heads, c.model.depth = 32, 2, 1
    c.train.batch_size = 8
    c.train.update(train)
    return made_up.made(parse(c), rows, codec)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "set"
    made_up.write(wanted(), folder)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return reading.measure(Asked(wanted(), folder, hosts=2))


@pytest.mark.parametrize("codec", ["int8", "bf16"])
def test_what_is_made_up_is_a_sound_data_set(codec, tmp_path):
    made_up.write(wanted(codec=codec), tmp_path / "set")
    assert verify.verify(tmp_path / "set") == []
    reader = made_up.opened(wanted(codec=codec), tmp_path / "set")
    assert len(reader.dataset) == ROWS and len(reader.dataset.counts) == 3
    assert {len(store[i]) for store in reader.stores for i in range(9)} == {
        made_up.length(i) for i in range(9)
    }
    latents = [reader.dataset.image(row).latent_HxWxC for row in range(ROWS)]
    assert not np.array_equal(latents[0], latents[1])


def test_written_again_it_is_found_and_for_others_refused(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.array_record")}
    made_up.write(wanted(), folder)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.array_record")} == before
    with pytest.raises(errors.InputError, match="rows is 48, the config wants 96"):
        made_up.write(wanted(rows=96), folder)


def test_captions_are_as_long_as_they_are_said_to_be():
    lengths = [made_up.length(i) for i in range(4000)]
    assert min(lengths) >= made_up.SHORTEST and max(lengths) <= made_up.LONGEST
    assert abs(np.mean(lengths) - made_up.USUAL) < 1


def test_every_row_is_read_and_its_bytes_are_counted(folder, found):
    batches = len(found.stream.seconds)
    assert (found.share, batches) == (4, ROWS // 4)
    assert found.rate == pytest.approx(ROWS / sum(found.stream.seconds))
    files = [p for p in folder.rglob("*.array_record") if p.name != "captions.array_record"]
    assert sorted(files) == storage.files_of(folder)
    assert found.stored == pytest.approx(sum(p.stat().st_size for p in files) / ROWS)
    batch = Asked(wanted(), folder, hosts=2).reader().batch([(row, 0) for row in range(4)])
    latent, text = 8 * 8 * 4 * 4, 128 * (32 + 4 + 1)
    assert isinstance(batch, Batch) and steps.size(batch) == 4 * found.given
    assert found.given == pytest.approx(latent + 2 * text + 4, rel=0.1)  # latents of a bin
    assert found.read - found.given == 2 * (128 * 32 * 3 - 128 * 4 + 128)


def test_every_step_is_a_part_and_they_are_most_of_the_whole(found):
    every = {steps.RECORD, steps.MSGPACK, steps.CODEC, steps.PADDING, steps.LATENTS}
    assert set(found.parts) == every | {steps.CAPTION, steps.GIVEN}
    assert all(seconds >= 0 for seconds in found.parts.values())
    assert abs(found.rest) < 0.7 * found.whole


def test_a_step_that_takes_longer_is_seen_in_its_own_part(folder, monkeypatch):
    asked = Asked(wanted(), folder, hosts=2)
    real, wait = steps.msgpack.unpackb, 0.005

    def slow(packed):
        end = time.process_time() + wait
        while time.process_time() < end:
            pass
        return real(packed)

    monkeypatch.setattr(steps, "msgpack", type("Slow", (), {"unpackb": staticmethod(slow)}))
    found = reading.measure(asked)
    assert found.parts[steps.MSGPACK] >= wait


def made(seconds=1.0, processor=1.0, threads=2, cores=4, whole=0.01, plain=1e9, copied=1e9):
    """A batch of 100 samples of a megabyte, read in so many seconds."""
    stream = Stream((seconds,), processor, None)
    return Reading(
        100, cores, threads, stream, 1e6, 1e6, 4e6, {"padding": whole}, whole, 0.0, plain, copied, {}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        (dict(plain=1.2e8), "the disk"),
        (dict(copied=1.2e8), "the memory"),
        (dict(whole=0.035, processor=3.8), "the processor"),
        (dict(processor=3.9), "busier than the steps alone explain"),
        (dict(processor=1.8), "2 threads; more data.threads may help"),
        (dict(processor=0.5), "waiting: 0.5 of 4 cores"),
    ],
)
def test_the_limit_that_is_near_is_the_one_told(numbers, told):
    assert told in made(**numbers).limited_by
    assert told in made(**numbers).table()


def test_what_no_part_accounts_for_is_the_rest():
    """10 ms, of which 2 and 5 are known."""
    found = dataclasses.replace(made(whole=0.010), parts={"padding": 0.002, "msgpack": 0.005})
    assert found.rest == pytest.approx(0.003)
    rows = [line.split() for line in found.table().splitlines()]
    assert ["padding", "2.000", "ms", "20%"] in rows and ["msgpack", "5.000", "ms", "50%"] in rows
    assert ["between", "them", "3.000", "ms", "30%"] in rows
    assert found.as_json()["rest"] == found.rest


def test_all_numbers_are_in_the_json(found):
    told = found.as_json()
    assert {f.name for f in dataclasses.fields(found)} < set(told)
    assert told["limits"].keys() == {"disk", "memory", "processor"}
    assert set(found.parts) == set(told["parts"])


@pytest.mark.parametrize(
    ("rows", "hosts", "message"),
    [
        (ROWS, 3, "batch_size 8 does not divide over --hosts=3"),
        (15, 2, "--rows=15 is less than four batches of 4.* use --rows=128"),
        (ROWS, 0, "--hosts is 0; use 1 or more"),
    ],
)
def test_what_cannot_be_measured_is_refused(rows, hosts, message, tmp_path):
    with pytest.raises(errors.InputError, match=message):
        Asked(wanted(rows=rows), tmp_path, hosts)
