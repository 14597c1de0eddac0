"""What transformers may do with a folder of somebody else's weights, and what must be in it."""

from lidit_jax.errors import InputError

# Read it, and neither run its code nor ask the network.
SAFE = {"trust_remote_code": False, "local_files_only": True}


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
