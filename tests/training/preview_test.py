"""What a run shows of itself: pictures from the EMA, each from noise of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lidit_jax import files
from lidit_jax.training import opening
from lidit_jax.training.preview import Preview


def test_a_preview_is_drawn_by_the_ema_from_noise_of_each_pictures_own(
    config, data, workdir, monkeypatch
):
    run = opening.set_up(config, data, workdir, write=False)
    rows = run.reader.dataset.info["preview"][:5]  # on eight devices
    monkeypatch.setitem(run.reader.dataset.info, "preview", rows)
    current, shown = run.saved_state().state, Preview(run)
    tiles = []
    monkeypatch.setattr(
        files, "picture_grid", lambda pictures, **_: tiles.append(np.stack(pictures))
    )
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
