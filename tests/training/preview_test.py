"""What a run shows of itself: pictures from the EMA, each from noise of its own."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import files
from lidit_jax.training import opening
from lidit_jax.training.preview import Preview


@pytest.fixture
def tiles(monkeypatch):
    """The pictures of each preview."""
    found = []
    monkeypatch.setattr(
        files, "picture_grid", lambda pictures, **_: found.append(np.stack(pictures))
    )
    return found


def test_a_preview_is_drawn_by_the_ema_from_noise_of_each_pictures_own(
    config, data, workdir, tiles, monkeypatch
):
    run = opening.set_up(config, data, workdir, write=False)
    rows = run.reader.dataset.info["preview"][:5]  # on eight devices
    monkeypatch.setitem(run.reader.dataset.info, "preview", rows)
    current, shown = run.saved_state().state, Preview(run)
    zeros = jax.tree.map(jnp.zeros_like, current.params)
    blind = jax.tree_util.tree_map_with_path(
        lambda path, a: jnp.zeros_like(a) if path[0].key == "conditioner" else a, current.ema
    )
    for state in (
        current,
        dataclasses.replace(current, params=zeros),
        dataclasses.replace(current, ema=zeros),
        dataclasses.replace(current, ema=blind),
    ):
        shown.grid(state)
    drawn, without_params, without_ema, without_prompts = tiles
    np.testing.assert_array_equal(drawn, without_params)
    assert (drawn != without_ema).any() and len(drawn) == 5
    assert len(np.unique(without_prompts, axis=0)) == len(drawn)


def test_what_only_fills_up_the_devices_is_not_shown(config, data, workdir, tiles):
    """Eight devices draw five samples of two pictures each."""

    def both(model, shade_B, keys_B):
        return jnp.repeat(shade_B, 2)[:, None, None, None] * jnp.ones((1, 4, 4, 3))

    task = types.SimpleNamespace(
        preview_inputs=lambda reader: np.linspace(-1, 1, 5, dtype=np.float32), preview=both
    )
    run = opening.set_up(config, data, workdir, write=False)
    Preview(dataclasses.replace(run, task=task)).grid(run.saved_state().state)
    (shown,) = tiles
    np.testing.assert_array_equal(shown[::2], shown[1::2])
    assert len(shown) == 10 and (np.diff(shown[::2, 0, 0, 0].astype(int)) > 0).all()
