"""How a caption's features are stored: bf16, or int8 with one scale a token.

int8 is of standardised channels: raw, three channels of a small LLM hold two thirds of the energy,
and would leave the others no bits (see docs/data.md).
"""

from typing import Any, Protocol

import ml_dtypes
import numpy as np

from lidit_jax import errors
from lidit_jax.batch import Array


class FeatureCodec(Protocol):
    """Packs f32 tokens [S, E] into msgpack-able fields, and unpacks them.

    needs_channels: is it made from each channel's mean and std, or from nothing?
    compressed: are its records worth compressing? Reading takes two to four times as long where they are.
    `unpack` is `states` of `stored`; the arrays of `stored` have a token's numbers in one row each.
    `is_finite` is whether `states` would be, told from what is stored.
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

    Those that are not have every bit of the exponent set: they are the largest of either sign. Two
    maxima need no memory, and are a twentieth of the time that `np.isfinite` takes of bf16.
    """
    return not bits.size or (bits.max() < 0xFF80 and bits.view(np.int16).max() < 0x7F80)


class BF16:
    """Two bytes a number; unpacks to bf16."""

    needs_channels = False
    compressed = True  # by a fifth

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
    """One byte a number, and four a token: round(127 x / max |x|) of the standardised token x.

    mean_E, std_E: f32, by which a channel is standardised. Unpacks to f32.
    """

    needs_channels = True
    compressed = False  # SmolLM2's would be by 1%

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
        """Returns f32 states, of numpy's arrays or of JAX's, which may be those of a whole batch."""
        ones = (1,) * scale_S.ndim
        std_E, mean_E = self.std_E.reshape(*ones, -1), self.mean_E.reshape(*ones, -1)
        return rounded_SxE * scale_S[..., None] * std_E + mean_E


FEATURE_CODECS = {"bf16": BF16, "int8": Int8}


def check_codec(name: str, where: str):
    """Raises InputError for an unknown codec, listing the known ones."""
    if name not in FEATURE_CODECS:
        raise errors.unknown_name(where, name, FEATURE_CODECS)
