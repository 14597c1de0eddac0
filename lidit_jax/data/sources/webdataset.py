"""Pictures and captions in tars, as img2dataset writes them (CC12M, LAION, COYO).

00000.tar          000000000.jpg  000000000.txt  000000000.json  000000001.jpg  ...
00000_stats.json   {"successes": 9120, ...}
"""

import json
import os
import pathlib
import re
import tarfile
import unicodedata
from collections.abc import Iterator
from typing import Any

from lidit_jax.data.sources import paths
from lidit_jax.data.sources.example import Example, Unusable
from lidit_jax.data.sources.fields import Fields
from lidit_jax.data.sources.folder import OTHERS, SUFFIXES
from lidit_jax.data.sources.images import Encoded, FileSlice
from lidit_jax.errors import is_unreachable
from lidit_jax.share import bounds

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_MAGIC = re.compile(
    rb"\x1f\x8b\x08|BZh[1-9]1AY&SY|\xfd7zXZ|\x28\xb5\x2f\xfd"
)  # the first bytes of such files


class WebDataset:
    """The samples of the tars at `path`: a tar, a folder (searched recursively) or a glob.

    A sample is the files with the same name up to the first dot: a picture, a .txt (its caption), a
    .json (its fields). The key is the tar's name and the sample's. Pictures stay in the tar until
    needed, so a compressed tar gives none. A truncated tar gives what is before the cut.
    caption, synthetic: the JSON fields that hold a text or a list of texts; others are metadata.
    Raises InputError if there is no tar.
    """

    def __init__(
        self, path: str | os.PathLike, caption: str = "caption", synthetic: str = "synthetic"
    ):
        self.options = {"path": str(path), "caption": caption, "synthetic": synthetic}
        self._fields = Fields(caption, synthetic)
        self._tars = paths.find(path, ".tar", "webdataset", also=COMPRESSED)
        self._root = paths.common_root(self._tars)

    def __len__(self) -> int:
        """The counts of the _stats.json files; tars without one are estimated from their first."""
        counts = {tar: _successes(tar) for tar in self._tars}
        uncounted = [tar for tar, count in counts.items() if count is None]
        known = sum(count for count in counts.values() if count is not None)
        if not uncounted:
            return known
        sizes = [tar.stat().st_size if tar.exists() else 0 for tar in uncounted]  # 0: a broken link
        first = sum(isinstance(e, Example) for e in self._read(uncounted[0]))
        return known + round(first * sum(sizes) / max(sizes[0], 1))

    def piece(self, i: int, n: int) -> Iterator[Example | Unusable]:
        for k in bounds(len(self._tars), i, n):
            yield from self._read(self._tars[k])

    def prompts(self, count: int) -> list[str]:
        return []

    def describe(self) -> dict[str, Any]:
        return {
            "name": "webdataset",
            "version": paths.fingerprint(self._tars, self._root),
            "licence": "",
            "options": self.options,
        }

    def _read(self, path: pathlib.Path) -> Iterator[Example | Unusable]:
        name = os.path.relpath(path, self._root)
        try:
            with open(path, "rb") as file:
                if _MAGIC.match(file.read(16)):
                    yield Unusable(name, "tar-compressed")
                    return
            with tarfile.open(path, "r:") as tar:
                for key, members in _samples(tar):
                    yield from self._examples(f"{os.path.splitext(name)[0]}/{key}", tar, members)
        except (tarfile.TarError, OSError) as e:
            if is_unreachable(e):
                raise
            yield Unusable(name, "tar-damaged")

    def _examples(
        self, key: str, tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo]
    ) -> Iterator[Example | Unusable]:
        known = SUFFIXES + OTHERS
        pictures = sorted((s for s in members if s in known), key=lambda s: s in OTHERS)
        if not pictures:
            dotted = [s for s in members if s.endswith(known)]
            yield from (Unusable(key + suffix, "name-dots") for suffix in dotted)
            if not dotted:
                yield Unusable(key, "image-missing")
            return
        text, record = (
            tar.extractfile(members[s]).read() if s in members else None for s in (".txt", ".json")
        )
        picture = members[pictures[0]]
        place = FileSlice(tar.name, picture.offset_data, picture.size)
        yield self._fields.example_of_files(key, Encoded(place), text, record)
        yield from (Unusable(key + suffix, "image-second") for suffix in pictures[1:])


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yields (name, files by suffix) of neighbours with the same name, reading headers alone.

    Accents may be composed in one name and not in the other.
    Raises ReadError if the tar is truncated or damaged, after the samples that are surely whole.
    """
    key, members = "", {}
    while (member := tar.next()) is not None:
        tar.members = []  # else it would keep all of them
        # A tar written on a Mac has hidden files between those of a sample.
        if not member.isfile() or os.path.basename(member.name).startswith("."):
            continue
        found, suffix = _split(member.name)
        if members and (_composed(found) != _composed(key) or suffix in members):
            yield key, members
            members = {}
        if not members:
            key = found
        members[suffix] = member
    ended, behind = _end(tar)
    if members and ended:
        yield key, members
    if not ended or behind:
        raise tarfile.ReadError(f"{tar.name} has {'data after its' if ended else 'no'} end")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _split(name: str) -> tuple[str, str]:
    """Divides a member's name at its first dot: "a/1.seg.png" -> ("a/1", ".seg.png")."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, dot, suffix = file.partition(".")
    return folder + slash + (stem or "."), dot + suffix.lower()


def _end(tar: tarfile.TarFile) -> tuple[bool, bool]:
    """Returns whether the part of a tar that was read ends in zeros, and whether more follows them.

    `tarfile` silently stops at a damaged header, or where another tar is appended.
    """
    tar.fileobj.seek(tar.offset)
    ended = tar.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    return ended, any(any(rest) for rest in iter(lambda: tar.fileobj.read(2**20), b""))


def _successes(tar: pathlib.Path) -> int | None:
    """Returns the number of samples in the tar's _stats.json, None if there is none."""
    try:
        return int(json.loads(tar.with_name(f"{tar.stem}_stats.json").read_bytes())["successes"])
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return None
