"""Scores of checkpoints: of held-out examples, alike over the run, whatever the loss is made of."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sslax import data
from sslax.errors import UserError
from sslax.methods.representation import online_probe
from sslax.training import scoring, sharding
from sslax.training.plan import Plan
from sslax.training.step import init_state
from sslax.types import Features, Flow, LossOutput, Method, Representation, Variables

STEPS = 10
START = 6  # the step from which the loss has its second term
SIZE = 4
EVERY = 8  # steps from one checkpoint to the next


def growing_method(task):
    """A loss of two terms, |image - offset| and, from step START, 100; views are shifted images."""

    def loss(variables, batch, rng, step):
        del rng
        value = jnp.mean(jnp.abs(batch["views"] - variables.params["offset"]))
        value += jnp.where(step >= START, 100.0, 0.0)
        features = batch["views"].reshape(len(batch["views"]), 1, -1)
        return value, LossOutput(variables.model_state, variables.extra, {}, features)

    return Method(
        task=task,
        augment=lambda rng, batch: {
            **batch,
            "views": batch["image"] + jax.random.uniform(rng, (len(batch["image"]), 1, 1, 1)),
        },
        init=lambda rng, batch: Variables({"offset": jnp.zeros(())}, {}, {}),
        loss=loss,
        update=lambda variables, step: variables.extra,
        predict=None,
        visualize=None,
        encoder=None,
        preprocess=None,
    )


def make(task, criterion, *, labels=False, devices=1):
    """A plan, a mesh, and the state at a step with an offset."""
    method, batch = growing_method(task), {}
    if labels:
        method = online_probe.attach(method, classes=2)
        batch["label"] = jax.ShapeDtypeStruct((SIZE,), jnp.int32)
    batch |= {
        "image": jax.ShapeDtypeStruct((SIZE, 2, 2, 1), jnp.uint8),
        "index": jax.ShapeDtypeStruct((SIZE,), jnp.int32),
    }
    plan = Plan(method, optax.sgd(0.1), lambda step: 0.1, STEPS, 2, 1, EVERY, 0, criterion, batch)
    mesh = sharding.make_mesh(jax.devices()[:devices])

    def state(step, offset=0.0):
        example = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in batch.items()}
        first = init_state(method, plan.tx, jax.random.key(0), example)
        changed = first._replace(step=jnp.int32(step), params={"offset": jnp.float32(offset)})
        return jax.device_put(changed, sharding.replicated(mesh))

    return plan, mesh, state


def constant(*values, labels=None):
    """A source of images of one brightness each."""
    images = np.broadcast_to(np.uint8(values)[:, None, None, None], (len(values), 2, 2, 1))
    return data.ArraySource(images, labels)


def test_the_loss_of_held_out_examples_with_the_last_steps_terms():
    plan, mesh, state = make(Flow(), "loss")
    test = constant(*[50] * 9)  # two batches, and one example more
    score = scoring.make_score(plan, mesh, data.Dataset(constant(*[200] * 8), test, None))
    shift = jax.random.uniform(jax.random.split(jax.random.key(0))[0], (SIZE, 1, 1, 1)).mean()
    np.testing.assert_allclose(score(state(2)), -(50 + shift + 100), rtol=1e-6)
    # Before the second term begins and after it, alike.
    assert score(state(START - 1)) == score(state(START + 1)) == score(state(2))
    assert score(state(9, offset=10.0)) == pytest.approx(score(state(2)) + 10, rel=1e-5)


def test_without_a_test_set_of_the_same_shapes_training_examples_are_taken():
    plan, mesh, state = make(Flow(), "loss")
    train = constant(*[200] * 8)
    large = data.ArraySource(np.zeros((8, 4, 4, 1), np.uint8))
    expected = scoring.make_score(plan, mesh, data.Dataset(train, None, None))(state(1))
    assert expected < -300
    for test in (constant(0, 0), large):  # too few; too large
        score = scoring.make_score(plan, mesh, data.Dataset(train, test, None))
        assert score(state(1)) == expected


def test_a_test_set_of_a_micro_batch_is_enough():
    plan, mesh, state = make(Flow(), "loss")
    dataset = data.Dataset(constant(*[200] * 8), constant(0, 0), None)
    score = scoring.make_score(replace(plan, accumulate=2), mesh, dataset)
    assert -102 < score(state(1)) < -100


def test_the_accuracy_of_the_probe_where_there_are_labels():
    plan, mesh, state = make(Representation(), "probe_accuracy", labels=True)
    labels = np.int32([0, 1] * 4)
    source = constant(*(200 * labels), labels=labels)
    score = scoring.make_score(plan, mesh, data.Dataset(source, source, ("dark", "bright")))
    trained = state(3)
    weights = {"kernel": jnp.ones((4, 2)) * jnp.array([-1.0, 1.0]), "bias": jnp.zeros(2)}
    extra = {**trained.extra, "probe": {**trained.extra["probe"], "weights": weights}}
    assert score(trained._replace(extra=extra)) == 1.0
    flipped = jax.tree.map(lambda w: -w, weights)
    extra["probe"] = {**extra["probe"], "weights": flipped}
    assert score(trained._replace(extra=extra)) == 0.0


class Counted:
    """A source of 2,000 records that remembers which were read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 2000

    def __getitem__(self, i):
        self.read.append(i)
        return {"image": np.full((2, 2, 1), 200, np.uint8)}


