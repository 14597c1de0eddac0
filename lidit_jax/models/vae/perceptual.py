"""LPIPS: how different two pictures look to a VGG16 (arXiv 1801.03924, section 3)."""

import dataclasses
import os

import jax
import jax.numpy as jnp

from lidit_jax.models.vae import tensors

# VGG16's 3x3 convolutions: width and count per stage; 2x2 max pooling between stages.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

LEAST_SIDE = 16  # of a picture, in pixels: four poolings reduce it to one cell

# ImageNet's mean and standard deviation per channel, for pictures in [-1, 1].
MEAN = (-0.030, -0.088, -0.188)
STD = (0.458, 0.448, 0.450)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VGGStage:
    """Convolutions up to a compared layer, and each channel's weight in the comparison.

    convs: pairs (kernel_3x3xIxO, bias_O). importance_O: not negative.
    """

    convs: tuple[tuple[jax.Array, jax.Array], ...]
    importance_O: jax.Array


def load(path: str | os.PathLike) -> tuple[VGGStage, ...]:
    """Reads VGG16 and LPIPS's weights from one safetensors file.

    Convolutions have torchvision's names for VGG16 (`features.0.weight`), the channels' weights
    those of the lpips package (`lin0.model.1.weight`, [1, O, 1, 1]); other tensors in the file are
    not used. Raises InputError if one is missing, of a wrong shape or not finite.
    """
    found, stages, index, d_in = tensors.read(path), [], 0, 3
    for stage, (width, count) in enumerate(STAGES):
        convs = []
        for _ in range(count):
            weight = tensors.take(found, f"features.{index}.weight", (width, d_in, 3, 3), path)
            bias_O = tensors.take(found, f"features.{index}.bias", (width,), path)
            convs.append((jnp.asarray(weight.transpose(2, 3, 1, 0)), jnp.asarray(bias_O)))
            index, d_in = index + 2, width  # convolution, ReLU
        index += 1  # max pooling
        lin = tensors.take(found, f"lin{stage}.model.1.weight", (1, width, 1, 1), path)
        stages.append(VGGStage(tuple(convs), jnp.asarray(lin.reshape(width))))
    return tuple(stages)


def lpips(weights: tuple[VGGStage, ...], x_BxHxWx3, y_BxHxWx3):
    """Returns the distance of pictures in [-1, 1], f32 [B]; 0 where they are equal.

    The sum over stages of the mean over positions of the weighted squared difference of features
    of unit length (1801.03924, eq. 1). Pictures are at least LEAST_SIDE pixels a side.
    """
    features_x, features_y = _features(weights, x_BxHxWx3), _features(weights, y_BxHxWx3)
    total_B = jnp.zeros(len(x_BxHxWx3))
    for stage, f_BxHxWxO, g_BxHxWxO in zip(weights, features_x, features_y):
        squared_BxHxWxO = jnp.square(_unit(f_BxHxWxO) - _unit(g_BxHxWxO))
        total_B += jnp.einsum("bhwo,o->bhw", squared_BxHxWxO, stage.importance_O).mean((1, 2))
    return total_B


def _features(weights, x_BxHxWx3):
    mean_1x1x1x3, std_1x1x1x3 = (jnp.array(v)[None, None, None] for v in (MEAN, STD))
    h, outputs = (x_BxHxWx3 - mean_1x1x1x3) / std_1x1x1x3, []
    for stage in weights:
        if outputs:
            h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        for kernel_3x3xIxO, bias_O in stage.convs:
            h = jax.lax.conv_general_dilated(
                h, kernel_3x3xIxO, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            h = jax.nn.relu(h + bias_O[None, None, None])
        outputs.append(h)
    return outputs


def _unit(x_BxHxWxO):
    """Returns x with unit length over channels; the 1e-10 keeps it finite where x is 0."""
    squared_BxHxWx1 = jnp.square(x_BxHxWxO).sum(-1, keepdims=True)
    return x_BxHxWxO * jax.lax.rsqrt(squared_BxHxWx1 + 1e-10)
