"""Knobs that change what is computed, and the mistakes that are named; nothing is compiled here."""

import jax
import numpy as np
import pytest

from sslax.errors import UserError
from sslax.training.plan import make_plan
from sslax.training.step import train_step


@pytest.fixture
def shapes(load_config):
    """`(name, overrides, channels, classes) -> (state, metrics)` after one step, as shapes."""

    def trace(name, overrides, *, channels=1, classes=10):
        config = load_config(name, "tiny")
        config.update_from_flattened_dict(overrides)
        plan = make_plan(config, examples=64, image_shape=(28, 28, channels), classes=classes)
        state = plan.shapes
        return jax.eval_shape(
            lambda state, batch: train_step(plan.method, plan.tx, state, batch),
            state,
            plan.batch,
        )

    return trace


VIT = {"model.name": "vit_micro", "model.blocks": (1,), "model.patch_stem": 0, "model.patch": 4}
VIT |= {"model.width": 1.0}


@pytest.mark.parametrize(
    ("name", "overrides", "metric"),
    [
        ("moco", {"moco.symmetric": True}, "accuracy"),
        ("inpainting", {"inpainting.adversarial_weight": 0.0}, "l2"),
        ("inpainting", {"inpainting.hole": "region"}, "critic_accuracy"),
        ("swav", {"swav.queue_size": 0, "augment.local.count": 0}, "prototypes_used"),
        ("dino", {**VIT, "augment.local.count": 0}, "teacher_entropy"),
        ("dino", {**VIT, "model.drop_path": 0.1}, "teacher_entropy"),
        ("lejepa", {**VIT, "model.drop_path": 0.1}, "gaussianity"),
        ("lejepa", {"augment.count": 3, "augment.local": {"count": 2, "size": 8}}, "invariance"),
        ("visreg", {"augment.count": 3, "augment.local": {"count": 2, "size": 8}}, "gaussianity"),
        ("mmcr", {"mmcr.momentum": 0.9}, "centroid_norm"),
        ("w_mse", {"augment.count": 4, "w_mse.iterations": 2}, "accuracy"),
        ("emp_ssl", VIT | {"augment.count": 2}, "similarity"),
        ("moco_v3", {**VIT, "model.freeze_patch_embedding": True}, "accuracy"),
        ("mae", {"mae.normalize": False}, "loss"),
        ("simmim", {"model.drop_path": 0.1}, "loss"),
        ("data2vec2", {"model.class_token": False, "data2vec2.class_weight": 0.0}, "loss"),
        (
            "data2vec2",
            {"model.post_norm": False, "model.blocks": (2,), "data2vec2.layers": 2},
            "target_std",
        ),
        ("ibot", {"model.drop_path": 0.1, "augment.local.count": 0}, "patch_loss"),
        ("dinov2", {"dinov2.iterations": 0, "dinov2.patch_projector.outputs": 0}, "koleo"),
        ("dinov2", {"model.drop_path": 0.1, "dinov2.koleo_weight": 0.0}, "patch_loss"),
        ("context_prediction", {"context_prediction.colors": "keep"}, "accuracy"),
    ],
)
def test_knobs_of_the_methods(shapes, name, overrides, metric):
    state, metrics = shapes(name, overrides)
    assert metrics[metric].shape == ()
    if name == "inpainting":
        assert ("discriminator" in state.params) == ("inpainting.hole" in overrides)
    if name == "moco_v3":  # a random projection that nothing moves, and its momentum copy too
        frozen = state.model_state["encoder"]["frozen"]["patch_embedding"]["kernel"]
        assert frozen.shape == (16, 128)
        assert "patch_embedding" not in state.params["encoder"]


def test_colors_are_projected(shapes):
    projected = {"context_prediction.colors": "project"}
    _, metrics = shapes("context_prediction", projected, channels=3)
    assert metrics["accuracy_at_chance"].shape == ()


@pytest.mark.parametrize(
    ("name", "overrides", "rest", "message"),
    [
        ("moco_v3", {**VIT, "model.drop_path": 0.1}, {}, "drop_path is 0.1, which this method"),
        ("sup_con", {}, {"classes": None}, "learns from labels and this set has none"),
        ("supervised", {}, {"classes": None}, "supervised learns from labels and this set has"),
        ("supervised", {"supervised.classes": 4}, {}, "classes is 4, but the training set has 10"),
        ("colorization", {}, {}, r"have 1 channel\(s\) rather than RGB"),
        ("inpainting", {"inpainting.hole": "hole"}, {}, "inpainting.hole is 'hole'"),
        ("data2vec2", {"data2vec2.decoder.groups": 3}, {}, "groups = 3 needs a width that is a"),
        ("jigsaw", {"jigsaw.tile": 9}, {}, "a tile of 9 with a jitter of 1 needs 11"),
        ("context_prediction", {"context_prediction.colors": "lose"}, {}, "drop, keep, project"),
    ],
)
def test_mistakes_are_named(shapes, load_config, name, overrides, rest, message):
    with pytest.raises(UserError, match=message):
        shapes(name, overrides, **rest)


def test_a_gray_batch_moves_nothing_of_colorization(load_config):
    """A batch of images without a color in them, as files of three equal channels: no NaN."""
    config = load_config("colorization", "tiny")
    plan = make_plan(config, examples=64, image_shape=(16, 16, 3), classes=None)
    state = jax.jit(plan.initial_state)()
    gray = np.random.default_rng(0).integers(0, 255, (config.batch_size, 16, 16, 1))
    batch = {
        "image": np.broadcast_to(gray, (*gray.shape[:3], 3)).astype(np.uint8),
        "index": np.arange(config.batch_size, dtype=np.int32),
    }
    views = jax.jit(plan.method.augment)(jax.random.key(0), batch)
    assert not views["colored"].any()

    @jax.jit
    def gradient_of(params):
        variables = state.variables._replace(params=params)
        return plan.method.loss(variables, views, state.rng, state.step)

    (value, output), gradient = jax.value_and_grad(gradient_of, has_aux=True)(state.params)
    assert value == 0.0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(output.extra["prior"], state.extra["prior"])
