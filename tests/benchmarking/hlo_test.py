"""Collectives are counted as often as they run, and their bytes are those of the larger side."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from lidit_jax import sharding
from lidit_jax.benchmarking import hlo

KB = 4 * 256  # bytes of f32 [256]


def compiled(*lengths):
    """The text of a program for 8 devices: gather 8 x [256] once, and in each of a x b rounds add [256] up and pass it on.

    lengths: a and b, given as the program is compiled; none: as it runs.
    """
    mesh = sharding.make_mesh((1, 8, 1))
    ring = [(i, (i + 1) % 8) for i in range(8)]

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P("fsdp"), P()),
        out_specs=(P(), P("fsdp")),
        check_vma=False,
    )
    def run(x_256, lengths_2):
        whole = jax.lax.all_gather(x_256, "fsdp", tiled=True)
        a, b = lengths or lengths_2

        def inner(_, x):
            x = jnp.sin(jax.lax.psum(jnp.cos(x), "fsdp"))
            return jax.lax.ppermute(x, "fsdp", ring)

        def outer(_, x):
            return jax.lax.fori_loop(0, b, inner, x)

        return whole, jax.lax.fori_loop(0, a, outer, x_256)

    return jax.jit(run).lower(jnp.zeros(8 * 256), jnp.array([5, 3])).compile().as_text()


def test_a_program_made_by_hand_is_counted_exactly():
    found = hlo.collectives(compiled(5, 3))
    assert found.by_kind == {
        ("all-gather", "f32"): hlo.Count(1, 8 * KB),
        ("all-reduce", "f32"): hlo.Count(15, 15 * KB),
        ("collective-permute", "f32"): hlo.Count(15, 15 * KB),
    }
    assert found.unknown_loops == 0


def test_a_loop_whose_length_the_program_does_not_say_counts_once_and_is_told():
    counted = hlo.collectives(compiled())
    assert counted.by_kind == {
        ("all-gather", "f32"): hlo.Count(1, 8 * KB),
        ("all-reduce", "f32"): hlo.Count(1, KB),
        ("collective-permute", "f32"): hlo.Count(1, KB),
    }
    assert counted.unknown_loops == 2


@pytest.mark.parametrize("limit", [12, 13, 14])
def test_loops_are_counted_also_where_xla_does_not_note_how_often_they_run(limit):
    loop = _loop("s32[] constant(2)", f"s32[] constant({limit})", "s32[] constant(3)")
    counts = hlo.collectives(loop)
    assert counts.by_kind == {("all-to-all", "bf16"): hlo.Count(4, 4 * 64)}  # 2, 5, 8, 11


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    counts = hlo.collectives(_loop("s32[] parameter(0)", "s32[] constant(14)", "s32[] constant(3)"))
    assert counts.by_kind == {("all-to-all", "bf16"): hlo.Count(1, 64)}
    assert counts.unknown_loops == 1


def test_a_kernels_notes_may_break_its_line():
    text = _loop("s32[] constant(2)", "s32[] constant(14)", "s32[] constant(3)")
    broken = text.replace(
        "  %y =",
        '  %k = bf16[32]{0} custom-call(%x), backend_config={"custom":{"body":"x",\n'
        '"notes":"{\\"block\\": 512,\n\\"of\\": 2}"\n}}, metadata={op_name="attend"}\n  %y =',
    )
    assert hlo.collectives(broken) == hlo.collectives(text)


def _loop(start, limit, step):
    return f"""HloModule loop
