"""What a run says of itself does not know that the run was stopped, nor where."""

import json
import types

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from lidit_jax.training.telemetry import step_lines
from lidit_jax.training.telemetry.metrics import Metrics
from tests.same_run import without_clock


def logged(workdir, stops):
    """The lines of ten steps, logged every five, of a run that is stopped and saved after these steps."""
    begun, done = None, 0
    for stop in (*stops, 10):
        metrics = Metrics(workdir, done + 1, 10, 8, begun)
        for step in range(done + 1, stop + 1):
            if step in (2, 4, 7):
                metrics.skip()
            else:
                metrics.add({"loss": 1 / step, "grad_norm": 0.1 * step})
            if step % 5 == 0:
                metrics.log(step, {"steps_per_s": 1.0 / stop}, {"batch": f"{step}"})
        begun, done = json.loads(json.dumps(metrics.state())), stop
        metrics.close()
    return [without_clock(line) for line in (workdir / "metrics.jsonl").open()]


def test_a_mean_is_of_all_steps_since_the_last_log_whenever_the_run_was_stopped(tmp_path):
    whole = logged(tmp_path / "whole", ())
    assert [(line["step"], line["skipped"], line["batch"]) for line in whole] == [
        (5, 2, "5"),
        (10, 1, "10"),
    ]
    losses = (1 + 1 / 3 + 1 / 5) / 3, (1 / 6 + 1 / 8 + 1 / 9 + 1 / 10) / 4
    assert [line["loss"] for line in whole] == pytest.approx(losses)
    for stops in ((3,), (5,), (7, 8), (1, 2, 3, 9)):
        assert logged(tmp_path / str(stops), stops) == whole


def told_to_tensorboard(workdir):
    """The events in this folder's only file, but the first, which tells the format's version."""
    (path,) = (workdir / "tensorboard").iterdir()
    text, events = path.read_bytes(), []
    while text:  # of records: 8 bytes of length, 4 of CRC, an event, 4 of CRC
        end = 12 + int.from_bytes(text[:8], "little")
        events.append(Event.FromString(text[12:end]))
        text = text[end + 4 :]
    return events[1:]


def test_tensorboard_is_told_the_same_at_the_same_steps_and_from_where_a_run_goes_on(tmp_path):
    metrics = Metrics(tmp_path, 5, 10, 8)
    metrics.add({"loss": 0.5, "grad_norm": 2.0})
    metrics.log(6, {"steps_per_s": 2.0}, {"batch": "6"})
    metrics.picture(7, "preview", np.zeros((4, 6, 3), np.uint8))
    metrics.scored(8, {"held_out_loss": 0.25})  # on disk at once: its checkpoint comes next
    begun, *events = told_to_tensorboard(tmp_path)
    assert begun.step == 5 and begun.session_log.status == SessionLog.START
    told = [(event.step, value) for event in events for value in event.summary.value]
    (preview,) = [(step, v.image.width) for step, v in told if v.HasField("image")]
    assert preview == (7, 6)
    wanted = [
        (line["step"], name, value)
        for line in step_lines.read(tmp_path / "metrics.jsonl")
        for name, value in line.items()
        if name not in ("step", "batch")
    ]
    numbers = [(step, v.tag, v.simple_value) for step, v in told if v.HasField("simple_value")]
    assert numbers == wanted and {"loss", "images_per_s", "held_out_loss"} < {n[1] for n in numbers}


def test_speed_is_told_in_images_and_in_the_time_that_is_left(tmp_path, monkeypatch, capsys):
    """On a device that tells of its memory: the most that it ever took."""
    used = {"bytes_in_use": 5, "peak_bytes_in_use": 7}
    device = types.SimpleNamespace(memory_stats=lambda: used)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    Metrics(tmp_path, 1, 100, 8).log(70, {"steps_per_s": 0.25}, {})
    assert "0.25 steps/s  2:00 left" in capsys.readouterr().out
    (line,) = step_lines.read(tmp_path / "metrics.jsonl")
    assert line["images_per_s"] == 2.0 and line["device_memory_bytes"] == 7
