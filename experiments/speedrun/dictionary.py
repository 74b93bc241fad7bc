"""The record that trains no network: a dictionary of patches, by spherical k-means.

    python experiments/speedrun/dictionary.py --cifar10=FILE.npz --seed=0 --output=features.npz

Patches of 6 x 6 pixels, each with its mean and contrast removed, are whitened; k-means finds words
of unit length among them. An image's vector is how much each of its quadrants responds to each word
and to its negative, above a threshold. The method is that of Coates and Ng, "Learning Feature
Representations with K-means", 2012. `small_crops.py` adds this vector to its own. Labels are never
read.
"""

import argparse
import json
from typing import NamedTuple

import cifar
import jax
import jax.numpy as jnp
import numpy as np

from sslax.models.conv import conv2d

SIDE, WORDS, PATCHES, ITERATIONS = 6, 400, 200_000, 10
CONTRAST = 10 / 255**2  # added to the variance of a patch
RIDGE = 0.1  # added to the variances that whitening divides by
THRESHOLD = 0.25


class Dictionary(NamedTuple):
    """`kernel` `[6, 6, 3, K]` for images in [0, 1], to be divided by a patch's contrast, and
    `offset` `[K]`, to be subtracted then."""

    kernel: jax.Array
    offset: jax.Array


def contrast(variance: jax.Array) -> jax.Array:
    return jnp.sqrt(variance + CONTRAST)


def learn(images: np.ndarray, rng: np.random.Generator) -> Dictionary:
    """A dictionary of random patches of images `[N, h, w, 3]` of bytes."""
    which = rng.integers(0, len(images), PATCHES)
    rows, columns = rng.integers(0, images.shape[1] - SIDE + 1, (2, PATCHES))
    windows = np.lib.stride_tricks.sliding_window_view(images, (SIDE, SIDE), axis=(1, 2))
    patches = windows[which, rows, columns].transpose(0, 2, 3, 1).reshape(PATCHES, -1)
    x = jnp.asarray(patches / np.float32(255))
    x = (x - x.mean(1, keepdims=True)) / contrast(x.var(1, keepdims=True))
    mean = x.mean(0)
    values, vectors = jnp.linalg.eigh((x - mean).T @ (x - mean) / PATCHES)
    whitening = (vectors / jnp.sqrt(values + RIDGE)) @ vectors.T
    words = k_means((x - mean) @ whitening)
    linear = whitening @ words.T
    centered = linear - linear.mean(0)  # removes the mean of the patch
    return Dictionary(centered.reshape(SIDE, SIDE, 3, -1), mean @ linear)


@jax.jit
def k_means(x: jax.Array) -> jax.Array:
    """Words `[K, D]` of unit length: each the direction of the rows that it explains best, where a
    row counts with its product with the word, of either sign."""
    blocks = x.reshape(100, -1, x.shape[-1])

    def unit(words: jax.Array) -> jax.Array:
        return words / jnp.linalg.norm(words, axis=1, keepdims=True)

    def improved(_: int, words: jax.Array) -> jax.Array:
        def add(sums: jax.Array, rows: jax.Array) -> tuple[jax.Array, None]:
            products = rows @ words.T
            best = jnp.argmax(jnp.abs(products), 1)
            weights = jnp.take_along_axis(products, best[:, None], 1)
            return sums.at[best].add(weights * rows), None

        # The old word keeps one that explains nothing where it was.
        return unit(jax.lax.scan(add, words, blocks)[0])

    return jax.lax.fori_loop(0, ITERATIONS, improved, unit(x[:WORDS]))


def quadrants(maps: jax.Array) -> jax.Array:
    """Means over the four quadrants of maps `[N, h, w, C]`, which share the middle: `[N, 4 C]`."""
    half = (maps.shape[1] + 1) // 2
    rows = maps[:, :half].mean(1), maps[:, -half:].mean(1)
    parts = [part for row in rows for part in (row[:, :half].mean(1), row[:, -half:].mean(1))]
    return jnp.concatenate(parts, axis=1)


def encode(dictionary: Dictionary, images: jax.Array) -> jax.Array:
    """The vectors `[N, 8 K]` of images in [0, 1]."""

    def box_mean(x: jax.Array) -> jax.Array:
        window = (1, SIDE, SIDE, 1)
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1, 1), "VALID") / SIDE**2

    middle = images - 0.5  # less rounding in the variance
    mean = box_mean(middle.mean(-1, keepdims=True))
    variance = box_mean((middle**2).mean(-1, keepdims=True)) - mean**2
    responses = conv2d(images, dictionary.kernel) / contrast(jnp.maximum(variance, 0))
    responses -= dictionary.offset
    ways = jax.nn.relu(responses - THRESHOLD), jax.nn.relu(-responses - THRESHOLD)
    return jnp.concatenate([quadrants(way) for way in ways], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=cifar.existing, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=cifar.writable, required=True)
    arguments = parser.parse_args()
    images = cifar.images(arguments.cifar10, "train")
    dictionary = jax.block_until_ready(learn(images, np.random.default_rng(arguments.seed)))
    seconds = round(cifar.seconds_since_start(), 1)
    about = {"name": "dictionary", "seed": arguments.seed, "seconds": seconds}
    print(about, flush=True)
    encoded = jax.jit(lambda part: encode(dictionary, part / 255))
    test = cifar.images(arguments.cifar10, "test")
    arrays = {"train": cifar.mapped(encoded, images), "test": cifar.mapped(encoded, test)}
    np.savez(arguments.output, about=json.dumps(about), **arrays)


if __name__ == "__main__":
    main()