@pytest.mark.parametrize(
    "every, steps, examples", [(2, 10, 8), (1, 10, 4), (300, 3, 12), (300, 300, 1024)]
)
def test_no_more_examples_are_scored_than_trained_on_since_the_last_checkpoint(
    every, steps, examples
):
    plan, mesh, state = make(Flow(), "loss")
    train = Counted()
    short = replace(plan, checkpoint_every=every, steps=steps)
    score = scoring.make_score(short, mesh, data.Dataset(train, None, None))
    train.read.clear()
    score(state(1))
    assert len(train.read) == len(set(train.read)) == examples


def test_without_a_comparable_number_the_latest_is_the_best():
    plan, mesh, state = make(Representation(), None)
    score = scoring.make_score(plan, mesh, data.Dataset(constant(*[9] * 8), None, None))
    assert [score(state(step)) for step in (2, 4)] == [2.0, 4.0]


def test_one_device_scores_as_four():
    scores = []
    for devices in (1, 4):
        plan, mesh, state = make(Flow(), "loss", devices=devices)
        train = constant(*range(0, 240, 10))
        scores.append(scoring.make_score(plan, mesh, data.Dataset(train, None, None))(state(1)))
    np.testing.assert_allclose(*scores, rtol=1e-6)


def knn_plan(devices=1):
    """Features are the image's first two pixels, scaled by the offset."""
    plan, mesh, state = make(Representation(), None, devices=devices)

    def predict(variables, batch):
        pixels = batch["image"].reshape(len(batch["image"]), -1)[:, :2]
        return Features(variables.params["offset"] * pixels, {})

    return replace(plan, method=plan.method._replace(predict=predict)), mesh, state


def test_knn_of_test_examples_among_training_examples():
    rng = np.random.default_rng(0)
    labels = np.int32([0, 1] * 30)
    images = np.zeros((60, 2, 2, 1), np.uint8)
    images[np.arange(60), 0, labels, 0] = rng.integers(100, 200, 60)  # the class is the pixel
    train = data.ArraySource(images[:43], labels[:43])
    test = data.ArraySource(images[43:], labels[43:])
    for devices in (1, 4):
        plan, mesh, state = knn_plan(devices)
        knn = scoring.make_knn(plan, mesh, data.Dataset(train, test, ("left", "right")))
        assert knn(state(2, offset=1.0)) == 1.0
        flipped = data.ArraySource(images[43:], 1 - labels[43:])
        wrong = scoring.make_knn(plan, mesh, data.Dataset(train, flipped, ("left", "right")))
        assert wrong(state(2, offset=1.0)) == 0.0
    for dataset in (data.Dataset(train, test, None), data.Dataset(train, None, ("a", "b"))):
        with pytest.raises(UserError, match="online_knn is for"):
            scoring.make_knn(plan, mesh, dataset)
    with pytest.raises(UserError, match="online_knn is for"):
        flow = make(Flow(), "loss")[0]
        scoring.make_knn(flow, mesh, data.Dataset(train, test, ("left", "right")))
