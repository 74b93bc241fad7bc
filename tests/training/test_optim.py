"""Learning rates and optimizers, against the equations in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sslax.errors import UserError
from sslax.training import optim


def _rate(**knobs):
    config = optim.defaults()
    config.update(learning_rate=2.0, scaling="none", **knobs)
    return optim.learning_rate(config, batch_size=8, warmup=4, total=12)


def test_the_rate_follows_its_equation():
    rate = _rate(final_fraction=0.1)
    steps = np.arange(13)
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * np.clip((steps - 4) / 8, 0, 1)))
    expected = 2.0 * np.where(steps < 4, (steps + 1) / 4, cosine)
    np.testing.assert_allclose(jax.vmap(rate)(jnp.asarray(steps)), expected, rtol=1e-6)


def test_the_rate_drops_where_it_is_told_to():
    rate = _rate(drops=(0.5, 0.75), drop_factor=0.2)
    found = [float(rate(jnp.asarray(step))) for step in (3, 5, 6, 8, 9, 11)]
    np.testing.assert_allclose(found, [2.0, 2.0, 0.4, 0.4, 0.08, 0.08], rtol=1e-6)


def test_warmup_that_leaves_no_decay_is_refused():
    config = optim.defaults()
    with pytest.raises(UserError, match=r"warm-up takes 10 of 10 steps"):
        optim.learning_rate(config, batch_size=8, warmup=10, total=10)


@pytest.mark.parametrize(("scaling", "expected"), [("linear", 0.8), ("sqrt", 6.4), ("none", 0.2)])
def test_scaling_rules(scaling, expected):
    base = 0.2
    assert optim.scaled_learning_rate(base, scaling, 1024) == pytest.approx(expected)


def _one_step(name, **knobs):
    config = optim.defaults()
    config.update(name=name, momentum=0.0, weight_decay=0.1, **knobs)
    tx = optim.build(config, lambda step: 0.5, total=2)
    layer = {"kernel": jnp.full((2, 2), 2.0), "scale": jnp.full(2, 2.0)}
    params = {"encoder": layer, "discriminator": layer}
    gradient = jax.tree.map(lambda leaf: leaf / 2, params)
    updates, _ = tx.update(gradient, tx.init(params), params)
    return {
        part: {name: float(update.ravel()[0]) for name, update in layer.items()}
        for part, layer in updates.items()
    }


def test_sgd_decays_kernels_and_spares_scales():
    updates = _one_step("sgd")["encoder"]
    assert updates["kernel"] == pytest.approx(-0.5 * (1.0 + 0.1 * 2.0))
    assert updates["scale"] == pytest.approx(-0.5 * 1.0)


def test_lars_adapts_kernels_and_spares_scales():
    updates = _one_step("lars", trust_coefficient=0.01)["encoder"]
    # ||w|| = 4, ||g + 0.1 w|| = 2.4; the direction has entries of 1.2.
    assert updates["kernel"] == pytest.approx(-0.5 * 0.01 * 4.0 / 2.4 * 1.2, rel=1e-5)
    assert updates["scale"] == pytest.approx(-0.5 * 1.0)


def test_biases_and_norms_are_decayed_and_adapted_where_the_authors_do_so():
    updates = _one_step("sgd", spare_vectors=False)["encoder"]
    assert updates["scale"] == pytest.approx(-0.5 * (1.0 + 0.1 * 2.0))
    plain, spared = (_one_step("adamw", spare_vectors=spare)["encoder"] for spare in (False, True))
    assert plain["scale"] == pytest.approx(spared["scale"] - 0.5 * 0.1 * 2.0)
    updates = _one_step("lars", spare_vectors=False, trust_coefficient=0.01)["encoder"]
    # ||w|| = 2 sqrt(2), ||g + 0.1 w|| = 1.2 sqrt(2).
    assert updates["scale"] == pytest.approx(-0.5 * 0.01 * 2.0 / 1.2 * 1.2, rel=1e-5)


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_parts_are_spared_whole(name, vectors):
    plain = _one_step(name, spare_vectors=vectors)
    updates = _one_step(name, spare_vectors=vectors, spare_parts=("discriminator",))
    assert updates["encoder"]["kernel"] == plain["encoder"]["kernel"]
    assert updates["discriminator"]["kernel"] == pytest.approx(plain["encoder"]["kernel"] + 0.1)
    if name == "sgd":
        assert updates["encoder"]["scale"] == plain["encoder"]["scale"]
        assert updates["discriminator"]["scale"] == -0.5


def test_a_part_to_spare_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"optimizer\.spare_parts: 'encodr': did you mean"):
        _one_step("adamw", spare_parts=("encodr",))


def test_clipping_bounds_the_global_norm():
    updates = _one_step("sgd", clip_norm=0.6)["encoder"]
    # The gradient's norm is sqrt(12); it is clipped before the weight decay is added.
    assert updates["scale"] == pytest.approx(-0.5 * 0.6 / np.sqrt(12), rel=1e-5)


def _muon_steps(gradients, decay, weights):
    """Muon on matrices, inputs by outputs: the updates at a rate of 0.5."""
    momentum, updates = 0.0, []
    for count, gradient in enumerate(gradients, start=1):
        momentum = 0.9 * momentum + 0.1 * gradient
        ahead = 0.9 * momentum / (1 - 0.9 ** (count + 1)) + 0.1 * gradient / (1 - 0.9**count)
        x = ahead / np.linalg.norm(ahead)
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
        updates.append(-0.5 * (0.2 * max(x.shape) ** 0.5 * x + decay * weights))
    return updates


def test_muon_makes_the_singular_values_of_a_step_equal():
    rng = np.random.default_rng(0)
    dense, convolution = rng.normal(size=(2, 6, 4)), rng.normal(size=(2, 3, 3, 2, 5))
    params = {"dense": np.ones((6, 4)), "convolution": np.ones((3, 3, 2, 5)), "bias": np.ones(4)}
    config = optim.defaults()
    config.update(name="muon", weight_decay=0.1)
    tx = optim.build(config, lambda step: 0.5, total=2)
    with jax.enable_x64(True):
        state = tx.init(params)
        for i in range(2):
            gradient = {"dense": dense[i], "convolution": convolution[i], "bias": dense[i, 0]}
            updates, state = jax.jit(tx.update)(gradient, state, params)
    expected = _muon_steps(dense, 0.1, params["dense"])[1]
    np.testing.assert_allclose(updates["dense"], expected, atol=1e-6)
    values = np.linalg.svd(expected + 0.05 * params["dense"], compute_uv=False)
    assert values.max() < 1.7 * values.min()  # five iterations are not exact
    expected = _muon_steps(convolution.reshape(2, 18, 5), 0.1, np.ones((18, 5)))[1]
    np.testing.assert_allclose(updates["convolution"].reshape(18, 5), expected, atol=1e-6)
    adam = optax.adamw(0.5, b1=0.9, b2=0.999, weight_decay=0.0, nesterov=True)
    state = adam.init(params["bias"])
    for row in dense[:, 0]:
        expected, state = adam.update(row, state, params["bias"])
    np.testing.assert_allclose(updates["bias"], expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw", "muon"])
def test_a_factor_on_the_rate_is_another_rate(name):
    plain = _one_step(name)
    updates = _one_step(name, vector_rate=0.25, rates={"discriminator": 0.1})
    for part, factor in (("encoder", 1.0), ("discriminator", 0.1)):
        assert updates[part]["kernel"] == pytest.approx(factor * plain[part]["kernel"])
        assert updates[part]["scale"] == pytest.approx(0.25 * factor * plain[part]["scale"])


@pytest.mark.parametrize("name", ["encodr", "pose"])
def test_a_rate_of_a_part_that_is_not_there_is_refused(name):
    message = (
        rf"no part of the network for config\.optimizer\.rates\.{name}: .*Known: discriminator"
    )
    with pytest.raises(UserError, match=message):
        _one_step("sgd", rates={name: 0.5})
    optim.scale_parts(1.0, {name: 0.5}, optional=[name]).init({"encoder": {}})


def test_the_weight_decay_follows_its_cosine():
    config = optim.defaults()
    config.update(momentum=0.0, weight_decay=0.1, final_decay_fraction=3.0)
    tx = optim.build(config, lambda step: 1.0, total=2)
    params = {"encoder": {"kernel": jnp.ones((1, 1))}}
    state, found = tx.init(params), []
    for _ in range(3):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        found.append(-updates["encoder"]["kernel"].item())
    np.testing.assert_allclose(found, [0.1, 0.2, 0.3], rtol=1e-6)


def test_unknown_optimizer_names_its_neighbor():
    config = optim.defaults()
    config.name = "lrs"
    with pytest.raises(UserError, match='did you mean "lars"'):
        optim.build(config, lambda step: 0.1, total=2)


# Layers of a vision transformer, of two blocks, from the bottom to the top.
LAYERS = ("patch_embedding", "class_token", "position", "block1", "block2", "norm")


def _layers(encoder=LAYERS):
    return {
        "encoder": {name: {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)} for name in encoder},
        "classifier": {"kernel": jnp.ones((2, 2))},
    }


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_layer_decay_counts_from_the_top_of_the_encoder(name):
    """Two steps, so that momentum is scaled as the gradient is."""
    params, found = _layers(), []
    for decay in (1.0, 0.5):
        config = optim.defaults()
        config.update(name=name, layer_decay=decay)
        tx = optim.build(config, lambda step: 0.5, total=2)
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(params, state, params)
        found.append(updates)
    plain, scaled = found
    ratios = jax.tree.map(lambda a, b: float(jnp.mean(b / a)), plain, scaled)
    factors = {"patch_embedding": 0.125, "class_token": 0.125, "position": 0.125}
    factors |= {"block1": 0.25, "block2": 0.5, "norm": 1.0}
    for layer, factor in factors.items():
        expected = {"kernel": pytest.approx(factor), "bias": pytest.approx(factor)}
        assert ratios["encoder"][layer] == expected, layer
    assert ratios["classifier"] == {"kernel": pytest.approx(1.0)}


def test_layer_decay_of_a_network_without_blocks_is_refused():
    config = optim.defaults()
    config.layer_decay = 0.75
    tx = optim.build(config, lambda step: 0.5, total=2)
    with pytest.raises(UserError, match="for vision transformers, and this encoder has no blocks"):
        tx.init(_layers(("conv1", "bn1", "layer1_0")))
