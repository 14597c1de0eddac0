"""Data sets of the TensorFlow Datasets catalogue, such as ImageNet, read without TensorFlow."""

import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from lidit_jax.data.sources import paths
from lidit_jax.data.sources.example import Example, Unusable
from lidit_jax.data.sources.fields import Fields, Row
from lidit_jax.data.sources.images import Encoded, InMemory
from lidit_jax.errors import InputError, Passing, check_installed, is_unreachable, unknown_name
from lidit_jax.share import bounds

CAPTIONS = ("caption", "captions")  # features with texts; without them, the label's name
_WORDNET_ID = re.compile(r"n\d{8}")


class Tfds:
    """One split of a set that `tensorflow_datasets` has prepared as ArrayRecord.

    name: as `tfds.builder` takes it, e.g. "imagenet2012" or "coco_captions/2014:1.1.0".
    split: e.g. "train" or "train[:10%]".
    data_dir: the catalogue's folder; None is TFDS's default, ~/tensorflow_datasets.
    template: the caption of a class, for sets with labels but no captions.
    names: a file with a line "label name" for each class, as ImageNet's LOC_synset_mapping.txt, for
      sets whose labels are not names. Of several names, the part before the first comma is used.
    Nothing is downloaded. Raises InputError if the set is missing or has no pictures, or if two of
    its classes have the same caption.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        data_dir: str | os.PathLike | None = None,
        template: str = "a photo of {}",
        names: str | os.PathLike | None = None,
    ):
        self.options = {
            "name": name,
            "split": split,
            "data_dir": data_dir and str(data_dir),
            "template": template,
            "names": names and str(names),
        }
        check_installed("source tfds", "data", "tensorflow_datasets")
        if "{}" not in template:
            raise InputError(f"source tfds: template {template!r} has no {{}} for the class's name")
        builder = _builder(name, data_dir)
        features = dict(builder.info.features)
        if "image" not in features:
            raise unknown_name(f"feature of {name}", "image", features)
        self._captions = next((c for c in CAPTIONS if c in features), None)
        self._classes = () if self._captions else self._read_classes(features)
        self._count = len(self._data())
        self._version = f"{builder.info.full_name} {_fingerprint(builder)}"
        self._licence = str(builder.info.redistribution_info.license or "")

    def __len__(self) -> int:
        return self._count

    def piece(self, i: int, n: int) -> Iterator[Example | Unusable]:
        data = self._data()
        for k in bounds(len(self), i, n):
            try:
                row = dict(data[k])
            except (RuntimeError, IndexError) as e:
                why = str(e).splitlines()[0]
                if is_unreachable(e):
                    raise Passing(f"{self.options['name']}: row {k} cannot be read ({why})") from e
                raise InputError(f"{self.options['name']}: row {k} is damaged ({why})") from e
            yield self._example(f"{self.options['split']}-{k:08d}", row)

    def prompts(self, count: int) -> list[str]:
        return []

    def describe(self) -> dict[str, Any]:
        return {
            "name": "tfds",
            "version": self._version,
            "licence": self._licence,
            "options": self.options,
        }

    def _data(self) -> Sequence[Row]:
        """Opens the split. Pictures stay encoded."""
        import tensorflow_datasets as tfds

        builder = _builder(self.options["name"], self.options["data_dir"])
        decoders = {"image": tfds.decode.SkipDecoding()}
        try:
            return builder.as_data_source(split=self.options["split"], decoders=decoders)
        except NotImplementedError:
            raise InputError(
                f"{builder.info.full_name} is stored as {builder.info.file_format.value}, which "
                "needs TensorFlow; prepare it with `tfds build --file_format=array_record`"
            ) from None
        except ValueError:
            split, known = self.options["split"], builder.info.splits
            raise unknown_name(f"split of {builder.info.full_name}", split, known) from None

    def _read_classes(self, features: dict[str, Any]) -> tuple[str, ...]:
        """Returns the caption of each class."""
        if not hasattr(features.get("label"), "names"):
            wanted = " or ".join((*CAPTIONS, "label"))
            raise unknown_name(f"feature of {self.options['name']}", wanted, features)
        labels = features["label"].names
        path = self.options["names"]
        names = _read_names(path) if path else {}
        captions = tuple(
            self.options["template"].replace("{}", _first(names.get(x, x))) for x in labels
        )
        _check_names([x for x in labels if x not in names], dict(zip(labels, captions)))
        return captions

    def _example(self, key: str, row: Row) -> Example | Unusable:
        picture = Encoded(InMemory(row.pop("image")))
        found = row.pop(self._captions) if self._captions else self._class(row["label"])
        row = {name: _value(value) for name, value in row.items()}
        return Fields().example(key, picture, row | {"caption": _texts(found)})

    def _class(self, label: int) -> str | None:
        """Returns a class's caption, or None for -1, the label of test pictures."""
        return self._classes[label] if label >= 0 else None


def _builder(name: str, data_dir: str | None):
    """Opens a prepared set from its files: the code that made it may need TensorFlow."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError):
        where = data_dir or "~/tensorflow_datasets"
        raise InputError(
            f"source tfds: no set {name!r} in {where}; change data_dir, or prepare the set with "
            f"`tfds build {name} --file_format=array_record --data_dir={where}`"
        ) from None


def _fingerprint(builder) -> str:
    root = pathlib.Path(builder.data_dir)
    return paths.fingerprint([root / name for name in paths.walk(root)], root)


def _first(name: str) -> str:
    """Returns the first of several names, with spaces ("great_white_shark, white shark")."""
    return name.partition(",")[0].replace("_", " ").strip()


def _read_names(path: str) -> dict[str, str]:
    """Reads lines "label name"; raises InputError if there is no such file."""
    try:
        lines = pathlib.Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as e:
        why = getattr(e, "strerror", None) or e
        raise InputError(f"source tfds: cannot read names {path}: {why}") from None
    pairs = (line.partition(" ") for line in lines if line.strip())
    return {label: name.strip() for label, _, name in pairs}


def _check_names(unnamed: list[str], captions: dict[str, str]):
    """Raises InputError if a label is not a name, or if two have the same caption."""
    for label in unnamed:
        if _WORDNET_ID.fullmatch(label):
            raise InputError(
                f"source tfds: label {label!r} is a WordNet id, not a name; give `names`, a file "
                "with lines like 'n01440764 tench, Tinca tinca'"
            )
    labels = defaultdict(list)
    for label, caption in captions.items():
        labels[caption].append(label)
    for caption, same in labels.items():
        if len(same) > 1:
            raise InputError(
                f"source tfds: classes {' and '.join(same)} have the same caption, {caption!r}; "
                "give `names`, a file with lines 'label name', that tells them apart"
            )


def _texts(value: Any) -> Any:
    """Returns the texts of a captions feature: one text, several, or dicts with a text."""
    if isinstance(value, dict):
        value = value["text"]
    return value.tolist() if hasattr(value, "tolist") else value


def _value(value: Any) -> Any:
    """Converts a NumPy scalar to Python's, and bytes to text: TFDS stores all texts as bytes."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
