"""What tells one set of records from another: names, sizes and labels, of small sets the bytes."""

import hashlib
import itertools
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from sslax.data.records import Source, is_generated, labels_of, threads

CONTENT_BYTES = 2**30  # files are read where they are no larger together


def fingerprint(source: Source) -> str:
    """A digest of a source: of its files' names and sizes, of its arrays, and of its labels.

    Where the files have at most `CONTENT_BYTES` together, what is in them counts as well. Names are
    relative to the folder that all files have in common, so that a folder may move. A source may
    have `files`, the paths that it reads, and `arrays`, arrays by name; one that wraps another,
    `source`, has those of that one. Of records that are generated, or that come with the package,
    the number is all there is to know.

    Example:
        >>> from sslax.data.records import ArraySource
        >>> images = np.zeros((4, 8, 8, 1), np.uint8)
        >>> fingerprint(ArraySource(images)) == fingerprint(ArraySource(images + 1))
        False
    """
    if origin := getattr(source, "origin", None):
        return origin
    digest = hashlib.sha256(f"{len(source)}".encode())
    for part in _parts(source):
        digest.update(f"\n{part}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _parts(source: Any) -> Iterator[str]:
    if is_generated(source):
        return
    if inner := getattr(source, "source", None):
        yield from _parts(inner)
    yield from _named_sizes(getattr(source, "files", ()))
    arrays = dict(getattr(source, "arrays", {}))
    arrays |= {"label": labels_of(source), "indices": getattr(source, "indices", None)}
    yield from _checksums(arrays)


def _named_sizes(files: Sequence[str]) -> Iterator[str]:
    if not files:
        return
    root = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    with ThreadPoolExecutor(threads(0)) as pool:  # folders on a network answer slowly
        sizes = list(pool.map(_size, files, chunksize=1024))
        small = sum(sizes) <= CONTENT_BYTES
        contents = pool.map(_content, files) if small else itertools.repeat(0)
        for file, size, content in zip(files, sizes, contents):
            yield f"{os.path.relpath(os.path.abspath(file), root)} {size} {content}"


def _content(file: str) -> int:
    try:
        with open(file, "rb") as stream:
            return zlib.crc32(stream.read())
    except OSError:
        return -1


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:  # ground truth that there is not
        return -1


def _checksums(arrays: Mapping[str, np.ndarray | None]) -> Iterator[str]:
    for name, array in sorted(arrays.items()):
        if array is not None:
            values = np.ascontiguousarray(array)
            checksum = zlib.crc32(values.reshape(-1).view(np.uint8))
            yield f"{name} {values.dtype} {values.shape} {checksum}"
