"""What the command-line doors share: a user's mistake is one line on stderr, not a traceback."""

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

from lidit_jax import errors, processes, share
from lidit_jax.processes import clusters, place
from lidit_jax.share import WHOLE, Share
from lidit_jax.training.config import parse

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/NAME.py[:argument]; override keys with --config.key=value"
)


def config(parse: Callable[[ConfigDict], Any] = parse) -> Any:
    """Returns the parsed --config: a `Config`, unless parsed otherwise. Raises InputError without one."""
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
    """Defines a flag that names a folder, and returns a function that reads it: None where it may be left out, and is."""
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
    return _mounted(flag.name, flag.value)


def define_moved() -> Callable[[], tuple[dict[str, str], str | None]]:
    """Defines flags of where a run's LLMs and its VAE are here, and returns a function that reads them.

    It returns names of encoders with their models, and the VAE's folder, None where the run knows it; it
    raises InputError for what is not NAME=MODEL, or two of one name.
    """
    llm = flags.DEFINE_multi_string(
        "llm",
        [],
        "NAME=MODEL: where an encoder's weights are here, if not where the run found them",
    )
    vae = flags.DEFINE_string("vae", None, "folder of the VAE here, if not where the run found it")

    def value() -> tuple[dict[str, str], str | None]:
        return _named(llm, "NAME=MODEL, such as smollm2=/models/smollm2"), vae.value

    return value


def define_share(meaning: str) -> Callable[[], Share]:
    """Defines --share=i/n, and returns a function that reads it: the whole, unless given."""
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
    """Returns the command line that this door was called by."""
    return shlex.join(["python", "-m", f"lidit_jax.{door}", *sys.argv[1:]])


def named_folders(flag: flags.FlagHolder) -> dict[str, pathlib.Path]:
    """Returns the folders of a flag that is given as NAME=FOLDER, as often as one likes.

    Raises InputError for any other text, a URL, or two of one name.
    """
    named = _named(flag, "NAME=FOLDER, such as ltr=out/ltr")
    return {name: _mounted(flag.name, path) for name, path in named.items()}


def _named(flag: flags.FlagHolder, want: str) -> dict[str, str]:
    named = {}
    for text in flag.value:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise errors.InputError(f"--{flag.name}={text}: want {want}")
        if name in named:
            raise errors.InputError(
                f"two of --{flag.name} are called {name}; give each its own name"
            )
        named[name] = value
    return named


def _mounted(name: str, path: str) -> pathlib.Path:
    if "://" in path:
        raise errors.InputError(
            f"--{name}={path}: want a folder of a mounted filesystem; docs/launch.md tells how a bucket "
            f"becomes one"
        )
    return pathlib.Path(path).expanduser()


def chosen(*modes: str) -> str:
    """Returns which of these flags is given, "" if none is. Raises InputError if several are."""
    given = [mode for mode in modes if flags.FLAGS[mode].value not in (None, False)]
    if len(given) > 1:
        raise errors.InputError(f"--{' and --'.join(given)} are different jobs; give one at a time")
    return "".join(given)


def check_read(mode: str, reads: Mapping[str, Sequence[flags.FlagHolder]]):
    """Raises InputError for a flag that is given, but that only other modes read than the chosen one.

    mode: the flag that chose what a door does; "" where none did. reads: mode -> the flags that it reads.
    """
    names = {each: {flag.name for flag in read} for each, read in reads.items()}
    for flag in itertools.chain(*reads.values()):
        if flag.present and flag.name not in names.get(mode, ()):
            wanted = " or ".join(f"--{each}" for each in names if each and flag.name in names[each])
            given = f"no{flag.name}" if flag.value is False else flag.name
            if not wanted:
                raise errors.InputError(f"--{given} has no effect with --{mode}")
            here = f"; this is --{mode}" if mode else ""
            raise errors.InputError(f"--{given} says nothing without {wanted}{here}")


