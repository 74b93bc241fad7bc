"""CIFAR-10 from an archive, and the clock of a run. Needs NumPy and Pillow alone, as peers do."""

import argparse
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def seconds_since_start() -> float:
    """Seconds since this process was started, before Python was loaded (Linux)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = float(fields[19]) / os.sysconf("SC_CLK_TCK")  # after the machine was
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def existing(text: str) -> Path:
    """A file that a command names."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text}: there is no such file")
    return Path(text)


def writable(text: str) -> Path:
    """A file to be written, in a folder that exists: known before the training, not after it."""
    if not Path(text).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: make its folder first")
    return Path(text)


def images(archive: Path, part: str) -> np.ndarray:
    """`[N, 32, 32, 3]` bytes: `x_{part}`, or JPEG bytes end to end, `jpeg_{part}`, `off_{part}`."""
    with np.load(archive) as arrays:
        if f"x_{part}" in arrays:
            return arrays[f"x_{part}"]
        stream, offsets = arrays[f"jpeg_{part}"].tobytes(), arrays[f"off_{part}"]

    def decoded(i: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(stream[offsets[i] : offsets[i + 1]])))

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(decoded, range(len(offsets) - 1), chunksize=1000)))


def labels(archive: Path, part: str) -> np.ndarray:
    """`[N]` classes; nothing that trains may call this."""
    with np.load(archive) as arrays:
        return arrays[f"y_{part}"].astype(np.int64)


def mapped(features: Callable[[np.ndarray], Any], images: np.ndarray) -> np.ndarray:
    """The features of all images, 250 at a time."""
    parts = [features(images[i : i + 250]) for i in range(0, len(images), 250)]
    return np.concatenate([np.asarray(part) for part in parts])
