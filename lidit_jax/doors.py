"""Code shared by the commands: a user's mistake prints one line on stderr, not a traceback."""

import contextlib
import itertools
import os
import pathlib
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from lidit_jax import errors, files, processes, share
from lidit_jax.processes import clusters, place
from lidit_jax.share import WHOLE, Share
from lidit_jax.training.config import parse

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/NAME.py[:argument]; override keys with --config.key=value"
)


def config(parse: Callable[[ConfigDict], Any] = parse) -> Any:
    """Returns --config, parsed (by default to a `Config`). Raises InputError if it is not given."""
    try:
        found = CONFIG.value
        if found is not None:
            found.to_json_best_effort()  # a file that failed to load fails when it is first used
    except Exception as e:  # whatever goes wrong in a file that the user wrote
        raise errors.InputError(f"cannot load --config: {_cause(e)}") from e
    if found is None:
        raise errors.InputError("no --config given; for example --config=configs/quickstart.py")
    return parse(found)


def define_folder(name: str, meaning: str, optional: bool = False):
    """Defines a folder flag and returns a function that reads it: None if optional and unset."""
    flag = flags.DEFINE_string(name, None, meaning)

    def value() -> pathlib.Path | None:
        if optional and flag.value is None:
            return None
        if not flag.value:
            raise errors.InputError(f"no --{name} given: {meaning}")
        return folder(flag)

    return value


def folder(flag: flags.FlagHolder) -> pathlib.Path:
    """Returns the folder that a flag names. Raises InputError for a URL."""
    return files.mounted(f"--{flag.name}", flag.value)


def define_moved() -> Callable[[], tuple[dict[str, str], str | None]]:
    """Defines flags for where a run's LLMs and VAE are on this machine; returns their reader.

    The reader returns {encoder name: model} and the VAE's folder, None to use the run's own; it
    raises InputError for text that is not NAME=MODEL, or a repeated name.
    """
    llm = flags.DEFINE_multi_string(
        "llm",
        [],
        "NAME=MODEL: an encoder's weights on this machine, if not where the run found them",
    )
    vae = flags.DEFINE_string(
        "vae", None, "folder of the VAE on this machine, if not where the run found it"
    )

    def value() -> tuple[dict[str, str], str | None]:
        return _named(llm, "NAME=MODEL, such as smollm2=/models/smollm2"), vae.value

    return value


def define_share(meaning: str) -> Callable[[], Share]:
    """Defines --share=i/n and returns a function that reads it; the default is the whole."""
    flag = flags.DEFINE_string("share", None, f"i/n: {meaning}")
    return lambda: WHOLE if flag.value is None else share.parse(flag.value)


def mesh_sizes(text: str) -> tuple[int, int, int]:
    """Returns the sizes of a --mesh. Raises InputError unless it is three integers."""
    try:
        replica, fsdp, tensor = map(int, text.split(","))
    except ValueError:
        raise errors.InputError(
            f"--mesh={text}: want replica,fsdp,tensor, such as 1,-1,1"
        ) from None
    return replica, fsdp, tensor


def command(door: str) -> str:
    """Returns the command line of this process."""
    return shlex.join(["python", "-m", f"lidit_jax.{door}", *sys.argv[1:]])


def named_folders(flag: flags.FlagHolder) -> dict[str, pathlib.Path]:
    """Returns {name: folder} of a repeatable flag NAME=FOLDER.

    Raises InputError for any other text, a URL, or a repeated name.
    """
    named = _named(flag, "NAME=FOLDER, such as ltr=out/ltr")
    return {name: files.mounted(f"--{flag.name}", path) for name, path in named.items()}


def _named(flag: flags.FlagHolder, want: str) -> dict[str, str]:
    named = {}
    for text in flag.value:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise errors.InputError(f"--{flag.name}={text}: want {want}")
        if name in named:
            raise errors.InputError(
                f"--{flag.name} is given twice with the name {name}; use a different name for each"
            )
        named[name] = value
    return named


def chosen(*modes: str, required: bool = False) -> str:
    """Returns which of these flags is given, "" if none is.

    Raises InputError if several are given, or if none is and one is required.
    """
    given = [mode for mode in modes if flags.FLAGS[mode].value not in (None, False, "", [])]
    if len(given) > 1:
        raise errors.InputError(f"--{' and --'.join(given)} are different jobs; give one at a time")
    if required and not given:
        raise errors.InputError(f"no flag says what to do; want one of --{', --'.join(modes)}")
    return "".join(given)


def check_read(mode: str, reads: Mapping[str, Sequence[flags.FlagHolder]]):
    """Raises InputError if a flag is set that the chosen mode does not read but another mode does.

    mode: the flag that selects what the command does, "" if none. reads: mode -> flags it reads.
    """
    names = {each: {flag.name for flag in read} for each, read in reads.items()}
    for flag in itertools.chain(*reads.values()):
        if flag.present and flag.name not in names.get(mode, ()):
            wanted = " or ".join(f"--{each}" for each in names if each and flag.name in names[each])
            given = f"no{flag.name}" if flag.value is False else flag.name
            if not wanted:
                raise errors.InputError(f"--{given} has no effect with --{mode}")
            here = f", not with --{mode}" if mode else ""
            raise errors.InputError(f"--{given} only works with {wanted}{here}")


