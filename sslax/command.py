"""Shared by the commands: a user's mistake ends as one sentence, without a traceback.

Commands import `flags`, `config_flags` and `ConfigDict` from here, so that the sentence comes first
where the extra [train] is not installed.
"""

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from sslax import compilation_cache, config_files, errors, paths, ranges
from sslax.errors import UserError

try:
    errors.require("train")
except UserError as error:
    sys.exit(f"error: {error}")

from absl import app, logging
from absl import flags as flags
from ml_collections import ConfigDict as ConfigDict
from ml_collections import config_flags as config_flags

STOPPED = 75  # EX_TEMPFAIL: schedulers start the same command again

_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Folder of compiled programs, kept from one command to the next; empty for none. By default "
    "JAX_COMPILATION_CACHE_DIR, or sslax/compiled in XDG_CACHE_HOME or ~/.cache.",
)

_KINDS = {  # by the words of absl's errors
    "invalid literal for int()": "a whole number",
    "could not convert string to float": "a number",
    "Non-boolean argument": "True or False",
}
_PATHS = {
    *("workdir", "input", "output", "intrinsics", "predictions", "truth", "values"),
    *("images", "check"),
}


@functools.cache
def config_flag() -> flags.FlagHolder:
    """`--config`, defined once for all commands that take it."""
    return config_flags.DEFINE_config_file(
        *("config", None, "Config file, with its variant: configs/simclr.py:cifar10."),
        lock_config=True,
    )


@functools.cache
def workdir_flag() -> flags.FlagHolder:
    """`--workdir`, defined once for all commands that take it."""
    return flags.DEFINE_string("workdir", None, "Folder of the run.")


@functools.cache
def checkpoint_flag() -> flags.FlagHolder:
    """`--checkpoint`, defined once for all commands that read a run."""
    return flags.DEFINE_enum(
        *("checkpoint", "latest", ["latest", "best"]),
        "Which checkpoint of the run: the last one, or that of the best score.",
    )


@functools.cache
def output_flag() -> flags.FlagHolder:
    """`--output`, defined once for all commands that write files."""
    return flags.DEFINE_string(
        "output", None, "Folder to write; of features the .npz, of a page the .html."
    )


@functools.cache
def size_flag() -> Callable[[], tuple[int, int] | None]:
    """`--size`, defined once for all commands that take it.

    Returns:
        A function that reads it: height and width, or None where the flag is not given.
    """
    flag = flags.DEFINE_list(
        "size", None, "Height,width that the network works at; by default those of the run."
    )

    def read() -> tuple[int, int] | None:
        given = flag.value
        if not given:
            return None
        if len(given) != 2 or not all(side.strip().isdigit() and int(side) for side in given):
            raise UserError(
                f"--size={','.join(given)} is not a height and a width, as --size=192,640."
            )
        height, width = map(int, given)
        return height, width

    return read


def read_config() -> tuple[Any, str]:
    """The config that `--config` names, with the values of the command line, and its file.

    Raises:
        UserError: there is no such file.
    """
    config, file = config_flag().value, flags.FLAGS["config"].config_filename
    try:
        _ = config.method
    except OSError as error:  # raised late, at the first use
        raise UserError(f"--config={file}: there is no such config file.") from error
    return config, file


@functools.cache
def cluster_flags() -> Callable[[], None]:
    """`--distributed` and what goes with it, defined once for all commands that take them.

    Returns:
        A function that joins the other processes if the command line says so, before anything asks
        JAX for its devices.
    """
    distributed = flags.DEFINE_bool(
        *("distributed", False),
        "Join the other processes of a cluster: SLURM, GKE, TPU pod, or by hand.",
    )
    coordinator = flags.DEFINE_string("coordinator", "", "By hand: HOST:PORT of process 0.")
    process = flags.DEFINE_integer("process_id", 0, "By hand: this process, from 0.")
    processes = flags.DEFINE_integer("num_processes", 1, "By hand: how many processes.")
    check_flag("process_id", ranges.NonNegativeInt)
    check_flag("num_processes", ranges.PositiveInt)

    def join() -> None:
        from sslax.training import sharding

        for holder in (process, processes):
            if flags.FLAGS[holder.name].present and not coordinator.value:
                raise UserError(f"--{holder.name} goes with --coordinator=HOST:PORT; add it.")
        if distributed.value or coordinator.value:
            sharding.initialize_distributed(coordinator.value, process.value, processes.value)

    return join


def check_flag(name: str, kind: ranges.Kind) -> None:
    """Refuses values of a flag that are not of this kind, when the command line is read."""
    flags.register_validator(name, lambda value: ranges.check(f"--{name}", value, kind) is None)


def entry(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs `main`.

    A `UserError`, and what the system refuses, become a sentence and exit status 1; Ctrl-C becomes
    one and exit status 130.
    """

    def quietly(arguments: list[str]) -> None:
        if not any(argument.startswith(("--verbosity", "-v")) for argument in sys.argv):
            logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it touches
        compilation_cache.enable(_COMPILATION_CACHE.value)
        main(arguments)

    _show_shared_flags()
    try:
        app.run(quietly, flags_parser=_parse)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted; the same command starts again.", file=sys.stderr, flush=True)
        os._exit(130)  # at once: threads may be at work
    except Exception as error:
        try:
            errors.check_system(error)
        except UserError as sentence:
            sys.exit(f"error: {sentence}")
        raise


def _show_shared_flags() -> None:
    """`--help` lists the flags of the command's own file; this adds those it has from sslax."""
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith("sslax."):
            for flag in defined:
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _parse(arguments: list[str]) -> list[str]:
    """`flags.FLAGS(arguments)`, with home folders for `~`, its errors as sentences.

    There is nothing but flags.
    """
    try:
        arguments = [paths.expand_argument(argument) for argument in arguments]
        command, *others = flags.FLAGS(config_files.resolve(arguments))
    except UserError:
        raise
    except flags.Error as error:
        # A config file that refuses its variant is reported as text, traceback and all.
        *_, refused = str(error).split(f"{UserError.__module__}.{UserError.__name__}: ")
        raise UserError(_plain(refused.strip().splitlines()[0])) from error
    except AttributeError as error:  # from the config
        (reason,) = getattr(error.args[0], "args", error.args)
        raise UserError("--config has no key " + " ".join(str(reason).split())) from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"--config: {str(error).splitlines()[0]}") from error
    if others:
        raise UserError(f"{others[0]!r} is no flag: write --NAME=VALUE, without spaces.")
    for name in _PATHS & {*flags.FLAGS}:
        if flags.FLAGS[name].present:
            paths.expand(flags.FLAGS[name].value, f"--{name}")
    return [command]


def _plain(message: str) -> str:
    """absl's error about a value of another type, as this library says it; others as they are."""
    flag = re.fullmatch(r"flag (--[\w.]+)=(.*?): (.*)", message)
    kind = flag and next((kind for words, kind in _KINDS.items() if words in flag[3]), None)
    return f"{flag[1]} must be {kind}; got {flag[2]}." if flag and kind else message
