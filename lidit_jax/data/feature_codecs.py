"""How a caption's features are stored: bf16, or int8 with one scale per token.

int8 stores standardised channels: in raw features, three channels of a small LLM hold two thirds of
the energy, and would leave no bits for the others (see docs/data.md).
"""

from typing import Any, Protocol

import ml_dtypes
import numpy as np

from lidit_jax import errors
from lidit_jax.batch import Array


class FeatureCodec(Protocol):
    """Packs f32 tokens [S, E] into msgpack-able fields, and unpacks them.

    needs_channels: whether its constructor takes each channel's mean and std, or no arguments.
    compressed: whether its records are worth compressing, which makes reading 2 to 4 times as slow.
    `unpack` is `states` of `stored`; each array of `stored` has one row per token.
    `is_finite` tells from the stored arrays whether `states` would be finite.
    """

    needs_channels: bool
    compressed: bool

    def pack(self, hidden_SxE: np.ndarray) -> dict[str, Any]: ...

    def unpack(self, packed: dict[str, Any]) -> np.ndarray: ...

    def stored(self, packed: dict[str, Any]) -> tuple[np.ndarray, ...]: ...

    def is_finite(self, *stored: np.ndarray) -> bool: ...

    def states(self, *stored: Array) -> Array: ...


def is_finite(bits: np.ndarray) -> bool:
    """Returns whether bf16 numbers, given as uint16, are all finite.

    The others have all exponent bits set, which makes them the largest of either sign. Two maxima
    need no memory, and a twentieth of the time of `np.isfinite` on bf16.
    """
    return not bits.size or (bits.max() < 0xFF80 and bits.view(np.int16).max() < 0x7F80)


class BF16:
    """Two bytes per number; unpacks to bf16."""

    needs_channels = False
    compressed = True  # saves a fifth

    def pack(self, hidden_SxE):
        return {
            "shape": list(hidden_SxE.shape),
            "bf16": hidden_SxE.astype(ml_dtypes.bfloat16).tobytes(),
        }

    def unpack(self, packed):
        return self.states(*self.stored(packed))

    def stored(self, packed):
        return (np.frombuffer(packed["bf16"], ml_dtypes.bfloat16).reshape(packed["shape"]),)

    def is_finite(self, hidden_SxE):
        return is_finite(hidden_SxE.view(np.uint16))

    def states(self, hidden_SxE):
        return hidden_SxE


class Int8:
    """One byte per number plus four per token: round(127 x / max |x|) of the standardised token x.

    mean_E, std_E: f32 statistics that standardise the channels. Unpacks to f32.
    """

    needs_channels = True
    compressed = False  # would save 1% for SmolLM2

    def __init__(self, mean_E: np.ndarray, std_E: np.ndarray):
        self.mean_E, self.std_E = mean_E.astype(np.float32), std_E.astype(np.float32)

    def pack(self, hidden_SxE):
        x_SxE = (hidden_SxE - self.mean_E) / self.std_E
        scale_S = np.maximum(np.abs(x_SxE).max(1), 1e-30).astype(np.float32) / 127
        rounded_SxE = np.rint(x_SxE / scale_S[:, None]).astype(np.int8)
        return {
            "shape": list(x_SxE.shape),
            "int8": rounded_SxE.tobytes(),
            "scale": scale_S.tobytes(),
        }

    def unpack(self, packed):
        return self.states(*self.stored(packed))

    def stored(self, packed):
        rounded_SxE = np.frombuffer(packed["int8"], np.int8).reshape(packed["shape"])
        return rounded_SxE, np.frombuffer(packed["scale"], np.float32)

    def is_finite(self, rounded_SxE, scale_S):
        return bool(np.isfinite(scale_S).all())

    def states(self, rounded_SxE, scale_S):
        """Returns f32 states from NumPy or JAX arrays, which may hold a whole batch."""
        ones = (1,) * scale_S.ndim
        std_E, mean_E = self.std_E.reshape(*ones, -1), self.mean_E.reshape(*ones, -1)
        return rounded_SxE * scale_S[..., None] * std_E + mean_E


FEATURE_CODECS = {"bf16": BF16, "int8": Int8}


def check_codec(name: str, where: str):
    """Raises InputError for an unknown codec, listing the known ones."""
    if name not in FEATURE_CODECS:
        raise errors.unknown_name(where, name, FEATURE_CODECS)
