"""Micro-batches have the loss and the gradient of the batch, for every method that allows them."""

from functools import partial

import jax
import numpy as np
import pytest
from layouts import DIVIDED, clustered

from sslax import data
from sslax.data import records
from sslax.errors import UserError
from sslax.models.compose import Network
from sslax.training import sharding
from sslax.training.gradient import Loss, differentiate
from sslax.training.plan import describe, make_plan
from sslax.training.step import init_state, train_step

# Means over the valid pixels of a batch; flow has a second pass through its network.
REFUSED = {"monodepth", "monodepth2", "sfm_learner"}
REFUSED |= {"arflow", "smurf", "smurf_multi_frame", "uflow", "unflow"}
PARTS = {
    name: 4 if name in ("rotation", "simclr") else 2 for name in DIVIDED if name not in REFUSED
}


@pytest.fixture
def without_batch_statistics(monkeypatch):
    """Networks normalize by their running statistics, in training too."""
    apply = Network.apply
    monkeypatch.setattr(Network, "apply", lambda *inputs, train=False: apply(*inputs, train=False))


def tiny(load_config, name, **changes):
    """The plan of a method's tiny config, and a batch of noise, in which nothing is constant."""
    config = load_config(name, "tiny")
    config.update({"batch_size": 8, **changes})
    dataset = data.load(config.data)
    plan = make_plan(config, **describe(dataset))
    batch = records.stack([dataset.train[i] for i in range(config.batch_size)])
    noise = np.random.default_rng(0).integers(0, 256, batch["image"].shape)
    index = np.arange(config.batch_size, dtype=np.int32)
    return plan, {**batch, "image": noise.astype(np.uint8), "index": index}


@pytest.mark.parametrize("name", PARTS)
def test_micro_batches_have_the_gradient_of_the_batch(name, load_config, without_batch_statistics):
    plan, batch = tiny(load_config, name, online_probe=False)

    @jax.jit
    def run(key, batch):
        state = clustered(init_state(plan.method, plan.tx, key, batch))
        augmented = plan.method.augment(key, batch)
        loss = Loss(plan.method, key, np.int32(3))
        return [
            differentiate(loss, state.variables, augmented, accumulate=parts)
            for parts in (PARTS[name], 1)
        ]

    (value, output, gradient), (wanted, alike, direction) = run(jax.random.key(0), batch)
    if plan.method.mean_over_examples:  # metrics are means over the micro-batches
        output, alike = (o._replace(metrics=dict.fromkeys(o.metrics)) for o in (output, alike))
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, output, alike)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_a_sharded_step_in_micro_batches_is_the_step(load_config, without_batch_statistics):
    plan, batch = tiny(load_config, "simclr", batch_size=16)
    step = partial(train_step, plan.method, plan.tx)
    state = jax.jit(plan.initial_state)()
    whole, ours = jax.jit(step)(state, batch)

    mesh = sharding.make_mesh()
    shardings = sharding.shardings_of(state, mesh, "fsdp", smallest=1)
    divided = partial(step, accumulate=2, shardings=shardings)
    parts, theirs = jax.jit(divided, out_shardings=(shardings, sharding.replicated(mesh)))(
        jax.device_put(state, shardings), jax.device_put(batch, sharding.batch_sharding(mesh))
    )
    for name, value in ours.items():  # with those of the online probe
        np.testing.assert_allclose(theirs[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, parts._replace(rng=0), whole._replace(rng=0))


def test_batch_norms_have_the_statistics_of_micro_batches(load_config):
    """Every second example is in one micro-batch, as in one of two interleaved groups."""
    plan, batch = tiny(load_config, "rotation", online_probe=False)
    state = jax.jit(plan.initial_state)()
    augmented = jax.jit(plan.method.augment)(jax.random.key(1), batch)

    @partial(jax.jit, static_argnums=1)
    def gradient(batch, parts):
        loss = Loss(plan.method, state.rng, state.step)
        value, _, gradient = differentiate(loss, state.variables, batch, accumulate=parts)
        return value, gradient

    halves = [jax.tree.map(lambda leaf, i=i: leaf[i::2], augmented) for i in range(2)]
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *(gradient(half, 1) for half in halves))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, gradient(augmented, 2), expected)


@pytest.mark.parametrize(
    "name, parts, message",
    [
        ("simclr", 3, r"config.accumulate = 3 does not divide config.batch_size = 8: micro"),
        ("uflow", 2, r"config.accumulate is 2, but the loss of uflow is not made of micro"),
    ],
)
def test_what_cannot_be_divided_is_refused(name, parts, message, load_config):
    config = load_config(name, "tiny")
    config.update(batch_size=8, accumulate=parts)
    with pytest.raises(UserError, match=message):
        make_plan(config, examples=8, image_shape=(2, 16, 16, 3), classes=None)
