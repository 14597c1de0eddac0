"""A config with assumed encoder measurements, so that shapes and speed need no data set."""

import dataclasses

from lidit_jax import errors
from lidit_jax.training.config import Config
from lidit_jax.training.tasks import diffusion

WIDTH = 576  # SmolLM2's; the paper's configs set the width of their LLMs themselves


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Numbers of tokens, the same for every LLM.

    text: tokens that a batch's prompts are padded to; prefix: tokens of the instruction.
    """

    text: int = 128
    prefix: int = 50

    def __post_init__(self):
        errors.check_range("--text_tokens", self.text, 1)
        errors.check_range("--prefix_tokens", self.prefix, 0)


def measured(config: Config, lengths: Lengths) -> Config:
    """Returns the config with assumptions for what `prepare` measures; values that it has are kept.

    Raises InputError for a config of a task other than diffusion.
    """
    if config.task != "diffusion":
        raise errors.InputError(
            f"task is {config.task!r}; use a config of task 'diffusion', "
            "such as configs/lidit_1b.py"
        )
    encoders = tuple(
        dataclasses.replace(
            e,
            width=e.width or WIDTH,
            prefix_len=e.prefix_len or lengths.prefix,
            null_len=e.null_len or 1,
        )
        for e in config.encoders
    )
    return dataclasses.replace(config, encoders=encoders)


def task(config: Config, lengths: Lengths) -> diffusion.DiffusionTask:
    """Returns the task of a config returned by `measured`."""
    return diffusion.diffusion_task(config, (lengths.text,) * len(config.encoders))
