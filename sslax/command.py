"""Shared by the commands: a user's mistake ends as one sentence, without a traceback.

Commands import `flags` and `config_flags` from here, so that the sentence comes first where the
extra [train] is not installed.
"""

import sys
from collections.abc import Callable

from sslax import config_files, errors, ranges
from sslax.errors import UserError

try:
    errors.require("train")
except UserError as error:
    sys.exit(f"error: {error}")

from absl import app, logging
from absl import flags as flags
from ml_collections import config_flags as config_flags

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "latest", ["latest", "best"], "Which checkpoint to evaluate or predict with."
)


def check_flag(name: str, kind: ranges.Kind) -> None:
    """Refuses values of a flag that are not of this kind, when the command line is read."""
    flags.register_validator(name, lambda value: ranges.check(f"--{name}", value, kind) is None)


def entry(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs `main`; a `UserError` becomes a sentence and exit status 1."""

    def quietly(arguments: list[str]) -> None:
        if not any(argument.startswith(("--verbosity", "-v")) for argument in sys.argv):
            logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it touches
        main(arguments)

    try:
        app.run(quietly, flags_parser=_parse)
    except UserError as error:
        sys.exit(f"error: {error}")


def _parse(arguments: list[str]) -> list[str]:
    """`flags.FLAGS(arguments)`, its errors as sentences; there is nothing but flags."""
    try:
        command, *others = flags.FLAGS(config_files.resolve(arguments))
    except UserError:
        raise
    except flags.Error as error:
        # A config file that refuses its variant is reported as text, traceback and all.
        *_, refused = str(error).split(f"{UserError.__module__}.{UserError.__name__}: ")
        raise UserError(refused.strip().splitlines()[0]) from error
    except AttributeError as error:  # from the config
        (reason,) = getattr(error.args[0], "args", error.args)
        raise UserError("--config has no key " + " ".join(str(reason).split())) from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"--config: {str(error).splitlines()[0]}") from error
    if others:
        raise UserError(f"{others[0]!r} is no flag: write --NAME=VALUE, without spaces.")
    return [command]
