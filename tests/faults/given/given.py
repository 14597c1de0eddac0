"""An input from a user and its outcome: accepted, refused in a clear line, or neither."""

import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import re
import resource
import signal
import traceback
from collections.abc import Callable, Iterator

from lidit_jax import doors

ACCEPTED, REFUSED, BAD = "accepted", "refused", "BAD"
SECONDS = 60  # after which a case counts as hung
GIBIBYTES = 6  # memory that a case may use


@dataclasses.dataclass(frozen=True)
class Given:
    """told: a description of the input. names: a refusal's first line contains one of them.
    act: what is done with it. kept: paths a refusal must not change. new: paths it must not create.
    """

    told: str
    names: tuple[str, ...]
    act: Callable[[], object]
    kept: tuple[pathlib.Path, ...] = ()
    new: tuple[pathlib.Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """what: ACCEPTED, REFUSED or BAD. line: the refusal, or what is bad."""

    what: str
    line: str = ""


class Refused(Exception):
    """A command refused its input with this line."""


class Hangs(BaseException):
    """A case takes too long. Not an Exception, so that `except Exception` does not catch it."""


def outcome(given: Given, scratch: pathlib.Path, seconds: int = SECONDS) -> Outcome:
    """Acts on the input and returns the outcome. scratch: the folder for all new files."""
    before = _prints(given.kept)
    try:
        with _limited(seconds), _silent():
            given.act()
        what, line = ACCEPTED, ""
    except Hangs:
        return Outcome(BAD, f"hangs: not done after {seconds} s")
    except Exception as error:
        told = str(error) if isinstance(error, Refused) else doors._line(error, "")
        if told is None:
            return Outcome(BAD, _last_lines(error))
        what, line = REFUSED, told.splitlines()[0] if told.strip() else ""
    return _checked(given, scratch, before, what, line)


def _checked(given: Given, scratch: pathlib.Path, before: list, what: str, line: str) -> Outcome:
    """Returns the outcome, BAD if the line names nothing or files are not as they should be."""
    left = [str(p) for p in scratch.rglob("*.tmp") if p not in given.kept]
    if left:
        return Outcome(BAD, f"{what}, and leaves {left[0]} ({line})")
    if what == ACCEPTED:
        return Outcome(ACCEPTED)
    if not any(_has(line, name) for name in given.names):
        return Outcome(BAD, f"its line names none of {list(given.names)}: {line[:300]}")
    if _prints(given.kept) != before:
        return Outcome(BAD, f"refused, but files are changed: {line[:300]}")
    made = [str(path) for path in given.new if os.path.lexists(path)]
    if made:
        return Outcome(BAD, f"refused, but {made[0]} is there: {line[:300]}")
    return Outcome(REFUSED, line)


def _has(line: str, name: str) -> bool:
    """Whether a line contains a name as a whole word."""
    return bool(name) and bool(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", line))


def _prints(paths: tuple[pathlib.Path, ...]) -> list:
    """Returns a fingerprint of each file below these paths, for comparison."""
    found = []
    for path in paths:
        for file in sorted({path, *path.rglob("*")}):
            if file.is_symlink() or not file.is_file():
                found.append((str(file), file.is_symlink() and os.readlink(file)))
            else:
                found.append((str(file), hashlib.sha256(file.read_bytes()).hexdigest()))
    return found


def _last_lines(error: Exception) -> str:
    """Returns where in the project's own code an error came from, and its message."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "lidit_jax/" in f.filename] or frames
    where = f"{'/'.join(pathlib.Path(own[-1].filename).parts[-3:])}:{own[-1].lineno}"
    return f"{type(error).__name__} from {where}: {str(error)[:300]}"


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Stops a block that takes too long, or GIBIBYTES more memory, before it takes all there is."""

    def stop(*_):
        raise Hangs

    taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (taken + GIBIBYTES * 2**30, limits[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
