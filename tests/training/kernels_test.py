"""A run on TPUs mixes tokens by their own kernel: the same losses, and the same pictures while it trains."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from lidit_jax import generation, sharding
from lidit_jax.models import mixing
from lidit_jax.training import loop


@pytest.mark.slow
def test_a_run_by_the_tpus_kernel_is_the_run_by_products(config, data, tmp_path, monkeypatch):
    """Interpreted on eight CPU devices: each step, the preview and a request, none compiled without its mesh."""
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, mesh=(2, 2, 2), steps=2, preview_every=2)
    )
    loop.train(config, data, tmp_path / "products")
    by_products = generation.Generator(tmp_path / "products")(["a red circle"], [1])
    used = []

    def splash(*arrays):
        assert not jax.sharding.get_abstract_mesh().empty
        used.append(arrays[0].shape)
        return mixing.splash(*arrays, interpret=True)

    monkeypatch.setattr(mixing, "MANY", 1)
    monkeypatch.setattr(sharding, "platform", lambda mesh=None: "tpu")
    monkeypatch.setitem(mixing.KERNELS, "splash", splash)
    loop.train(config, data, tmp_path / "splash")
    by_splash = generation.Generator(tmp_path / "splash")(["a red circle"], [1])
    assert used
    first, second = (
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "products", tmp_path / "splash")
    )
    np.testing.assert_allclose(first, second, rtol=1e-5)
    seen = [
        np.asarray(Image.open(run / "samples" / "step-0000002.png"), int)
        for run in (tmp_path / "products", tmp_path / "splash")
    ]
    assert np.abs(seen[0] - seen[1]).max() <= 2
    assert np.abs(by_products.astype(int) - by_splash.astype(int)).max() <= 2
