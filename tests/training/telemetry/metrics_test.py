"""What a run says of itself does not know that the run was stopped, nor where."""

import json

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
    for stops in ((3,), (5,), (7, 8), (1, 2, 3, 9)):
        assert logged(tmp_path / str(stops), stops) == whole
