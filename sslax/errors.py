"""The exception meant for people: the command line prints it as one sentence."""

import importlib.util

# What each extra brings, by the names that are imported.
EXTRAS = {
    "train": (
        *("absl", "flax", "grain", "matplotlib", "ml_collections", "optax", "orbax", "PIL"),
        *("safetensors", "sklearn", "tensorboardX"),
    ),
    "geometry": ("skimage",),
}


class UserError(ValueError):
    """Something the user asked for cannot be done; the message names the mistake and the remedy."""


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


def nearest(name: str, known: "list[str] | tuple[str, ...]") -> str:
    """A sentence naming the nearest known name, then all of them.

    Example:
        >>> nearest("simclear", ["moco", "simclr"])
        'did you mean "simclr"? Known: moco, simclr.'
    """
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{close[0]}"? ' if close else ""
    return f"{hint}Known: {', '.join(sorted(known))}."


def check_choice(name: str, value: object, choices: "list | tuple | dict") -> None:
    """The value of a knob is one of its choices.

    Args:
        name: of the knob, as the user writes it: "config.model.dtype".
        value: what the user gave.
        choices: what is allowed; of a dictionary its keys.

    Raises:
        UserError: it is none of them; the nearest one is named.

    Example:
        >>> try:
        ...     check_choice("config.method", "simclear", ("moco", "simclr"))
        ... except UserError as error:
        ...     print(error)
        config.method is 'simclear': did you mean "simclr"? Known: moco, simclr.
    """
    if value not in choices:
        raise UserError(f"{name} is {value!r}: {nearest(str(value), [str(c) for c in choices])}")
