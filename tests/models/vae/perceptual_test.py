"""LPIPS is the paper's, flat at equal pictures, finite everywhere, and needs every weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch

from lidit_jax.errors import InputError
from lidit_jax.models.vae import perceptual, tensors
from tests.models.vae.layouts import normal


def torch_vgg():
    """VGG16's convolutions as torchvision lays them out, with random weights."""
    torch.manual_seed(0)
    layers, d_in = [], 3
    for width, count in perceptual.STAGES:
        for _ in range(count):
            layers += [torch.nn.Conv2d(d_in, width, 3, padding=1), torch.nn.ReLU()]
            d_in = width
        layers.append(torch.nn.MaxPool2d(2))
    return torch.nn.Sequential(*layers)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """The network, the channels' weights, and a file that has both."""
    path = tmp_path_factory.mktemp("vgg") / "lpips.safetensors"
    network = torch_vgg()
    lins = [torch.rand(1, width, 1, 1) for width, _ in perceptual.STAGES]
    weights = {f"features.{name}": t for name, t in network.state_dict().items()}
    weights |= {f"lin{i}.model.1.weight": lin for i, lin in enumerate(lins)}
    safetensors.torch.save_file(weights, path)
    return network, lins, path


def torch_lpips(network, lins, x_BxHxWx3, y_BxHxWx3):
    """The paper's equation 1, in torch."""
    total, compared = 0.0, iter(lins)
    mean, std = (torch.tensor(v)[:, None, None] for v in (perceptual.MEAN, perceptual.STD))
    x, y = ((torch.from_numpy(v).permute(0, 3, 1, 2) - mean) / std for v in (x_BxHxWx3, y_BxHxWx3))
    for layer in network:
        if isinstance(layer, torch.nn.MaxPool2d):
            f, g = (v / (v.square().sum(1, keepdim=True).sqrt() + 1e-10) for v in (x, y))
            total += ((f - g).square() * next(compared)).sum(1).mean((1, 2))
        x, y = layer(x), layer(y)
    return total.detach().numpy()


@jax.jit
def distance_and_slope(weights, x_BxHxWx3, y_BxHxWx3):
    def total(y_BxHxWx3):
        distance_B = perceptual.lpips(weights, x_BxHxWx3, y_BxHxWx3)
        return distance_B.sum(), distance_B

    slope_BxHxWx3, distance_B = jax.grad(total, has_aux=True)(y_BxHxWx3)
    return distance_B, slope_BxHxWx3


def test_lpips_is_the_papers(vgg):
    network, lins, path = vgg
    x, y = (normal(2, 32, 48, 3, seed=n).clip(-1, 1) for n in range(2))
    found, _ = distance_and_slope(perceptual.load(path), x, y)
    np.testing.assert_allclose(found, torch_lpips(network, lins, x, y), rtol=1e-4)


@pytest.mark.slow
def test_lpips_of_equal_pictures_is_zero_and_flat(vgg):
    x = normal(2, 32, 48, 3)
    with jax.disable_jit():  # or equal features are computed twice, each rounded its own way
        distance, slope = distance_and_slope(perceptual.load(vgg[2]), x, x)
    np.testing.assert_array_equal(distance, 0)
    np.testing.assert_array_equal(slope, 0)


def test_lpips_is_finite_where_features_vanish(vgg):
    weights = jax.tree.map(lambda a: -jnp.abs(a), perceptual.load(vgg[2]))
    distance, slope = distance_and_slope(weights, normal(2, 32, 48, 3), jnp.ones((2, 32, 48, 3)))
    assert np.isfinite(distance).all() and np.isfinite(slope).all()


@pytest.mark.parametrize("name", ["features.28.bias", "lin4.model.1.weight"])
def test_lpips_needs_every_weight(vgg, tmp_path, name):
    found = tensors.read(vgg[2])
    del found[name]
    tensors.write(tmp_path / "lpips.safetensors", found)
    with pytest.raises(InputError, match=name):
        perceptual.load(tmp_path / "lpips.safetensors")
