"""A directory of image files."""

import os
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import images
from sslax.data.records import DataError, Dataset, ImageError, Record


class FolderSource:
    """Image files and, perhaps, their labels int32 `[N]`."""

    def __init__(
        self, paths: list[str], labels: np.ndarray | None, *, size: int, channels: int
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.size = size
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Record:
        try:
            image = images.decode(Path(self.paths[i]), size=self.size, channels=self.channels)
        except ImageError as error:
            raise ImageError(f"{self.paths[i]} cannot be read as an image: {error}") from error
        return (
            {"image": image} if self.labels is None else {"image": image, "label": self.labels[i]}
        )


def folder(config: ConfigDict) -> Dataset:
    """Images in one sub-directory a class, or, with `labels=False`, anywhere below the directory.

    Raises:
        DataError: if a directory is missing or empty, or the test set has classes of its own.
    """
    train, names = _scan(config.path, "data.path", config)
    if not config.test_path:
        return Dataset(train, None, names)
    test, test_names = _scan(config.test_path, "data.test_path", config)
    if names is None or test_names is None:
        return Dataset(train, test, names)
    if unknown := sorted(set(test_names) - set(names)):
        raise DataError(
            f"data.test_path has the class folder {unknown[0]!r}, which data.path has not (it has "
            f"{_some(names)}): give both the same folders"
        )
    place = np.array([names.index(name) for name in test_names], np.int32)
    test.labels = place[test.labels]
    return Dataset(train, test, names)


def _scan(path: str, what: str, config: ConfigDict) -> tuple[FolderSource, tuple[str, ...] | None]:
    """Lists a directory in sorted order; class names are those of its sub-directories."""
    if not path:
        raise DataError(f"data.source='folder' needs {what}, a directory of images")
    root = Path(path).expanduser()
    if root.is_file():
        hint = ": set data.source='npz' to read it" if root.suffix == ".npz" else ""
        raise DataError(f"{what} {path} is a file, not a directory{hint}")
    if not root.exists():
        raise DataError(f"{what} {path} does not exist")
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    loose = [str(entry) for entry in entries if _is_image(entry.name) and entry.is_file()]
    classes = [entry for entry in entries if entry.is_dir()] if config.labels else []
    shape = {"size": config.image_size, "channels": config.channels or 3}
    if not classes:
        paths = loose if config.labels else _images_below(root)
        if not paths:
            raise DataError(_no_images(path, entries))
        return FolderSource(paths, None, **shape), None

    if loose:
        raise DataError(
            f"{path} has images beside its class folders, such as {Path(loose[0]).name}: move them "
            "into a class folder, or set data.labels=False to use all images without labels"
        )
    names = tuple(entry.name for entry in classes)
    if {name.lower() for name in names} <= {"train", "test", "val", "validation"}:
        raise DataError(
            f"{path} holds the parts {_some(names)}, not classes: set data.path={classes[0]}-like "
            "for the training part and data.test_path for the test part"
        )
    files = [_images_below(entry) for entry in classes]
    for entry, found in zip(classes, files):
        if not found:
            raise DataError(_no_images(str(entry), sorted(entry.iterdir())))
    labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(found) for found in files])
    return FolderSource([name for found in files for name in found], labels, **shape), names


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in images.SUFFIXES and not name.startswith(".")


def _images_below(root: Path) -> list[str]:
    walk = os.walk(root, followlinks=True)
    return sorted(
        os.path.join(at, name) for at, _, names in walk for name in names if _is_image(name)
    )


def _no_images(path: str, entries: list[Path]) -> str:
    found = f"only files such as {entries[0].name}" if entries else "nothing"
    known = " ".join(sorted(suffix[1:] for suffix in images.SUFFIXES))
    return f"{path} has no images, {found}: images are the files ending in {known}"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
