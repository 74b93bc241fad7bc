"""Image sets in the format of Hugging Face: of its hub, of `save_to_disk`, or parquet files."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax import errors
from sslax.data.files import images
from sslax.data.files.class_names import Classes
from sslax.data.records import DataError, Dataset, ImageError, Record


class Section(NamedTuple):
    """The section `data.hf`."""

    name: str = ""  # of a set on the hub; '': data.path is a directory
    config: str = ""  # which of a set's configurations
    train_split: str = "train"
    test_split: str = "test"  # '' for none
    image: str = ""  # column of the images; '': the first one
    label: str = ""  # column of the labels; '': the first one of class labels


def load(config: ConfigDict) -> Dataset:
    """The set `config.hf.name`, or the directory `config.path`: of `save_to_disk`, or of files.

    Raises:
        MissingExtra: the library `datasets` is not installed.
        DataError: there is no such set, split or column.
    """
    errors.require("hf")
    if config.test_path or config.test_fraction:
        raise DataError(
            "data.source='hf' takes its parts from data.hf.train_split and data.hf.test_split, "
            "such as 'train[:90%]' and 'train[90%:]': leave data.test_path and data.test_fraction "
            "unset"
        )
    with _quietly():
        train, names = _part(config, "train_split", None)
        test = _part(config, "test_split", names)[0] if config.hf.test_split else None
    return Dataset(train, test, names)


class ColumnSource:
    """Encoded images of a column of a table, and their labels int32 `[N]` or None."""

    def __init__(
        self,
        table: Any,
        column: str,
        labels: np.ndarray | None,
        *,
        size: int,
        channels: int,
        value_range: images.ValueRange = (),
        name: str,
    ) -> None:
        self.table = table
        self.column = column
        self.labels = labels
        self.size = size
        self.channels = channels
        self.value_range = value_range
        self.name = name

    @property
    def files(self) -> list[str]:
        """The files that the table is in."""
        return [file["filename"] for file in self.table.cache_files]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> Record:
        stored = self.table[i][self.column]
        encoded = stored["bytes"] if stored["bytes"] is not None else Path(stored["path"])
        try:
            image = images.decode(
                encoded, size=self.size, channels=self.channels, value_range=self.value_range
            )
        except ImageError as error:
            raise ImageError(f"image {i} of {self.name} cannot be read: {error}") from error
        return {"image": image} | ({} if self.labels is None else {"label": self.labels[i]})


def _part(
    config: ConfigDict, key: str, known: tuple[str, ...] | None
) -> tuple[ColumnSource, tuple[str, ...] | None]:
    """A split, 'train_split' or 'test_split', and the names of its classes.

    Args:
        config: the `data` section.
        key: of the split.
        known: names of the training set's classes, which a test set shares.
    """
    import datasets

    split = config.hf[key]
    table = _open(config, key)
    column = _column(table, "image", config, _columns(table, datasets.Image), "images")
    labels, names, classes = None, known, _columns(table, datasets.ClassLabel)
    if config.labels and (config.hf.label or classes):
        label = _column(table, "label", config, classes, "class labels")
        labels, names = _labels(table, label, known, f"{label!r} of {split}")
    source = ColumnSource(
        table.select_columns(column).cast_column(column, datasets.Image(decode=False)),
        column,
        labels,
        size=config.image_size,
        channels=config.channels or 3,
        value_range=images.value_range(config),
        name=f"{config.hf.name or config.path} {split}",
    )
    return source, names


def _labels(
    table: Any, column: str, known: tuple[str, ...] | None, what: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 `[N]` of a column of class labels, numbers or names, and the classes' names."""
    names, values = getattr(table.features[column], "names", None), table[column]
    if names:  # already numbered, -1 where there is none
        numbers = np.asarray(values, np.int64)
        if len(numbers) and numbers.min() < 0:
            raise DataError(f"{what} has images without a label: set data.labels=False")
        return numbers.astype(np.int32), tuple(names)
    written = [str(value) for value in values]
    classes = Classes.of(written)
    if known is not None:
        classes = Classes(known, classes.numbered)
    return classes.numbers(written, what), classes.names


def _open(config: ConfigDict, key: str) -> Any:
    """The table of a split."""
    import datasets

    split, section, path = config.hf[key], config.hf, config.path
    what = f"the set {section.name!r}" if section.name else f"data.path {path}"
    if not section.name and not (path and Path(path).is_dir()):
        raise DataError(
            "data.source='hf' needs data.hf.name, a set on the hub, or as data.path a directory"
            + (f"; {path} is none" if path else "")
        )
    saved = not section.name and any(
        (Path(path) / name).exists() for name in ("dataset_dict.json", "state.json")
    )
    try:
        if saved:
            return _of_saved(datasets.load_from_disk(path), split, what, key)
        return datasets.load_dataset(section.name or path, section.config or None, split=split)
    except DataError:
        raise
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{what} cannot be opened with data.hf.{key}={split!r}: {reason}"
        ) from error


def _of_saved(saved: Any, split: str, what: str, key: str) -> Any:
    """A split of what `save_to_disk` wrote: all splits, or one table."""
    import datasets

    if isinstance(saved, datasets.Dataset):
        raise DataError(
            f"{what} is one table rather than splits: save a datasets.DatasetDict, such as that of "
            "table.train_test_split(0.1)"
        )
    if split not in saved:
        raise DataError(f"{what} has no data.hf.{key}={split!r} but {sorted(saved)}")
    return saved[split]


def _columns(table: Any, kind: type) -> list[str]:
    """The columns of a kind."""
    return [name for name, feature in table.features.items() if isinstance(feature, kind)]


def _column(table: Any, key: str, config: ConfigDict, found: list[str], what: str) -> str:
    """The column that `data.hf.image` or `data.hf.label` names, or the first one of its kind."""
    named = config.hf[key]
    if named and named not in table.features:
        raise DataError(f"there is no column data.hf.{key}={named!r} but {sorted(table.features)}")
    if not named and not found:
        raise DataError(
            f"no column holds {what}, of {sorted(table.features)}: set data.hf.{key} to one"
        )
    return named or found[0]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's progress bars."""
    import datasets

    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if not shown:
            datasets.enable_progress_bars()
