"""What transformers may do with a folder of third-party weights, and what the folder must have."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

from lidit_jax.errors import InputError, in_one_line

# Read it; neither run its code nor use the network.
SAFE = {"trust_remote_code": False, "local_files_only": True}


@contextlib.contextmanager
def loading(model: str | os.PathLike) -> Iterator[None]:
    """Turns errors of transformers and safetensors on loading a model into one-line InputErrors."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # they raise all kinds
        raise InputError(f"cannot load {model}: {in_one_line(error)}") from error


def check_complete(model: str, loading_info: dict, unused: str | None = None):
    """Raises InputError if transformers filled a tensor that the weights lack with random numbers.

    unused: part of the names of tensors that may be missing, since nothing reads them.
    """
    missing = sorted(k for k in loading_info["missing_keys"] if not unused or unused not in k)
    if missing:
        raise InputError(
            f"the weights of {model} lack {len(missing)} of the "
            f"model's tensors, such as {missing[0]}; get a complete copy"
        )


# Prefixes that tensor names of an inner model may have.
_WITHIN = (
    "",
    "model.",
    "transformer.",
    "language_model.",
    "model.language_model.",
    "language_model.model.",
)
# Names that are not weights: masks and angles that models used to keep, and parts that predict a
# further token.
_BUFFERS = re.compile(
    r"\.(inv_freq|position_ids|(masked|attn|attention)\.?_?bias|causal_mask)$|\.rotary_emb\."
)
_FURTHER = re.compile(r"\.(eh_proj|enorm|hnorm|shared_head)\.")


def check_used(model: str, loading_info: dict, loaded: Any):
    """Raises InputError if the weights have a tensor of one of the model's blocks that is not read.

    Such weights are packed, an adapter's, or of another architecture than in config.json. Tensors
    of other parts (heads, vision) may be there. loaded: the model of transformers.
    """
    blocks = [name for name, _ in loaded.named_modules() if re.search(r"(^|\.)\d+$", name)]
    lists = {name.rpartition(".")[0] for name in blocks}
    begins = {*_WITHIN, f"{loaded.base_model_prefix}."}

    def block_of(key: str) -> str | None:
        """Returns a tensor's block: one that the model has, or a further one of such a list."""
        for rest in (key.removeprefix(begin) for begin in begins if key.startswith(begin)):
            if (m := re.match(r"((.*?)\.\d+)\.", rest)) and m[2] in lists:
                return m[1]
        return None

    keys = loading_info["unexpected_keys"]
    further = {block_of(key) for key in keys if _FURTHER.search(key)}
    unused = sorted(
        key for key in keys if block_of(key) not in (None, *further) and not _BUFFERS.search(key)
    )
    if unused:
        raise InputError(
            f"the weights of {model} have {len(unused)} tensors that its config.json has no place "
            f"for, such as {unused[0]}: they are packed, an adapter's or another model's; get the "
            f"plain model in bf16 or f32"
        )
