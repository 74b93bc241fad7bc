"""Depth and motion: losses and gradients against PyTorch, exact scenes, and what is easily wrong.

The references are made by experiments/golden/depth_methods.py. Maps and motions are parameters
here, which stand for the networks that would predict them.
"""

import functools
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import augment, models, ops
from sslax.data import scenes
from sslax.errors import UserError
from sslax.methods.depth import geometry
from sslax.methods.depth.monodepth import monodepth
from sslax.methods.depth.monodepth2 import monodepth2
from sslax.methods.depth.sfm_learner import sfm_learner
from sslax.types import Encoding, Model

GOLDEN = {
    name: jnp.asarray(value)
    for name, value in np.load(Path(__file__).parent / "golden" / "depth.npz").items()
}
SCALES = 2
LOGITS = {f"logits{scale}": GOLDEN[f"logits{scale}"] for scale in range(SCALES)}
RANGE = {"min_depth": 0.5, "max_depth": 8.0}
RNG = jax.random.key(0)


def unchanged(rng, batch):
    return batch


def free_maps(*, outputs):
    """Maps that are parameters `[B, h, w, 2]`: of each image the first, or both channels.

    Of twice as many images, as where a target and its partner come together, a channel for each.
    """

    def apply(params, state, images, train):
        maps = [jax.nn.sigmoid(x) for x in params["encoder"].values()]
        if outputs == 2:
            return tuple(maps), state
        if len(images) == 2 * len(maps[0]):
            maps = [jnp.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3], 1) for x in maps]
        return tuple(x[..., :1] for x in maps), state

    return Model(lambda rng, x: ({"encoder": LOGITS}, {"encoder": {}}), apply)


def free_twists(*, explains=False, pairs=True):
    """Twists `[B, 2, 6]` that are parameters, as pairs of frames or as all frames have them."""

    def apply(params, state, x, train):
        if pairs:
            return params["twists"].reshape(-1, 1, 6), state
        logits = tuple(value for name, value in params.items() if name.startswith("explain"))
        twists = 0.2 * params["twists"]
        return ((twists, logits) if explains else twists), state

    return Model(lambda rng, x: (start_of_pose(explains), {}), apply)


def start_of_pose(explains):
    names = ["twists"] + [f"explain{scale}" for scale in range(SCALES)] * explains
    return {name: GOLDEN[name] for name in names}


def md2(**knobs):
    return monodepth2(free_maps(outputs=1), free_twists(), views=unchanged, **{**RANGE, **knobs})


def sfm(weight):
    return sfm_learner(
        free_maps(outputs=1),
        free_twists(explains=weight > 0, pairs=False),
        views=unchanged,
        explainability_weight=weight,
    )


# What a case is, and which of the images (three frames and the partner) it is given.
FRAMES, PAIR, ALL = [0, 1, 2], [1, 3], [0, 1, 2, 3]
CASES = {
    "monodepth": (lambda: monodepth(free_maps(outputs=2), views=unchanged), PAIR),
    "monodepth naive": (lambda: monodepth(free_maps(outputs=2), views=unchanged, naive=True), PAIR),
    "sfm_learner": (lambda: sfm(0.2), FRAMES),
    "monodepth2 S": (lambda: md2(frames=1, stereo=True, consistency_weight=0.5), PAIR),
    "monodepth2 MS": (lambda: md2(stereo=True, velocity_weight=0.7), ALL),
    "monodepth2 mean": (lambda: md2(minimum=False), FRAMES),
    "monodepth2 bare": (
        lambda: md2(minimum=False, automask=False, full_resolution=False, ssim_weight=0.0),
        FRAMES,
    ),
}


def batch_of(places):
    image = GOLDEN["image"][:, jnp.array(places)]
    cameras = {name: GOLDEN[name] for name in ("intrinsics", "baseline", "distance")}
    return {"image": image, "input": image, "index": jnp.array([7, 3]), **cameras}


@functools.cache
def compiled(case):
    """`(params, batch) -> ((loss, metrics), gradient)` and the parameters of a case."""
    make, places = CASES[case]
    method = make()
    variables = method.init(RNG, batch_of(places))

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, batch):
        value, output = method.loss(
            params, variables.model_state, {}, batch, RNG, jnp.zeros((), jnp.int32)
        )
        assert jax.tree.structure(output.model_state) == jax.tree.structure(variables.model_state)
        return value, output.metrics

    return jax.jit(loss), variables.params