body (p: (s32[], bf16[32])) -> (s32[], bf16[32]) {{
  %p = (s32[], bf16[32]{{0}}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[32]{{0:T(256)(2,1)}} get-tuple-element(%p), index=1
  %step = {step}
  %next = s32[]{{:T(128)}} add(%i, %step)
  %y = bf16[32]{{0}} all-to-all(%x), channel_id=1
  ROOT %r = (s32[], bf16[32]{{0}}) tuple(%next, %y)
}}

cond (q: (s32[], bf16[32])) -> pred[] {{
  %q = (s32[], bf16[32]{{0}}) parameter(0)
  %limit = {limit}
  %j = s32[] get-tuple-element(%q), index=0
  ROOT %less = pred[]{{:T(512)}} compare(%j, %limit), direction=LT
}}

ENTRY %main (a: bf16[32]) -> (s32[], bf16[32]) {{
  %a = bf16[32]{{0}} parameter(0)
  %start = {start}
  %t = (s32[], bf16[32]{{0}}) tuple(%start, %a)
  ROOT %w = (s32[], bf16[32]{{0}}) while(%t), condition=%cond, body=%body
}}
"""


def test_what_a_compiler_writes_in_pieces_counts_once():
    """A start and its end; a TPU's chain of steps; a TPU's reduce-scatter; several arrays at once."""
    found = hlo.collectives("""HloModule pieces
%start.1 (p0: bf16[4]) -> (bf16[4], bf16[32]) {
  %p0 = bf16[4]{0} parameter(0)
  %g0 = bf16[32]{0:T(8,128)(2,1)S(1)} all-gather(%p0), channel_id=7, frontend_attributes={chain_id="3"}
  ROOT %c = (bf16[4]{0}, bf16[32]{0}) custom-call(%g0), custom_call_target="AsyncCollectiveStart"
}

%middle.1 (p1: bf16[4]) -> bf16[32] {
  %p1 = bf16[4]{0} parameter(0)
  ROOT %g1 = bf16[32]{0} all-gather(%p1), channel_id=7, frontend_attributes={chain_id="3"}
}

%all-reduce-scatter.2 (p2: bf16[32]) -> bf16[4] {
  %p2 = bf16[32]{0} parameter(0)
  %all = bf16[32]{0} all-reduce(%p2), to_apply=%add
  %zero = s32[] constant(0)
  ROOT %s = bf16[4]{0} dynamic-slice(%all, %zero), dynamic_slice_sizes={4}
}

ENTRY %main (a: bf16[4], b: f32[6]) -> bf16[32] {
  %a = bf16[4]{0} parameter(0)
  %b = f32[6]{0} parameter(1)
  %f = (bf16[4]{0}, bf16[32]{0}) fusion(%a), kind=kCustom, calls=%start.1
  %m = bf16[32]{0} fusion(%a), kind=kCustom, calls=%middle.1
  %rs = bf16[4]{0} fusion(%m), kind=kCustom, calls=%all-reduce-scatter.2
  %gs = (bf16[4]{0}, bf16[8]{0}) all-gather-start(%a), channel_id=8
  %gd = bf16[8]{0} all-gather-done(%gs)
  %two = (f32[6]{0}, /*index=1*/bf16[4]{0}) all-reduce(%b, %a), channel_id=9
  ROOT %out = bf16[32]{0} copy(%m)
}
""")
    assert found.by_kind == {
        ("all-gather", "bf16"): hlo.Count(2, 64 + 16),
        ("reduce-scatter", "bf16"): hlo.Count(1, 64),
        ("all-reduce", "f32"): hlo.Count(1, 24),
        ("all-reduce", "bf16"): hlo.Count(0, 8),  # the one above carries these too
    }


def test_a_computation_that_is_started_looked_after_and_ended_runs_once():
    found = hlo.collectives("""HloModule started
%wrapped (p: bf16[32]) -> bf16[4] {
  %p = bf16[32]{0} parameter(0)
  ROOT %s = bf16[4]{0} reduce-scatter(%p), channel_id=1, dimensions={0}, to_apply=%add
}

ENTRY %main (a: bf16[32]) -> bf16[4] {
  %a = bf16[32]{0} parameter(0)
  %start = ((bf16[32]{0}), bf16[4]{0}, u32[]) async-start(%a), calls=%wrapped
  %update = ((bf16[32]{0}), bf16[4]{0}, u32[]) async-update(%start), calls=%wrapped
  ROOT %done = bf16[4]{0} async-done(%update), calls=%wrapped
}
""")
    assert found.by_kind == {("reduce-scatter", "bf16"): hlo.Count(1, 64)}


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.collectives("nothing")
