"""The files of a source: found by path, folder or glob, always in the same order."""

import glob
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterable

from lidit_jax.errors import InputError, is_unreachable


def walk(folder: pathlib.Path) -> list[str]:
    """Returns the files below `folder` as sorted relative paths with "/"; hidden ones are left out.

    Links to folders are followed, except to one that equals, holds or is in a folder walked before.
    Raises InputError if a folder cannot be read.
    """
    found, walked, due = [], [], [folder]
    while due:
        start = due.pop(0)
        real = pathlib.Path(os.path.realpath(start))
        if any(real.is_relative_to(w) or w.is_relative_to(real) for w in walked):
            continue
        walked.append(real)
        for root, folders, files in os.walk(start, onerror=_refuse):
            visible = sorted(f for f in folders if not f.startswith("."))
            links = [f for f in visible if os.path.islink(os.path.join(root, f))]
            due += [pathlib.Path(root, f) for f in links]
            folders[:] = [f for f in visible if f not in links]
            relative = pathlib.PurePath(root).relative_to(folder)
            found += [(relative / f).as_posix() for f in files if not f.startswith(".")]
    return sorted(found)


def _refuse(error: OSError):
    if is_unreachable(error):
        raise error
    raise InputError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def find(
    path: str | os.PathLike, suffix: str, source: str, also: tuple[str, ...] = ()
) -> list[pathlib.Path]:
    """Returns the files with `suffix` at `path`: a file, a folder (searched recursively) or a glob.

    also: other suffixes, of files that the source reports. Suffixes ignore case.
    Raises InputError if there are none. source: the name of the calling source.
    """
    place = pathlib.Path(path).expanduser()
    if place.is_dir():
        found = [place / name for name in walk(place)]
    elif place.is_file():  # its name may have characters that are special in a glob
        found = [place]
    else:
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), place.parts)
        _check_reachable(pathlib.Path(*fixed))  # `glob` takes one that does not answer as empty
        found = [pathlib.Path(p) for p in sorted(glob.glob(str(place), recursive=True))]
    chosen = [p for p in found if p.name.lower().endswith((suffix, *also))]
    if not chosen:
        others = f"; there are {len(found)} other files" if found else ""
        raise InputError(
            f"source {source}: no *{suffix} at {path}{others}; "
            f"give the path of a *{suffix} file, of a folder, or a glob"
        )
    return chosen


def _check_reachable(folder: pathlib.Path):
    try:
        os.listdir(folder)
    except OSError as e:
        if is_unreachable(e):
            raise


def fingerprint(paths: Iterable[pathlib.Path], root: pathlib.Path) -> str:
    """Returns a hash of the files' names below `root` and their sizes; no file is opened."""
    digest = hashlib.sha256()
    for path in paths:
        name = os.path.relpath(path, root)
        try:
            size = path.stat().st_size
        except OSError as e:  # a broken link; reading it gives a named reason
            if is_unreachable(e):
                raise
            size = -1
        digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def common_root(paths: list[pathlib.Path]) -> pathlib.Path:
    """Returns the folder that contains all the files."""
    return pathlib.Path(os.path.commonpath([p.parent for p in paths]))
