"""A frozen LLM: token ids in, hidden states of one of its blocks out.

torch and transformers are imported when a model is loaded, not when this module is.
"""

import copy
import inspect
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lidit_jax import pretrained
from lidit_jax.errors import InputError, in_one_line
from lidit_jax.text import instruct, weights


def default_cache() -> Path:
    """Returns the folder of converted weights: $LIDIT_CACHE, or ~/.cache/lidit_jax."""
    return Path(os.environ.get("LIDIT_CACHE", "~/.cache/lidit_jax")).expanduser()


def check(config: instruct.EncoderConfig, cache_dir: str | os.PathLike):
    """Raises InputError for problems that show without reading the model's weights."""
    found, tokenizer, hf_config = opened(config, cache_dir)
    _check_measured(config, "width", hf_config.get_text_config().hidden_size)
    prefix, suffix = instruct.prompt_parts(tokenizer, config)
    _check_measured(config, "prefix_len", 0 if config.template == "encoder" else len(prefix))
    _check_measured(config, "null_len", len(suffix))
    check_unpacked(config, found, hf_config)


def load(config: instruct.EncoderConfig, cache_dir: str | os.PathLike) -> "FrozenLLM":
    """Loads a frozen LLM: bf16 on a GPU that computes it (Ampere and later), else f32.

    Never fp16: late blocks overflow it.

    A GGUF file is converted once, into `cache_dir`.
    Raises InputError if the model is not available, or does not fit the config.
    """
    found, tokenizer, hf_config = opened(config, cache_dir)
    check_unpacked(config, found, hf_config)
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.bfloat16 if fast else torch.float32
    auto = transformers.AutoModel
    if (
        config.template == "encoder"
        and type(hf_config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    ):
        auto = transformers.AutoModelForTextEncoding  # T5 without its decoder
    with pretrained.loading(config.model):
        model, info = auto.from_pretrained(
            found.folder,
            dtype=dtype,
            output_loading_info=True,
            use_safetensors=True,
            **pretrained.SAFE,
        )
        pretrained.check_complete(config.model, info, unused="pooler")
        check_used(config, hf_config, info, model)
        if config.template != "encoder":
            model = model.get_decoder()  # the language model of a multi-modal model
        elif hf_config.is_encoder_decoder and auto is transformers.AutoModel:
            model = model.get_encoder()
    return FrozenLLM(model.to(device), tokenizer, config, found)


def give_back():
    """Frees GPU memory of deleted LLMs, which torch keeps, for JAX in the same process."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def opened(config: instruct.EncoderConfig, cache_dir: str | os.PathLike):
    """Returns where the weights are, the tokenizer and the transformers config; reads no weights.

    Raises InputError if they do not fit the config, or each other.
    """
    found = weights.locate(config.model, Path(cache_dir).expanduser())
    import transformers

    with pretrained.loading(config.model):
        tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, **pretrained.SAFE)
        hf_config = transformers.AutoConfig.from_pretrained(found.folder, **pretrained.SAFE)
        text_config = hf_config.get_text_config()
        vocabulary = getattr(text_config, "vocab_size", None)
        instruct.check_reads(tokenizer, config, vocabulary)
        instruct.keep_as_text(tokenizer, config, vocabulary)
        blocks = text_config.num_hidden_layers
    if config.template != "encoder" and hf_config.is_encoder_decoder:
        raise InputError(f"{config.model} is an encoder-decoder; use template='encoder'")
    if -config.layer > blocks + 1:
        raise InputError(
            f"{config.model} has {blocks} blocks: layer must "
            f"be in -{blocks + 1}..-1, not {config.layer}"
        )
    _check_length(config, tokenizer, text_config)
    return found, tokenizer, hf_config


def _is_quantised(hf_config) -> bool:
    """Whether transformers is told how the weights are packed."""
    return bool(getattr(hf_config, "quantization_config", None))


def check_unpacked(config: instruct.EncoderConfig, found: weights.Weights, hf_config):
    """Raises InputError for packed weights if transformers is not told how they are packed."""
    with pretrained.loading(config.model):
        name = None if _is_quantised(hf_config) else weights.packed(found.folder)
    if name:
        raise InputError(
            f"{config.model}: {name} has 8 bits or less, but config.json has no "
            f"quantization_config that says how to read it; get the model in bf16 or f32"
        )


def check_used(config: instruct.EncoderConfig, hf_config, loading_info: dict, model):
    """Like `pretrained.check_used`; packed weights have extra tensors, known to transformers."""
    if not _is_quantised(hf_config):
        pretrained.check_used(config.model, loading_info, model)


def _check_measured(config: instruct.EncoderConfig, name: str, value: int):
    expected = getattr(config, name)
    if expected and expected != value:
        raise InputError(
            f"encoder {config.name!r}: {name} is {value}, but the config has {expected}; "
            f"set {name}=0 to use the measured value"
        )


class FrozenLLM:
    """The features of one LLM; the prefix is read once and its keys and values reused.

    Attributes:
      config, tokenizer, weights: what was loaded. Hashing the weights reads all of them again.
      width: E.  dtype: "float32" or "bfloat16", the LLM's compute dtype.
      prefix_ids, suffix_ids: the constant ids around every prompt.
    """

    def __init__(self, model, tokenizer, config: instruct.EncoderConfig, weights: weights.Weights):
        self.config, self.tokenizer, self.weights = config, tokenizer, weights
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.prefix_ids, self.suffix_ids = instruct.prompt_parts(tokenizer, config)
        self._model = model.eval().requires_grad_(False)
        self._causal = config.template != "encoder"
        self._state_index = config.layer  # into hidden_states; None: last_hidden_state
        # The argument of transformers for past keys and values: "cache" from 5.24 on.
        taken = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in taken else "past_key_values"
        self._most_tokens = most_tokens(tokenizer, model.config)
        self._read_prefix()
        _check_measured(config, "width", self.width)
        _check_measured(config, "prefix_len", len(self._prefix_PxE))

    def prefix(self) -> np.ndarray:
        """Returns the prefix's features, f32 [P, E]; P is 0 for an encoder, whose prefix reads the
        prompt.
        """
        return self._prefix_PxE.copy()

    def tokenize(self, prompt: str) -> tuple[list[int], bool]:
        """Returns the ids that are kept as features (prompt and end token), and whether the prompt
        was cut.
        """
        return instruct.tokenize_prompt(
            self.tokenizer, prompt, self.suffix_ids, self.config.max_prompt_tokens
        )

    def encode(self, prompts: Sequence[str], batch_size: int = 32) -> list[np.ndarray]:
        """Returns the features of each prompt and its end token, f32 [S_i, E].

        Warns when one is cut.
        """
        kept, cut = zip(*map(self.tokenize, prompts), strict=True) if prompts else ((), ())
        instruct.warn_truncated(
            self.config, sum(cut), len(cut), prompts[cut.index(True)] if any(cut) else ""
        )
        return self.encode_ids(kept, batch_size)

    def encode_ids(
        self,
        kept: Sequence[list[int]],
        batch_size: int = 32,
        static_length: Callable[[int], int] | None = None,
    ) -> list[np.ndarray]:
        """Returns the features of ids from `tokenize`, in their order;
        batches hold similar lengths.

        static_length: maps a number of tokens to a length that holds them. With it, a batch has
          rows of one such length, and is filled up: in bf16 other shapes round differently, so a
          prompt's features would depend on the prompts read with it.
        """
        order = sorted(range(len(kept)), key=lambda i: -len(kept[i]))
        features = [None] * len(kept)
        for rows, length in self._batches(kept, order, batch_size, static_length):
            fill = rows[-1:] * (batch_size - len(rows) if length else 0)
            hidden_BxSxE = self._run([kept[i] for i in rows + fill], length)
            for i, hidden_SxE in zip(rows, hidden_BxSxE):
                features[i] = hidden_SxE[: len(kept[i])].copy()
        return features

    def _batches(self, kept, order, batch_size, static_length):
        """Yields the rows of each batch and the length they are padded to; 0: the longest's."""

        def length(i):  # + 1: a mask that masks nothing is dropped, and another kernel runs
            most = self._most_tokens - len(self.prefix_ids)
            return min(static_length(len(kept[i]) + 1), most) if static_length else 0

        for of_all, alike in itertools.groupby(order, length):
            alike = list(alike)
            for start in range(0, len(alike), batch_size):
                yield alike[start : start + batch_size], of_all

    def _run(self, kept, length=0):
        """Runs one batch; returns f32 [B, S, E], rows padded on the right to the longest, or to
        `length`.
        """
        import torch

        P = len(self.prefix_ids)
        lengths_B = torch.tensor([len(ids) for ids in kept])
        B, S = len(kept), length or int(lengths_B.max())
        ids_BxS = torch.full((B, S), self.tokenizer.pad_token_id or 0)
        for row, ids in zip(ids_BxS, kept, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        mask_BxS = torch.arange(S) < lengths_B[:, None]
        mask_BxPS = torch.cat([torch.ones(B, P, dtype=torch.bool), mask_BxS], 1).long()
        if not self._causal:
            prefix_BxP = torch.tensor(self.prefix_ids, dtype=torch.long).expand(B, P)
            ids_BxPS = torch.cat([prefix_BxP, ids_BxS], 1)
            return self._forward(ids_BxPS, attention_mask=mask_BxPS)[0][:, P:].float().cpu().numpy()
        with torch.inference_mode():
            cache = copy.deepcopy(self._prefix_cache)  # a forward pass writes into it
            cache.reorder_cache(torch.zeros(B, dtype=torch.long, device=self._model.device))
        positions_BxS = (P + torch.arange(S)).expand(B, S)
        hidden_BxSxE, _ = self._forward(
            ids_BxS,
            attention_mask=mask_BxPS,
            position_ids=positions_BxS,
            use_cache=True,
            **{self._cache_name: cache},
        )
        return hidden_BxSxE.float().cpu().numpy()

    def _forward(self, ids_BxS, **inputs):
        """Returns the states [B, S, E] of the encoder's layer, and any key/value cache."""
        import torch

        device = self._model.device
        inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        if self._state_index is not None:
            inputs["output_hidden_states"] = True
        with torch.inference_mode():
            output = self._model(input_ids=ids_BxS.to(device), **inputs)
        cache = getattr(output, self._cache_name, None) if inputs.get("use_cache") else None
        if self._state_index is None:
            return output.last_hidden_state, cache
        return output.hidden_states[self._state_index], cache

    def _read_prefix(self):
        """Checks that the template suits the model, drops unneeded blocks, and reads the prefix."""
        import torch

        P, end = len(self.prefix_ids), self.suffix_ids[0]
        other = end - 1 if end else 1
        probe_2xS = torch.tensor([[*self.prefix_ids, end, end], [*self.prefix_ids, end, other]])
        with pretrained.loading(self.config.model):
            wanted_2xSxE, _ = self._forward(probe_2xS)
        if not wanted_2xSxE.isfinite().all():
            raise InputError(
                f"{self.config.model}: features are not finite: "
                "the weights are damaged; get a complete copy"
            )
        same = _close(wanted_2xSxE[0, P], wanted_2xSxE[1, P])
        if same != self._causal:
            raise InputError(
                f"{self.config.model}: "
                + ("a token's features do not depend" if same else "a token's features depend")
                + f" on later tokens: template={self.config.template!r} does not fit; use template="
                + ("'chat' or 'base'" if same else "'encoder' with instruction=False")
            )
        self.width = wanted_2xSxE.shape[-1]
        self._prefix_PxE = np.zeros((0, self.width), np.float32)
        if self._causal:
            self._drop_blocks(probe_2xS, wanted_2xSxE)
            hidden_1xPxE, self._prefix_cache = self._forward(
                torch.tensor([self.prefix_ids]), use_cache=True
            )
            if self._prefix_cache is None:
                raise InputError(
                    f"{self.config.model} does not return the keys and values of what it has read, "
                    "which every prompt needs; use another LLM"
                )
            self._prefix_PxE = hidden_1xPxE[0, :P].float().cpu().numpy()
            self._check_continued([[end, end], [end, other]], wanted_2xSxE[:, P:])

    def _check_continued(self, kept: list[list[int]], wanted_BxSxE):
        """Raises InputError unless ids after the cached prefix are read as in one pass with it.

        Models with a state other than keys and values may read several tokens after one wrongly.
        """
        import torch

        try:
            found_BxSxE = torch.from_numpy(self._run(kept))
        except Exception as error:  # transformers cannot continue from such a state
            raise InputError(
                f"{self.config.model}: transformers cannot continue after the cached prefix "
                f"({in_one_line(error)}); use another LLM, or another version of transformers"
            ) from error
        if not _close(found_BxSxE, wanted_BxSxE.float().cpu(), 0.1):  # fits bf16, too
            raise InputError(
                f"{self.config.model}: transformers gives other features after the cached prefix "
                "than in one pass; use another LLM, or another version of transformers"
            )

    def _drop_blocks(self, probe_2xS, wanted_2xSxE):
        """Removes the blocks after the wanted layer, if the model's layout makes this safe."""
        import torch

        model, layer = self._model, self.config.layer
        blocks, norm = getattr(model, "layers", None), getattr(model, "norm", None)
        if blocks is None or norm is None:
            return
        self._state_index = None
        if layer < -1:
            model.layers, model.norm = blocks[: len(blocks) + 1 + layer], torch.nn.Identity()
        if not _close(self._forward(probe_2xS)[0], wanted_2xSxE):
            model.layers, model.norm, self._state_index = blocks, norm, layer


def most_tokens(tokenizer, text_config) -> int:
    """Returns the most tokens that an LLM reads; a large number if no limit is known."""
    limits = [tokenizer.model_max_length, getattr(text_config, "max_position_embeddings", None)]
    named = (getattr(text_config, name, None) for name in ("rope_parameters", "rope_scaling"))
    scaling = next((s for s in named if isinstance(s, dict)), {})
    if "longrope" in (scaling.get("rope_type"), scaling.get("type")):
        # In a batch with a prompt beyond it, all tokens have other positions.
        original = "original_max_position_embeddings"
        limits.append(scaling.get(original) or getattr(text_config, original, None))
    return min((int(n) for n in limits if n and n >= 1), default=2**31)


def _check_length(config: instruct.EncoderConfig, tokenizer, text_config):
    """Raises InputError if the model cannot read prefix, longest prompt and end token."""
    limit, prefix = most_tokens(tokenizer, text_config), instruct.prompt_parts(tokenizer, config)[0]
    most = limit - len(prefix) - 1
    if config.max_prompt_tokens > most:
        remedy = f"max_prompt_tokens={config.max_prompt_tokens} must be at most {most}"
        if most < 1:
            remedy = "that leaves none for a prompt; use instruction=False, or another LLM"
        raise InputError(
            f"{config.model} reads at most {limit} tokens, {len(prefix)} of them prefix: {remedy}"
        )


def _close(x, y, relative: float = 1e-3) -> bool:
    """Whether two states [..., E] are equal at every token, up to rounding."""
    return bool(((x - y).abs().amax(-1) <= relative * y.abs().amax(-1)).all())
