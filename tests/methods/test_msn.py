"""Steps of MSN equal those of a reference in NumPy, whose gradients are finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descent import descend

from sslax.methods.representation.msn import msn
from sslax.training.step import init_state, train_step
from sslax.types import Encoding, Model

RATE, MOMENTUM, WEIGHT, TEMPERATURE, SHARPENING, ITERATIONS = 0.2, 0.8, 0.7, 0.4, 0.5, 2
EXAMPLES, WIDTH, DIMENSIONS, PROTOTYPES, PIXELS = 4, 5, 3, 4, 12

_rng = np.random.default_rng(0)
WEIGHTS = {
    "encoder": {"kernel": _rng.normal(size=(PIXELS, WIDTH)), "bias": _rng.normal(size=WIDTH)},
    "projector": {"kernel": _rng.normal(size=(WIDTH, DIMENSIONS))},
    "prototypes": {"kernel": _rng.normal(size=(DIMENSIONS, PROTOTYPES))},
}
VIEWS = _rng.normal(size=(2, EXAMPLES, 3, 4, 4, 3))  # of two steps: a target and two anchors
LOCAL_VIEWS = _rng.normal(size=(2, EXAMPLES, 2, 2, 2, 3))
KEEP = np.array([[[0, 1], [0, 3]], [[1, 2], [2, 3]], [[0, 2], [1, 3]], [[1, 3], [0, 1]]])


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def embed(encoder, projector, image, keep=None):
    cells = [
        image[i : i + 2, j : j + 2].ravel()
        for i in range(0, len(image), 2)
        for j in range(0, len(image), 2)
    ]
    cells = np.stack(cells if keep is None else [cells[at] for at in keep])
    tokens = np.tanh(cells @ encoder["kernel"] + encoder["bias"])
    return tokens.mean(0) @ projector["kernel"]


def reference_loss(params, copy, views, local_views, at=None):
    """Image by image; the targets' prototypes are those of `at`, which is not differentiated."""

    def cosines(z, kernel):
        return (z @ kernel) / np.linalg.norm(z) / np.linalg.norm(kernel, axis=0)

    kernel, targets, anchors = params["prototypes"]["kernel"], [], []
    for image, small, keep in zip(views, local_views, KEEP):
        whole = embed(copy["encoder"], copy["projector"], image[0])
        sharp = softmax(cosines(whole, at["prototypes"]["kernel"]) / TEMPERATURE)
        targets.append(sharp ** (1 / SHARPENING) / (sharp ** (1 / SHARPENING)).sum())
        crops = [(image[1], keep[0]), (image[2], keep[1]), (small[0], None), (small[1], None)]
        z = [embed(params["encoder"], params["projector"], *crop) for crop in crops]
        anchors.append([softmax(cosines(x, kernel) / TEMPERATURE) for x in z])
    codes, anchors = np.array(targets), np.array(anchors)
    codes = codes / codes.sum()
    for _ in range(ITERATIONS):
        codes = codes / codes.sum(0) / PROTOTYPES
        codes = codes / codes.sum(1, keepdims=True) / EXAMPLES
    codes = codes * EXAMPLES
    cross_entropy = -(codes[:, None] * np.log(anchors)).sum(-1).mean()
    mean = anchors.mean((0, 1))
    return cross_entropy + WEIGHT * (np.log(PROTOTYPES) + (mean * np.log(mean)).sum())


def small_model(part, apply):
    return Model(
        lambda rng, x: (jax.tree.map(jnp.asarray, WEIGHTS[part]), {}),
        lambda params, state, x, train: (apply(params, x), state),
    )


def encode(p, x):
    image = x["image"] if isinstance(x, dict) else x
    side = image.shape[1] // 2
    cells = image.reshape(-1, side, 2, side, 2, 3).swapaxes(2, 3).reshape(-1, side**2, PIXELS)
    tokens = jnp.tanh(cells @ p["kernel"] + p["bias"])
    if isinstance(x, dict):
        tokens = jnp.take_along_axis(tokens, x["keep"][..., None], axis=1)
    return Encoding(tokens.mean(1), {"tokens": tokens})


def similarities(p, x):
    unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    return unit @ (p["kernel"] / jnp.linalg.norm(p["kernel"], axis=0))


def small_method(**knobs):
    return msn(
        small_model("encoder", encode),
        small_model("projector", lambda p, x: x @ p["kernel"]),
        small_model("prototypes", similarities),
        augmentation=lambda rng, batch: batch,
        evaluation_view=lambda images: images,
        patch=2,
        entropy_weight=WEIGHT,
        temperature=TEMPERATURE,
        sharpening=SHARPENING,
        iterations=ITERATIONS,
        momentum=lambda step: MOMENTUM + 0.05 * step,
        **knobs,
    )


def test_steps_equal_the_reference():
    params = WEIGHTS
    copy = {name: WEIGHTS[name] for name in ("encoder", "projector")}
    with jax.enable_x64(True):
        method, tx = small_method()._replace(augment=lambda rng, batch: batch), optax.sgd(RATE)
        batches = [{"views": v, "local_views": w, "keep": KEEP} for v, w in zip(VIEWS, LOCAL_VIEWS)]
        state = init_state(method, tx, jax.random.key(0), batches[0])
        step = jax.jit(lambda state, batch: train_step(method, tx, state, batch))
        for i, batch in enumerate(batches):
            inputs = (copy, batch["views"], batch["local_views"], params)
            expected = reference_loss(params, *inputs)
            params = descend(lambda p, inputs=inputs: reference_loss(p, *inputs), params, RATE)
            momentum = MOMENTUM + 0.05 * (i + 1)  # after the step
            copy = jax.tree.map(
                lambda old, new, m=momentum: m * old + (1 - m) * new,
                copy,
                {name: params[name] for name in copy},
            )
            state, metrics = step(state, batch)
            assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-8)
            for ours, theirs in ((state.params, params), (state.extra["momentum"].params, copy)):
                jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), ours, theirs)


def test_patches_of_the_large_anchors_are_dropped():
    batch = {"views": np.zeros((8, 3, 8, 12, 3), np.float32), "index": np.arange(8)}
    keep = jax.jit(small_method(mask_ratio=0.5).augment)(jax.random.key(0), batch)["keep"]
    assert keep.shape == (8, 2, 12)  # of 24, for each of two anchors
    assert np.all(np.diff(keep, axis=-1) > 0)
    assert len(np.unique(np.asarray(keep).reshape(16, 12), axis=0)) == 16