@pytest.mark.parametrize("case", CASES)
def test_loss_its_terms_and_its_gradient_are_those_of_the_paper(case):
    loss, params = compiled(case)
    (value, metrics), gradient = loss(params, batch_of(CASES[case][1]))
    metrics = {"loss": value, **metrics}
    terms = [name.removeprefix(f"{case}: ") for name in GOLDEN if name.startswith(f"{case}: ")]
    gradients = {**gradient["encoder"], **gradient.get("pose", {})}
    checked = 0
    for term in terms:
        theirs = GOLDEN[f"{case}: {term}"]
        ours = gradients[term.removeprefix("d ")] if term.startswith("d ") else metrics[term]
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-4 * scale, err_msg=term)
        checked += scale > 1e-5
    assert checked >= 3 + SCALES, "the references say nothing"


# What must hold whatever the images are; compiled above.


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("case", ["monodepth", "sfm_learner", "monodepth2 MS"])
def test_the_mirrored_world_has_the_same_loss(case):
    """Frames, cameras, maps and motions mirrored: the loss stays, and its gradient is mirrored."""
    loss, params = compiled(case)
    batch = batch_of(CASES[case][1])
    stereo = case != "sfm_learner"
    moved = {name: batch[name] for name in ("image", "intrinsics", "baseline")}
    moved = jax.vmap(lambda x: augment.random_flip_frames(RNG, x, probability=1.0, stereo=stereo))(
        moved
    )
    moved = {**batch, **moved, "input": moved["image"]}

    def mirrored(params):
        def flip(name, x):
            if name == "twists":  # a motion to the right is one to the left; pitch stays
                return x * jnp.array([-1.0, 1, 1, 1, -1, -1])
            x = x[:, :, ::-1]
            return x[..., ::-1] if case == "monodepth" else x  # left and right change places

        return {
            part: {name: flip(name, x) for name, x in leaves.items()}
            for part, leaves in params.items()
        }

    (value, _), gradient = loss(params, batch)
    (other, _), other_gradient = loss(mirrored(params), moved)
    np.testing.assert_allclose(other, value, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(mirrored(other_gradient)), jax.tree.leaves(gradient)):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    (wrong, _), _ = loss(params, moved)
    assert abs(wrong - value) > 1e-3 * value


def test_without_motion_ties_are_broken_at_random_and_the_gradient_is_alive():
    loss, params = compiled("monodepth2 MS")
    still = {**params, "pose": {"twists": 0 * params["pose"]["twists"]}}
    batch = {**batch_of(ALL), "baseline": jnp.zeros(2)}
    (_, metrics), gradient = loss(still, batch)
    assert 0.4 < metrics["automask"] < 0.6
    np.testing.assert_allclose(metrics["photometric"], metrics["loss_at_chance"], rtol=1e-5)
    assert metrics["valid"] == 1.0
    assert finite(gradient)
    assert np.abs(gradient["pose"]["twists"][..., :3]).max() > 1e-3

    # Of each example by its index alone.
    def swapped(tree):
        return jax.tree.map(lambda x: x[::-1], tree)

    (_, again), turned = loss(swapped(still), swapped(batch))
    np.testing.assert_allclose(again["automask"], metrics["automask"], rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(swapped(turned)), jax.tree.leaves(gradient)):
        np.testing.assert_allclose(ours, theirs, atol=1e-6 + 1e-4 * np.abs(theirs).max())
    (_, others), _ = loss(still, {**batch, "index": batch["index"] + 1})
    assert others["automask"] != metrics["automask"]


def test_equal_frames_teach_nothing():
    loss, params = compiled("monodepth2 MS")
    batch = batch_of([1, 1, 1, 1])
    (_, metrics), gradient = loss(params, batch)
    assert metrics["loss_at_chance"] < 1e-6
    assert metrics["automask"] < 0.02
    assert metrics["photometric"] < 1e-4
    assert finite(gradient)


@pytest.mark.parametrize("case", ["sfm_learner", "monodepth2 MS", "monodepth2 mean"])
def test_where_no_source_sees_anything_the_photometric_loss_is_zero(case):
    loss, params = compiled(case)
    # All points behind the other cameras; of the earlier frame the inverse is meant.
    away = jnp.array([[0.0, 0, 500, 0, 0, 0], [0.0, 0, -500, 0, 0, 0]])
    away = -jnp.abs(away) if case == "sfm_learner" else away
    twists = jnp.broadcast_to(away, params["pose"]["twists"].shape)
    lost = {**params, "pose": {**params["pose"], "twists": twists}}
    batch = {**batch_of(CASES[case][1]), "baseline": 1e4 * jnp.ones(2)}
    (value, metrics), gradient = loss(lost, batch)
    assert metrics["valid"] == 0.0 and metrics["photometric"] == 0.0
    assert np.isfinite(value) and finite(gradient)
    assert value > 0  # smoothness, and what keeps explainability up
    if case == "monodepth2 mean":
        assert not gradient["pose"]["twists"].any()


