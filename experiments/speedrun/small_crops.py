"""The record: many small crops of each image, a small pooled network, EMP-SSL's loss, Muon; and a
dictionary of patches beside it.

    python experiments/speedrun/small_crops.py --cifar10=FILE.npz --minutes=5 --seed=0 \\
        --output=features.npz

Trains until the minutes since the start of the process are over, then writes the features of all
images for `score.py`. Labels are never read.
"""

import argparse
import functools
import json
import time
from typing import Any, NamedTuple

import cifar
import dictionary
import jax
import jax.numpy as jnp
import numpy as np

from sslax import augment, losses
from sslax.models.conv import conv2d

Params = dict[str, jax.Array]
Moments = dict[str, tuple[jax.Array, jax.Array]]

IMAGES, CROPS = 64, 16  # a step
SIZE = 16  # of a crop; a quarter of the image, as in EMP-SSL, but not enlarged
PATCH, STRIDE, RIDGE = 4, 2, 5e-2  # of the first layer
WIDTH, FEATURES, HIDDEN, EMBEDDING = 128, 1024, 512, 256
RATE, MOMENTUM = 0.02, 0.95  # of Muon
ADAM_RATE, BETAS = 2e-3, (0.9, 0.99)  # of biases and the last layer
WARM_UP = 0.1  # of the time
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
SHAPES = {
    "conv1": (3, 3, 2 * 3 * PATCH**2, WIDTH),
    "conv2": (3, 3, WIDTH, WIDTH),
    "conv3": (3, 3, WIDTH, 2 * WIDTH),
    "conv4": (3, 3, 2 * WIDTH, 2 * WIDTH),
    "wide": (2 * WIDTH, FEATURES),
    "hidden": (FEATURES, HIDDEN),
}


class State(NamedTuple):
    """What a step changes: parameters, moments of the optimizers, averages of the batch norms."""

    params: Params
    first: Params
    second: Params
    norms: Moments


def standardize(images: jax.Array) -> jax.Array:
    """Pixels in [0, 1] to roughly zero mean and unit variance."""
    return (images - jnp.array([0.4914, 0.4822, 0.4465])) / 0.25


def whitening(images: np.ndarray, rng: np.random.Generator) -> jax.Array:
    """The first layer: patches without correlations, and their negatives, `[4, 4, 3, 96]`."""
    count = 50_000
    which, corner = rng.integers(0, len(images), count), rng.integers(0, 33 - PATCH, (2, count))
    windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    patches = windows[which, corner[0], corner[1]].transpose(0, 2, 3, 1) / np.float32(255)
    patches = np.asarray(standardize(patches)).reshape(count, -1)
    values, vectors = np.linalg.eigh(patches.T @ patches / count)
    filters = (vectors / np.sqrt(values + RIDGE)).reshape(PATCH, PATCH, 3, -1)
    return jnp.concatenate([filters, -filters], axis=-1)


def initial(key: jax.Array) -> State:
    keys = jax.random.split(key, len(SHAPES) + 1)
    params = {"last": jax.random.normal(keys[-1], (HIDDEN, EMBEDDING)) * (2 / HIDDEN) ** 0.5}
    for key, (name, shape) in zip(keys, SHAPES.items()):
        params[name] = jax.random.normal(key, shape) * (2 / np.prod(shape[:-1])) ** 0.5
        params[f"{name}_bias"] = jnp.zeros(shape[-1])
    norms = {name: (jnp.zeros(shape[-1]), jnp.ones(shape[-1])) for name, shape in SHAPES.items()}
    zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
    return State(params, *zeros, norms)


class Layers:
    """Layers with batch norms: of the batch, whose moments are kept, or with given moments."""

    def __init__(self, params: Params, norms: Moments | None = None) -> None:
        self.params, self.given, self.seen = params, norms, {}

    def __call__(self, name: str, x: jax.Array) -> jax.Array:
        kernel = self.params[name]
        y = x @ kernel if kernel.ndim == 2 else conv2d(x, kernel, padding=1)
        axes = tuple(range(y.ndim - 1))
        if self.given is None:
            self.seen[name] = y.mean(axes), y.var(axes)
        mean, variance = (self.given or self.seen)[name]
        y = (y - mean) * jax.lax.rsqrt(variance + 1e-5)
        return jax.nn.relu(y + self.params[f"{name}_bias"])


