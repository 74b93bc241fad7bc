"""What the command lines share: a user's mistake ends as one sentence."""

import sys
from collections.abc import Callable

from absl import app

from sslax.errors import UserError


def entry(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs `main`; a `UserError` becomes one sentence and exit status 1."""
    try:
        app.run(main)
    except UserError as error:
        sys.exit(f"error: {error}")