# Scenes whose depth and motion are known.

SIZE = (24, 40)


@pytest.fixture(scope="module")
def world():
    """Three frames and the partner, and parameters that are the truth."""
    sample = functools.partial(scenes.video, size=SIZE, baseline=0.25)
    made = scenes.sampler(sample, scenes.textures("train", count=8, side=64), seed=3)(np.arange(4))
    batch = {
        "image": made["image"],
        "input": made["image"],
        "intrinsics": made["intrinsics"],
        "baseline": 0.25 * jnp.ones(4),
        "index": jnp.arange(4),
    }
    return made, batch


def logits_of(depth):
    low, high = 1 / WORLD["max_depth"], 1 / WORLD["min_depth"]
    share = (1 / depth - low) / (high - low)
    return jnp.log(share) - jnp.log1p(-share)


WORLD = {"min_depth": 1.0, "max_depth": 40.0}
NO_STATE = {"encoder": {}, "pose": {}}


def log_of(pose):
    """The twist of a small motion: translation, axis times angle."""
    pose = np.asarray(pose, np.float64)
    turn = (pose[..., :3, :3] - np.swapaxes(pose[..., :3, :3], -1, -2)) / 2
    axis = np.stack([turn[..., 2, 1], turn[..., 0, 2], turn[..., 1, 0]], -1)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    axis = axis * np.arcsin(sine) / np.maximum(sine, 1e-12)
    return jnp.asarray(np.concatenate([pose[..., :3, 3], axis], -1), jnp.float32)


@pytest.fixture(scope="module")
def solved(world):
    """Monodepth2 whose maps and motions are parameters, true ones and a factor on the depth."""
    made, _ = world
    poses = made["pose"]
    twists = jnp.stack([log_of(ops.se3_inverse(poses[:, 0])), log_of(poses[:, 2])], axis=1)
    params = {
        "encoder": {"logits0": logits_of(made["depth"][:, 1])[..., None]},
        "pose": {"twists": twists},
    }
    method = monodepth2(free_maps(outputs=1), free_twists(), views=unchanged, stereo=True, **WORLD)

    @jax.jit
    def loss(factor, params, batch):
        def value(factor):
            logits = logits_of(factor * made["depth"][:, 1])[..., None]
            at = {**params, "encoder": {"logits0": logits}}
            value, output = method.loss(at, NO_STATE, {}, batch, RNG, 0)
            return value, output.metrics

        (loss, metrics), slope = jax.value_and_grad(value, has_aux=True)(factor)
        return loss, metrics, slope

    return method, params, loss


@pytest.fixture(scope="module")
def look(solved):
    """`batch -> (what is predicted, what is shown)` of the true maps and motions."""
    method, params, _ = solved

    @jax.jit
    def both(params, batch):
        shown = method.show(params, NO_STATE, {}, batch, RNG)
        return method.predict(params, NO_STATE, {}, batch), shown

    return lambda batch: both(params, batch)


def test_true_depth_and_motion_explain_the_frames(world, solved):
    _, batch = world
    _, params, loss = solved
    value, metrics, _ = loss(1.0, params, batch)
    assert value < 0.5 * metrics["loss_at_chance"]
    assert metrics["automask"] > 0.8
    for factor in (0.7, 1.5):
        assert loss(factor, params, batch)[0] > 1.3 * value
    assert loss(1.15, params, batch)[2] > 0 > loss(0.87, params, batch)[2]
    # The same truth does not explain frames in another order, nor the partner on the other side.
    turned = {**batch, "image": batch["image"][:, jnp.array([2, 1, 0, 3])]}
    assert loss(1.0, params, turned)[0] > 1.2 * value
    assert loss(1.0, params, {**batch, "baseline": -batch["baseline"]})[0] > 1.05 * value


