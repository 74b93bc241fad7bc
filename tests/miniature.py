"""Networks so small that their gradients can be had by finite differences, and steps of them.

The encoder is written twice: here for JAX, and in NumPy as `encoded`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sslax.training import flow_presets
from sslax.training.step import init_state, train_step
from sslax.types import Encoding, Model


class Step(NamedTuple):
    """A step of training: the state before and after it, its metrics, and the key of its loss."""

    before: tuple
    after: tuple
    metrics: dict
    key: jax.Array


def weights(seed, features, **heads):
    """Of an encoder of three channels, and the kernels of linear heads by name, in float64."""
    rng = np.random.default_rng(seed)
    encoder = {"kernel": rng.normal(size=(3, features)), "bias": rng.normal(size=features)}
    kernels = {name: {"kernel": rng.normal(size=shape)} for name, shape in heads.items()}
    return {"encoder": encoder, **kernels}


def networks(params):
    """The encoder and the heads of these weights, as models in their order."""
    return [_model(part, _encode if name == "encoder" else _map) for name, part in params.items()]


def _model(part, apply):
    return Model(
        lambda rng, x: (jax.tree.map(jnp.asarray, part), {}),
        lambda params, state, x, train: (apply(params, x), state),
    )


def _encode(params, images):
    stage = jnp.tanh(images @ params["kernel"] + params["bias"])
    return Encoding(stage.mean((1, 2)), {"map": stage})


def _map(params, x):
    return x @ params["kernel"]


def encoded(params, images):
    """Features `[N, F]` of images `[N, H, W, 3]`."""
    return np.tanh(images @ params["encoder"]["kernel"] + params["encoder"]["bias"]).mean((1, 2))


def unit(x):
    """Rows of length 1."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def method(factory, params, **knobs):
    """A method of these networks, whose views are what the batch has."""
    same = {"augmentation": lambda rng, batch: batch, "evaluation_view": lambda images: images}
    return factory(*networks(params), **same, **knobs)


def train(method, batches, rate):
    """Steps of gradient descent in float64."""
    with jax.enable_x64(True):
        tx = optax.sgd(rate)
        state = jax.jit(partial(init_state, method, tx))(jax.random.key(0), batches[0])
        step = jax.jit(partial(train_step, method, tx))
        steps = []
        for batch in batches:
            before = state
            _, key = jax.random.split(jax.random.fold_in(state.rng, state.step))
            state, metrics = step(state, batch)
            steps.append(Step(before, state, jax.device_get(metrics), key))
    return steps


def assert_close(ours, theirs):
    """Trees whose gradients are finite differences on one of the sides."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), ours, theirs)


def with_pwc(config):
    """A config of SMURF with PWC-Net, which compiles in a fraction of RAFT's time."""
    with config.unlocked():
        config.model.name = "pwc"
        config[config.method].network = flow_presets.PWC_NETWORK
        config[config.method].network.update(flow_presets.TINY_PWC_NETWORK)
    return config
