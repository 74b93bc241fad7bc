"""Which files and directories a directory holds, in natural order."""

import os
import re
from pathlib import Path

from sslax.data.files import images
from sslax.data.records import DataError


def require_directory(path: str, key: str, source: str) -> Path:
    """The existing directory that a key of the config names.

    Args:
        path: the key's value.
        key: such as 'data.path', for messages.
        source: `config.data.source`, for messages.

    Raises:
        DataError: there is no such directory.
    """
    if not path:
        raise DataError(f"data.source={source!r} needs {key}, a directory")
    root = Path(path)
    if not root.is_dir():
        problem = "is a file, not a directory" if root.exists() else "does not exist"
        raise DataError(f"{key} {path} {problem}")
    return root


def directories(root: Path) -> list[Path]:
    """The directories inside `root` that are not hidden; none where it does not exist."""
    if not root.is_dir():
        return []
    entries = (entry for entry in root.iterdir() if not entry.name.startswith("."))
    return sorted((entry for entry in entries if entry.is_dir()), key=lambda at: natural(at.name))


def image_files(root: Path) -> list[str]:
    """The image files inside `root` that are not hidden; none where it does not exist."""
    if not root.is_dir():
        return []
    return [str(root / name) for name in sorted(os.listdir(root), key=natural) if is_image(name)]


def image_files_below(root: Path) -> list[str]:
    """The image files anywhere below `root`, in alphabetical order."""
    walk = os.walk(root, followlinks=True)
    return sorted(
        os.path.join(folder, name) for folder, _, names in walk for name in names if is_image(name)
    )


def is_image(name: str) -> bool:
    """Whether a file's name has an image's suffix and is not hidden.

    Example:
        >>> is_image("a.JPG"), is_image(".a.jpg")
        (True, False)
    """
    return Path(name).suffix.lower() in images.SUFFIXES and not name.startswith(".")


def sequences(root: Path) -> list[tuple[Path, list[str]]]:
    """The image files of a directory, or of each directory in it, as frames in time order.

    Raises:
        DataError: there are none, or there are both images and directories of them.
    """
    loose = image_files(root)
    inner = [(entry, image_files(entry)) for entry in directories(root)]
    inner = [(entry, files) for entry, files in inner if files]
    if loose and inner:
        raise DataError(
            f"{root} has images, such as {Path(loose[0]).name}, beside directories of images, such "
            f"as {inner[0][0].name}: give each sequence a directory"
        )
    if not loose and not inner:
        raise DataError(
            f"{root} has no images, nor has a directory in it: images are the files ending in "
            f"{suffixes()}"
        )
    return [(root, loose)] if loose else inner


def suffixes() -> str:
    """The suffixes of image files, for messages."""
    return " ".join(sorted(suffix[1:] for suffix in images.SUFFIXES))


def natural(name: str) -> list:
    """A sort key that compares the numbers in names as numbers.

    Example:
        >>> sorted(["b10", "b9", "a"], key=natural)
        ['a', 'b9', 'b10']
    """
    words = re.split(r"(\d+)", name)
    return [int(word) if i % 2 else word for i, word in enumerate(words)] + [name]