def test_what_moves_with_the_camera_is_masked(world, look):
    _, batch = world
    box = np.zeros(SIZE, bool)
    box[6:18, 12:28] = True
    patch = np.random.default_rng(0).random((*SIZE, 3)).astype(np.float32)
    image = jnp.where(box[..., None], patch, batch["image"])
    _, shown = look({**batch, "image": image})
    kept = shown["automask"][..., 0] > 0.5
    inside = np.zeros(SIZE, bool)
    inside[8:16, 14:26] = True
    assert kept[:, inside].mean() < 0.05
    outside = np.ones(SIZE, bool)
    outside[4:20, 10:30] = False
    assert kept[:, outside].mean() > 0.7
    for title, column in shown.items():
        assert column.shape == (4, *SIZE, 3 if title in ("image", "disparity", "rebuilt") else 1)
        assert column.min() >= 0 and column.max() <= 1, title
    error = np.abs(shown["rebuilt"] - image[:, 1])[:, outside].mean()
    assert error < 0.5 * np.abs(image[:, 0] - image[:, 1])[:, outside].mean()


def test_predictions_are_depth_and_poses_in_the_order_of_the_frames(world, solved, look):
    made, batch = world
    method, params, _ = solved
    predicted, _ = look(batch)
    np.testing.assert_allclose(predicted["depth"], made["depth"][:, 1], rtol=1e-3)
    np.testing.assert_allclose(predicted["pose"], made["pose"][:, :3], atol=1e-4)
    alone = method.predict(params, NO_STATE, {}, {"image": batch["image"][:, 1:2]})
    assert alone.keys() == {"depth"}
    np.testing.assert_allclose(alone["depth"], predicted["depth"], rtol=1e-5)
    with pytest.raises(UserError, match="one image or 3 frames"):
        method.predict(params, NO_STATE, {}, {"image": batch["image"][:, :2]})


def test_monodepth_finds_the_disparity_and_the_naive_one_that_of_the_other_image(world):
    made, batch = world
    pair = {**batch, "image": batch["image"][:, [1, 3]], "input": batch["image"][:, [1, 3]]}
    focal = made["intrinsics"][:, 0, 0, None, None]
    left, right = (ops.depth_to_disparity(made["depth"][:, i], focal, 0.25) for i in (1, 3))
    share = jnp.stack([left, right], axis=-1) / (0.3 * SIZE[1])

    def loss_of(method):
        @jax.jit
        def loss(factor, share):
            def value(factor):
                logits = -jnp.log(1 / (factor * share) - 1)
                params = {"encoder": {"logits0": logits}}
                return method.loss(params, {"encoder": {}}, {}, pair, RNG, 0)

            (value, output), slope = jax.value_and_grad(value, has_aux=True)(factor)
            return value, slope, output.metrics

        return loss

    method = monodepth(free_maps(outputs=2), views=unchanged)
    loss = loss_of(method)
    value, _, metrics = loss(1.0, share)
    assert value < 0.7 * metrics["loss_at_chance"]
    assert loss(1.3, share)[0] > 1.2 * value and loss(0.7, share)[0] > 1.2 * value
    assert loss(1.1, share)[1] > 0 > loss(0.9, share)[1]
    assert loss(1.0, share[..., ::-1])[0] > 1.1 * value

    naive = loss_of(monodepth(free_maps(outputs=2), views=unchanged, naive=True))
    assert naive(1.0, share[..., ::-1])[0] < 0.9 * naive(1.0, share)[0]

    params = {"encoder": {"logits0": -jnp.log(1 / share - 1)}}
    predicted = method.predict(params, {"encoder": {}}, {}, pair)
    np.testing.assert_allclose(predicted["disparity"], left, rtol=1e-3)
    np.testing.assert_allclose(predicted["depth"], made["depth"][:, 1], rtol=1e-3)
    plain = method.predict(params, {"encoder": {}}, {}, {"image": pair["image"][:, :1]})
    assert plain.keys() == {"disparity"}


