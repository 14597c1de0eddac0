"""What is told of a run: lines of steps that are never told twice, where its time went, its pulse."""

import json
import subprocess
import sys
import time

import pytest

from lidit_jax.training import clock, ledger, step_lines
from lidit_jax.training.clock import Clock
from lidit_jax.training.pulse import Pulse


def test_a_resumed_run_tells_no_step_twice_and_no_line_by_half(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines = step_lines.StepLines(path, 1)
    for step in range(1, 6):
        lines.write(step, key=f"schlüssel {step}")
    with open(path, "ab") as f:
        f.write(b'{"step": 6, "key": "schl\xc3')  # as a kill leaves it
    step_lines.StepLines(path, 4).write(4, key="again")
    found = [(line["step"], line["key"]) for line in step_lines.read(path)]
    assert found == [*((step, f"schlüssel {step}") for step in (1, 2, 3)), (4, "again")]
    assert len(path.read_text().splitlines()) == 4


def test_a_ledger_is_there_with_its_first_row_and_only_where_it_is_kept(tmp_path):
    ledger.Ledger(tmp_path, 1, write=False).row(1, "skipped")
    kept = ledger.Ledger(tmp_path, 1)
    assert not list(tmp_path.iterdir())
    kept.row(2, "skipped", keys=["a"])
    assert step_lines.read(kept.path) == [{"step": 2, "what": "skipped", "keys": ["a"]}]
    ledger.Ledger(tmp_path, 2)
    assert step_lines.read(kept.path) == []  # step 2 is about to be done again


@pytest.fixture
def now(monkeypatch):
    """A clock's hand: seconds, to be moved by hand."""
    hand = [1000.0]
    monkeypatch.setattr(clock.time, "time", lambda: hand[0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: hand[0])
    return hand


def test_goodput_is_the_share_of_time_that_went_into_steps_which_are_kept(now):
    begun = Clock(started=990.0, lines=[])
    now[0] += 20  # of ten steps, beside 4 seconds without data, and 6 of a save
    with begun.beside("data"):
        now[0] += 4
    with begun.beside("save"):
        now[0] += 6
    told = begun.read(10)
    assert told["steps_per_s"] == 10 / 30 and told["data_wait_s"] == 0.4
    assert told["trained_s"] == 20 and told["goodput"] == 20 / 40
    assert told["checkpoint_age_s"] == 6
    now[0] += 10  # of five steps that a kill makes vain; an hour later it goes on
    begun.read(5)
    now[0] += 3600
    resumed = Clock(started=now[0], lines=[{"step": 10} | told])
    now[0] += 20
    again = resumed.read(5)
    assert again["trained_s"] == 40 and again["goodput"] == 40 / (40 + 10 + 3600 + 20)


def test_a_pulse_tells_the_step_and_when_it_ended(tmp_path):
    pulse = Pulse(tmp_path, minutes=0)
    pulse.beat(7)
    told = json.loads((tmp_path / "heartbeats" / "00000.json").read_text())
    assert told["step"] == 7 and abs(told["time"] - time.time()) < 5 and told["host"]
    pulse.close()


HANGS = """
import pathlib, sys, time
from lidit_jax.training.pulse import Pulse

def this_hangs():
    time.sleep(2)

pulse = Pulse(pathlib.Path(sys.argv[1]), minutes=1.2 / 60)
for step in range(1, 13):  # 2.4 seconds, but each step ends in time
    time.sleep(0.2)
    pulse.beat(step)
print("no stack so far", file=sys.stderr, flush=True)
this_hangs()
pulse.close()
time.sleep(1.5)
"""


def test_where_no_step_ends_every_threads_stack_is_told(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGS, tmp_path], capture_output=True, text=True, timeout=60
    )
    before, after = done.stderr.split("no stack so far")
    assert "Thread" not in before and "in this_hangs" in after
    assert after.count("Timeout (0:00:01") == 1, after
