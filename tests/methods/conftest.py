"""One tiny run of each method, compiled once and shared by the tests of the table."""

from functools import cache
from typing import Any, NamedTuple

import chex
import jax
import pytest
from ml_collections import ConfigDict

from sslax import data, partition, train
from sslax.methods import METHODS


class Tiny(NamedTuple):
    """A method at the size of its `:tiny` config, on one device and on eight."""

    name: str
    config: ConfigDict
    plan: train.Plan
    abstract: train.TrainState
    state: Any  # (devices=1) -> a fresh initial state
    step: Any  # (devices) -> compiled (state, batch) -> (state, metrics), traced at most once
    batch: dict


@pytest.fixture(scope="session", params=sorted(METHODS))
def tiny(request, load_config):
    config = load_config(request.param, "tiny")
    dataset = data.load(config.data)
    plan = train.make_plan(
        config,
        examples=len(dataset.train),
        image_shape=dataset.train[0]["image"].shape,
        classes=dataset.num_classes,
    )
    one = partition.make_mesh(jax.devices()[:1])
    feed = data.make_feed(
        dataset.train, batch_size=config.batch_size, seed=0, mesh=one, mode="resident"
    )
    batch = jax.device_get(feed.batch(feed.arrays(0), 0))

    def everywhere(devices):
        return partition.replicated(partition.make_mesh(jax.devices()[:devices]))

    initial = cache(
        lambda devices: jax.jit(plan.initial_state, out_shardings=everywhere(devices))()
    )

    def state(devices=1):
        return initial(devices)

    @cache
    def step(devices):
        @chex.assert_max_traces(n=1)
        def one_trace(state, batch):
            return train.train_step(plan.method, plan.tx, state, batch)

        return jax.jit(one_trace, out_shardings=(everywhere(devices), everywhere(devices)))

    return Tiny(
        name=request.param,
        config=config,
        plan=plan,
        abstract=jax.eval_shape(plan.initial_state),
        state=state,
        step=step,
        batch=batch,
    )
