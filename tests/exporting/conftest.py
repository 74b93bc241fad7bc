"""Runs to export: networks as they are before training, which have all that trained ones have."""

import jax
import numpy as np
import pytest

from sslax.training import checkpoint, description, sharding
from sslax.training.plan import make_plan


def write_run(folder, config, image_shape):
    """A run whose checkpoint is the initial state, all variables moved off their first values."""
    spec = {"examples": 64, "image_shape": list(image_shape), "classes": None}
    plan = make_plan(config, **spec)
    folder.mkdir()
    description.write(folder, description.describe(config, spec))
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = plan.state_on(mesh)
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda leaf: leaf * rng.uniform(0.7, 1.3, leaf.shape).astype(leaf.dtype),
        (state.params, state.model_state),
    )
    state = state._replace(params=moved[0], model_state=moved[1])
    with checkpoint.Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(2, state._replace(step=jax.numpy.int32(2)), 0.0)
    return folder


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory, load_config):
    """The folder of a run of a tiny ResNet."""
    config = load_config("simclr", "tiny")
    return write_run(tmp_path_factory.mktemp("runs") / "simclr", config, (28, 28, 1))
