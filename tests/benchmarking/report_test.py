"""A plan is printed and written whole, refusals included."""

import dataclasses
import json

from lidit_jax.benchmarking import chips, flops, least_time, plan, report
from lidit_jax.benchmarking.least_time import LeastTime
from lidit_jax.benchmarking.plan import Choice, Plan
from lidit_jax.benchmarking.program import Program, Setting, TooLarge
from tests.benchmarking.plan_test import on_mesh

TEXT = """HloModule m
ENTRY %main (a: f32[62500000]) -> f32[500000000] {
  %a = f32[62500000]{0} parameter(0)
  ROOT %g = f32[500000000]{0} all-gather(%a), channel_id=1
}
"""


def made():
    step = on_mesh((1, 8, 1))
    fits, large = Setting("full", 2, 4), Setting("none", 8, 1)
    program = Program(fits, chips.GIB, 2 * chips.GIB, 0, 3.0, TEXT)
    smaller = dataclasses.replace(program, setting=Setting("full", 1, 8))
    tried = [TooLarge(large, "wants 30.00G", 30 * chips.GIB, 1.0), smaller, program]
    choices = [
        Choice("v5e", fits, program.bytes, LeastTime(1.5, 0.25)),
        Choice("v6e", None, 40 * chips.GIB),
    ]
    asked = plan.Asked(step.config, (1, 8, 1), topology="v5e:2x4")
    products = [dataclasses.replace(p, flops=10_000 * p.flops) for p in flops.forward(step.task)]
    return Plan(asked, step, 1000, products, 1.01 * flops.total(products), tried, choices)


def test_what_is_printed_says_what_fits_and_what_was_refused():
    told, forward = report.text(made()), flops.total(made().products) / 1e12
    for line in (
        "v5e:2x4 devices (replica 1, fsdp 8, tensor 1), batch 64, 256 image tokens",
        f"TFLOP a picture: forward {forward:.3f} (XLA counts 1.010 of that",
        f"forward and backward {3 * forward:.3f}\n",
        "\ncompiled\n",
        "none   8            1             refused      wants 30.00  1 s",
        "full   2            4  1.00       2.00         3.00         3 s",
        "collectives of a step with remat full, micro-batch 2 x 4\n",  # what was compiled last
        "all-gather  f32  1  2.000 GB",
        "v5e   15.75  full       2            4  3.00         1.500          0.250",
        "v6e   31.24  too large                  wants 40.00",
    ):
        assert line in told, told


def test_a_plan_for_virtual_devices_says_that_it_is_an_upper_bound():
    plan_made = made()
    asked = dataclasses.replace(plan_made.asked, topology="", devices=8)
    told = report.text(dataclasses.replace(plan_made, asked=asked))
    assert told.startswith("8 virtual devices") and "\ncompiled on virtual CPU devices" in told


def test_the_json_has_the_numbers_behind_it():
    told = json.loads(json.dumps(report.as_json(made())))
    assert told["flops"]["training"] == 3 * told["flops"]["forward"]
    assert sum(p["flops"] for p in told["flops"]["products"]) == told["flops"]["forward"]
    assert told["tried"][0]["refused"] == "wants 30.00G"
    assert told["flops"]["forward_by_xla"] == 1.01 * told["flops"]["forward"]
    assert told["tried"][-1]["collectives"] == [
        {"kind": "all-gather", "dtype": "f32", "count": 1, "bytes": 2 * 10**9}
    ]
    assert [c["fits"] for c in told["choices"]] == [True, False]
    assert told["bytes"]["gradients"] == told["bytes"]["parameters"]


def test_a_step_at_the_peak_takes_its_products_recomputed_ones_included():
    plan_made = made()
    forward = flops.total(plan_made.products)
    again = flops.recomputed(plan_made.products, "full")
    time = least_time.of(
        plan_made.step, Setting("full", 2, 4), chips.CHIPS["v5e"], plan_made.products
    )
    assert time.products == (3 * forward + again) * 64 / 8 / 197e12
    assert time.seconds == max(time.products, time.traffic) > 0
