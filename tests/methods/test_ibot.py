"""Steps of iBOT and DINOv2 equal those of a reference in NumPy, by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descent import descend

from sslax.methods.representation.dinov2 import dinov2
from sslax.methods.representation.ibot import ibot
from sslax.methods.representation.self_distillation import Head
from sslax.training.step import init_state, train_step
from sslax.types import Encoding, Model

RATE, MOMENTUM, CENTER_MOMENTUM, STUDENT, KOLEO, GROUP = 0.2, 0.8, 0.7, 0.3, 0.2, 2
EXAMPLES, WIDTH, BOTTLENECK, OUTPUTS, PIXELS = 4, 4, 3, 5, 12

_rng = np.random.default_rng(0)
WEIGHTS = {
    "encoder": {
        "kernel": _rng.normal(size=(PIXELS, WIDTH)),
        "mask_token": _rng.normal(size=WIDTH),
        "mix": _rng.normal(size=(WIDTH, WIDTH)),
    },
    "projector": {"kernel": _rng.normal(size=(WIDTH, BOTTLENECK))},
    "prototypes": {"kernel": _rng.normal(size=(BOTTLENECK, OUTPUTS))},
    "patch_projector": {"kernel": _rng.normal(size=(WIDTH, BOTTLENECK))},
    "patch_prototypes": {"kernel": _rng.normal(size=(BOTTLENECK, OUTPUTS + 1))},
}
SHARED = ("encoder", "projector", "prototypes")
VIEWS = _rng.normal(size=(2, EXAMPLES, 2, 4, 4, 3))  # of two steps
LOCAL_VIEWS = _rng.normal(size=(2, EXAMPLES, 1, 2, 2, 3))
MASKED = np.zeros((EXAMPLES, 2, 4), bool)
MASKED[0, 0, [1, 3]] = MASKED[1, 1, 2] = MASKED[2, 0, 0] = MASKED[2, 1, [0, 3]] = True


def temperature(step):
    return 0.2 + 0.1 * step


# The reference: crop by crop, patch by patch.


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def tokens_of(p, image, masked=None):
    """The class token and the patches of an image."""
    sides = range(0, len(image), 2)
    cells = np.stack([image[i : i + 2, j : j + 2].ravel() for i in sides for j in sides])
    seen = cells @ p["kernel"]
    if masked is not None:
        seen[masked] = p["mask_token"]
    patches = np.tanh(seen + seen.mean(0) @ p["mix"])
    return patches.mean(0), patches


def outputs(tokens, projector, prototypes):
    z = tokens @ projector["kernel"]
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    return z @ (prototypes["kernel"] / np.linalg.norm(prototypes["kernel"], axis=0))


def balanced(scores, iterations):
    q = np.exp(scores)
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(0) / q.shape[1]
        q = q / q.sum(1, keepdims=True) / q.shape[0]
    return q * q.shape[0]


def reference_targets(copy, centers, views, step, patch_parts, iterations):
    """The teacher's distributions and its logits, of class tokens and of all patches."""
    encoded = [[tokens_of(copy["encoder"], crop) for crop in image] for image in views]
    first = np.array([[crop[0] for crop in image] for image in encoded])
    patches = np.array([[crop[1] for crop in image] for image in encoded])
    logits = outputs(first, copy["projector"], copy["prototypes"])
    patch_logits = outputs(patches, *(copy[name] for name in patch_parts))
    if not iterations:
        known = [
            softmax((x - c) / temperature(step)) for x, c in zip((logits, patch_logits), centers)
        ]
        return *known, logits, patch_logits
    flat = balanced(logits.reshape(-1, OUTPUTS) / temperature(step), iterations)
    of_patches = np.zeros(patch_logits.shape)
    of_patches[MASKED] = balanced(patch_logits[MASKED] / temperature(step), iterations)
    return flat.reshape(logits.shape), of_patches, logits, patch_logits


def reference_loss(params, targets, views, local_views, patch_parts, koleo):
    of_class, of_patches = targets[:2]
    across, within, first_tokens = [], [], []
    for n, image in enumerate(views):
        crops = [tokens_of(params["encoder"], image[v], MASKED[n, v]) for v in (0, 1)]
        first_tokens.append([crop[0] for crop in crops])
        small = [tokens_of(params["encoder"], crop) for crop in local_views[n]]
        for v, (token, patches) in enumerate(crops + small):
            logits = outputs(token, params["projector"], params["prototypes"]) / STUDENT
            for w in (0, 1):
                if v != w:
                    across.append(-of_class[n, w] @ np.log(softmax(logits)))
            if v < 2:
                logits = outputs(patches, *(params[name] for name in patch_parts)) / STUDENT
                errors = -(of_patches[n, v] * np.log(softmax(logits))).sum(1)
                within.append(errors[MASKED[n, v]].sum() / max(MASKED[n, v].sum(), 1))
    value = np.mean(across) + np.mean(within)
    if koleo:
        x = np.array(first_tokens)
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        for v in (0, 1):
            distances = []
            for i in range(EXAMPLES):
                start = i // GROUP * GROUP  # neighbors within the group
                others = [j for j in range(start, start + GROUP) if j != i]
                nearest = max(others, key=lambda j: x[i, v] @ x[j, v])
                distances.append(np.linalg.norm(x[i, v] - x[nearest, v] + 1e-8))
            value += koleo * -np.mean(np.log(np.array(distances) + 1e-8))
    return value


# The same networks as models.


