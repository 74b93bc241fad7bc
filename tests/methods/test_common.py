"""Metrics that a step computes: of a part of wide embeddings, since devices exchange them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sslax.measures import collapse
from sslax.methods.representation import common


def test_wide_embeddings_are_measured_by_their_first_dimensions():
    first, second = np.float32(np.random.default_rng(0).standard_normal((2, 6, 600)))
    second[:, :512] = first[:, :512]
    assert common.contrastive_accuracy(first, second) == 1
    measured = jax.jit(common.embedding_metrics)(first)
    assert measured["effective_rank"] == collapse.effective_rank(first[:, :512])
    assert measured["embedding_std"] == collapse.embedding_std(first)


def test_devices_exchange_little_for_the_metrics():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = NamedSharding(mesh, P("data"))
    first, second = [jax.ShapeDtypeStruct((16, 8192), jnp.float32, sharding=sharded)] * 2

    def metrics(first, second):
        return common.contrastive_accuracy(first, second), common.embedding_metrics(first)

    text = jax.jit(metrics).lower(first, second).compile().as_text()
    gathered = re.findall(r" = (\S+) all-gather(?:-start)?\(", text)
    assert gathered and not any("8192" in shape for shape in gathered), gathered
