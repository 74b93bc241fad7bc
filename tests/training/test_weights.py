"""The two files that a run leaves behind, for networks whose weights are numbers of their own."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sslax
from sslax import data, models
from sslax.training import weights
from sslax.training.plan import describe, make_plan
from sslax.types import Depth, Flow, Representation


def numbered(tree):
    """Small random values for every leaf, other ones for each path; variances are positive."""

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        values = 0.3 * rng.normal(size=leaf.shape)
        return jnp.asarray(1 + values**2 if "var" in name else values, leaf.dtype)

    return jax.tree.map_with_path(fill, tree)


@pytest.fixture
def left_behind(load_config, tmp_path):
    """`(name, **changes) -> (config, plan, variables)`; such a run's files are in `tmp_path`."""

    def write(name, **changes):
        config = load_config(name, "tiny")
        config.update_from_flattened_dict(changes)
        plan = make_plan(config, **describe(data.load(config.data)))
        variables = numbered(plan.shapes.variables)
        weights.save_network(tmp_path / weights.NETWORK, config, variables, step=7)
        weights.save_encoder(
            tmp_path / weights.ENCODER,
            config,
            plan.method,
            variables,
            image_shape=plan.batch["image"].shape,
            step=7,
        )
        return config, plan, variables

    return write


def assert_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_encoder_of_dino_is_the_teacher(left_behind, tmp_path):
    """Its weights are the momentum copy's, its features those that `predict` gives."""
    config, plan, variables = left_behind("dino")
    module, loaded, description = sslax.load_encoder(tmp_path)
    teacher = variables.extra["method"]["momentum"]  # beside the online probe
    assert_equal(loaded["params"], teacher.params["encoder"])
    assert_equal(loaded["batch_stats"], teacher.model_state["encoder"]["batch_stats"])
    student = jax.tree.leaves(variables.params["encoder"])
    assert all(
        np.any(ours != theirs) for ours, theirs in zip(jax.tree.leaves(loaded["params"]), student)
    )

    side = config.augment.size
    images = np.random.default_rng(0).integers(0, 256, (4, side, side, 1)).astype(np.uint8)
    expected = jax.jit(plan.method.predict)(variables, {"image": images}).features
    features = jax.jit(module.apply)(loaded, images).features
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)

    facts = (description.method, description.task, description.step, description.channels)
    assert facts == ("dino", "representation", 7, 1)
    assert description.size == (side, side) != plan.batch["image"].shape[1:3]
    assert description.mean == tuple(config.model.mean)
    assert description.architecture["blocks"] == tuple(config.model.blocks)


def test_the_network_has_all_trained_parts(left_behind, tmp_path):
    config, _, variables = left_behind("dino")
    params, model_state, metadata = models.read_variables(tmp_path / weights.NETWORK)
    assert set(params) == {"encoder", "projector", "prototypes"}
    assert_equal(params, variables.params)
    assert_equal(model_state, variables.model_state)
    assert (metadata["method"], metadata["step"]) == ("dino", 7)
    assert metadata["config"]["dino"]["projector"]["hidden"] == config.dino.projector.hidden


@pytest.mark.parametrize(
    ("name", "preprocessing"), [("colorization", "lightness"), ("simclr", "float")]
)
def test_a_loaded_encoder_preprocesses_as_the_method_does(
    left_behind, tmp_path, name, preprocessing
):
    config, plan, variables = left_behind(name)
    module, loaded, description = sslax.load_encoder(tmp_path / weights.ENCODER)
    assert description.preprocessing == preprocessing
    shape = (3, config.augment.size, config.augment.size, description.channels)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    expected = jax.jit(plan.method.predict)(variables, {"image": images}).features
    features = jax.jit(module.apply)(loaded, images).features
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mae", "context_prediction"])
def test_learned_positions_fit_the_size_that_the_encoder_is_evaluated_at(
    left_behind, tmp_path, name
):
    """Not that of the data set's images; context prediction learns those of a patch."""
    vit = {"model.name": "vit_micro", "model.width": 0.25, "model.blocks": (1,), "model.patch": 2}
    learned = {"model.position": "learned", "model.pool": "mean", "model.patch_stem": 0}
    _, plan, variables = left_behind(name, **vit, **learned)
    module, loaded, description = sslax.load_encoder(tmp_path)
    *_, channels = plan.batch["image"].shape
    images = np.random.default_rng(0).integers(0, 256, (2, *description.size, channels))
    images = images.astype(np.uint8)
    expected = jax.jit(plan.method.predict)(variables, {"image": images}).features
    features = jax.jit(module.apply)(loaded, images).features
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", [Representation(), Depth(metric=True), Flow()])
def test_the_task_is_written_down(load_config, tmp_path, task):
    config = load_config("simclr", "tiny")
    plan = make_plan(config, **describe(data.load(config.data)))
    variables = plan.shapes.variables
    method = plan.method._replace(task=task)
    file = tmp_path / weights.ENCODER
    weights.save_encoder(file, config, method, numbered(variables), image_shape=(28, 28, 1), step=1)
    _, _, metadata = models.read_variables(file)
    assert metadata["encoder"]["task"] == type(task).__name__.lower()