def define_processes():
    """Defines the flags of several processes that work as one, and returns what joins them.

    The returned context manager is given a function of the facts that all processes must share; see
    `processes.start`. Within it, JAX sees every process' devices.
    """
    coordinator = flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0; with --processes and --process_id"
    )
    count = flags.DEFINE_integer("processes", None, "how many processes train as one")
    process_id = flags.DEFINE_integer("process_id", None, "which of them this is, from 0")
    cluster = flags.DEFINE_bool(
        "cluster", True, "without those three, ask SLURM, Open MPI, GKE or Cloud TPU for them"
    )
    timeout = flags.DEFINE_integer(
        "start_timeout", 300, "seconds to wait for the other processes", lower_bound=1
    )
    cpu_devices = flags.DEFINE_integer(
        "cpu_devices", None, "compute on the CPU, as so many devices per process", lower_bound=1
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
    """Has JAX, before it starts, take a GPU's memory as it needs it, instead of three quarters at once.

    For torch, which puts LLMs, judges and peers on the same GPU.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


# What wants less memory than a config does, where that is trained; {plan} is the command that says how much.
TRAIN_LESS = (
    "a smaller train.batch_size, more train.accumulate, model.remat=full, or a train.mesh with more devices "
    "along fsdp; {plan} says what a run needs"
)


def run(
    main: Callable[[], None],
    reads: bool = False,
    configured: bool = True,
    less: str = "JAX_PLATFORMS=cpu",
):
    """Runs a door. An error that `_line` can tell ends it with its one line, and status 2; 1 if it may pass.

    reads: LLMs or judges too; see `leave_room`. configured: by --config; else there is no such flag, and
    what a run says of itself counts. less: what helps where the devices have too little memory.
    """
    if reads:
        leave_room()

    def guarded(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells every file at INFO
        try:
            if len(argv) > 1:
                raise errors.InputError(
                    f"unexpected argument {argv[1]!r}; flags are written --name=value"
                )
            main()
        except KeyboardInterrupt:
            print(
                "stopped; what is finished stays, and the same command continues", file=sys.stderr
            )
            processes.leave(130, at_once=True)
        except processes.Stopped as e:
            processes.end()
            print(f"{e}; the same command continues", file=sys.stderr)
            sys.exit(e.STATUS)
        except Exception as e:
            told = _line(e, less)
            if told is None and not processes.name():
                raise
            if told is None:  # of several processes, each must be told apart, and end
                traceback.print_exc()
                told = "ended by the above; if it is about another process, that one's error came first"
                print(f"error{processes.name()}: {told}", file=sys.stderr)
                processes.leave(1)
            print(f"error{processes.name()}: {told}", file=sys.stderr)
            # Status 2 says that the same command would fail again.
            processes.leave(1 if errors.is_passing(e) else 2)

    if not configured:
        delattr(flags.FLAGS, "config")
    # For --help, which shows the flags that a door itself defines.
    for flag in flags.FLAGS.get_key_flags_for_module(__name__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(guarded, flags_parser=_parse_flags)


def _line(error: Exception, less: str) -> str | None:
    """Returns the line that tells a user's mistake, what may pass, or what is full; None for any other error."""
    if full := errors.full_disk(error):
        return errors.about_file(full)
    match error:
        # FloatingPointError is training that diverged
        case FloatingPointError():
            return str(error)
        # a CPU that runs out while it computes calls that INTERNAL
        case jax.errors.JaxRuntimeError() if "RESOURCE_EXHAUSTED" in str(
            error
        ) or "Out of memory" in str(error):
            return _out_of_memory(error, less)
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError":  # torch's
            why = str(error).splitlines()[0].rstrip(".")
            return f"out of memory for LLMs or judges ({why}); use a GPU with more"
    return errors.told(error)


def _out_of_memory(error: jax.errors.JaxRuntimeError, less: str) -> str:
    """Returns what to do about an accelerator, or a CPU, that has too little memory."""
    count, why = jax.device_count(), str(error).splitlines()[0].rstrip(".")[:200]
    if "{plan}" in less:
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        plan = f"python -m lidit_jax.benchmark --plan --config={path} --devices={count}"
        less = less.format(plan=f"`{plan}`")
    return f"out of memory on {count} x {jax.devices()[0].device_kind} ({why}); use devices with more, or {less}"


def _cause(error: BaseException) -> str:
    """Returns the last line of the first error of a chain: what went wrong in a config file."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _parse_flags(argv):
    """absl's parser, with a misspelt config key reported like any other mistake."""
    try:
        return flags.FLAGS(argv)
    except Exception as e:  # whatever goes wrong in a file that the user wrote
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
