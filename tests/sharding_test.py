"""Which mesh a process draws on: copies of a small model, parts of a large one."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from lidit_jax import errors, sharding


def test_a_small_model_is_copied_and_a_large_one_divided():
    small, large = (sharding.drawing_mesh(sharding.COPIED + k) for k in (0, 1))
    assert tuple(small.shape.values()) == (8, 1, 1) and tuple(large.shape.values()) == (1, 8, 1)
    assert sharding.batch_parts(small) == sharding.batch_parts(large) == 8
    assert tuple(sharding.one_device().shape.values()) == (1, 1, 1)


@pytest.mark.parametrize("sizes", [(3, -1, 1), (16, 1, 1), (2, 2, 1), (1, -1, 3)])
def test_a_mesh_that_is_not_of_the_devices_is_refused(sizes):
    with pytest.raises(errors.InputError, match="devices, but there are 8; use .1, -1, 1."):
        sharding.make_mesh(sizes)


def test_rows_are_split_where_they_divide():
    mesh = sharding.make_mesh((2, 4, 1))

    @jax.jit
    def split(x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return sharding.split_batch(x)

    x = jax.device_put(jnp.zeros((16, 2)), sharding.replicated(mesh))
    assert {s.data.shape for s in split(x).addressable_shards} == {(2, 2)}


def test_one_row_that_serves_a_whole_batch_is_sent_to_no_one():
    mesh = sharding.make_mesh((8, 1, 1))

    def serve(x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jnp.broadcast_to(sharding.split_batch(x) @ jnp.ones((4, 4)), (8, 4))

    x = jax.device_put(jnp.ones((1, 4)), sharding.replicated(mesh))
    program = jax.jit(serve, out_shardings=sharding.batch_sharding(mesh)).lower(x).compile()
    assert "all-reduce" not in program.as_text() and "all-gather" not in program.as_text()


def test_micro_batches_divide_over_the_devices():
    mesh = sharding.make_mesh((2, 4, 1))
    for batch_size, accumulate in ((96, 3), (104, 1), (8, 1)):
        sharding.check_batch(mesh, batch_size, accumulate)
    for given, near in (((104, 3), "96 or 120"), ((100, 1), "96 or 104"), ((8, 3), "24")):
        with pytest.raises(errors.InputError, match=f"batch_size {given[0]} .* {near}$"):
            sharding.check_batch(mesh, *given)


def test_the_mesh_that_is_named_instead_is_the_nearest_by_ratios():
    """Three for two and four for six, rather than half of the one and twice of another."""
    mesh = jax.sharding.AbstractMesh((1, 2, 6), sharding.MESH_AXES)
    param = nnx.Param(jnp.zeros((3, 12)), axes=("embed", "mlp"))
    with pytest.raises(errors.InputError, match=r"axis 'fsdp' .*mesh of \(1, 3, 4\)"):
        sharding.param_shardings(mesh, nnx.State({"kernel": param}))


@pytest.mark.parametrize(
    ("named", "told"),
    [({}, "None"), ({"axes": ("embd", None)}, "embd"), ({"axes": ("embed",)}, "embed")],
)
def test_a_parameter_without_known_axes_is_named(named, told):
    params = nnx.State({"pool": {"kernel": nnx.Param(jnp.zeros((8, 8)), **named)}})
    with pytest.raises(ValueError, match=f"parameter pool.kernel of .*{told}.*; want one of"):
        sharding.param_shardings(sharding.make_mesh((1, 8, 1)), params)
