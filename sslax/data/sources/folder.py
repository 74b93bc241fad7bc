"""A directory of image files."""

import csv
import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import images, listing
from sslax.data.files.class_names import Classes
from sslax.data.files.text import read_text
from sslax.data.records import DataError, Dataset, Record


class Section(NamedTuple):
    """The section `data.folder`."""

    labels_file: str = ""  # a table (CSV) of file names and labels; '': a sub-directory per class
    file_column: str = ""  # heading of the file names; '': the first column
    label_column: str = ""  # heading of the labels; '': the second column


def load(config: ConfigDict) -> Dataset:
    """Images in one sub-directory per class, or, with `labels=False`, anywhere below a directory.

    With `config.folder.labels_file` the labels are in a table, and the images anywhere.

    Raises:
        DataError: a directory is missing or empty, or the test set has classes of its own; the
            table names files that are not there.
    """
    if config.labels and config.get("folder", Section()._asdict())["labels_file"]:
        return _load_table(config)
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


def _load_table(config: ConfigDict) -> Dataset:
    """The images of a folder, or two, that the table of labels names."""
    table = _read_labels(config)
    train, written = _listed(config.path, "data.path", table, config)
    classes = Classes.of(written)
    what = f"the labels of {config.folder.labels_file}"
    train.labels = classes.numbers(written, what)
    if not config.test_path:
        return Dataset(train, None, classes.names)
    test, written = _listed(config.test_path, "data.test_path", table, config)
    test.labels = classes.numbers(written, what)
    return Dataset(train, test, classes.names)


def _read_labels(config: ConfigDict) -> dict[str, str]:
    """Labels by file names, both as they are written in the table."""
    section, file = config.folder, config.folder.labels_file
    rows = [row for row in csv.reader(read_text(file).splitlines(), skipinitialspace=True) if row]
    if not rows or len(rows[0]) < 2:
        raise DataError(f"{file} must be a table of file names and labels, separated by commas")
    columns = []
    for key, default in (("file_column", 0), ("label_column", 1)):
        heading = section[key]
        if heading and heading not in rows[0]:
            raise DataError(
                f"{file} has no column data.folder.{key}={heading!r} but {_some(tuple(rows[0]))}"
            )
        columns.append(rows[0].index(heading) if heading else default)
    named = section.file_column or section.label_column
    headed = named or not listing.is_image(rows[0][0], config.channels)
    rows = rows[1:] if headed else rows
    names, labels = columns
    if short := [row for row in rows if len(row) <= max(columns)]:
        raise DataError(f"{file}: the row {','.join(short[0])!r} has no label")
    table: dict[str, str] = {}
    for row in rows:
        if table.setdefault(row[names], row[labels]) != row[labels]:
            raise DataError(
                f"{file} has two labels of {row[names]}, {table[row[names]]!r} and {row[labels]!r}"
            )
    return table


def _listed(
    path: str, key: str, table: dict[str, str], config: ConfigDict
) -> tuple[FolderSource, list[str]]:
    """The images below a directory that the table names, and their labels as they are written.

    The table has paths below the directory, or names, with or without suffixes.
    """
    root = _directory(path, key)
    files = listing.tree(root).files
    paths = [file for file in files if listing.is_image(file, config.channels)]
    if not paths:
        raise DataError(_no_images(path, root, config.channels))
    known = [(file, _label_of(file, root, table)) for file in paths]
    found = [(file, label) for file, label in known if label is not None]
    table_file = config.folder.labels_file
    if not found:
        raise DataError(
            f"{table_file} names none of the images of {path}: it has {next(iter(table), '')!r}, "
            f"and there is {Path(paths[0]).relative_to(root)}; write paths below {path}, or set "
            "data.folder.file_column"
        )
    if missing := len(known) - len(found):
        first = next(file for file, label in known if label is None)
        logging.getLogger(__name__).warning(
            "left out %d images of %s that %s does not name; the first: %s",
            *(missing, path, table_file, first),
        )
    files, labels = zip(*found)
    return FolderSource(list(files), None, **_shape(config)), list(labels)


def _label_of(file: str, root: Path, table: dict[str, str]) -> str | None:
    inner = os.path.relpath(file, root)
    names = inner, os.path.splitext(inner)[0], os.path.basename(file), Path(file).stem
    return next((table[name] for name in names if name in table), None)


def _shape(config: ConfigDict) -> dict:
    """What a source of files needs to know of its images."""
    return {
        "size": config.image_size,
        "channels": config.channels or 3,
        "value_range": images.value_range(config),
    }


def _scan(path: str, key: str, config: ConfigDict) -> tuple[FolderSource, tuple[str, ...] | None]:
    """The images below a directory, in sorted order, and the names of its classes."""
    root = _directory(path, key)
    found = listing.tree(root)
    _warn(path, found, config.channels)
    paths = [file for file in found.files if listing.is_image(file, config.channels)]
    shape = _shape(config)
    classes = sorted(entry.name for entry in listing.directories(root)) if config.labels else []
    if not classes:
        paths = [file for file in paths if not config.labels or Path(file).parent == root]
        if not paths:
            raise DataError(_no_images(path, root, config.channels))
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
        raise DataError(_no_images(str(root / name), root / name, config.channels))
    counts = [len(files[name]) for name in names]
    labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    return FolderSource([file for name in names for file in files[name]], labels, **shape), names


def _warn(path: str, found: listing.Tree, channels: int) -> None:
    """Logs what is passed over below a directory."""
    listing.warn_left_out(path, found.files, channels)
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


def _no_images(path: str, folder: Path, channels: int) -> str:
    entries = sorted(entry.name for entry in folder.iterdir())
    found = f"only files such as {entries[0]}" if entries else "nothing"
    ends = listing.suffixes(channels)
    return f"{path} has no images, {found}: images are the files ending in {ends}"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
