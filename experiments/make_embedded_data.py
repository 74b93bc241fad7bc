"""Draws the embedded data set, sslax/data/embedded/, from Fashion-MNIST.

    apt-get install dataset-fashion-mnist        # Debian; MIT license
    python experiments/make_embedded_data.py [--source=/usr/share/datasets/fashion-mnist]

800 training images a class come from the original training set and 200 test images a class from the
original test set, chosen with a fixed seed. Each part is one grayscale PNG, a mosaic 40 images wide
in reading order. Image i is of class i mod 10, so every column shows one class and every contiguous
part of the set is balanced. The same input gives the same pixels everywhere, and the same bytes
with the same Pillow.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

OUTPUT = Path(__file__).parent.parent / "sslax" / "data" / "embedded"
SEED = 20170825  # the day Fashion-MNIST was published
PARTS = {"train": ("train", 800), "test": ("t10k", 200)}  # name: original file, images a class
CLASSES = 10
COLUMNS = 40
SIDE = 28
LICENSE = """\
train.png and test.png hold 10,000 of the 70,000 images of Fashion-MNIST,
https://github.com/zalandoresearch/fashion-mnist, under this license:

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def read_idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def draw(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `per_class` random examples of each class, cycling through the classes."""
    chosen = [
        rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in range(CLASSES)
    ]
    return np.stack(chosen, axis=1).reshape(-1)


def mosaic(images: np.ndarray) -> np.ndarray:
    """Tiles images `[N, 28, 28]`, `COLUMNS` per row, in reading order."""
    grid = images.reshape(-1, COLUMNS, SIDE, SIDE)
    return grid.swapaxes(1, 2).reshape(-1, COLUMNS * SIDE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    source = parser.parse_args().source
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "LICENSE").write_text(LICENSE)
    for part, (original, per_class) in PARTS.items():
        images = read_idx(source / f"{original}-images-idx3-ubyte.gz", 16).reshape(-1, SIDE, SIDE)
        labels = read_idx(source / f"{original}-labels-idx1-ubyte.gz", 8)
        images = images[draw(labels, per_class, np.random.Generator(np.random.Philox(SEED)))]
        path = OUTPUT / f"{part}.png"
        Image.fromarray(mosaic(images)).save(path, optimize=True)
        digest = hashlib.sha256(images.tobytes()).hexdigest()
        print(f"{path.name}: {len(images)} images, {path.stat().st_size} bytes, pixels {digest}")


if __name__ == "__main__":
    main()
