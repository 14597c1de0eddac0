"""What transformers may do with a folder of somebody else's weights, and what must be in it."""

import contextlib
import os
from collections.abc import Iterator

from lidit_jax.errors import InputError, in_one_line

# Read it, and neither run its code nor ask the network.
SAFE = {"trust_remote_code": False, "local_files_only": True}


@contextlib.contextmanager
def loading(model: str | os.PathLike) -> Iterator[None]:
    """Tells what transformers and safetensors say of a model that cannot be loaded, in one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # they raise of every kind
        raise InputError(f"cannot load {model}: {in_one_line(error)}") from error


def check_complete(model: str, loading_info: dict, unused: str | None = None):
    """Raises InputError where transformers filled a tensor that the weights lack with random numbers.

    unused: part of the names of tensors that may be lacking, since nothing reads them.
    """
    missing = sorted(k for k in loading_info["missing_keys"] if not unused or unused not in k)
    if missing:
        raise InputError(
            f"the weights of {model} lack {len(missing)} of the model's tensors, such as {missing[0]}; "
            "get a complete copy"
        )
