"""A plan as text and as JSON."""

from lidit_jax import tables
from lidit_jax.benchmarking import chips, flops, program
from lidit_jax.benchmarking.plan import Choice, Plan
from lidit_jax.benchmarking.program import Program
from lidit_jax.models.stacking import REMAT_POLICIES

VIRTUAL = (
    "on virtual CPU devices: an upper bound, since a CPU computes bf16 in f32, fuses less, and "
    "reduces whole gradients where others scatter them"
)


def as_json(plan: Plan) -> dict:
    """Returns the plan as JSON values. Bytes are per device, FLOPs per picture."""
    config, mesh = plan.step.config, plan.step.mesh
    products = plan.products
    return {
        "devices": plan.asked.topology or f"{mesh.size} virtual",
        "mesh": dict(mesh.shape),
        "batch_size": config.train.batch_size,
        "latent": list(plan.step.task.shape.latent),
        "text_tokens": plan.asked.lengths.text,
        "prefix_tokens": [source.prefix_len for source in plan.step.task.sources],
        "parameters": plan.parameters,
        "bytes": device_bytes(plan),
        "flops": {
            "forward": flops.total(products),
            "forward_by_xla": plan.xla_flops,
            "training": flops.training(products),
            "recomputed": {r: flops.recomputed(products, r) for r in REMAT_POLICIES},
            "products": [vars(p) for p in products],
        },
        "tried": [_tried(t) for t in plan.tried],
        "choices": [_chosen(c) for c in plan.choices],
    }


def device_bytes(plan: Plan) -> dict[str, int]:
    """Returns the bytes on each device by purpose; gradients are as large as the parameters."""
    state = program.state_bytes(plan.step.like)
    return state | {
        "gradients": state["parameters"],
        "batch": program.batch_bytes(plan.step.task, plan.step.mesh),
    }


def _tried(found) -> dict:
    row = vars(found.setting) | {"compile_seconds": round(found.seconds, 1)}
    if not isinstance(found, Program):
        return row | {"refused": found.told, "wanted": found.wanted}
    parts = {k: getattr(found, k) for k in ("arguments", "temporaries", "code", "bytes")}
    counted = found.collectives
    kinds = [
        {"kind": kind, "dtype": dtype, **vars(count)}
        for (kind, dtype), count in counted.by_kind.items()
    ]
    return row | parts | {"collectives": kinds, "unknown_loops": counted.unknown_loops}


def _chosen(choice: Choice) -> dict:
    row = {"chip": choice.chip, "memory": chips.CHIPS[choice.chip].memory, "bytes": choice.bytes}
    if choice.setting is None:
        return row | {"fits": False}
    times = {"seconds_of_products": choice.time.products, "seconds_of_traffic": choice.time.traffic}
    return row | {"fits": True} | vars(choice.setting) | times


def text(plan: Plan) -> str:
    """Returns the plan as a few tables."""
    told = as_json(plan)
    mesh = ", ".join(f"{axis} {size}" for axis, size in told["mesh"].items())
    tokens = plan.step.task.model.patch**2
    H, W, _ = told["latent"]
    lines = [
        f"{told['devices']} devices ({mesh}), batch {told['batch_size']}, "
        f"{H * W // tokens} image tokens, {told['text_tokens']} text tokens per LLM",
        f"parameters {told['parameters']:,}",
        "",
        *_flops_lines(told["flops"]),
        "",
        "GiB on each device of",
        *_table([[name, _gib(size)] for name, size in told["bytes"].items()]),
        "gradients live only within the step, in its temporaries below; "
        "padding is not counted above",
        "",
        "compiled" + ("" if plan.asked.topology else " " + VIRTUAL),
        *_table([_TRIED] + [_tried_cells(row) for row in told["tried"]]),
        "",
        *_collective_lines(plan),
        "",
        "chosen: the fastest that fits, with products at peak and parameters at the links' speed",
        *_table([_CHOSEN] + [_chosen_cells(row) for row in told["choices"]]),
    ]
    return "\n".join(lines)


_TRIED = ["remat", "micro-batch", "x", "arguments", "temporaries", "sum GiB", "compiled in"]
_CHOSEN = ["chip", "GiB", "remat", "micro-batch", "x", "sum GiB", "s of products", "s of traffic"]


def _flops_lines(told) -> list[str]:
    ratio = told["forward_by_xla"] / told["forward"]
    extra = told["recomputed"]
    return [
        f"TFLOP a picture: forward {told['forward'] / 1e12:.3f} (XLA counts {ratio:.3f} of that, "
        f"elementwise work included), forward and backward {told['training'] / 1e12:.3f}",
        "recomputed: " + ", ".join(f"{name} {again / 1e12:.3f}" for name, again in extra.items()),
    ]


def _tried_cells(row) -> list[str]:
    head = [row["remat"], str(row["micro_batch"]), str(row["accumulate"])]
    seconds = f"{row['compile_seconds']:.0f} s"
    if "refused" in row:
        return [*head, "", "refused", f"wants {_gib(row['wanted'])}", seconds]
    return [*head, *(_gib(row[k]) for k in ("arguments", "temporaries", "bytes")), seconds]


def _chosen_cells(row) -> list[str]:
    head = [row["chip"], _gib(row["memory"])]
    if not row["fits"]:
        return [*head, "too large", "", "", f"wants {_gib(row['bytes'])}", "", ""]
    numbers = [str(row["micro_batch"]), str(row["accumulate"]), _gib(row["bytes"])]
    times = [f"{row[f'seconds_of_{what}']:.3f}" for what in ("products", "traffic")]
    return [*head, row["remat"], *numbers, *times]


def _collective_lines(plan: Plan) -> list[str]:
    """Returns the collectives of the last compiled program, as lines."""
    compiled = [t for t in plan.tried if isinstance(t, Program)]
    if not compiled:
        return ["collectives: nothing was compiled"]
    found, setting = compiled[-1].collectives, compiled[-1].setting
    head = (
        f"collectives of a step with remat {setting.remat}, micro-batch {setting.micro_batch} "
        f"x {setting.accumulate}"
    )
    if found.unknown_loops:
        head += f" ({found.unknown_loops} loops of unknown length are counted once)"
    rows = [
        [kind, dtype, str(c.count), f"{c.bytes / 1e9:.3f} GB"]
        for (kind, dtype), c in found.by_kind.items()
    ]
    return [head, *_table(rows)]


def _gib(size: float) -> str:
    return f"{size / chips.GIB:.2f}"


def _table(rows: list[list[str]]) -> list[str]:
    return [f"  {line}" for line in tables.aligned(rows)]
