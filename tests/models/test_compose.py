"""The composer, with parts whose every number can be followed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.models.compose import Network
from sslax.types import Model

X = jnp.array([[1.0, 2.0], [3.0, 5.0]])


def layer(outputs, train_offset=0.0):
    """`x @ kernel + calls + train_offset`; its state counts the calls in training."""

    def init(rng, x):
        kernel = jax.random.normal(rng, (x.shape[-1], outputs))
        return {"kernel": kernel}, {"calls": jnp.zeros(())}

    def apply(params, state, x, train):
        output = x @ params["kernel"] + state["calls"] + train_offset * train
        return output, {"calls": state["calls"] + train}

    return Model(init, apply)


def assert_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.fixture
def pair():
    """Two layers, the first with a momentum copy."""
    return Network({"first": layer(3), "second": layer(4)}, momentum={"first": layer(3)})


def forward(net, x):
    hidden = net.first(x)
    return net.second(hidden), net.momentum.first(x)


# Initialization.


def test_each_part_is_initialized_on_what_the_forward_pass_gives_it():
    """Shapes follow the wiring, keys the order of the parts, whatever the order of the calls."""
    network = Network({"last": layer(4), "first": layer(3)})
    rng = jax.random.key(0)
    variables = network.init(lambda net, x: net.last(net.first(x)), rng, X)
    keys = jax.random.split(rng, 2)
    expected = {"last": layer(4).init(keys[0], jnp.zeros((2, 3)))[0]}
    expected["first"] = layer(3).init(keys[1], X)[0]
    assert_equal(variables.params, expected)
    assert list(variables.params) == list(variables.model_state) == ["last", "first"]
    assert variables.extra == {}


def test_init_runs_the_forward_pass_itself():
    """A part sees in `init` what it sees in `apply`, outside of training."""
    seen = []
    network = Network({"first": layer(3), "second": layer(4)})

    def noting(net, x, scale):
        hidden = scale * net.first(x)
        seen.append(hidden)
        return net.second(hidden)

    variables = network.init(noting, jax.random.key(0), X, 10.0)
    network.apply(noting, variables, X, 10.0)
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_allclose(seen[0], 10 * X @ variables.params["first"]["kernel"], rtol=1e-6)


def test_a_part_called_twice_is_initialized_once():
    network = Network({"shared": layer(2)})
    once, twice = (
        network.init(forward, jax.random.key(0), X)
        for forward in (lambda net, x: net.shared(x), lambda net, x: net.shared(net.shared(x)))
    )
    assert_equal(once, twice)


def test_a_part_that_is_not_called_is_named():
    network = Network({"first": layer(3), "idle": layer(4)})
    with pytest.raises(ValueError, match=r"does not call \['idle'\]"):
        network.init(lambda net, x: net.first(x), jax.random.key(0), X)


def test_a_copy_called_before_its_part_is_named(pair):
    def backward(net, x):
        target = net.momentum.first(x)
        return net.second(net.first(x)), target

    with pytest.raises(ValueError, match="copy of 'first' is called before 'first' itself"):
        pair.init(backward, jax.random.key(0), X)


def test_a_copy_of_no_part_is_named():
    with pytest.raises(ValueError, match="no part 'third'"):
        Network({"first": layer(3)}, momentum={"third": layer(3)})


# Momentum copies.


def test_copies_start_equal_and_move(pair):
    variables = pair.init(forward, jax.random.key(0), X)
    copy = variables.extra["momentum"]
    assert_equal(copy.params, {"first": variables.params["first"]})
    assert_equal(copy.model_state, {"first": variables.model_state["first"]})

    trained = jax.tree.map(lambda leaf: leaf + 1.0, variables.params)
    moved = pair.move(variables._replace(params=trained), 0.75)["momentum"]
    np.testing.assert_allclose(
        moved.params["first"]["kernel"], variables.params["first"]["kernel"] + 0.25, rtol=1e-6
    )
    assert_equal(moved.model_state, copy.model_state)


def test_a_copy_applies_its_own_weights_and_model(pair):
    """Of the part that trains nothing reaches the copy, and the copy may have another model."""
    network = Network({"first": layer(3)}, momentum={"first": layer(3, train_offset=100.0)})

    def both(net, x):
        return net.first(x), net.momentum.first(x)

    variables = network.init(both, jax.random.key(0), X)
    trained = jax.tree.map(lambda leaf: leaf + 1.0, variables.params)
    variables = variables._replace(params=trained)
    (ours, target), _ = network.apply(both, variables, X, train=True)
    before = variables.extra["momentum"].params["first"]["kernel"]
    np.testing.assert_allclose(target, X @ before + 100.0, rtol=1e-6)
    np.testing.assert_allclose(ours, X @ (before + 1.0), rtol=1e-6)
    assert_equal(network.encoder(variables, "first")[0], trained["first"])
    np.testing.assert_array_equal(network.momentum_encoder(variables, "first")[0]["kernel"], before)


def test_no_gradient_reaches_the_copies(pair):
    """Copies are no function of the parameters: a loss of targets alone has a gradient of zero."""
    variables = pair.init(forward, jax.random.key(0), X)

    def loss(params, output):
        outputs, _ = pair.apply(forward, variables._replace(params=params), X, train=True)
        return jnp.sum(outputs[output] ** 2)

    of_prediction = jax.grad(loss)(variables.params, 0)
    of_target = jax.grad(loss)(variables.params, 1)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(of_prediction))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_target))


def test_other_entries_of_extra_are_left_alone(pair):
    variables = pair.init(forward, jax.random.key(0), X)
    queue = jnp.arange(3.0)
    variables = variables._replace(extra={**variables.extra, "queue": queue})
    _, after = pair.apply(forward, variables, X, train=True)
    assert after.extra["queue"] is queue
    assert pair.move(after, 0.5)["queue"] is queue


# State.


def test_state_is_threaded_through_repeated_calls():
    """Each call sees the state that the one before it left; the copy's is a state of its own."""
    network = Network({"first": layer(2)}, momentum={"first": layer(2)})

    def thrice(net, x):
        return net.first(x), net.first(x), net.momentum.first(x), net.first(x)

    variables = network.init(thrice, jax.random.key(0), X)
    (one, two, target, three), after = network.apply(thrice, variables, X, train=True)
    np.testing.assert_allclose(two - one, 1.0, rtol=1e-5)
    np.testing.assert_allclose(three - one, 2.0, rtol=1e-5)
    np.testing.assert_array_equal(target, one)
    assert after.model_state["first"]["calls"] == 3
    assert after.extra["momentum"].model_state["first"]["calls"] == 1
    assert_equal(after.params, variables.params)
    assert variables.model_state["first"]["calls"] == 0  # what was given is not changed


