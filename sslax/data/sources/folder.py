"""A directory of image files."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import images, listing
from sslax.data.records import DataError, Dataset, Record


def defaults() -> ConfigDict:
    """No keys of its own."""
    return ConfigDict()


def load(config: ConfigDict) -> Dataset:
    """Images in one sub-directory per class, or, with `labels=False`, anywhere below a directory.

    Raises:
        DataError: a directory is missing or empty, or the test set has classes of its own.
    """
    train, names = _scan(config.path, "data.path", config)
    if not config.test_path:
        return Dataset(train, None, names)
    test, test_names = _scan(config.test_path, "data.test_path", config)
    if names is None or test_names is None:
        return Dataset(train, test, names)
    if unknown := sorted(set(test_names) - set(names)):
        raise DataError(
            f"data.test_path has the class folder {unknown[0]!r}, which data.path does not (it has "
            f"{_some(names)}): give both the same folders"
        )
    numbers = np.array([names.index(name) for name in test_names], np.int32)
    test.labels = numbers[test.labels]
    return Dataset(train, test, names)


class FolderSource:
    """Image files, and their labels int32 `[N]` or None."""

    def __init__(
        self, paths: list[str], labels: np.ndarray | None, *, size: int, channels: int
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.size = size
        self.channels = channels

    @property
    def files(self) -> list[str]:
        """The files that are read."""
        return self.paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Record:
        image = images.read_image(self.paths[i], size=self.size, channels=self.channels)
        return {"image": image} | ({} if self.labels is None else {"label": self.labels[i]})


def _scan(path: str, key: str, config: ConfigDict) -> tuple[FolderSource, tuple[str, ...] | None]:
    """The images below a directory, in sorted order, and the names of its classes."""
    root = _directory(path, key)
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    loose = [str(entry) for entry in entries if listing.is_image(entry.name) and entry.is_file()]
    classes = [entry for entry in entries if entry.is_dir()] if config.labels else []
    shape = {"size": config.image_size, "channels": config.channels or 3}
    if not classes:
        paths = loose if config.labels else listing.image_files_below(root)
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
            f"{path} holds the parts {_some(names)}, not classes: set data.path to the training "
            f"part, such as {classes[0]}, and data.test_path to the test part"
        )
    files = [listing.image_files_below(entry) for entry in classes]
    for entry, found in zip(classes, files):
        if not found:
            raise DataError(_no_images(str(entry), sorted(entry.iterdir())))
    labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(found) for found in files])
    return FolderSource([name for found in files for name in found], labels, **shape), names


def _directory(path: str, key: str) -> Path:
    if not path:
        raise DataError(f"data.source='folder' needs {key}, a directory of images")
    root = Path(path)
    if root.is_file():
        hint = ": set data.source='npz' to read it" if root.suffix == ".npz" else ""
        raise DataError(f"{key} {path} is a file, not a directory{hint}")
    if not root.exists():
        raise DataError(f"{key} {path} does not exist")
    return root


def _no_images(path: str, entries: list[Path]) -> str:
    found = f"only files such as {entries[0].name}" if entries else "nothing"
    return f"{path} has no images, {found}: images are the files ending in {listing.suffixes()}"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
