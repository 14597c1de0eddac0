"""A safetensors file <-> a dict from names to f32 arrays."""

import os
import pathlib

import ml_dtypes
import numpy as np
import safetensors.numpy

from lidit_jax import errors, files

# numpy alone has no bfloat16, so the library's own reader for numpy may refuse a file that has it.
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns every tensor of the file as f32.

    Raises InputError if the file is missing, damaged or has other than floating-point numbers.
    """
    try:
        entries = safetensors.deserialize(pathlib.Path(path).read_bytes())
    except OSError as e:
        if errors.is_unreachable(e):
            raise
        raise errors.InputError(f"cannot read the weights at {path}: {e.strerror}") from e
    except safetensors.SafetensorError as e:
        raise errors.InputError(f"{path} is damaged, not a safetensors file: {e}") from e
    return {name: _array(name, entry, path) for name, entry in entries}


def _array(name, entry, path):
    if entry["dtype"] not in _DTYPES:
        raise errors.InputError(
            f"{path}: {name} is of type {entry['dtype']}; want one of {', '.join(_DTYPES)}"
        )
    flat = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
    return flat.reshape(entry["shape"]).astype(np.float32)


def write(path: str | os.PathLike, tensors: dict[str, np.ndarray]):
    """Writes the file, atomically."""
    dense = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with files.atomic(path) as temporary:
        # Readers of PyTorch weights ask for this format; save_file would let no other user read it.
        temporary.write_bytes(safetensors.numpy.save(dense, metadata={"format": "pt"}))


def take(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...], path) -> np.ndarray:
    """Removes a tensor from what was read at `path`, and returns it.

    Raises InputError if it is missing, has a wrong shape, or has a number that is not finite.
    """
    if name not in tensors:
        raise errors.InputError(f"{path} has no {name}; want one of shape {shape}")
    tensor = tensors.pop(name)
    if tensor.shape != shape:
        raise errors.InputError(f"{path}: {name} has shape {tensor.shape}; want {shape}")
    if not np.isfinite(tensor).all():
        raise errors.InputError(f"{path}: {name} has NaN or infinity; get intact weights")
    return tensor
