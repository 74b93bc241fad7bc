"""What the command lines share: a user's mistake ends as one sentence."""

import sys
from collections.abc import Callable

from absl import app, logging

from sslax.errors import UserError


def entry(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs `main`; a `UserError` becomes one sentence and exit status 1."""

    def quietly(arguments: list[str]) -> None:
        if not any(argument.startswith(("--verbosity", "-v")) for argument in sys.argv):
            logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it touches
        main(arguments)

    try:
        app.run(quietly)
    except UserError as error:
        sys.exit(f"error: {error}")