def define_processes():
    """Defines the multi-process flags and returns a context manager that joins the processes.

    The context manager takes a function that returns the facts on which all processes must agree;
    see `processes.start`. Inside it, JAX sees the devices of every process.
    """
    coordinator = flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0; needs --processes and --process_id"
    )
    count = flags.DEFINE_integer("processes", None, "number of processes that train together")
    process_id = flags.DEFINE_integer("process_id", None, "index of this process, from 0")
    cluster = flags.DEFINE_bool(
        "cluster", True, "if those three are unset, get them from SLURM, Open MPI, GKE or Cloud TPU"
    )
    timeout = flags.DEFINE_integer(
        "start_timeout", 300, "seconds to wait for the other processes", lower_bound=1
    )
    cpu_devices = flags.DEFINE_integer(
        "cpu_devices", None, "compute on the CPU, with this many devices per process", lower_bound=1
    )

    @contextlib.contextmanager
    def joined(facts: Callable[[], dict[str, Any]]) -> Iterator[None]:
        given = place.from_flags(coordinator.value, count.value, process_id.value)
        here = given or (clusters.from_cluster() if cluster.value else None)
        if cpu_devices.value:
            processes.use_cpu(cpu_devices.value)
        if here is None:
            yield
            return
        processes.start(here, lambda: facts() | {"cpu_devices": cpu_devices.value}, timeout.value)
        if here.process_id == 0:
            print(f"processes that train as one: {here.processes}, by {here.named_by}", flush=True)
        yield
        processes.end()

    return joined


def leave_room():
    """Makes JAX allocate GPU memory on demand rather than three quarters of it up front.

    This leaves room for torch, which puts LLMs, judges and peer models on the same GPU. Call it
    before JAX starts.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


# Ways to train a config with less memory; {plan} is the command that says how much is needed.
TRAIN_LESS = (
    "a smaller train.batch_size, more train.accumulate, model.remat=full, "
    "or a train.mesh with more devices along fsdp; {plan} shows what a run needs"
)


def run(
    main: Callable[[], None],
    reads: bool = False,
    configured: bool = True,
    less: str = "JAX_PLATFORMS=cpu",
):
    """Runs a command. Errors that `_line` can describe print that line; the exit status is 2, or 1
    if the error may be temporary.

    reads: the command also loads LLMs or judges; see `leave_room`. configured: it takes --config;
    otherwise the flag is removed and the run's own config applies. less: advice for when devices
    run out of memory.
    """
    if reads:
        leave_room()

    def guarded(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax logs every file at INFO
        try:
            if len(argv) > 1:
                raise errors.InputError(
                    f"unexpected argument {argv[1]!r}; write flags as --name=value"
                )
            main()
        except KeyboardInterrupt:
            print("stopped; finished work is kept, and the same command resumes", file=sys.stderr)
            processes.leave(130, at_once=True)
        except processes.Stopped as e:
            processes.end()
            print(f"{e}; the same command resumes", file=sys.stderr)
            sys.exit(e.STATUS)
        except Exception as e:
            told = _line(e, less)
            if told is None and not processes.name():
                raise
            if told is None:  # with several processes, each must identify itself, and exit
                traceback.print_exc()
                told = (
                    "stopped by the error above; if it is about another process, "
                    "that one failed first"
                )
                print(f"error{processes.name()}: {told}", file=sys.stderr)
                processes.leave(1)
            print(f"error{processes.name()}: {told}", file=sys.stderr)
            # Status 2: the same command would fail again.
            processes.leave(1 if errors.is_passing(e) else 2)

    if not configured:
        delattr(flags.FLAGS, "config")
    # For --help, which shows only the flags that the main module defines.
    for flag in flags.FLAGS.get_key_flags_for_module(__name__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(guarded, flags_parser=_parse_flags)


def _line(error: Exception, less: str) -> str | None:
    """Returns a line on a user's mistake, a temporary failure, a full disk or memory; else None."""
    if full := errors.full_disk(error):
        return errors.about_file(full)
    match error:
        # training raises FloatingPointError when it diverges
        case FloatingPointError():
            return str(error)
        # a CPU that runs out of memory during a computation reports INTERNAL
        case jax.errors.JaxRuntimeError() if "RESOURCE_EXHAUSTED" in str(
            error
        ) or "Out of memory" in str(error):
            return _out_of_memory(error, less)
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError":  # torch's
            why = str(error).splitlines()[0].rstrip(".")
            return f"out of memory for LLMs or judges ({why}); use a GPU with more memory"
    return errors.told(error)


def _out_of_memory(error: jax.errors.JaxRuntimeError, less: str) -> str:
    """Returns the error line for an accelerator, or a CPU, that ran out of memory."""
    count, why = jax.device_count(), str(error).splitlines()[0].rstrip(".")[:200]
    if "{plan}" in less:
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        plan = f"python -m lidit_jax.benchmark --plan --config={path} --devices={count}"
        less = less.format(plan=f"`{plan}`")
    return (
        f"out of memory on {count} x {jax.devices()[0].device_kind} ({why}); use devices with more "
        f"memory, or {less}"
    )


def _cause(error: BaseException) -> str:
    """Returns the last line of the root cause of an error: what went wrong in a config file."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _parse_flags(argv):
    """Runs absl's parser, but reports a misspelt config key like any other mistake."""
    try:
        return flags.FLAGS(argv)
    except Exception as e:  # whatever goes wrong in a file that the user wrote
        told = str(e)
        if "Traceback (most recent call last)" in told:  # of a config file; keep its last line
            told = told.strip().splitlines()[-1].split("Error: ", 1)[-1]
        # ml_collections raises the repr of a KeyError, with its suggestion on a second line.
        told = told.replace("\\n", " ").replace("\\", "").replace("'", "")
        told = " ".join(told.split())
        if isinstance(e, (AttributeError, KeyError)):
            told += "; configs/base.py lists every config key"
        print(f"error: config key or flag: {told}", file=sys.stderr)
        sys.exit(2)
