"""One tiny run of each method, compiled once and shared by the tests of the table."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from layouts import ONE_AND_EIGHT, clustered
from miniature import with_pwc
from ml_collections import ConfigDict

from sslax import data
from sslax.data import records
from sslax.methods import METHODS
from sslax.training import sharding, weights
from sslax.training.plan import Plan, describe, make_plan
from sslax.training.step import train_step


class Tiny(NamedTuple):
    """A method at the size of its `:tiny` config, on one device and on eight.

    `devices` is how many it trains on in the tests that do not compare the two.
    """

    name: str
    devices: int
    config: ConfigDict
    plan: Plan
    state: Any  # (devices) -> the initial state, on that many devices
    step: Any  # (devices) -> compiled (state, batch) -> (state, metrics)
    predict: Any  # compiled (variables, batch) -> the prediction
    look: Any  # compiled (state, batch) -> (the prediction, the visualization)
    batch: dict
    on: Any  # (devices) -> the batch, sharded over that many

    def run(self):
        """The step, its first state and the batch, on `devices`."""
        return self.step(self.devices), self.state(self.devices), self.on(self.devices)


def first_records(source, count):
    if data.is_generated(source):
        return generated(source, count)
    return records.stack([source[i] for i in range(count)])


@cache
def generated(source, count):
    """Rendered once for all methods that learn from the same scenes."""
    return jax.device_get(jax.jit(source.generate)(source.arrays, jnp.arange(count)))


@pytest.fixture(scope="session")
def first_stage(load_config, tmp_path_factory):
    """The folder of a run of SMURF, written without training, for a method that learns from it."""
    config = with_pwc(load_config("smurf", "tiny"))
    config.seed += 1  # otherwise it would be the network that its student starts with
    shape = config.data.frames, *config.data.size, 3  # without rendering a test set
    plan = make_plan(config, examples=config.batch_size, image_shape=shape, classes=None)
    folder = tmp_path_factory.mktemp("first_stage")
    state = jax.jit(plan.initial_state)()
    weights.save_network(folder / weights.NETWORK, config, state.variables, step=1)
    return folder


@pytest.fixture(scope="session", params=sorted(METHODS))
def tiny(request, load_config):
    config = load_config(request.param, "tiny")
    if "teacher_from" in config.get(request.param, {}):
        config = with_pwc(config)  # the first stage has RAFT
        config[request.param].teacher_from = str(request.getfixturevalue("first_stage"))
    # Without decay a leaf moves if and only if it has a gradient.
    config.optimizer.weight_decay = 0.0
    # A key's bias has a gradient of rounding noise, which Adam's usual epsilon would amplify.
    config.optimizer.epsilon = 1e-3
    dataset = data.load(config.data)
    plan = make_plan(config, **describe(dataset))
    batch = {**first_records(dataset.train, config.batch_size)}
    batch["index"] = np.arange(config.batch_size, dtype=np.int32)

    def everywhere(devices):
        return sharding.replicated(sharding.make_mesh(jax.devices()[:devices]))

    def on(devices):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        return jax.device_put(batch, sharding.batch_sharding(mesh))

    @cache
    def state(devices):
        initial = jax.jit(lambda: clustered(plan.initial_state()), out_shardings=everywhere(1))
        return initial() if devices == 1 else jax.device_put(state(1), everywhere(devices))

    @cache
    def traced():
        """The step, traced once for any number of devices."""
        program, result = jax.make_jaxpr(
            partial(train_step, plan.method, plan.tx), return_shape=True
        )(plan.shapes, batch)
        return jax.extend.core.jaxpr_as_fun(program), jax.tree.structure(result)

    @cache
    def step(devices):
        function, structure = traced()

        def run(state, batch):
            return jax.tree.unflatten(structure, function(*jax.tree.leaves((state, batch))))

        run = jax.jit(run, out_shardings=(everywhere(devices), everywhere(devices)))
        return run.lower(state(devices), on(devices)).compile()

    predict = jax.jit(plan.method.predict)

    @jax.jit
    def look(state, batch):
        shown = plan.method.visualize(state.variables, batch, jax.random.key(1))
        return predict(state.variables, batch), shown

    return Tiny(
        name=request.param,
        devices=1 if request.param in ONE_AND_EIGHT else 8,
        config=config,
        plan=plan,
        state=state,
        step=step,
        predict=predict,
        look=look,
        batch=batch,
        on=on,
    )
