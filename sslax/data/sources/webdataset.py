"""Images in tar files, as WebDataset packs them: the files of a sample share a name."""

import glob
import itertools
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import images, listing
from sslax.data.files.class_names import Classes
from sslax.data.records import DataError, Dataset, ImageError, Record, threads


class Section(NamedTuple):
    """The section `data.webdataset`."""

    image: str = ""  # suffix of a sample's image, such as 'jpg'; '': the first one that images have
    # Suffix of a sample's label, a number or a name; 'json:KEY': an entry of a JSON file
    label: str = "cls"


def load(config: ConfigDict) -> Dataset:
    """The samples of the tar files that `config.path` names, and of `config.test_path`.

    A path is a tar file, a directory of them, or a pattern, such as `train-{000..146}.tar` or
    `train-*.tar`. A sample is the files of one name up to its first dot: `0017.jpg`, `0017.cls`.

    Raises:
        DataError: files are missing, compressed or damaged, or samples lack an image or a label.
    """
    train = _index(config.path, "data.path", config)
    classes = Classes.of(train.labels) if config.labels else None
    names = classes and classes.names
    if not config.test_path:
        return Dataset(_source(train, classes, config), None, names)
    test = _index(config.test_path, "data.test_path", config)
    return Dataset(*(_source(part, classes, config) for part in (train, test)), names)


class Sample(NamedTuple):
    """An image within a tar file: where its bytes are, and its label."""

    file: int  # number of the tar file
    start: int
    size: int
    label: str | None


class Index(NamedTuple):
    """All samples of some tar files.

    Attributes:
        files: paths of the tar files.
        places: int64 `[N, 3]`: of each image the number of its file, its first byte and its size.
        labels: as they are written; None without.
    """

    files: list[str]
    places: np.ndarray
    labels: list[str] | None


class ShardSource:
    """Images at their places in tar files, and their labels int32 `[N]` or None."""

    def __init__(
        self,
        files: list[str],
        places: np.ndarray,
        labels: np.ndarray | None,
        *,
        size: int,
        channels: int,
        value_range: images.ValueRange = (),
    ) -> None:
        self.files = files
        self.places = places
        self.labels = labels
        self.size = size
        self.channels = channels
        self.value_range = value_range

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Where each image is."""
        return {"places": self.places}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> Record:
        number, start, size = self.places[i].tolist()
        with open(self.files[number], "rb") as shard:  # by each thread for itself
            shard.seek(start)
            encoded = shard.read(size)
        try:
            image = images.decode(
                encoded, size=self.size, channels=self.channels, value_range=self.value_range
            )
        except ImageError as error:
            place = f"the image at byte {start} of {self.files[number]}"
            raise ImageError(f"{place} cannot be read: {error}") from error
        return {"image": image} | ({} if self.labels is None else {"label": self.labels[i]})


def shard_files(path: str, key: str) -> list[str]:
    """The tar files of a path, in order.

    Args:
        path: a tar file, a directory of them, or a pattern with `{000..146}`, `*` or `?`.
        key: such as 'data.path', for messages.

    Raises:
        DataError: there are none, or one of those numbered is missing.
    """
    if not path:
        raise DataError(
            f"data.source='webdataset' needs {key}: tar files, such as train-{{000..146}}.tar"
        )
    if os.path.isdir(path):
        found = sorted(str(file) for file in Path(path).glob("*.tar"))
        if not found:
            raise DataError(f"{key} {path} has no files ending in .tar")
        return found
    listed = _numbered(path)
    if glob.has_magic(path):
        listed = sorted(itertools.chain.from_iterable(map(glob.glob, listed)))
    if not listed:
        raise DataError(f"no file matches {key} {path}")
    if missing := [file for file in listed if not os.path.isfile(file)]:
        others = f", nor do {len(missing) - 1} others of {path}" if missing[1:] else ""
        raise DataError(f"{key}: {missing[0]} does not exist{others}")
    return listed


def _numbered(pattern: str) -> list[str]:
    """The names that a pattern with ranges such as `{000..146}` stands for."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    head, tail = pattern[: found.start()], _numbered(pattern[found.end() :])
    return [f"{head}{i:0{len(first)}d}{rest}" for i in numbers for rest in tail]


