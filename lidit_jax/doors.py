"""What the command-line doors share: a user's mistake is one line on stderr, not a traceback."""

import errno
import pathlib
import sys
from collections.abc import Callable

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from lidit_jax import errors
from lidit_jax.training.config import Config, parse

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/NAME.py[:argument]; override keys with --config.key=value"
)


def config() -> Config:
    """Returns the parsed --config. Raises InputError if it was not given."""
    try:
        found = CONFIG.value
        if found is not None:
            found.to_json_best_effort()  # a file that failed to load fails when it is first used
    except Exception as e:  # whatever goes wrong in a file that the user wrote
        raise errors.InputError(f"cannot load --config: {_cause(e)}") from e
    if found is None:
        raise errors.InputError("no --config given; for example --config=configs/quickstart.py")
    return parse(found)


def define_folder(name: str, meaning: str):
    """Defines a flag that names a folder, and returns a function that reads it."""
    flag = flags.DEFINE_string(name, None, meaning)

    def value() -> pathlib.Path:
        if not flag.value:
            raise errors.InputError(f"no --{name} given: {meaning}")
        return pathlib.Path(flag.value).expanduser()

    return value


def run(main: Callable[[], None]):
    """Runs a door. An InputError ends it with exit status 2 and the error's one line."""

    def guarded(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells every file at INFO
        try:
            if len(argv) > 1:
                raise errors.InputError(
                    f"unexpected argument {argv[1]!r}; flags are written --name=value"
                )
            main()
        except errors.InputError as e:
            told = str(e)
        except KeyboardInterrupt:
            print(
                "stopped; what is finished stays, and the same command continues", file=sys.stderr
            )
            sys.exit(130)
        except FloatingPointError as e:  # training that diverged
            told = str(e)
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e) and "Out of memory" not in str(e):
                raise  # a CPU that runs out while it computes calls that INTERNAL
            told = _out_of_memory(e)
        except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as e:
            told = f"cannot use {e.filename}: {e.strerror}; give another path"
        except FileNotFoundError as e:
            told = f"{e.filename} is missing, or its folder cannot be made"
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = f" for {e.filename}" if e.filename else ""
            told = f"the disk is full{where}; what is finished stays: free some space, and run it again"
        else:
            return
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)

    app.run(guarded, flags_parser=_parse_flags)


def _out_of_memory(error: jax.errors.JaxRuntimeError) -> str:
    """Returns what to do about an accelerator, or a CPU, that has too little memory."""
    why = str(error).splitlines()[0].rstrip(".")[:200]
    told = f"out of memory on {jax.device_count()} x {jax.devices()[0].device_kind} ({why}); "
    if CONFIG.value is None:  # a door that reads a run
        return told + "use devices with more, or draw fewer pictures at once (sample.batch_size)"
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    return told + (
        f"`python -m lidit_jax.benchmark --plan --config={path} --devices={jax.device_count()}` says what "
        f"a run needs. Less of it: a smaller train.batch_size, more train.accumulate, model.remat=full, "
        f"or a train.mesh with more devices along fsdp"
    )


def _cause(error: BaseException) -> str:
    """Returns the last line of the first error of a chain: what went wrong in a config file."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _parse_flags(argv):
    """absl's parser, with a misspelt config key reported like any other mistake."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        told = str(e)
        if "Traceback (most recent call last)" in told:  # of a config file; its last line says what
            told = told.strip().splitlines()[-1].split("Error: ", 1)[-1]
        # ml_collections raises the repr of a KeyError, its suggestion on a second line.
        told = told.replace("\\n", " ").replace("\\", "").replace("'", "")
        told = " ".join(told.split())
        if isinstance(e, (AttributeError, KeyError)):
            told += "; configs/base.py has every key of a config"
        print(f"error: config key or flag: {told}", file=sys.stderr)
        sys.exit(2)