def test_networks_are_given_frames_in_order_and_asked_for_what_is_between_them():
    """Frames of one brightness each, and motions that are differences of brightness."""
    brightness = np.array([0.1, 0.2, 0.4, 0.7, 0.9], np.float32)
    image = np.broadcast_to(brightness[None, :, None, None, None], (1, 5, 4, 6, 1))

    def along_x(*motions):
        return jnp.stack([jnp.pad(m[:, None], ((0, 0), (0, 5))) for m in motions], axis=1)

    def model(apply):
        return Model(lambda rng, x: ({}, {}), lambda p, state, x, train: (apply(x), state))

    def of_pairs(x):  # [N, H, W, 2], or the stages of both
        if isinstance(x, dict):
            (stage,) = x["stages"].values()
            x = jnp.moveaxis(stage[..., 0], 1, -1)
        return along_x(x[:, 0, 0, 1] - x[:, 0, 0, 0])

    def of_all(x):  # [N, H, W, 5], the target first
        assert x.shape[-1] == 5
        return along_x(*(x[:, 0, 0, i] - x[:, 0, 0, 0] for i in range(1, 5)))

    maps = model(lambda x: (jnp.full((*x.shape[:3], 1), 0.5),))
    stage = model(lambda x: Encoding(x[:, 0, 0], {"first": x[:, :1], "last": x}))
    methods = [
        monodepth2(maps, model(of_pairs), views=unchanged, frames=5),
        monodepth2(maps, model(of_pairs), views=unchanged, frames=5, encoder=stage),
        sfm_learner(maps, model(of_all), views=unchanged, frames=5, explainability_weight=0.0),
    ]
    state = {"encoder": {}, "pose": {}}
    for method in methods:
        pose = method.predict(state, state, {}, {"image": image})["pose"]
        assert pose.shape == (1, 5, 4, 4)
        np.testing.assert_allclose(pose[0, :, 0, 3], brightness - brightness[2], atol=1e-6)


# Pieces.


def test_the_best_source_of_each_pixel():
    images = jnp.arange(2.0).reshape(1, 2, 1, 1, 1) * jnp.ones((1, 2, 1, 3, 1))
    errors = jnp.array([[[[0.1, 0.3, 0.2]], [[0.2, 0.1, 0.1]]]])
    valid = jnp.array([[[[True, True, False]], [[True, True, False]]]])
    image, error = geometry.best_source(images, errors, valid)
    assert image[0, 0, :, 0].tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(error[0, 0], [0.1, 0.1, 0.0])


def test_near_is_bright_and_its_own_brightest_for_each_image():
    from sslax.figures import maps

    disparity = np.random.default_rng(0).random((2, 8, 10)).astype(np.float32)
    disparity[1] *= 7
    ours = np.asarray(geometry.colors(jnp.asarray(disparity)))
    for mine, one in zip(ours, disparity):
        np.testing.assert_allclose(mine, maps.disparity_colors(one) / 255, atol=2.5 / 255)


@pytest.mark.parametrize(
    ("frames", "stereo", "others", "sources", "target"),
    [(1, True, [], [1], 0), (2, False, [0], [0], 1), (3, True, [0, 2], [0, 2, 3], 1)],
)
def test_what_the_images_of_a_snippet_are(frames, stereo, others, sources, target):
    snippet = geometry.Snippet(frames, stereo)
    assert (snippet.others, snippet.sources, snippet.target) == (others, sources, target)
    poses = jnp.arange(len(others) * 16.0).reshape(1, -1, 4, 4)
    placed = geometry.with_target(poses, snippet)
    np.testing.assert_array_equal(placed[0, target], np.eye(4))
    np.testing.assert_array_equal(placed[:, others], poses)


# Configs and mistakes; nothing is compiled.


@pytest.fixture
def shapes(load_config):
    """`(name, variant, overrides) -> (metrics, predictions)` of a step, as shapes."""
    from sslax.methods.depth import monodepth, monodepth2, sfm_learner

    build = {m.__name__.rpartition(".")[2]: m.build for m in (monodepth, monodepth2, sfm_learner)}

    def trace(name, variant, overrides, missing=(), images=None):
        config = load_config(name, variant)
        if name != "sfm_learner":  # a shallower network is traced sooner
            config.update_from_flattened_dict({"model.blocks": (1, 1), f"{name}.decoder.scales": 2})
        config.update_from_flattened_dict(overrides)
        method = build[name](config, 100)
        images = images or config.data.frames + config.data.stereo
        shape = (2, images, 32, 64, 3)
        batch = {
            "image": jax.ShapeDtypeStruct(shape, jnp.uint8),
            "index": jax.ShapeDtypeStruct((2,), jnp.int32),
            "intrinsics": jax.ShapeDtypeStruct((2, 3, 3), jnp.float32),
            "baseline": jax.ShapeDtypeStruct((2,), jnp.float32),
            "distance": jax.ShapeDtypeStruct((2, images), jnp.float32),
        }
        batch = {name: x for name, x in batch.items() if name not in missing}

        def step(rng, batch):
            views = method.views(rng, batch)
            variables = method.init(rng, views)
            value, output = method.loss(*variables, views, rng, jnp.zeros((), jnp.int32))
            assert value.shape == ()
            same = jax.tree.structure(output.model_state), jax.tree.structure(variables.model_state)
            assert same[0] == same[1]
            method.encoder(*variables)
            method.show(*variables, batch, rng)
            return output.metrics, method.predict(*variables, batch)

        return jax.eval_shape(step, RNG, batch)

    return trace