def _index(path: str, key: str, config: ConfigDict) -> Index:
    """Reads the headers of all tar files, in threads, and the labels."""
    files = shard_files(path, key)
    section = config.webdataset
    label, endings = section.label if config.labels else "", images.suffixes(config.channels)

    def scan(number: int) -> list[Sample | str]:
        return list(_samples(files[number], number, section.image, label, endings))

    with ThreadPoolExecutor(threads(config.workers)) as pool:
        found = list(itertools.chain.from_iterable(pool.map(scan, range(len(files)))))
    samples = [sample for sample in found if not isinstance(sample, str)]
    left_out = [sample for sample in found if isinstance(sample, str)]
    if not samples:
        raise DataError(
            f"{key} {path} has no images in its tar files: images are the files ending in "
            f"{listing.suffixes(config.channels)}"
        )
    if left_out:
        logging.getLogger(__name__).warning(
            "left out %d samples of %s without an image; the first: %s",
            *(len(left_out), path, left_out[0]),
        )
    labels = [sample.label or "" for sample in samples] if label else None
    return Index(files, np.array([sample[:3] for sample in samples], np.int64), labels)


def _source(index: Index, classes: Classes | None, config: ConfigDict) -> ShardSource:
    labels = None
    if classes and index.labels is not None:
        labels = classes.numbers(index.labels, f"the labels of {index.files[0]}")
    return ShardSource(
        index.files,
        index.places,
        labels,
        size=config.image_size,
        channels=config.channels or 3,
        value_range=images.value_range(config),
    )


def _samples(
    path: str, number: int, image: str, label: str, endings: Set[str]
) -> Iterator[Sample | str]:
    """The samples of a tar file, and the names of those without an image.

    Args:
        path: of the file.
        number: of the file.
        image: as in `Section`.
        label: likewise; '' for none.
        endings: suffixes of images, with their dots.
    """
    try:
        with tarfile.open(path, "r:") as shard:
            members = (member for member in shard if member.isfile())
            for name, group in itertools.groupby(members, lambda member: _parts(member.name)[0]):
                if not os.path.basename(name):  # hidden files
                    continue
                files = {_parts(member.name)[1]: member for member in group}
                chosen = _image(files, image, endings)
                if chosen is None and image:
                    raise DataError(
                        f"{path}: the sample {name} has no file ending in .{image}, but "
                        f"{_some(files)}: set data.webdataset.image to one of them"
                    )
                if chosen is None:
                    yield name
                    continue
                text = _label(shard, files, name, label, path) if label else None
                yield Sample(number, chosen.offset_data, chosen.size, text)
    except tarfile.TarError as error:
        raise DataError(
            f"{path} is no tar file, or is compressed or damaged ({error}): images are read from "
            "tar files at any position, so unpack compressed ones (gunzip) and copy damaged ones "
            "again"
        ) from error


def _parts(path: str) -> tuple[str, str]:
    """The name of a sample, and the suffix of one of its files: up to, and after, the first dot.

    Example:
        >>> _parts("train/0017.seg.png")
        ('train/0017', 'seg.png')
    """
    folder, _, file = path.rpartition("/")
    stem, _, suffix = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()


def _image(
    files: dict[str, tarfile.TarInfo], image: str, endings: Set[str]
) -> tarfile.TarInfo | None:
    if image:
        return files.get(image.lstrip(".").lower())
    found = (files[suffix] for suffix in files if f".{suffix}" in endings)
    return next(found, None)


def _label(
    shard: tarfile.TarFile, files: dict[str, tarfile.TarInfo], name: str, label: str, path: str
) -> str:
    """The label of a sample as it is written."""
    suffix, _, key = label.partition(":")
    where = f"{path}: the sample {name}"
    if suffix not in files:
        raise DataError(
            f"{where} has no label, a file ending in .{suffix}, but {_some(files)}: set "
            "data.webdataset.label to one of them ('json:KEY' for an entry of a JSON file), or "
            "data.labels=False"
        )
    stream = shard.extractfile(files[suffix])
    text = stream.read().decode(errors="replace").strip() if stream else ""
    if not key:
        return text
    try:
        entries = json.loads(text)
        return str(entries[key])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where} has no entry {key!r} in its .{suffix}: set data.webdataset.label='json:KEY' "
            "to an entry of a JSON object"
        ) from error


def _some(files: dict[str, tarfile.TarInfo]) -> str:
    return ", ".join(f".{suffix}" for suffix in sorted(files)[:5])
