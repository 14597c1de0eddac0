"""The tokens that the probe reads: an LLM's, and what a trained run turns them into."""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lidit_jax import errors
from lidit_jax.data.pipeline import pad_features
from lidit_jax.models.conditioners import CONDITIONERS
from lidit_jax.probing.prompts import MarkedPrompt
from lidit_jax.text import llm
from lidit_jax.text.encode import encode_captions
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training import checkpoints
from lidit_jax.training.inputs import check_reads_alike
from lidit_jax.training.trained import open_to_draw, read_config

TIME = 0.9  # near pure noise, where a picture's composition is decided
_BATCH = 64


class Reading:
    """Prompts encoded by one LLM.

    Attributes:
      tokens: for each prompt, the indices of the tokens of each thing.
      features: for each prompt, f32 [S, E].
      llm: the LLM.
    Raises InputError if the LLM cannot be loaded, or if it truncates a thing of a prompt.
    """

    def __init__(self, encoder: EncoderConfig, prompts: Sequence[MarkedPrompt]):
        self.llm = llm.load(encoder, llm.default_cache())
        self.tokens = [_tokens(self.llm.tokenizer, p) for p in prompts]
        _check_whole(encoder, self.tokens)
        texts = [p.text for p in prompts]
        self.features = [f.hidden_SxE for f in encode_captions(self.llm, texts)]

    def pooled(self, states: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the mean over each thing's tokens, f32 [prompts, things, D], of states [S, D]."""
        return np.stack(
            [
                [state_SxD[tokens].mean(axis=0) for tokens in of_prompt]
                for state_SxD, of_prompt in zip(states, self.tokens, strict=True)
            ]
        )


def _tokens(tokenizer, prompt: MarkedPrompt) -> list[list[int]]:
    """Returns the indices of tokens that overlap each thing, before the prompt is truncated."""
    offsets = tokenizer(
        prompt.text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
    ).offset_mapping
    found = [
        [i for i, (a, b) in enumerate(offsets) if a < last and b > first]
        for first, last in prompt.spans
    ]
    assert all(found), f"a thing of {prompt.text!r} is in no token"
    return found


def _check_whole(encoder: EncoderConfig, tokens: Sequence[list[list[int]]]):
    """Raises InputError if max_prompt_tokens cuts a token of a prompt's last thing."""
    wanted = 1 + max(of_prompt[-1][-1] for of_prompt in tokens)
    if encoder.max_prompt_tokens < wanted:
        raise errors.InputError(
            f"encoder {encoder.name!r} has max_prompt_tokens={encoder.max_prompt_tokens}, which "
            f"truncates the probe's prompts; probe a run that was trained with {wanted} or more"
        )


def only_encoder(workdir: pathlib.Path) -> EncoderConfig:
    """Returns the LLM of a run.

    Raises InputError if it has several, whose tokens are mixed; if its conditioner does not keep
    the prompt's tokens; or if it has no finished checkpoint.
    """
    config = read_config(workdir, "diffusion")
    encoders, name = config.encoders, config.model.conditioner.name
    checkpoints.chosen(workdir)  # there is one, known before an LLM is loaded
    if len(encoders) > 1:
        raise errors.InputError(
            f"{workdir} has {len(encoders)} LLMs and mixes their tokens; probe a run with one LLM"
        )
    if not CONDITIONERS[name].keeps_tokens:
        raise errors.InputError(
            f"{workdir} has conditioner {name!r}, whose tokens are not those of the prompt; probe "
            f"a run with one that keeps them"
        )
    return encoders[0]


def conditions(workdir: pathlib.Path, reading: Reading, vae: str | None = None) -> list[np.ndarray]:
    """Returns the DiT's text tokens of each prompt at `TIME`, [S, D]: projected or refined.

    vae: the local folder of the run's VAE, if it is not where the run found it.

    Raises InputError if `workdir` holds no finished checkpoint, or was trained with another LLM.
    """
    run = open_to_draw(workdir, vae)
    check_reads_alike(reading.llm, run.constants["text"][0])

    @jax.jit
    def condition(ema, constants, text):
        model = nnx.merge(run.graphdef, ema, constants)
        B = text[0].mask_BxS.shape[0]
        return model.condition(text, jnp.zeros(B, bool), model.time(jnp.full(B, TIME)))

    longest, found = max(map(len, reading.features)), []
    for start in range(0, len(reading.features), _BATCH):
        rows = reading.features[start : start + _BATCH]
        filled = rows + rows[-1:] * (_BATCH - len(rows))
        seen = condition(run.ema, run.constants, (pad_features(filled, longest),))
        tokens_BxSxD = np.asarray(seen.tokens_BxSxD, np.float32)
        found += [tokens_BxSxD[i, : len(row)] for i, row in enumerate(rows)]
    return found