def small_model(part, apply):
    return Model(
        lambda rng, x: (jax.tree.map(jnp.asarray, WEIGHTS[part]), {}),
        lambda params, state, x, train: (apply(params, x), state),
    )


def encode(p, x):
    x = x if isinstance(x, dict) else {"image": x}
    image, side = x["image"], x["image"].shape[1] // 2
    cells = image.reshape(-1, side, 2, side, 2, 3).swapaxes(2, 3).reshape(-1, side**2, PIXELS)
    seen = cells @ p["kernel"]
    if "masked" in x:
        seen = jnp.where(x["masked"][..., None], p["mask_token"], seen)
    patches = jnp.tanh(seen + seen.mean(1, keepdims=True) @ p["mix"])
    first = patches.mean(1, keepdims=True)
    return Encoding(first[:, 0], {"tokens": jnp.concatenate([first, patches], axis=1)})


def cosines(p, x):
    unit = x / jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True) + 1e-24)  # of empty slots, too
    return unit @ (p["kernel"] / jnp.linalg.norm(p["kernel"], axis=0))


def head(prefix=""):
    return Head(
        small_model(f"{prefix}projector", lambda p, x: x @ p["kernel"]),
        small_model(f"{prefix}prototypes", cosines),
    )


KNOBS = {
    "augmentation": lambda rng, batch: batch,
    "evaluation_view": lambda images: images,
    "patch": 2,
    "student_temperature": STUDENT,
    "teacher_temperature": temperature,
    "momentum": MOMENTUM,
    "center_momentum": CENTER_MOMENTUM,
    "freeze_steps": 1,
}


def ibot_method():
    return ibot(small_model("encoder", encode), *head(), **KNOBS)


def dinov2_method(iterations, separate):
    return dinov2(
        small_model("encoder", encode),
        head(),
        head("patch_") if separate else None,
        iterations=iterations,
        koleo_weight=KOLEO,
        koleo_group=GROUP,
        **KNOBS,
    )


@pytest.mark.parametrize("name", ["ibot", "dinov2", "dinov2, Sinkhorn"])
def test_steps_equal_the_reference(name):
    ours, iterations = name == "ibot", 3 if "Sinkhorn" in name else 0
    separate = name == "dinov2, Sinkhorn"
    parts = tuple(WEIGHTS) if separate else SHARED
    patch_parts = ("patch_projector", "patch_prototypes") if separate else SHARED[1:]
    last = ("prototypes", patch_parts[1])
    params = copy = {part: WEIGHTS[part] for part in parts}
    centers = [np.zeros(OUTPUTS), np.zeros(OUTPUTS + separate)]
    with jax.enable_x64(True):
        method, tx = ibot_method() if ours else dinov2_method(iterations, separate), optax.sgd(RATE)
        method = method._replace(augment=lambda rng, batch: batch)
        batches = [
            {"views": v, "local_views": w, "masked": MASKED} for v, w in zip(VIEWS, LOCAL_VIEWS)
        ]
        state = init_state(method, tx, jax.random.key(0), batches[0])
        if not iterations:  # which start in float32
            accurate = {n: state.extra[n].astype(float) for n in ("center", "patch_center")}
            state = state._replace(extra={**state.extra, **accurate})
        step = jax.jit(lambda state, batch: train_step(method, tx, state, batch))
        for i, batch in enumerate(batches):
            targets = reference_targets(copy, centers, batch["views"], i, patch_parts, iterations)
            inputs = (targets, batch["views"], batch["local_views"], patch_parts)
            inputs = (*inputs, 0.0 if ours else KOLEO)
            expected = reference_loss(params, *inputs)
            after = descend(lambda p, inputs=inputs: reference_loss(p, *inputs), params, RATE)
            if i == 0:  # the last layers are frozen
                after = {**after, **{part: params[part] for part in last}}
            params = after
            copy = jax.tree.map(lambda a, b: MOMENTUM * a + (1 - MOMENTUM) * b, copy, params)
            of_patches = (
                targets[3].reshape(-1, targets[3].shape[-1]) if ours else targets[3][MASKED]
            )
            means = targets[2].mean((0, 1)), of_patches.mean(0)
            centers = [
                CENTER_MOMENTUM * c + (1 - CENTER_MOMENTUM) * m for c, m in zip(centers, means)
            ]
            state, metrics = step(state, batch)
            assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-7)
            for found, wanted in ((state.params, params), (state.extra["momentum"].params, copy)):
                jax.tree.map(
                    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, wanted
                )
            if not iterations:
                np.testing.assert_allclose(state.extra["center"], centers[0], atol=1e-8)
                np.testing.assert_allclose(state.extra["patch_center"], centers[1], atol=1e-8)
        share = MASKED.any(2).mean()
        chance = np.log(OUTPUTS) + share * np.log(OUTPUTS + separate)
        assert float(metrics["loss_at_chance"]) == pytest.approx(chance, rel=1e-6)
        assert ("center" in state.extra) == (not iterations)


def test_half_of_the_large_crops_are_masked():
    batch = {"views": np.zeros((512, 2, 12, 16, 3), np.float32), "index": np.arange(512)}
    masked = np.asarray(jax.jit(ibot_method().augment)(jax.random.key(0), batch)["masked"])
    assert masked.shape == (512, 2, 48) and masked.dtype == bool
    chosen = masked.any(2)
    assert abs(chosen.mean() - 0.5) < 0.08
    assert abs(np.corrcoef(chosen.T)[0, 1]) < 0.2  # each crop by itself
    assert masked.sum(2).max() <= 24
