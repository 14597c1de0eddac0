"""Exceptions for user mistakes and temporary failures, and error messages for names and files."""

import difflib
import errno
import importlib.util
import os
import re
import textwrap
from collections.abc import Iterable


class InputError(ValueError):
    """Wrong input from the user. The message says what was got, what was wanted, what to change.

    The commands print it as one line, without a traceback.
    """


class Passing(Exception):
    """A failure that may be temporary: a machine or a filesystem that does not answer.

    The commands print it as one line; launch/keep_running.sh retries after their exit status.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Returns an error that lists the known names of a `kind`, closest matches first."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=len(known), cutoff=0.5)
    ordered = near + [k for k in known if k not in near]
    return InputError(f"unknown {kind} {name!r}; known: {', '.join(ordered)}")


def check_installed(user: str, extra: str, *modules: str):
    """Raises InputError if a module that `user` needs is missing; `extra` is what installs it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"{user} needs {module}, which is not installed; in the folder of lidit_jax, run "
                f"`pip install -e '.[{extra}]'`"
            )


def in_one_line(error: BaseException) -> str:
    """Returns another library's exception message in one line, or its type if it is empty."""
    return textwrap.shorten(str(error), 400, placeholder=" ...") or type(error).__name__


def check_range(where: str, value: float, least: float, most: float = float("inf")):
    """Raises InputError unless value is finite and least <= value <= most; `where` is its key."""
    if not least <= value <= most or value == float("inf"):
        wanted = f"a value in [{least}, {most}]"
        if most == float("inf"):
            wanted = f"{least} or more"
        elif least == float("-inf"):
            wanted = f"{most} or less"
        raise InputError(f"{where} is {value}; use {wanted}")


def about_file(error: OSError) -> str | None:
    """Returns one line about what is wrong with a file or its disk; None for any other OSError."""
    if error.errno in _FULL:
        where = f" for {error.filename}" if error.filename else ""
        return f"the disk is full{where}; finished work is kept: free some space, and run it again"
    if error.filename is None:  # about a port, or shared memory
        return None
    match error:
        case (
            FileExistsError()
            | NotADirectoryError()
            | IsADirectoryError()
            | PermissionError()
            | OSError(errno=errno.EROFS)
        ):
            return f"cannot use {error.filename}: {error.strerror}; give another path"
        case FileNotFoundError():
            return f"{error.filename} is missing, or its folder cannot be made"
    return f"cannot use {error.filename}: {error.strerror}"  # a bad sector, a name that is too long


_FULL = errno.ENOSPC, errno.EDQUOT
_UNREACHABLE = (
    errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN,
)  # fmt: skip


def is_unreachable(error: Exception) -> bool:
    """Whether a network filesystem did not answer, so that nothing is known about the file.

    C++ libraries such as ArrayRecord and TensorStore report it only in the message.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _UNREACHABLE
    return any(os.strerror(number) in str(error) for number in _UNREACHABLE)


def is_passing(error: BaseException) -> bool:
    """Whether an error may be temporary: Passing, a disk I/O error, or a network filesystem's."""
    if isinstance(error, Passing) or isinstance(error, OSError) and error.errno == errno.EIO:
        return True
    while error and not (isinstance(error, OSError) and is_unreachable(error)):
        error = error.__cause__
    return error is not None


def told(error: Exception) -> str | None:
    """Returns one line about a user's mistake, a temporary failure or a bad file; else None."""
    match error:
        case InputError() | Passing():
            return str(error)
        case OSError():
            return about_file(error) or (in_one_line(error) if is_passing(error) else None)
    return None


def full_disk(error: BaseException | None) -> OSError | None:
    """Returns an OSError for a full disk if an error, or one of its causes, is one; else None.

    Orbax reports it in the text of any type of exception, raised where its threads are awaited.
    """
    while error:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        for number in _FULL:
            if os.strerror(number) in str(error):
                file = re.search(r'"(/[^"]+)"', str(error))
                return OSError(number, os.strerror(number), *([file[1]] if file else []))
        error = error.__cause__ or error.__context__
    return None
