"""Golden values of tests/data/test_files.py: files as OpenCV writes them, and what it reads.

Run with an interpreter that has opencv-python:

    python experiments/golden/formats.py

Writes tests/data/golden/formats.npz. Needs no sslax.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np

FILTERS = ("NONE", "SUB", "UP", "AVG", "PAETH")


def contents(write):
    """What `write(path)` puts into a file, as an array of bytes."""

    def of(name):
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / name)
            write(path)
            return np.frombuffer(Path(path).read_bytes(), np.uint8)

    return of


def main():
    rng = np.random.default_rng(0)
    arrays = {}
    steps = rng.integers(-300, 301, (9, 11, 3))
    image = (np.cumsum(np.cumsum(steps, 0), 1) + 2**15).astype(np.uint16)
    image[2:4, 5:9] = rng.integers(0, 65536, (2, 4, 3))  # so that every byte wraps somewhere
    arrays["image"] = image
    for name in FILTERS:
        option = [cv2.IMWRITE_PNG_FILTER, getattr(cv2, f"IMWRITE_PNG_FILTER_{name}")]
        write = contents(lambda path, option=option: cv2.imwrite(path, image[..., ::-1], option))
        arrays[f"png_{name}"] = write("x.png")
    arrays["png_mixed"] = contents(
        lambda path: cv2.imwrite(
            path, image[..., ::-1], [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
        )
    )("x.png")
    arrays["png_gray16"] = contents(lambda path: cv2.imwrite(path, image[..., 0]))("x.png")
    arrays["png_rgb8"] = contents(
        lambda path: cv2.imwrite(path, (image >> 8).astype(np.uint8)[..., ::-1])
    )("x.png")
    rgba = np.concatenate([image, image[..., :1]], -1)
    arrays["rgba"] = rgba
    arrays["png_rgba16"] = contents(lambda path: cv2.imwrite(path, rgba[..., [2, 1, 0, 3]]))(
        "x.png"
    )

    flow = rng.normal(0, 20, (4, 5, 2)).astype(np.float32)
    arrays["flow"] = flow
    arrays["flo"] = contents(lambda path: cv2.writeOpticalFlow(path, flow))("x.flo")
    disparity = rng.uniform(0, 60, (4, 5)).astype(np.float32)
    arrays["disparity"] = disparity
    arrays["pfm"] = contents(lambda path: cv2.imwrite(path, disparity))("x.pfm")
    color = rng.uniform(0, 1, (3, 4, 3)).astype(np.float32)
    arrays["color"] = color
    arrays["pfm_color"] = contents(lambda path: cv2.imwrite(path, color[..., ::-1]))("x.pfm")
    target = Path(__file__).parents[2] / "tests" / "data" / "golden" / "formats.npz"
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, **arrays)
    print({name: len(value) for name, value in arrays.items()}, target.stat().st_size)


if __name__ == "__main__":
    main()
