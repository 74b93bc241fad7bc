"""Configs of geometric sources, and the tiny files that they read."""

import numpy as np
from PIL import Image

from sslax import data


def config(**fields):
    """The `data` section with some keys replaced; sections are dictionaries."""
    result = data.defaults()
    result.update(fields)
    return result


def checked(**fields):
    """The same, after the check that `data.load` makes first."""
    result = config(**fields)
    data.check(result)
    return result


def noise(seed, height=12, width=20, channels=3):
    """A smooth random image uint8 [height, width, channels]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 2, width // 2, channels), dtype=np.uint8)
    pixels = [
        np.asarray(Image.fromarray(small[..., c]).resize((width, height))) for c in range(channels)
    ]
    return np.stack(pixels, axis=-1)


def write_images(folder, names, pixels):
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, pixels):
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / name)
