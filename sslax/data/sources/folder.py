"""A directory of image files."""

import logging
import os
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import images, listing
from sslax.data.records import DataError, Dataset, Record


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
        self,
        paths: list[str],
        labels: np.ndarray | None,
        *,
        size: int,
        channels: int,
        value_range: images.ValueRange = (),
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.size = size
        self.channels = channels
        self.value_range = value_range

    @property
    def files(self) -> list[str]:
        """The files that are read."""
        return self.paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Record:
        image = images.read_image(
            self.paths[i], size=self.size, channels=self.channels, value_range=self.value_range
        )
        return {"image": image} | ({} if self.labels is None else {"label": self.labels[i]})


def _scan(path: str, key: str, config: ConfigDict) -> tuple[FolderSource, tuple[str, ...] | None]:
    """The images below a directory, in sorted order, and the names of its classes."""
    root = _directory(path, key)
    found = listing.tree(root)
    _warn(path, found)
    paths = [file for file in found.files if listing.is_image(file)]
    shape = {
        "size": config.image_size,
        "channels": config.channels or 3,
        "value_range": images.value_range(config),
    }
    classes = sorted(entry.name for entry in listing.directories(root)) if config.labels else []
    if not classes:
        paths = [file for file in paths if not config.labels or Path(file).parent == root]
        if not paths:
            raise DataError(_no_images(path, root))
        return FolderSource(paths, None, **shape), None
    start = os.path.join(root, "")
    files: dict[str, list[str]] = {name: [] for name in classes}
    for file in paths:
        name, _, inner = file.removeprefix(start).partition(os.sep)
        if not inner:
            raise DataError(
                f"{path} has images beside its class folders, such as {name}: move them into a "
                "class folder, or set data.labels=False to use all images without labels"
            )
        files[name].append(file)
    names = tuple(name for name in classes if files[name] or not _within(found.outputs, root, name))
    if {name.lower() for name in names} <= {"train", "test", "val", "validation"}:
        raise DataError(
            f"{path} holds the parts {_some(names)}, not classes: set data.path to the training "
            f"part, such as {root / names[0]}, and data.test_path to the test part"
        )
    for name in names:
        if files[name]:
            continue
        if repeated := _within(found.links, root, name):
            raise DataError(
                f"{repeated[0]} is a link to images of another class folder, and {name} has no "
                "others: an image has one class, so remove the link"
            )
        raise DataError(_no_images(str(root / name), root / name))
    counts = [len(files[name]) for name in names]
    labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    return FolderSource([file for name in names for file in files[name]], labels, **shape), names


def _warn(path: str, found: listing.Tree) -> None:
    """Logs what is passed over below a directory."""
    listing.warn_left_out(path, found.files)
    for paths, what in (
        (found.links, "links to images that are read already"),
        (found.outputs, "folders of pictures of this library"),
    ):
        if paths:
            logging.getLogger(__name__).warning(
                "left out %d %s; the first: %s", len(paths), what, paths[0]
            )


def _within(paths: list[str], root: Path, name: str) -> list[str]:
    """Those of the paths that are a directory of `root`, or below it."""
    folder = str(root / name)
    return [path for path in paths if path == folder or path.startswith(folder + os.sep)]


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


def _no_images(path: str, folder: Path) -> str:
    entries = sorted(entry.name for entry in folder.iterdir())
    found = f"only files such as {entries[0]}" if entries else "nothing"
    return f"{path} has no images, {found}: images are the files ending in {listing.suffixes()}"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
