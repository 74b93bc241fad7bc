"""Steps of SimMIM equal those of a reference in NumPy, whose gradients are finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descent import descend

from sslax.errors import UserError
from sslax.methods.representation.simmim import simmim
from sslax.training.step import init_state, train_step
from sslax.types import Encoding, Model

RATE = 0.2
PIXELS, WIDTH = 12, 4
MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.25, 0.5)

_rng = np.random.default_rng(0)
WEIGHTS = {
    "encoder": {
        "kernel": _rng.normal(size=(PIXELS, WIDTH)),
        "mask_token": _rng.normal(size=WIDTH),
        "mix": _rng.normal(size=(4, 4)),
    },
    "head": {"kernel": _rng.normal(size=(WIDTH, PIXELS)), "bias": _rng.normal(size=PIXELS)},
}
IMAGES = _rng.uniform(size=(2, 3, 4, 4, 3))  # of two steps
MASKED = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]], bool)


def reference_loss(params, images):
    """Image by image and pixel by pixel."""
    encoder, errors = params["encoder"], []
    for image, masked in zip(images, MASKED):
        places = [(i, j) for i in (0, 2) for j in (0, 2)]
        cells = np.stack([image[i : i + 2, j : j + 2].ravel() for i, j in places])
        seen = cells @ encoder["kernel"]
        seen[masked] = encoder["mask_token"]
        tokens = np.tanh(encoder["mix"] @ seen)
        predicted = tokens @ params["head"]["kernel"] + params["head"]["bias"]
        for cell, pixels in zip(cells[masked].reshape(-1, 4, 3), predicted[masked]):
            errors.append(np.abs(pixels.reshape(4, 3) - (cell - MEAN) / STD))
    return np.mean(errors)


def small_model(part, apply):
    return Model(
        lambda rng, x: (jax.tree.map(jnp.asarray, WEIGHTS[part]), {}),
        lambda params, state, x, train: (apply(params, x), state),
    )


def encode(p, x):
    cells = x["image"].reshape(-1, 2, 2, 2, 2, 3).swapaxes(2, 3).reshape(-1, 4, PIXELS)
    seen = jnp.where(x["masked"][..., None], p["mask_token"], cells @ p["kernel"])
    tokens = jnp.tanh(jnp.einsum("st,ntd->nsd", p["mix"], seen))
    return Encoding(tokens.mean(1), {"tokens": tokens})


def small_method(**knobs):
    return simmim(
        small_model("encoder", encode),
        small_model("head", lambda p, x: x["tokens"] @ p["kernel"] + p["bias"]),
        augmentation=lambda rng, batch: batch,
        evaluation_view=lambda images: images,
        patch=2,
        mean=MEAN,
        std=STD,
        **knobs,
    )


def test_steps_equal_the_reference():
    params = WEIGHTS
    with jax.enable_x64(True):
        method, tx = small_method()._replace(augment=lambda rng, batch: batch), optax.sgd(RATE)
        batches = [{"input": images, "masked": MASKED} for images in IMAGES]
        state = init_state(method, tx, jax.random.key(0), batches[0])
        step = jax.jit(lambda state, batch: train_step(method, tx, state, batch))
        for batch in batches:
            expected = reference_loss(params, batch["input"])
            params = descend(lambda p, x=batch["input"]: reference_loss(p, x), params, RATE)
            state, metrics = step(state, batch)
            assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-9)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), state.params, params
            )
            patches = batch["input"].reshape(-1, 2, 2, 2, 2, 3).swapaxes(2, 3)
            values = np.abs((patches - MEAN) / STD).reshape(-1, 4, PIXELS)[MASKED]
            assert float(metrics["loss_at_chance"]) == pytest.approx(values.mean(), rel=1e-9)


def test_squares_of_the_views_are_masked():
    views = np.zeros((6, 1, 8, 12, 3), np.float32)
    batch = {"views": views, "index": np.arange(6)}
    masked = jax.jit(small_method(mask_unit=4).augment)(jax.random.key(0), batch)["masked"]
    squares = np.asarray(masked).reshape(6, 2, 2, 3, 2).swapaxes(2, 3).reshape(6, 6, 4)
    assert (squares == squares[..., :1]).all()
    assert (squares[..., 0].sum(1) == 4).all()  # 0.6 of 6, rounded up
    assert len(np.unique(squares[..., 0], axis=0)) > 1
    for unit in (3, 8):
        with pytest.raises(UserError, match=f"8 x 12 pixels do not divide into .* = {unit}"):
            small_method(mask_unit=unit).augment(jax.random.key(0), batch)
