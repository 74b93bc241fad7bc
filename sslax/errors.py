"""The exception for user mistakes; the commands print it as one sentence."""

import difflib
import errno
import importlib.util
import os
import re
from collections.abc import Iterable

# What each extra brings, by the names that are imported.
EXTRAS = {
    "train": (
        *("absl", "flax", "grain", "matplotlib", "ml_collections", "optax", "orbax", "PIL"),
        *("safetensors", "sklearn", "tensorboardX"),
    ),
    "geometry": ("skimage",),
    "hf": ("datasets",),
    "bands": ("tifffile",),
    "dicom": ("pydicom",),
    "export": ("flatbuffers", "onnx"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}


class UserError(ValueError):
    """The user asked for something that cannot be done; the message says what and how to fix it."""


class MissingExtra(UserError, ImportError):
    """An optional dependency is not installed; the message says how to install it."""


# What to do where the system says no.
_REMEDIES = {
    errno.ENOSPC: "free some space, or name a folder elsewhere",
    errno.EDQUOT: "free some space, or name a folder elsewhere",
    errno.EFBIG: "name a folder on a file system that takes larger files",
    errno.EROFS: "name a folder that can be written to",
    errno.EACCES: "change its permissions, or name another",
    errno.EPERM: "change its permissions, or name another",
    errno.ENOTDIR: "a file stands where a folder should be; move it, or name another",
    errno.EEXIST: "a file stands where a folder should be; move it, or name another",
    errno.EISDIR: "a folder stands where a file should be; name another",
    errno.ENOENT: "name one that exists",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.ELOOP: "its symbolic links lead in a circle; name another",
    errno.EMFILE: "allow the process more open files, as by `ulimit -n 4096`",
    errno.ENFILE: "close other programs, or allow more open files",
    errno.ENOMEM: "free some memory",
    errno.EIO: "the disk or the network behind it fails; look after it, then run this again",
}
# As TensorStore and safetensors report what the system said.
_NUMBER = re.compile(r"OS error (\d+)|os_error_code='?(\d+)|Os \{ code: (\d+)|\(os error (\d+)\)")


def check_system(error: BaseException, what: str = "") -> None:
    """Raises a sentence for an error of the system: no space, no permission, no descriptors.

    Args:
        error: any error; others than the system's are left alone.
        what: the sentence's beginning: what could not be done.

    Raises:
        UserError: the error, or one that led to it, is the system's.

    Example:
        >>> try:
        ...     check_system(OSError(errno.ENOSPC, "No space left on device", "a/b"), "Not saved")
        ... except UserError as error:
        ...     print(error)
        Not saved: No space left on device (a/b); free some space, or name a folder elsewhere.
    """
    cause: BaseException | None = error
    while cause is not None:
        found = _NUMBER.search(str(cause))
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None and found:
            number = int(next(filter(None, found.groups())))
        if number is not None:
            place = getattr(cause, "filename", None)
            said = os.strerror(number) + (f" ({place})" if place else "")
            remedy = f"; {_REMEDIES[number]}" if number in _REMEDIES else ""
            raise UserError((f"{what}: " if what else "") + f"{said}{remedy}.") from error
        cause = cause.__cause__ or cause.__context__


def require(extra: str, *names: str) -> None:
    """Checks that what an extra brings is installed; nothing is imported.

    Args:
        extra: a key of `EXTRAS`.
        *names: what is needed of it; all of it where none is named.

    Raises:
        MissingExtra: something of it is not installed.

    Example:
        >>> require("train")
    """
    missing = [name for name in names or EXTRAS[extra] if importlib.util.find_spec(name) is None]
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
