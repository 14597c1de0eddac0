"""From prompts to pictures, with a trained run: its LLMs, its EMA and a sampler.

reading    prompts to the LLMs' features, each prompt once      generator  features to pictures
requests   many pictures to a folder, stopped and continued, by one machine or several
"""

from lidit_jax.generation.generator import Generator, Wanted, check_wanted, sample_config
from lidit_jax.generation.requests import generate

__all__ = ["Generator", "Wanted", "check_wanted", "generate", "sample_config"]
