"""What the chapters share: images, a small encoder, a training loop, and a score of features."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sslax import data
from sslax.measures import knn


class Encoder(nn.Module):
    """Three convolutions with stride 2; the features are the means over the last map."""

    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in (self.width, 2 * self.width, 4 * self.width):
            x = nn.Conv(width, (3, 3), strides=2)(x)
            x = nn.relu(nn.GroupNorm(8)(x))
        return x.mean((1, 2))


def clothes(part: str = "train", count: int = 2000) -> tuple[jax.Array, np.ndarray]:
    """Images of Fashion-MNIST, which come with the package, `[N, 28, 28, 1]` in [0, 1]; labels."""
    source = getattr(data.load(data.defaults()), part)
    return jnp.asarray(source.images[:count], jnp.float32) / 255, source.labels[:count]


def train(
    loss: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    *,
    steps: int,
    rate: float = 1e-3,
    seed: int = 0,
) -> tuple[Any, list[float]]:
    """Minimizes `loss(params, key)` by Adam, with another random key at each step."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def step(params: Any, state: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for key in jax.random.split(jax.random.key(seed), steps):
        params, state, value = step(params, state, key)
        losses.append(float(value))
    return params, losses


def neighbor_accuracy(features: Callable[[jax.Array], jax.Array]) -> float:
    """How many test images have a label like their 20 nearest training images, in %."""
    (images, labels), (test, truth) = clothes("train", 2000), clothes("test", 1000)
    one, other = (jax.jit(features)(x) for x in (images, test))
    score = knn.knn_accuracy(one, labels, other, truth, num_classes=10, k=20)
    return 100 * float(score)