def test_what_a_shared_encoder_made_for_the_motion_serves_depth():
    """Of a network without batch statistics: the loss and gradient of encoding all once more."""
    counted = []

    class Halvings(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            counted.append(len(x))
            stages = {}
            for i in range(2):
                x = stages[f"stage{i}"] = jnp.tanh(nn.Conv(4, (3, 3), strides=2)(x))
            return Encoding(x.mean((1, 2)), stages)

    encoder = models.from_linen(Halvings())
    decoder = models.from_linen(models.DepthDecoder(widths=(4,), scales=2))
    depth = models.encoder_decoder(encoder, decoder)

    def again(params, state, x, train):
        return depth.apply(params, state, x["like"] if isinstance(x, dict) else x, train)

    batch = batch_of(ALL)
    found = []
    for network in (depth, depth._replace(apply=again)):
        method = monodepth2(
            network,
            models.from_linen(models.PoseDecoder(1, 8)),
            views=unchanged,
            encoder=encoder,
            stereo=True,
            consistency_weight=0.5,
            **RANGE,
        )
        variables = jax.jit(method.init)(RNG, batch)
        counted.clear()
        run = jax.jit(
            jax.value_and_grad(
                lambda p, m=method, v=variables: m.loss(p, v.model_state, {}, batch, RNG, 0)[0]
            )
        )
        found.append((run(variables.params), sum(counted)))
    (once, encoded), (twice, more) = found
    assert (encoded, more) == (4 * 2, 4 * 2 + 2 * 2)
    chex.assert_trees_all_close(once, twice, rtol=1e-4, atol=1e-7)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(once[1]))


@pytest.mark.parametrize(
    ("name", "variant", "overrides", "metrics", "predictions"),
    [
        ("monodepth", "tiny", {"monodepth.naive": True}, {"disparity"}, {"disparity", "depth"}),
        ("monodepth", "tiny", {}, {"consistency"}, {"depth"}),
        ("sfm_learner", "tiny", {}, {"explained"}, {"depth", "pose"}),
        ("sfm_learner", "tiny", {"sfm_learner.explainability_weight": 0.0}, {"valid"}, {"pose"}),
        ("monodepth2", "tiny", {"monodepth2.pose.kind": "shared"}, {"translation"}, {"pose"}),
        ("monodepth2", "tiny", {"monodepth2.pose.name": "posecnn"}, {"automask"}, {"pose"}),
        (
            "monodepth2",
            "tiny",
            {"data.stereo": True, "data.frames": 1, "monodepth2.consistency_weight": 0.1},
            {"consistency"},
            {"depth"},
        ),
        (
            "monodepth2",
            "tiny",
            {"data.frames": 2, "monodepth2.velocity_weight": 0.1},
            {"velocity"},
            {"pose"},
        ),
    ],
)
def test_knobs_of_the_methods(shapes, name, variant, overrides, metrics, predictions):
    made, predicted = shapes(name, variant, overrides)
    assert metrics <= made.keys() and "loss_at_chance" in made
    assert predictions <= predicted.keys()
    assert ("consistency" in made) == ("consistency" in metrics)


@pytest.mark.parametrize(
    ("name", "overrides", "rest", "message"),
    [
        ("monodepth2", {"data.frames": 1}, {}, "no source"),
        ("monodepth2", {"monodepth2.consistency_weight": 1.0}, {}, "data.stereo=True"),
        ("monodepth2", {}, {"missing": ["intrinsics"]}, "no 'intrinsics'"),
        ("monodepth2", {"monodepth2.pose.kind": "common"}, {}, 'is "common"; choose one of'),
        ("monodepth2", {}, {"images": 2}, "takes 3 frame"),
        ("monodepth", {}, {"images": 3}, "and the target's partner"),
        ("sfm_learner", {"augment.recipe": "sfm_lerner"}, {}, 'did you mean "sfm_learner"'),
        (
            "monodepth2",
            {"data.frames": 1, "data.stereo": True, "monodepth2.velocity_weight": 1.0},
            {},
            "data.frames of 2",
        ),
    ],
)
def test_mistakes_are_named(shapes, name, overrides, rest, message):
    with pytest.raises(UserError, match=message):
        shapes(name, "tiny", overrides, **rest)