def test_without_training_state_stays(pair):
    variables = pair.init(forward, jax.random.key(0), X)
    _, after = pair.apply(forward, variables, X)
    assert_equal(after, variables)


def test_a_pass_may_call_fewer_parts(pair):
    variables = pair.init(forward, jax.random.key(0), X)
    hidden, after = pair.apply(lambda net, x: net.first(x), variables, X, train=True)
    np.testing.assert_allclose(hidden, X @ variables.params["first"]["kernel"], rtol=1e-6)
    assert after.model_state["first"]["calls"] == 1
    assert_equal(after.model_state["second"], variables.model_state["second"])


def test_compiled_is_the_same(pair):
    variables = pair.init(forward, jax.random.key(0), X)
    compiled = jax.jit(lambda rng, x: pair.init(forward, rng, x))(jax.random.key(0), X)
    assert_equal(compiled, variables)
    apply = jax.jit(lambda variables, x: pair.apply(forward, variables, x, train=True))
    expected = pair.apply(forward, variables, X, train=True)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6),
        apply(variables, X),
        expected,
    )


# Networks as models.


def test_as_model_equals_the_parts():
    network = Network({"first": layer(3), "second": layer(4)})

    def chain(net, x):
        return net.second(net.first(x))

    model = network.as_model(chain)
    params, state = model.init(jax.random.key(0), X)
    variables = network.init(chain, jax.random.key(0), X)
    assert_equal((params, state), (variables.params, variables.model_state))
    output, state = model.apply(params, state, X, True)
    expected, variables = network.apply(chain, variables, X, train=True)
    np.testing.assert_array_equal(output, expected)
    assert_equal(state, variables.model_state)
    assert state["second"]["calls"] == 1
    assert_equal(model.apply(params, state, X, False)[1], state)


def test_a_network_can_be_a_part_of_another():
    inner = Network({"first": layer(3), "second": layer(4)})
    model = inner.as_model(lambda net, x: net.second(net.first(x)))
    outer = Network({"encoder": model, "head": layer(1)}, momentum={"encoder": model})

    def nested(net, x):
        return net.head(net.encoder(x)), net.momentum.encoder(x)

    variables = outer.init(nested, jax.random.key(0), X)
    assert set(variables.params["encoder"]) == {"first", "second"}
    (output, target), after = outer.apply(nested, variables, X, train=True)
    kernels = [variables.params["encoder"][name]["kernel"] for name in ("first", "second")]
    np.testing.assert_allclose(target, X @ kernels[0] @ kernels[1], rtol=1e-5)
    np.testing.assert_allclose(output, target @ variables.params["head"]["kernel"], rtol=1e-5)
    assert after.model_state["encoder"]["second"]["calls"] == 1
    moved = outer.move(variables, 0.0)["momentum"].params
    assert_equal(moved["encoder"], variables.params["encoder"])
