"""The texts of a plan: captions, numbered and written once each, and the evaluation prompts."""

import bisect
import collections
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgpack
import numpy as np

from lidit_jax import prompts
from lidit_jax.data import buckets, filters, records
from lidit_jax.data.judging import Recipe
from lidit_jax.data.plan import captions_path, prompts_path
from lidit_jax.data.plan_rows import Rows
from lidit_jax.data.sources.example import Source

JUDGED = 64  # prompts in prompts.jsonl
PREVIEWED = 16  # prompts of the training previews, if the recipe names none
# Upper edges of the histogram of caption lengths in plan.json.
LENGTHS = (20, 40, 60, 80, 120, 160, 240, 320, 480, 1000)


def numbered(rows: Rows) -> np.ndarray:
    """Returns the id of every caption, by first occurrence in kept rows; 0 in the other rows.

    Texts are compared by 64-bit hashes: two of 60 million collide with probability 1e-4.
    """
    kept_M = np.repeat(rows.kept_N, np.diff(rows.start_N))
    id_M = np.zeros(len(kept_M), np.uint32)
    _, first, inverse = np.unique(rows.text_M[kept_M], return_index=True, return_inverse=True)
    number = np.empty(len(first), np.uint32)
    number[np.argsort(first)] = np.arange(len(first), dtype=np.uint32)
    id_M[kept_M] = number[inverse]
    return id_M


def write(
    rows: Rows,
    id_M: np.ndarray,
    spooled: Iterable[tuple[int, list[tuple[str, str]]]],
    source: Source,
    recipe: Recipe,
    bins: buckets.Bins,
    folder: pathlib.Path,
) -> dict[str, Any]:
    """Writes captions and prompts, and returns their entries for plan.json.

    id_M: from `numbered`. spooled: each kept row, with (text, language) of each of its captions.
    bins: the rows' bins.
    """
    kept = np.flatnonzero(rows.kept_N)
    judged, preview = (
        _Chosen(given, {int(id_M[rows.start_N[kept[i]]]) for i in records.spaced(len(kept), count)})
        for given, count in (
            (source.prompts(JUDGED), JUDGED),
            (list(recipe.preview) or source.prompts(PREVIEWED), PREVIEWED),
        )
    )
    counted = _Counted()
    sizes: dict[str, buckets.Size] = {}  # of the first picture with a text

    def packed() -> Iterator[bytes]:
        for row, texts in spooled:
            ids = id_M[rows.start_N[row] : rows.start_N[row + 1]].tolist()
            for caption, (text, language) in zip(ids, texts, strict=True):
                preview.see(text, caption)
                if judged.see(text, caption):
                    sizes.setdefault(text, bins.sizes[rows.bin_N[row]])
                if caption == counted.captions:  # first occurrence of this text
                    counted.add(text, language)
                    yield msgpack.packb({"text": text, "language": language})
        for text in preview.number_unseen(counted.captions):
            yield msgpack.packb({"text": text, "language": filters.language(text)})

    records.write_records(captions_path(folder), packed())
    chosen = [prompts.Prompt(text, sizes.get(text)) for text in judged.texts()]
    prompts.write(prompts_path(folder), chosen)
    return {
        "captions": counted.captions + preview.added,
        "preview": [preview.ids[text] for text in preview.texts()],
        "languages": dict(counted.languages.most_common()),
        "caption_lengths": {"edges": list(LENGTHS), "counts": counted.lengths},
    }


class _Counted:
    """Counts texts by language and length."""

    def __init__(self):
        self.captions, self.languages = 0, collections.Counter()
        self.lengths = [0] * (len(LENGTHS) + 1)

    def add(self, text: str, language: str):
        self.captions += 1
        self.languages[language] += 1
        self.lengths[bisect.bisect_left(LENGTHS, len(text))] += 1


class _Chosen:
    """The texts of selected captions: the given ones, or else those with the wanted ids."""

    def __init__(self, given: list[str], wanted: set[int]):
        self._given, self._known, self._wanted = given, set(given), set() if given else wanted
        self.ids: dict[str, int] = {}
        self.added = 0

    def see(self, text: str, caption: int) -> bool:
        """Records a caption if it is selected; returns whether it is."""
        is_one = caption in self._wanted or text in self._known
        if is_one:
            self.ids[text] = caption
        return is_one

    def number_unseen(self, first: int) -> list[str]:
        """Numbers the given texts that no picture has, from `first` on, and returns those texts."""
        unseen = [text for text in dict.fromkeys(self._given) if text not in self.ids]
        self.ids |= {text: first + i for i, text in enumerate(unseen)}
        self.added = len(unseen)
        return unseen

    def texts(self) -> list[str]:
        return self._given or list(self.ids)
