"""Paths that users name: `~` is their home, and outputs can be written before any work is done."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sslax.errors import UserError, check_system, nearest

ZOO = Path(__file__).parent / "zoo"  # the networks that come with the package
_MARGIN = 16  # bytes that a file's name is longer while it is written


def cache_folder() -> Path:
    """`sslax` in the user's cache folder: XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sslax"


def expand(path: str | os.PathLike, what: str = "a path") -> Path:
    """The path, with `~` and `~user` as home folders.

    Args:
        path: as the user wrote it.
        what: its name in the message.

    Raises:
        UserError: it is empty.

    Example:
        >>> expand("runs/simclr").parts
        ('runs', 'simclr')
    """
    text = os.fspath(path)
    if not text.strip():
        raise UserError(f"{what} is empty; name a file or a folder.")
    return Path(text).expanduser()


def trained(path: str | os.PathLike, what: str = "a path") -> Path:
    """The path of a run or of weights; `zoo/NAME` is a network that comes with the package.

    Args:
        path: as the user wrote it.
        what: its name in the message.

    Raises:
        UserError: it is empty, or there is no such network.

    Example:
        >>> trained("zoo/uflow_small") == ZOO / "uflow_small"
        True
    """
    place = expand(path, what)
    if place.parts[:1] != ("zoo",) or place.exists():
        return place
    inside = ZOO.joinpath(*place.parts[1:])
    if not inside.exists():
        known = sorted(f"zoo/{entry.name}" for entry in ZOO.iterdir() if entry.is_dir())
        raise UserError(f"{what}={place} does not exist: {nearest(str(place), known)}")
    return inside


def expand_argument(argument: str) -> str:
    """An argument of a command line with the home folders of its value, or its values A,B.

    Example:
        >>> home = os.path.expanduser("~")
        >>> expand_argument("--input=~/a.png,~/b.png") == f"--input={home}/a.png,{home}/b.png"
        True
    """
    flag, equals, value = argument.partition("=") if argument[:1] == "-" else ("", "", argument)
    return flag + equals + ",".join(os.path.expanduser(part) for part in value.split(","))


def expand_config(config: Any) -> Any:
    """A copy of a config whose strings have their home folders.

    Example:
        >>> from ml_collections import ConfigDict
        >>> expand_config(ConfigDict({"data": {"path": "~"}})).data.path == os.path.expanduser("~")
        True
    """
    copy = config.copy_and_resolve_references()
    with copy.unlocked():
        _expand_strings(copy)
    return copy


def _expand_strings(section: Any) -> None:
    for name, value in section.items():
        if hasattr(value, "items"):
            _expand_strings(value)
        elif isinstance(value, str):
            section[name] = os.path.expanduser(value)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A file to write to, which replaces `path` once it is complete, and is deleted otherwise."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_output(path: Path, what: str, *, folder: bool) -> None:
    """Makes sure that a file or folder can be written; creates nothing.

    Args:
        path: of the output.
        what: its name in the message, such as '--output'.
        folder: whether it is a folder.

    Raises:
        UserError: it is there and of the other kind, or its place cannot be written to.
    """
    begin = f"{what}{'=' if what[:1] == '-' else ' '}{path}"
    try:
        if path.exists() and path.is_dir() != folder:
            raise UserError(
                f"{begin} is a {'file; name a folder' if folder else 'folder; name a file'}."
            )
        place = path if path.exists() else next(at for at in path.absolute().parents if at.exists())
        if not (place.is_dir() or place == path):
            raise OSError(errno.ENOTDIR, "", str(place))
        if not os.access(place, os.W_OK):
            read_only = os.statvfs(place).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "", str(place))
        space = os.statvfs(place)
        if space.f_blocks and not space.f_bavail:
            raise OSError(errno.ENOSPC, "", str(place))
        longest = os.pathconf(place if place.is_dir() else place.parent, "PC_NAME_MAX")
        if any(len(os.fsencode(part)) > longest - _MARGIN for part in path.parts):
            raise OSError(errno.ENAMETOOLONG, "", str(path))
    except OSError as error:
        check_system(error, f"{begin} cannot be written")
