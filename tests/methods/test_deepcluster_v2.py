"""DeepCluster v2: steps over the end of an epoch equal those of a reference in NumPy."""

import re

import jax
import miniature
import numpy as np
import pytest
from descent import descend
from miniature import encoded, unit

from sslax import data
from sslax.errors import UserError
from sslax.methods.representation import deepcluster_v2
from sslax.training.plan import describe, make_plan

RATE, TEMPERATURE, HEADS, CLUSTERS = 0.2, 0.3, 3, 3
EXAMPLES, BATCH, STEPS = 9, 4, 2  # of an epoch, which leaves one example out
WEIGHTS = miniature.weights(0, 5, projector=(5, 4))
RNG = np.random.default_rng(1)
LARGE = RNG.normal(size=(4, BATCH, 2, 4, 4, 3))  # of four steps
SMALL = RNG.normal(size=(4, BATCH, 1, 2, 2, 3))
ORDERS = [[7, 2, 0, 5], [1, 8, 3, 4], [6, 1, 7, 0], [5, 2, 3, 8]]  # 6 is left out at first


def batches():
    for large, small, order in zip(LARGE, SMALL, ORDERS):
        yield {"views": large, "local_views": small, "index": np.int32(order)}


def method():
    return miniature.method(
        deepcluster_v2.deepcluster_v2,
        WEIGHTS,
        examples=EXAMPLES,
        steps_per_epoch=STEPS,
        prototypes=CLUSTERS,
        heads=HEADS,
        temperature=TEMPERATURE,
        iterations=10,
    )


def embed(params, batch):
    crops = [batch["views"][:, 0], batch["views"][:, 1], batch["local_views"][:, 0]]
    return [unit(encoded(params, crop) @ params["projector"]["kernel"]) for crop in crops]


def reference_loss(params, batch, prototypes, clusters):
    """Mean over heads of the mean over crops of images that have a cluster."""
    total = 0.0
    for head in range(HEADS):
        errors = []
        for z in embed(params, batch):
            for i, index in enumerate(batch["index"]):
                scores = z[i] @ prototypes[head].T / TEMPERATURE
                if clusters[head, index] >= 0:
                    errors.append(np.log(np.exp(scores).sum()) - scores[clusters[head, index]])
        total += np.mean(errors or [0.0]) / HEADS
    return total


def reference_clusters(bank, index, step):
    """As the authors' `cluster_memory`, from the embeddings that ours starts with."""
    prototypes, clusters = [], np.full((HEADS, EXAMPLES), -1)
    for head in range(HEADS):
        points = bank[head % 2]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), step), head)
        centroids = points[np.asarray(jax.random.permutation(key, len(points)))[:CLUSTERS]]
        for n in range(11):
            nearest = (points @ centroids.T).argmax(1)
            if n == 10:
                break
            for k in range(CLUSTERS):
                if (nearest == k).any():
                    centroids[k] = points[nearest == k].mean(0)
            centroids = unit(centroids)
        prototypes.append(centroids)
        clusters[head, index] = nearest
    return np.stack(prototypes), clusters


def test_steps_over_the_end_of_an_epoch_equal_the_reference():
    steps = miniature.train(method(), list(batches()), RATE)
    params, first = WEIGHTS, jax.device_get(steps[0].before.extra)
    prototypes, clusters = first["prototypes"], first["clusters"]
    np.testing.assert_allclose(np.linalg.norm(prototypes, axis=-1), 1, rtol=1e-6)
    assert np.all(clusters == -1)
    bank, index = [], []
    for number, (batch, step) in enumerate(zip(batches(), steps)):
        expected = reference_loss(params, batch, prototypes, clusters)
        bank.append(np.stack(embed(params, batch)[:2]))
        index.append(batch["index"])
        params = descend(
            lambda p: reference_loss(p, batch, prototypes, clusters),  # noqa: B023
            params,
            RATE,
        )
        assert float(step.metrics["loss"]) == pytest.approx(expected, rel=1e-7)
        miniature.assert_close(step.after.params, params)
        if number % STEPS == STEPS - 1:
            rows = np.concatenate(bank[-STEPS:], axis=1), np.concatenate(index[-STEPS:])
            prototypes, clusters = reference_clusters(*rows, number + 1)
        after = jax.device_get(step.after.extra)
        np.testing.assert_array_equal(after["clusters"], clusters)
        np.testing.assert_allclose(after["prototypes"], prototypes, atol=1e-7)
    losses = [float(step.metrics["loss"]) for step in steps]
    assert losses[:2] == [0, 0] and min(losses[2:]) > 0  # the first epoch fills the bank
    assert (clusters[:, 4] == -1).all() and (np.delete(clusters, 4, axis=1) >= 0).all()


def test_an_image_without_a_cluster_has_no_loss():
    """And a batch of such images has a loss of 0, with no gradient."""
    dcv2 = method()
    batch = next(batches())
    variables = jax.jit(dcv2.init)(jax.random.key(0), batch)
    extra = {**variables.extra, "clusters": np.full((HEADS, EXAMPLES), -1, np.int32)}

    @jax.jit
    def loss(params):
        v = variables._replace(params=params, extra=extra)
        return dcv2.loss(v, batch, jax.random.key(1), np.int32(0))[0]

    value, gradient = jax.value_and_grad(loss)(variables.params)
    assert value == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(jax.device_get(gradient)))


def plan(config):
    return make_plan(config, **describe(data.load(config.data)))


def test_the_plan_knows_the_size_of_the_training_set(load_config):
    config = load_config("deepcluster_v2", "tiny")
    shapes = plan(config).shapes.extra
    shapes = shapes.get("method", shapes)
    found = {leaf.shape for leaf in jax.tree.leaves(shapes)}
    assert (3, 8000) in found  # the clusters of all images, by head
    config.deepcluster_v2.examples = 50
    with pytest.raises(UserError, match=re.escape("examples is 50, but the training set has 8000")):
        plan(config)


def test_more_prototypes_than_images_are_refused(load_config):
    config = load_config("deepcluster_v2", "tiny")
    config.deepcluster_v2.prototypes = 9000
    with pytest.raises(UserError, match="prototypes = 9000 are more than the 8000 images"):
        _ = plan(config).shapes
    with pytest.raises(UserError, match="less than a batch"):
        deepcluster_v2.build(load_config("deepcluster_v2", "tiny"), 10)
