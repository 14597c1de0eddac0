"""Generates images from prompts with a trained run: its LLMs, its EMA weights and a sampler.

reading    prompts -> LLM features, each prompt once      generator  features -> images
requests   many images in a folder, resumable, on one machine or several
"""

from lidit_jax.generation.generator import Generator, Wanted, check_wanted, sample_config
from lidit_jax.generation.requests import generate

__all__ = ["Generator", "Wanted", "check_wanted", "generate", "sample_config"]
