"""The exception for user mistakes; the commands print it as one sentence."""

import difflib
import importlib.util
from collections.abc import Iterable

# What each extra brings, by the names that are imported.
EXTRAS = {
    "train": (
        *("absl", "flax", "grain", "matplotlib", "ml_collections", "optax", "orbax", "PIL"),
        *("safetensors", "sklearn", "tensorboardX"),
    ),
    "geometry": ("skimage",),
}


class UserError(ValueError):
    """The user asked for something that cannot be done; the message says what and how to fix it."""


class MissingExtra(UserError, ImportError):
    """An optional dependency is not installed; the message says how to install it."""


def require(extra: str) -> None:
    """Checks that what an extra brings is installed; nothing is imported.

    Args:
        extra: a key of `EXTRAS`.

    Raises:
        MissingExtra: something of it is not installed.

    Example:
        >>> require("train")
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtra(
            f"{', '.join(missing)} {verb} not installed; run pip install 'sslax[{extra}]'."
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the closest known name, if one is close, and lists all of them.

    Example:
        >>> nearest("simclear", ["moco", "simclr"])
        'did you mean "simclr"? Known: moco, simclr.'
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    suggestion = f'did you mean "{close[0]}"? ' if close else ""
    return f"{suggestion}Known: {', '.join(sorted(known))}."


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Checks that an option has one of its allowed values.

    Args:
        name: the option as the user writes it: "padding", "config.model.dtype".
        value: what the user passed.
        choices: the allowed values; the keys, if it is a dictionary.

    Raises:
        UserError: `value` is not one of the choices; the message suggests the closest one.

    Example:
        >>> try:
        ...     check_choice("config.method", "simclear", ("moco", "simclr"))
        ... except UserError as error:
        ...     print(error)
        config.method is 'simclear': did you mean "simclr"? Known: moco, simclr.
    """
    choices = list(choices)
    if value not in choices:
        raise UserError(f"{name} is {value!r}: {nearest(str(value), map(str, choices))}")
