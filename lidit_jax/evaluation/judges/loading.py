"""Loads a judge's model from a local Hugging Face folder, offline and without running its code.

A folder holds config.json, *.safetensors, preprocessor_config.json and, if the model reads text,
a tokenizer, as written by `save_pretrained` or downloaded from the Hugging Face Hub.
"""

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from lidit_jax import files, pretrained
from lidit_jax.errors import InputError, check_installed


def architecture(folder: Path, kind: str, wanted: Iterable[str]) -> str:
    """Returns which of the `wanted` transformers classes a folder holds; loads nothing.

    kind: the kind of judge, for error messages.
    Raises InputError, naming the class and the wanted ones, if it is another or has no weights.
    """
    check_installed("a judge", "text", "torch", "transformers")
    one_of = f"want, as {kind}, the folder of a {' or a '.join(wanted)}"
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is not a model's folder: it has no config.json; {one_of}")
    found = class_name(folder)
    if found not in wanted:
        raise InputError(f"{folder} holds a {found or 'model without a class name'}; {one_of}")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        why = "has no weights"
        if pickled:
            why = (
                f"has its weights only in {pickled[0]}, a pickle, which can hide code and "
                "is not read; load it once where you trust it, and call save_pretrained"
            )
        raise InputError(f"{folder}, a {found}, {why}; {one_of}, with *.safetensors")
    return found


def class_name(folder: Path) -> str | None:
    """Returns the first transformers class named in a folder's config.json, or None."""
    config = files.read_json(
        folder / "config.json", "model's config", sealed=False, remedy="get a complete copy"
    )
    match config.get("architectures"):
        case [str(name), *_]:
            return name
    return None


def identity(folder: Path) -> str:
    """Returns the class, the model's size, and a hash of everything that determines its answers.

    "CLIPModel 768/32/224:0123456789abcdef": the width, the patch size and the side in pixels of the
    vision model, or the type, width and depths of a detector's backbone, if the class has them;
    then 16 hex digits of a SHA-256 of its configs, tokenizer and weights: a config also determines
    how a picture is cropped. Each file counts by its name and content, so that copies of a folder
    have the same identity.
    """
    total = hashlib.sha256()
    decide = (".json", ".txt", ".model", ".jinja", ".safetensors")
    for path in sorted(p for p in folder.iterdir() if p.suffix in decide):
        total.update(f"{path.name} {files.checksum(path)}\n".encode())
    return f"{class_name(folder)}{_size(folder)}:{total.hexdigest()[:16]}"


def _size(folder: Path) -> str:
    import transformers

    with _told(folder):  # the file lacks default values
        config = transformers.AutoConfig.from_pretrained(folder, **pretrained.SAFE)
    seeing = getattr(config, "vision_config", None)
    sizes = [getattr(seeing, name, None) for name in ("hidden_size", "patch_size", "image_size")]
    if all(sizes[:2]):
        return " " + "/".join(str(size) for size in sizes if size)
    backbone = getattr(config, "backbone_config", None)
    if depths := getattr(backbone, "depths", None):
        width = getattr(backbone, "embed_dim", None) or backbone.hidden_sizes[0]
        return f" {backbone.model_type} {width}/{'-'.join(map(str, depths))}"
    return ""


def model(folder: Path):
    """Returns the model of a folder, frozen, in float32, on the GPU if torch has one.

    Raises InputError if it cannot be read, or if its weights are incomplete or not finite.
    """
    import torch
    import transformers

    kind = getattr(transformers, class_name(folder))
    with _told(folder):
        loaded, info = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **pretrained.SAFE,
        )
    pretrained.check_complete(str(folder), info)
    for name, weight in loaded.named_parameters():
        if not weight.isfinite().all():
            raise InputError(
                f"{folder}: its weight {name} has a NaN or an infinity; get an intact copy"
            )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return loaded.to(device).eval().requires_grad_(False)


def tokenizer(folder: Path):
    """Returns the tokenizer of a folder. Raises InputError if there is none."""
    names = ("tokenizer.json", "vocab.txt", "vocab.json")
    if not any((folder / name).is_file() for name in names):
        raise InputError(f"{folder} has no tokenizer; want one of {', '.join(names)} in it")
    import transformers

    with _told(folder):
        return transformers.AutoTokenizer.from_pretrained(folder, **pretrained.SAFE)


def image_processor(folder: Path):
    """Returns the image processor of a folder: the variant for PIL images, as in the papers' code.

    Raises InputError if there is none.
    """
    names = ("preprocessor_config.json", "processor_config.json")
    if not any((folder / name).is_file() for name in names):
        raise InputError(f"{folder} has no {names[0]}, which describes the model's picture format")
    import transformers

    with _told(folder):
        return transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", **pretrained.SAFE
        )


def pixels(processor, *images: np.ndarray, device: str = "cpu", **options) -> dict:
    """Returns the model's inputs for uint8 pictures [height, width, 3], as tensors on a device.

    They are passed as PIL images: a processor may mistake the rows of an array 3 pixels high for
    channels. Raises InputError for a picture that the processor cannot resize for the model.
    """
    pictures = [Image.fromarray(image) for image in images]
    try:
        return dict(processor(images=pictures, return_tensors="pt", **options).to(device))
    except ValueError as error:
        sizes = ", ".join(f"{picture.width}x{picture.height}" for picture in pictures)
        raise InputError(
            f"the judge's model accepts no picture of {sizes} "
            f"pixels ({error}); use a less elongated one"
        ) from error


def word_id(tokenizer, word: str, folder: Path) -> int:
    """Returns the id of a word that is one token. Raises InputError if it is several or unknown."""
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise InputError(
            f"for the tokenizer in {folder}, {word!r} is {len(ids)} tokens or unknown; want the "
            "tokenizer that the model was trained with"
        )
    return ids[0]


@contextlib.contextmanager
def _told(folder: Path):
    """Like `pretrained.loading`, but adds a remedy to its errors."""
    try:
        with pretrained.loading(folder):
            yield
    except InputError as error:
        raise InputError(f"{error}; get a complete copy") from error
