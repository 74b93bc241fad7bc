"""From Flax modules to models, and networks from the sections of a config."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.errors import UserError
from sslax.models import (
    FLOW_NETWORKS,
    Classifier,
    ResNet,
    build_encoder,
    build_flow_network,
    defaults,
    feature_encoder,
    from_linen,
)


def test_normalizes_the_input_where_statistics_are_given():
    plain = from_linen(ResNet(blocks=(1,), width=0.0625, small_stem=True))
    scaled = from_linen(
        ResNet(blocks=(1,), width=0.0625, small_stem=True), mean=(0.5, 0.25), std=(2.0, 0.5)
    )
    x = np.random.RandomState(0).rand(2, 4, 4, 2).astype(np.float32)
    params, state = jax.jit(scaled.init)(jax.random.key(0), x)
    normal = (x - np.float32([0.5, 0.25])) / np.float32([2.0, 0.5])
    expected, _ = jax.jit(lambda x: plain.apply(params, state, x, False))(normal)
    out, _ = jax.jit(lambda x: scaled.apply(params, state, x, False))(x)
    np.testing.assert_allclose(out.features, expected.features, rtol=1e-6)


def test_mean_without_std_is_refused():
    with pytest.raises(ValueError, match="give both or neither"):
        from_linen(Classifier(2), mean=(0.5,))


def test_model_without_state_has_empty_state_in_and_out():
    model = from_linen(Classifier(2))
    params, state = jax.jit(model.init)(jax.random.key(0), np.ones((1, 3)))
    assert state == {}
    _, state = jax.jit(model.apply, static_argnums=3)(params, state, np.ones((1, 3)), True)
    assert state == {}


def test_unknown_encoder_names_its_neighbor():
    config = defaults()
    config.name = "resnet-18"
    with pytest.raises(ValueError, match='did you mean "resnet18"'):
        build_encoder(config)


def test_unknown_dtype_is_refused():
    config = defaults()
    config.dtype = "float16"
    with pytest.raises(ValueError, match="bfloat16"):
        build_encoder(config)


def test_statistics_are_part_of_the_network_under_its_own_names():
    x = jnp.ones((1, 8, 8, 3))
    module = ResNet(blocks=(1,), width=0.0625, small_stem=True)
    plain, scaled = (
        jax.eval_shape(from_linen(module, mean=mean, std=mean).init, jax.random.key(0), x)
        for mean in ((), (0.5, 0.5, 0.5))
    )
    assert jax.tree.structure(plain) == jax.tree.structure(scaled)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("name, shape", [("pwc", (16, 16, 2)), ("raft", (3, 64, 64, 2))])
def test_flow_networks_are_built_by_name(name, shape, both):
    config = defaults()
    config.update(name=name, width=0.25)
    knobs = {"pwc": {"decoder": (8,), "context": ()}, "raft": {"iterations": 3, "levels": 2}}
    network = build_flow_network(config, knobs[name], both=both)
    x = jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32)
    params, state = jax.eval_shape(network.init, jax.random.key(0), x)
    flow, _ = jax.eval_shape(lambda p, s, x: network.apply(p, s, x, False), params, state, x)
    flow = flow[0] if name == "pwc" else flow
    assert flow.shape == (1, 1 + both, *shape)
    features, feature_state = feature_encoder(config, params, state)
    expected = {"raft": {"feature_encoder"}, "pwc": {n for n in params if "pyramid" in n}}[name]
    assert set(features) == expected and len(expected) == {"pwc": 15, "raft": 1}[name]
    assert feature_state == {collection: {} for collection in state}
    assert set(FLOW_NETWORKS) == {"pwc", "raft"}


@pytest.mark.parametrize(
    "changes, knobs, message",
    [
        ({"name": "pwcnet"}, {}, "config.model.name is 'pwcnet': did you mean \"pwc\"?"),
        ({"name": "raft", "dtype": "float16"}, {}, "config.model.dtype is 'float16'"),
        ({"name": "raft"}, {"iteration": 3}, "no config.uflow.network.iteration: did you mean"),
        ({"name": "pwc"}, {"width": 2.0}, "no config.uflow.network.width: Known: channels"),
    ],
)
def test_flow_networks_that_cannot_be_built_say_why(changes, knobs, message):
    config = defaults()
    config.update(changes)
    with pytest.raises(UserError, match=re.escape(message)):
        build_flow_network(config, knobs, section="config.uflow.network")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "resnet10", "blocks": (1, 1), "width": 0.0625, "small_stem": True},
        {"name": "vit_tiny", "blocks": (2,), "width": 0.125, "patch": 8, "drop_path": 0.5},
    ],
    ids=["resnet", "vit"],
)
def test_remat_recomputes_blocks_and_changes_nothing_else(changes):
    x = np.random.RandomState(0).rand(4, 8, 8, 3).astype(np.float32)
    if "drop_path" in changes:
        x = {"image": x, "key": jax.random.split(jax.random.key(1), 4)}
    results = []
    for remat in (False, True):
        config = defaults()
        config.update(remat=remat, **changes)
        model = build_encoder(config)

        def step(model=model):
            params, state = model.init(jax.random.key(0), x)

            def loss(params):
                encoding, after = model.apply(params, state, x, True)
                return jnp.mean(encoding.features**2), after

            return jax.value_and_grad(loss, has_aux=True)(params)

        assert ("remat" in str(jax.make_jaxpr(step)())) == remat
        results.append(jax.jit(step)())
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)  # noqa: E731
    jax.tree.map(close, *results)


def test_remat_is_for_networks_of_blocks():
    config = defaults()
    config.update(name="dispnet", remat=True)
    with pytest.raises(UserError, match=r"remat is True, but only a ResNet or a ViT has it"):
        build_encoder(config)