def trunk(layers: Layers, stem: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps of standardized images: fine ones `[N, 2h, 2w, 128]`, and `[N, h, w, 256]`, which is
    3 x 3 of a crop and 7 x 7 of an image."""
    y = jax.nn.relu(conv2d(images, stem, stride=STRIDE))
    y = layers("conv1", y)
    fine = y + layers("conv2", y)
    n, h, w, c = fine.shape
    y = fine[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    y = layers("conv3", y)
    return fine, y + layers("conv4", y)


def take_crops(key: jax.Array, images: jax.Array) -> jax.Array:
    """Random crops `[IMAGES * CROPS, 16, 16, 3]` of random images, colors changed."""
    keys = jax.random.split(key, 5)
    which = jax.random.randint(keys[0], (IMAGES,), 0, len(images))
    corners = jax.random.randint(keys[1], (IMAGES, CROPS, 2), 0, images.shape[1] - SIZE + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (SIZE, SIZE, 3))

    crops = jax.vmap(jax.vmap(crop, (None, 0)))(images[which], corners)
    crops = crops.reshape(-1, SIZE, SIZE, 3).astype(jnp.float32) / 255

    def colored(key: jax.Array, crop: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 3)
        crop = augment.random_flip(keys[0], crop)
        crop = augment.color_jitter(keys[1], crop, **JITTER, probability=0.8)
        return augment.random_grayscale(keys[2], crop)

    return standardize(jax.vmap(colored)(jax.random.split(keys[2], len(crops)), crops))


def loss(params: Params, stem: jax.Array, crops: jax.Array) -> tuple[jax.Array, Moments]:
    layers = Layers(params)
    features = layers("wide", trunk(layers, stem, crops)[1].mean((1, 2)))
    embeddings = layers("hidden", features) @ params["last"]
    return losses.emp_ssl(embeddings.reshape(IMAGES, CROPS, -1)), layers.seen


def orthogonal(matrix: jax.Array) -> jax.Array:
    """Muon's five steps towards the nearest matrix with singular values of one."""
    x = matrix / (jnp.linalg.norm(matrix) + 1e-7)
    x = x.T if (tall := x.shape[0] > x.shape[1]) else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


@functools.partial(jax.jit, donate_argnums=0)
def step(
    state: State, key: jax.Array, count: jax.Array, rate: jax.Array, *data: jax.Array
) -> tuple[State, jax.Array]:
    """One step; `rate` is the part of the peak rate, `data` the first layer and the images."""
    stem, images = data
    crops = take_crops(key, images)
    (value, seen), gradient = jax.value_and_grad(loss, has_aux=True)(state.params, stem, crops)
    params, first, second = dict(state.params), {}, {}
    for name, g in gradient.items():
        if name in SHAPES:
            first[name], second[name] = MOMENTUM * state.first[name] + g, state.second[name]
            update = orthogonal((g + MOMENTUM * first[name]).reshape(-1, g.shape[-1]))
            scale = max(1, g.shape[-1] / (g.size / g.shape[-1])) ** 0.5
            params[name] -= RATE * rate * scale * update.reshape(g.shape)
        else:
            first[name] = BETAS[0] * state.first[name] + (1 - BETAS[0]) * g
            second[name] = BETAS[1] * state.second[name] + (1 - BETAS[1]) * g**2
            mean, square = (
                m / (1 - beta**count) for m, beta in zip((first[name], second[name]), BETAS)
            )
            params[name] -= ADAM_RATE * rate * mean / (jnp.sqrt(square) + 1e-8)
    norms = jax.tree.map(lambda old, new: 0.95 * old + 0.05 * new, state.norms, seen)
    return State(params, first, second, norms), value


def rate_at(progress: float) -> float:
    """Linear warm-up, then linear to zero."""
    return min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP))


def train(images: jax.Array, stem: jax.Array, minutes: float, seed: int) -> tuple[State, int]:
    """Trains until the time is over; the state, and how many steps there were."""
    key = jax.random.key(seed)
    state, budget, count = initial(key), 60 * minutes, 0
    duration, began = 0.0, None
    while (now := cifar.seconds_since_start()) + duration < budget:
        if count == 1:  # the first step compiled
            began = now
        progress = 0.0 if began is None else (now - began) / (budget - began)
        state, value = step(
            *(state, jax.random.fold_in(key, count), count + 1.0),
            *(rate_at(max(progress, 1e-3)), stem, images),
        )
        value.block_until_ready()
        count += 1
        if began is not None:
            duration = cifar.seconds_since_start() - now
        if count % 25 == 1:
            print(f"{now:5.0f} s  step {count}  loss {float(value):.2f}", flush=True)
    return state, count


@jax.jit
def features(
    state: State, stem: jax.Array, words: dictionary.Dictionary, images: jax.Array
) -> jax.Array:
    """`[N, 5760]` of images of bytes: quadrants of both maps, the wide layer of all 3 x 3 windows,
    and the responses to the dictionary; of an image and its mirror image, averaged."""

    def of(images: jax.Array) -> jax.Array:
        layers = Layers(state.params, state.norms)
        fine, y = trunk(layers, stem, standardize(images))
        windows = jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        wide = layers("wide", windows / 9).mean((1, 2))
        parts = dictionary.quadrants(fine), dictionary.quadrants(y), wide
        return jnp.concatenate([*parts, dictionary.encode(words, images)], axis=1)

    x = images / 255
    return (of(x) + of(x[:, :, ::-1])) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=cifar.existing, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=cifar.writable, required=True)
    arguments = parser.parse_args()
    images = cifar.images(arguments.cifar10, "train")
    rng = np.random.default_rng(arguments.seed)
    stem, words = whitening(images, rng), dictionary.learn(images, rng)
    state, steps = train(jnp.asarray(images), stem, arguments.minutes, arguments.seed)
    seconds = cifar.seconds_since_start()
    about: dict[str, Any] = {"name": "small crops, dictionary", "minutes": arguments.minutes}
    about |= {"seed": arguments.seed, "seconds": round(seconds, 1), "steps": steps}
    print(about, flush=True)
    began = time.monotonic()
    test = cifar.images(arguments.cifar10, "test")
    of = functools.partial(features, state, stem, words)
    arrays = {"train": cifar.mapped(of, images), "test": cifar.mapped(of, test)}
    np.savez(arguments.output, about=json.dumps(about), **arrays)
    print(f"features after another {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
