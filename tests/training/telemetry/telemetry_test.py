"""What is told of a run: lines of steps that are never told twice, where its time went, its pulse."""

import json
import subprocess
import sys
import threading
import time

import pytest

from lidit_jax.training.telemetry import clock, ledger, step_lines
from lidit_jax.training.telemetry.clock import Clock
from lidit_jax.training.telemetry.pulse import Pulse


def test_a_resumed_run_tells_no_step_twice_and_no_line_by_half(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines = step_lines.StepLines(path, 1)
    for step in range(1, 6):
        lines.write(step, key=f"schlüssel {step}")
    with open(path, "ab") as f:
        f.write(b'{"step": 6, "key": "schl\xc3')  # as a kill leaves it
    resumed = step_lines.StepLines(path, 4)
    resumed.write(4, key="again")
    assert resumed.count == 4
    found = [(line["step"], line["key"]) for line in step_lines.read(path)]
    assert found == [*((step, f"schlüssel {step}") for step in (1, 2, 3)), (4, "again")]
    assert len(path.read_text().splitlines()) == 4


def test_a_line_that_is_not_what_was_written_is_none(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines = step_lines.StepLines(path, 1)
    for step in (1, 2, 3):
        lines.write(step, loss=step / 7)
    whole = path.read_bytes()
    first = len(whole.splitlines()[0])
    for at in range(first):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert [line["step"] for line in step_lines.read(path)] == [2, 3], at


def test_a_key_may_hold_what_others_take_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines = step_lines.StepLines(path, 1)
    keys = ["a\u2028b", "c\x85d\n", "e\u2029\x0c"]
    for key in keys:
        lines.write(1, key=key)
    assert step_lines.StepLines(path, 2).count == 3
    assert [line["key"] for line in step_lines.read(path)] == keys


def test_what_each_start_finds_is_in_the_ledger_once(tmp_path):
    for _ in range(3):
        kept = ledger.Ledger(tmp_path, 5)
        for lost in (1, 2):
            kept.row_once(4, "lines", file="metrics.jsonl", lost=lost)
        kept.close()
    assert [row["lost"] for row in step_lines.read(kept.path)] == [1, 2]
    ledger.Ledger(tmp_path / "none", 1, write=False).row_once(1, "lines")
    assert not (tmp_path / "none").exists()


def test_a_ledger_is_there_with_its_first_row_and_only_where_it_is_kept(tmp_path):
    ledger.Ledger(tmp_path, 1, write=False).row(1, "skipped")
    kept = ledger.Ledger(tmp_path, 1)
    assert not list(tmp_path.iterdir())
    kept.row(2, "skipped", keys=["a"])
    assert step_lines.read(kept.path) == [{"step": 2, "what": "skipped", "keys": ["a"]}]
    ledger.Ledger(tmp_path, 2)
    assert step_lines.read(kept.path) == []  # step 2 is about to be done again


def test_rows_of_steps_are_counted_over_all_starts(tmp_path):
    """But those that are about to be written again, and those that are of no step."""
    kept = ledger.Ledger(tmp_path, 1)
    for step, what in ((1, "skipped"), (2, "checkpoint"), (2, "replaced"), (3, "lines")):
        kept.row(step, what)
    assert kept.count == 2
    kept.close()
    for first_step, count in ((4, 2), (2, 1), (1, 0)):
        resumed = ledger.Ledger(tmp_path, first_step)
        assert resumed.count == count
        resumed.close()


@pytest.fixture
def now(monkeypatch):
    """A clock's hand: seconds, to be moved by hand."""
    hand = [1000.0]
    monkeypatch.setattr(clock.time, "time", lambda: hand[0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: hand[0])
    return hand


class Step:
    """A step's result, which is there when it is told so."""

    def __init__(self):
        self.there = threading.Event()

    def block_until_ready(self):
        self.there.wait(10)


@pytest.fixture
def computed(now):
    """Moves the clock's hand and ends a step."""

    def end(clock, step, seconds):
        now[0] += seconds
        before, deadline = clock._steps_ended, time.monotonic() + 10
        step.there.set()
        while clock._steps_ended == before and time.monotonic() < deadline:
            pass

    return end


def test_goodput_is_the_share_of_time_in_which_steps_were_computed_that_are_kept(now, computed):
    begun = Clock(started=990.0)
    for _ in range(10):
        step = Step()
        begun.begin()
        begun.queued(step)
        computed(begun, step, 2.0)
        with begun.fetching():
            now[0] += 0.4  # nothing is computed meanwhile
        now[0] += 0.6  # nor here, in a save or so
    told = begun.read(10)
    assert told["steps_per_s"] == pytest.approx(10 / 30)
    assert told["data_wait_s"] == pytest.approx(0.4)
    assert told["trained_s"] == pytest.approx(20)
    assert told["goodput"] == pytest.approx(20 / 40)
    assert told["checkpoint_age_s"] == pytest.approx(30)
    saved = begun.state()
    now[0] += 10 + 3600  # more steps, which a kill makes vain; an hour later it goes on
    resumed, step = Clock(started=now[0], saved=saved), Step()
    resumed.begin()
    resumed.queued(step)
    computed(resumed, step, 20)
    again = resumed.read(1)
    assert again["trained_s"] == pytest.approx(40)
    assert again["goodput"] == pytest.approx(40 / (40 + 10 + 3600 + 20))


def test_a_step_that_is_computed_while_it_is_queued_is_computed_then(now, computed):
    """As where the host waits for the devices before it can queue the rest."""
    clock, step = Clock(started=1000.0), Step()
    now[0] += 1.0
    clock.begin()
    now[0] += 3.0
    clock.queued(step)
    computed(clock, step, 2.0)
    assert clock.read(1)["trained_s"] == pytest.approx(5)


def test_a_step_that_waits_for_the_one_before_is_computed_from_when_that_has_ended(now, computed):
    clock, steps = Clock(started=1000.0), (Step(), Step())
    for step in steps:
        clock.begin()
        clock.queued(step)
    for step in steps:
        computed(clock, step, 2.0)
    assert clock.read(2)["trained_s"] == pytest.approx(4)


def test_speed_is_since_the_last_reading_and_a_checkpoints_age_since_it_was_taken(now):
    clock = Clock(started=1000.0)
    now[0] += 10
    told = clock.read(5)
    assert (told["steps_per_s"], told["checkpoint_age_s"]) == (0.5, 10)
    now[0] += 4
    clock.kept(since=1008.0)  # it was on disk later
    told = clock.read(8)
    assert (told["steps_per_s"], told["checkpoint_age_s"]) == (2.0, 6)


def test_a_wait_for_data_counts_from_when_the_step_has_ended(now, computed):
    clock, step = Clock(started=1000.0), Step()
    clock.begin()
    clock.queued(step)
    with clock.fetching():
        computed(clock, step, 0.9)  # still computed for nine tenths of the wait
        now[0] += 0.1
    assert clock.read(1)["data_wait_s"] == pytest.approx(0.1)
    clock.begin()
    clock.queued(Step())
    with clock.fetching():
        now[0] += 5
    assert clock.read(1)["data_wait_s"] == 0


def test_a_pulse_tells_the_step_and_when_it_ended(tmp_path):
    with Pulse(tmp_path, minutes=0) as pulse:
        pulse.beat(7)
    told = json.loads((tmp_path / "heartbeats" / "00000.json").read_text())
    assert told["step"] == 7 and abs(told["time"] - time.time()) < 5 and told["host"]


def test_a_pulse_is_not_written_at_every_step(tmp_path, monkeypatch):
    """Not to burden a network's filesystem."""

    def told():
        return json.loads((tmp_path / "heartbeats" / "00000.json").read_text())["step"]

    with Pulse(tmp_path, minutes=0) as pulse:
        pulse.beat(1)
        pulse.beat(2)
        assert told() == 1
        monkeypatch.setattr("lidit_jax.training.telemetry.pulse.RENEW", 0.0)
        pulse.beat(3)
        assert told() == 3


HANGS = """
import pathlib, sys, time
from lidit_jax.training.telemetry.pulse import Pulse

def this_hangs():
    time.sleep(2.8)

with Pulse(pathlib.Path(sys.argv[1]), minutes=1.2 / 60) as pulse:
    for step in range(1, 13):  # 2.4 seconds, but each step ends in time
        time.sleep(0.2)
        pulse.beat(step)
    print("no stack so far", file=sys.stderr, flush=True)
    this_hangs()
time.sleep(1.5)
"""


def test_where_no_step_ends_every_threads_stack_is_told(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGS, tmp_path], capture_output=True, text=True, timeout=60
    )
    before, after = done.stderr.split("no stack so far")
    assert "Thread" not in before and "in this_hangs" in after
    assert after.count("Timeout (0:00:01") == 2, after  # and again; but not of what comes after it
