"""Steps of LeJEPA equal those of a reference in NumPy, whose gradients are finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descent import descend

from sslax.methods.representation.lejepa import lejepa
from sslax.training.step import init_state, train_step
from sslax.types import Encoding, Model, Variables

RATE, WEIGHT, SLICES = 0.2, 0.3, 6
EXAMPLES, FEATURES, DIMENSIONS = 4, 5, 3

_rng = np.random.default_rng(0)
WEIGHTS = {
    "encoder": {"kernel": _rng.normal(size=(3, FEATURES)), "bias": _rng.normal(size=FEATURES)},
    "projector": {"kernel": _rng.normal(size=(FEATURES, DIMENSIONS))},
}
VIEWS = _rng.normal(size=(2, EXAMPLES, 2, 4, 4, 3))  # of two steps
LOCAL_VIEWS = _rng.normal(size=(2, EXAMPLES, 3, 2, 2, 3))


def reference_loss(params, large, small, normal):
    """View by view and slice by slice, over both halves of the integral."""
    z = []
    for view in [*np.moveaxis(large, 1, 0), *np.moveaxis(small, 1, 0)]:
        pixels = np.tanh(view @ params["encoder"]["kernel"] + params["encoder"]["bias"])
        z.append(pixels.mean((1, 2)) @ params["projector"]["kernel"])
    center = (z[0] + z[1]) / 2
    invariance = np.mean([((view - center) ** 2).mean() for view in z])
    t = np.linspace(-3, 3, 33)
    phi = np.exp(-(t**2) / 2)
    distances = []
    for view in z:
        for direction in normal.T:
            x = view @ (direction / np.sqrt(direction @ direction))
            error = np.abs(np.exp(1j * np.outer(t, x)).mean(1) - phi) ** 2
            distances.append(EXAMPLES * np.trapezoid(error * phi, t))
    return (1 - WEIGHT) * invariance + WEIGHT * np.mean(distances)


def small_model(part, apply):
    return Model(
        lambda rng, x: (jax.tree.map(jnp.asarray, WEIGHTS[part]), {}),
        lambda params, state, x, train: (apply(params, x), state),
    )


def encode(p, images):
    stage = jnp.tanh(images @ p["kernel"] + p["bias"])
    return Encoding(stage.mean((1, 2)), {"map": stage})


def small_method(slices=SLICES):
    return lejepa(
        small_model("encoder", encode),
        small_model("projector", lambda p, x: x @ p["kernel"]),
        augmentation=lambda rng, batch: batch,
        evaluation_view=lambda images: images,
        weight=WEIGHT,
        slices=slices,
    )


def test_steps_equal_the_reference():
    params, batches = WEIGHTS, [{"views": v, "local_views": w} for v, w in zip(VIEWS, LOCAL_VIEWS)]
    with jax.enable_x64(True):
        method, tx = small_method(), optax.sgd(RATE)
        state = init_state(method, tx, jax.random.key(0), batches[0])
        step = jax.jit(lambda state, batch: train_step(method, tx, state, batch))
        drawn = []
        for batch in batches:
            _, rng = jax.random.split(jax.random.fold_in(state.rng, state.step))  # of the loss
            key = jax.random.split(rng)[1]
            drawn.append(np.asarray(jax.random.normal(key, (DIMENSIONS, SLICES), jnp.float64)))
            inputs = (*batch.values(), drawn[-1])
            expected = reference_loss(params, *inputs)
            params = descend(lambda p, inputs=inputs: reference_loss(p, *inputs), params, RATE)
            state, metrics = step(state, batch)
            assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-9)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), state.params, params
            )
        assert np.abs(drawn[0] - drawn[1]).min() > 0  # other slices in each step


@pytest.mark.parametrize(("large", "small"), [(4, 0), (2, 6)])
def test_chance_is_the_loss_of_unrelated_gaussian_views(large, small):
    z = np.random.default_rng(1).standard_normal((256, large + small, 16)).astype(np.float32)
    couple = jax.jit(small_method(slices=64).couple)
    outputs, nothing = (z, np.zeros((256, large, 1))), Variables({}, {}, {})
    value, output = couple(outputs, nothing, {}, jax.random.key(2), 0)
    np.testing.assert_allclose(value, output.metrics["loss_at_chance"], rtol=0.05)
