"""Depth and ego-motion: losses and gradients against PyTorch, scenes with truth, common mistakes.

experiments/golden/depth_methods.py writes the references. Maps and twists are parameters here, in
place of the networks that would predict them.
"""

from functools import cache, partial
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sslax import augment, models, ops
from sslax.data import scenes
from sslax.errors import UserError
from sslax.methods.depth import common, geometry
from sslax.methods.depth import monodepth as monodepth_file
from sslax.methods.depth import monodepth2 as monodepth2_file
from sslax.methods.depth import sfm_learner as sfm_learner_file
from sslax.methods.depth.common import Snippet
from sslax.methods.depth.monodepth import monodepth
from sslax.methods.depth.monodepth2 import monodepth2
from sslax.methods.depth.sfm_learner import sfm_learner
from sslax.models.compose import Network
from sslax.training import presets
from sslax.types import Depth, Encoding, InverseDepth, Model, Variables

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


def blind_encoder():
    """An encoder of no parameters and no stages, for decoders that read no image."""
    return Model(
        lambda rng, x: ({}, {}),
        lambda params, state, x, train: (Encoding(jnp.mean(x, (1, 2)), {}), state),
    )


def free_decoder(*, outputs):
    """Maps that are parameters `[B, h, w, 2]`: the first channel, or both.

    Of twice as many images, a target and its partner each, every image gets one channel.
    """

    def apply(params, state, x, train):
        maps = [jax.nn.sigmoid(x) for x in params.values()]
        if outputs == 2:
            return tuple(maps), state
        if len(x["like"]) == 2 * len(maps[0]):
            maps = [jnp.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3], 1) for x in maps]
        return tuple(x[..., :1] for x in maps), state

    return Model(lambda rng, x: (LOGITS, {}), apply)


def with_euler_angles(twists):
    """The motions that SfMLearner describes by Euler angles, from axis-angle ones."""
    rotation = ops.so3_exp(twists[..., 3:])
    y = jnp.arcsin(rotation[..., 0, 2])
    x = jnp.arctan2(-rotation[..., 1, 2], rotation[..., 2, 2])
    z = jnp.arctan2(-rotation[..., 0, 1], rotation[..., 0, 0])
    return jnp.concatenate([twists[..., :3], jnp.stack([x, y, z], axis=-1)], axis=-1)


def free_twists(*, explains=False, pairs=True):
    """Twists `[B, 2, 6]` that are parameters, for pairs of frames or for all frames at once."""

    def apply(params, state, x, train):
        if pairs:
            return params["twists"].reshape(-1, 1, 6), state
        logits = tuple(value for name, value in params.items() if name.startswith("explain"))
        twists = with_euler_angles(0.2 * params["twists"])
        return ((twists, logits) if explains else twists), state

    return Model(lambda rng, x: (pose_params(explains), {}), apply)


def pose_params(explains):
    names = ["twists"] + [f"explain{scale}" for scale in range(SCALES)] * explains
    return {name: GOLDEN[name] for name in names}


def md(**knobs):
    return monodepth(blind_encoder(), free_decoder(outputs=2), augmentation=unchanged, **knobs)


def md2(**knobs):
    networks = blind_encoder(), free_decoder(outputs=1), free_twists()
    return monodepth2(*networks, augmentation=unchanged, **{**RANGE, **knobs})


def sfm(weight):
    return sfm_learner(
        blind_encoder(),
        free_decoder(outputs=1),
        free_twists(explains=weight > 0, pairs=False),
        augmentation=unchanged,
        smoothness_weight=0.5,
        explainability_weight=weight,
    )


# A method, and the indices of the images (three frames and the partner) it gets.
FRAMES, PAIR, ALL = [0, 1, 2], [1, 3], [0, 1, 2, 3]
CASES = {
    "monodepth": (md, PAIR),
    "monodepth naive": (lambda: md(naive=True), PAIR),
    "sfm_learner": (lambda: sfm(0.2), FRAMES),
    "monodepth2 S": (lambda: md2(frames=1, stereo=True, consistency_weight=0.5), PAIR),
    "monodepth2 MS": (lambda: md2(stereo=True, velocity_weight=0.7), ALL),
    "monodepth2 mean": (lambda: md2(minimum=False), FRAMES),
    "monodepth2 bare": (
        lambda: md2(minimum=False, automask=False, full_resolution=False, ssim_weight=0.0),
        FRAMES,
    ),
}


def batch_of(indices):
    images = GOLDEN["image"][:, np.array(indices)]
    cameras = {name: GOLDEN[name] for name in ("intrinsics", "baseline", "distance")}
    return {"frames": images, "input": images, "index": np.int32([7, 3]), **cameras}


@cache
def compiled(case):
    """`(params, batch) -> ((loss, metrics), gradient)` and the parameters of a case."""
    make, indices = CASES[case]
    method = make()
    variables = method.init(RNG, batch_of(indices))

    @partial(jax.value_and_grad, has_aux=True)
    def loss(params, batch):
        at = variables._replace(params=params)
        value, output = method.loss(at, batch, RNG, jnp.zeros((), jnp.int32))
        assert jax.tree.structure(output.model_state) == jax.tree.structure(variables.model_state)
        return value, output.metrics

    return jax.jit(loss), variables.params


@pytest.mark.parametrize("case", CASES)
def test_loss_terms_and_gradient_are_those_of_the_paper(case):
    loss, params = compiled(case)
    (value, metrics), gradient = loss(params, batch_of(CASES[case][1]))
    metrics = {"loss": value, **metrics}
    terms = [name.removeprefix(f"{case}: ") for name in GOLDEN if name.startswith(f"{case}: ")]
    gradients = {**gradient["decoder"], **gradient.get("pose", {})}
    checked = 0
    for term in terms:
        theirs = GOLDEN[f"{case}: {term}"]
        ours = gradients[term.removeprefix("d ")] if term.startswith("d ") else metrics[term]
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-4 * scale, err_msg=term)
        checked += scale > 1e-5
    assert checked >= 3 + SCALES, "the references say nothing"


# What holds for any images; compiled above.


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("case", ["monodepth", "sfm_learner", "monodepth2 MS"])
def test_the_mirrored_world_has_the_same_loss(case):
    """Frames, cameras, maps and twists mirrored: the loss stays, and its gradient is mirrored."""
    loss, params = compiled(case)
    batch = batch_of(CASES[case][1])
    stereo = case != "sfm_learner"
    moved = {name: batch[name] for name in ("frames", "intrinsics", "baseline")}
    flip = partial(augment.random_flip_frames, RNG, probability=1.0, stereo=stereo)
    moved = jax.jit(jax.vmap(flip))(moved)
    moved = {**batch, **moved, "input": moved["frames"]}

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


def test_a_static_camera_breaks_ties_at_random_and_has_a_gradient():
    loss, params = compiled("monodepth2 MS")
    static = {**params, "pose": {"twists": 0 * params["pose"]["twists"]}}
    batch = {**batch_of(ALL), "baseline": jnp.zeros(2)}
    (_, metrics), gradient = loss(static, batch)
    assert 0.4 < metrics["automask"] < 0.6
    np.testing.assert_allclose(metrics["photometric"], metrics["loss_at_chance"], rtol=1e-5)
    assert metrics["valid"] == 1.0
    assert finite(gradient)
    assert np.abs(gradient["pose"]["twists"][..., :3]).max() > 1e-3

    # The noise of an example depends on its index alone.
    def swapped(tree):
        return jax.tree.map(lambda x: x[::-1], tree)

    (_, again), turned = loss(swapped(static), swapped(batch))
    np.testing.assert_allclose(again["automask"], metrics["automask"], rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(swapped(turned)), jax.tree.leaves(gradient)):
        np.testing.assert_allclose(ours, theirs, atol=1e-6 + 1e-4 * np.abs(theirs).max())
    (_, others), _ = loss(static, {**batch, "index": batch["index"] + 1})
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
    # All points behind the other cameras; the earlier frame's twist is inverted.
    away = jnp.array([[0.0, 0, 500, 0, 0, 0], [0.0, 0, -500, 0, 0, 0]])
    away = -jnp.abs(away) if case == "sfm_learner" else away
    twists = jnp.broadcast_to(away, params["pose"]["twists"].shape)
    lost = {**params, "pose": {**params["pose"], "twists": twists}}
    batch = {**batch_of(CASES[case][1]), "baseline": 1e4 * jnp.ones(2)}
    (value, metrics), gradient = loss(lost, batch)
    assert metrics["valid"] == 0.0 and metrics["photometric"] == 0.0
    assert np.isfinite(value) and finite(gradient)
    assert value > 0  # smoothness, and the regularization of explainability
    if case == "monodepth2 mean":
        assert not gradient["pose"]["twists"].any()


# Scenes of known depth and motion.

SIZE = (24, 40)


@pytest.fixture(scope="module")
def world():
    """Three frames and the partner of four scenes, with their truth, and a batch of them."""
    sample = partial(scenes.video, size=SIZE, baseline=0.25)
    truth = scenes.sampler(sample, scenes.textures("train", count=8, side=64), seed=3)(np.arange(4))
    batch = {
        "image": truth["image"],
        "frames": truth["image"],
        "input": truth["image"],
        "intrinsics": truth["intrinsics"],
        "baseline": 0.25 * jnp.ones(4),
        "index": jnp.arange(4),
    }
    return truth, batch


def logits_of(depth):
    low, high = 1 / WORLD["max_depth"], 1 / WORLD["min_depth"]
    share = (1 / depth - low) / (high - low)
    return jnp.log(share) - jnp.log1p(-share)


WORLD = {"min_depth": 1.0, "max_depth": 40.0}


def stateless(params):
    """Variables of networks without a state; the encoder has no parameters either."""
    params = {"encoder": {}, **params}
    return Variables(params, {name: {} for name in params}, {})


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
    """Monodepth2 with the true maps and twists as parameters, and its loss of scaled depths."""
    truth, _ = world
    poses = truth["pose"]
    twists = jnp.stack([log_of(ops.se3_inverse(poses[:, 0])), log_of(poses[:, 2])], axis=1)
    method = md2(stereo=True, **WORLD)

    def variables(factor):
        logits = logits_of(factor * truth["depth"][:, 1])[..., None]
        return stateless({"decoder": {"logits0": logits}, "pose": {"twists": twists}})

    @jax.jit
    def loss(factor, batch):
        def value(factor):
            value, output = method.loss(variables(factor), batch, RNG, 0)
            return value, output.metrics

        (loss, metrics), slope = jax.value_and_grad(value, has_aux=True)(factor)
        return loss, metrics, slope

    return method, variables(1.0), loss


@pytest.fixture(scope="module")
def look(solved):
    """`batch -> (prediction, pictures)` of the true maps and twists."""
    method, variables, _ = solved

    @jax.jit
    def both(variables, batch):
        return method.predict(variables, batch), method.visualize(variables, batch, RNG)

    return lambda batch: both(variables, batch)


def test_true_depth_and_motion_explain_the_frames(world, solved):
    _, batch = world
    _, _, loss = solved
    value, metrics, _ = loss(1.0, batch)
    assert value < 0.5 * metrics["loss_at_chance"]
    assert metrics["automask"] > 0.8
    for factor in (0.7, 1.5):
        assert loss(factor, batch)[0] > 1.3 * value
    assert loss(1.15, batch)[2] > 0 > loss(0.87, batch)[2]
    # The same truth explains neither frames in another order nor a partner on the other side.
    turned = {**batch, "frames": batch["frames"][:, jnp.array([2, 1, 0, 3])]}
    assert loss(1.0, turned)[0] > 1.2 * value
    assert loss(1.0, {**batch, "baseline": -batch["baseline"]})[0] > 1.05 * value


def test_what_moves_with_the_camera_is_masked(world, look):
    _, batch = world
    box = np.zeros(SIZE, bool)
    box[6:18, 12:28] = True
    patch = np.random.default_rng(0).random((*SIZE, 3)).astype(np.float32)
    image = jnp.where(box[..., None], patch, batch["image"])
    _, pictures = look({**batch, "image": image})
    kept = pictures["automask"][..., 0] > 0.5
    inside = np.zeros(SIZE, bool)
    inside[8:16, 14:26] = True
    assert kept[:, inside].mean() < 0.05
    outside = np.ones(SIZE, bool)
    outside[4:20, 10:30] = False
    assert kept[:, outside].mean() > 0.7
    near = pictures.pop("inverse depth")
    assert isinstance(near, InverseDepth) and near.values.shape == (4, *SIZE)
    for title, column in pictures.items():
        assert column.shape == (4, *SIZE, 3 if title in ("image", "reconstruction") else 1)
        assert column.min() >= 0 and column.max() <= 1, title
    error = np.abs(pictures["reconstruction"] - image[:, 1])[:, outside].mean()
    assert error < 0.5 * np.abs(image[:, 0] - image[:, 1])[:, outside].mean()


def test_predictions_are_depth_and_poses_in_the_order_of_the_frames(world, solved, look):
    truth, batch = world
    method, variables, _ = solved
    predicted, _ = look(batch)
    np.testing.assert_allclose(predicted.depth, truth["depth"][:, 1], rtol=1e-3)
    np.testing.assert_allclose(predicted.pose, truth["pose"][:, :3], atol=1e-4)
    alone = method.predict(variables, {"image": batch["image"][:, 1:2]})
    assert alone.pose is None and alone.disparity is None
    np.testing.assert_allclose(alone.depth, predicted.depth, rtol=1e-5)
    with pytest.raises(UserError, match="one image or 3 frames"):
        method.predict(variables, {"image": batch["image"][:, :2]})


def test_monodepth_finds_the_disparity_and_the_naive_one_that_of_the_other_image(world):
    truth, batch = world
    images = batch["image"][:, [1, 3]]
    pair = {**batch, "image": images, "frames": images, "input": images}
    focal = truth["intrinsics"][:, 0, 0, None, None]
    left, right = (ops.depth_to_disparity(truth["depth"][:, i], focal, 0.25) for i in (1, 3))
    fractions = jnp.stack([left, right], axis=-1) / (0.3 * SIZE[1])

    def variables(fractions):
        return stateless({"decoder": {"logits0": -jnp.log(1 / fractions - 1)}})

    def loss_of(method):
        @jax.jit
        def loss(factor, fractions):
            def value(factor):
                return method.loss(variables(factor * fractions), pair, RNG, 0)

            (value, output), slope = jax.value_and_grad(value, has_aux=True)(factor)
            return value, slope, output.metrics

        return loss

    method = md()
    loss = loss_of(method)
    value, _, metrics = loss(1.0, fractions)
    assert value < 0.7 * metrics["loss_at_chance"]
    assert loss(1.3, fractions)[0] > 1.2 * value and loss(0.7, fractions)[0] > 1.2 * value
    assert loss(1.1, fractions)[1] > 0 > loss(0.9, fractions)[1]
    assert loss(1.0, fractions[..., ::-1])[0] > 1.1 * value

    naive = loss_of(md(naive=True))
    assert naive(1.0, fractions[..., ::-1])[0] < 0.9 * naive(1.0, fractions)[0]

    predicted = method.predict(variables(fractions), pair)
    np.testing.assert_allclose(predicted.disparity, left, rtol=1e-3)
    np.testing.assert_allclose(predicted.depth, truth["depth"][:, 1], rtol=1e-3)
    plain = method.predict(variables(fractions), {"image": images[:, :1]})
    assert plain.depth is None and plain.disparity is not None


def test_pose_networks_get_frames_in_order_and_poses_come_back_in_theirs():
    """Frames of one brightness each, and twists that are differences of brightness."""
    brightness = np.array([0.1, 0.2, 0.4, 0.7, 0.9], np.float32)
    image = np.broadcast_to(brightness[None, :, None, None, None], (1, 5, 4, 6, 1))

    def along_x(*motions):
        return jnp.stack([jnp.pad(m[:, None], ((0, 0), (0, 5))) for m in motions], axis=1)

    def model(apply):
        return Model(lambda rng, x: ({}, {}), lambda p, state, x, train: (apply(x), state))

    def of_pairs(x):  # [N, H, W, 2], or a stage of both frames [N, 2, h, w, 1]
        if isinstance(x, dict):
            (stage,) = x["stages"].values()
            x = jnp.moveaxis(stage[..., 0], 1, -1)
        return along_x(x[:, 0, 0, 1] - x[:, 0, 0, 0])

    def of_all(x):  # [N, H, W, 5], the target first
        assert x.shape[-1] == 5
        return along_x(*(x[:, 0, 0, i] - x[:, 0, 0, 0] for i in range(1, 5)))

    encoder = model(lambda x: Encoding(x[:, 0, 0], {"first": x[:, :1], "last": x}))
    decoder = model(lambda x: (jnp.full((*x["like"].shape[:3], 1), 0.5),))
    knobs = {"augmentation": unchanged, "frames": 5}
    methods = [
        monodepth2(encoder, decoder, model(of_pairs), **knobs),
        monodepth2(encoder, decoder, model(of_pairs), share_encoder=True, **knobs),
        sfm_learner(encoder, decoder, model(of_all), explainability_weight=0.0, **knobs),
    ]
    variables = stateless({"decoder": {}, "pose": {}})
    for method in methods:
        pose = jax.jit(method.predict)(variables, {"image": image}).pose
        assert pose.shape == (1, 5, 4, 4)
        np.testing.assert_allclose(pose[0, :, 0, 3], brightness - brightness[2], atol=1e-6)


# Functions.


def test_the_best_source_of_each_pixel():
    images = np.arange(2.0).reshape(1, 2, 1, 1, 1) * np.ones((1, 2, 1, 3, 1))
    errors = np.array([[[[0.1, 0.3, 0.2]], [[0.2, 0.1, 0.1]]]])
    valid = np.array([[[[True, True, False]], [[True, True, False]]]])
    image, error = jax.jit(geometry.best_source)(images, errors, valid)
    assert image[0, 0, :, 0].tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(error[0, 0], [0.1, 0.1, 0.0])


@pytest.mark.parametrize(
    ("frames", "stereo", "source_frames", "sources", "target"),
    [(1, True, [], [1], 0), (2, False, [0], [0], 1), (3, True, [0, 2], [0, 2, 3], 1)],
)
def test_indices_of_a_snippet(frames, stereo, source_frames, sources, target):
    snippet = Snippet(frames, stereo)
    assert snippet.source_frames == source_frames
    assert (snippet.sources, snippet.target_index) == (sources, target)
    poses = np.arange(len(source_frames) * 16.0, dtype=np.float32).reshape(1, -1, 4, 4)
    inserted = jax.jit(partial(geometry.insert_identity, index=target))(poses)
    np.testing.assert_array_equal(inserted[0, target], np.eye(4))
    np.testing.assert_array_equal(inserted[:, source_frames], poses)


def test_motions_have_the_conventions_of_their_authors():
    """The translation is the pose's; Monodepth2's angles are axis-angle, SfMLearner's Euler."""
    motion = np.array([1.0, -2.0, 3.0, 0.3, -0.4, 0.5])
    axis_angle = Rotation.from_rotvec(motion[3:]).as_matrix()
    euler = Rotation.from_euler("XYZ", motion[3:]).as_matrix()
    assert np.abs(axis_angle - euler).max() > 0.05
    for to_pose, rotation in (
        (geometry.pose_from_twist, axis_angle),
        (geometry.pose_from_euler, euler),
    ):
        pose = jax.jit(to_pose)(motion)
        np.testing.assert_allclose(pose[:3, :3], rotation, atol=1e-6)
        np.testing.assert_allclose(pose[:3, 3], motion[:3], atol=1e-6)


def test_pairs_of_frames_are_in_order_of_time():
    images = jnp.arange(2)[:, None] * 10 + jnp.arange(4)  # the partner last
    pairs = monodepth2_file.frame_pairs(images, Snippet(3, stereo=True))
    assert pairs.tolist() == [[[0, 1], [1, 2]], [[10, 11], [11, 12]]]


def test_poses_to_earlier_frames_are_inverted():
    twists = 0.1 * jax.random.normal(RNG, (2, 4, 6))

    @jax.jit
    def both(twists):
        in_pairs = monodepth2_file.frame_poses(twists.reshape(8, 1, 6), Snippet(5))
        return in_pairs, geometry.pose_from_twist(twists)

    poses, forward = both(twists)
    np.testing.assert_allclose(poses[:, 2:], forward[:, 2:], atol=1e-6)
    identity = jnp.broadcast_to(jnp.eye(4), (2, 2, 4, 4))
    np.testing.assert_allclose(poses[:, :2] @ forward[:, :2], identity, atol=1e-6)


def test_the_partner_is_the_last_source():
    run = jax.jit(partial(monodepth2_file.source_poses, snippet=Snippet(2, stereo=True)))
    poses = run(common.Motion(np.zeros((2, 1, 6))), {"baseline": np.array([0.5, -0.25])})
    np.testing.assert_array_equal(poses[:, 0], np.broadcast_to(np.eye(4), (2, 4, 4)))
    np.testing.assert_array_equal(poses[:, 1, :3, 3], [[-0.5, 0, 0], [0.25, 0, 0]])


def test_noise_on_ties_is_each_examples_own():
    noise = monodepth2_file.tie_noise(augment.example_keys(RNG, jnp.array([4, 9])), (3, 50, 50))
    alone = monodepth2_file.tie_noise(augment.example_keys(RNG, jnp.array([9])), (3, 50, 50))
    np.testing.assert_array_equal(noise[1], alone[0])
    assert (noise[0] != noise[1]).mean() > 0.99
    np.testing.assert_allclose(noise.std((1, 2, 3)), monodepth2_file.TIE_NOISE, rtol=0.1)


def knobs_of(**changes):
    names = [name for name in monodepth2_file.Knobs._fields if name != "snippet"]
    defaults = presets.defaults_of(monodepth2, *names)
    return monodepth2_file.Knobs(**{"snippet": Snippet(3, stereo=True), **defaults, **changes})


@pytest.mark.parametrize("full", [True, False])
def test_maps_are_compared_at_full_resolution_or_at_their_own(full):
    batch = batch_of(ALL)
    maps = tuple(1 / (1 + np.exp(-x[..., 0])) for x in LOGITS.values())
    run = jax.jit(partial(monodepth2_file.comparison_levels, knobs=knobs_of(full_resolution=full)))
    levels = run(maps, batch["frames"], batch["intrinsics"])
    sizes = [(level.target.shape[1:3], level.sources.shape[1], m.shape) for level, m in levels]
    if full:
        assert sizes == [((12, 16), 3, (2, 2, 12, 16))]
        np.testing.assert_array_equal(levels[0][1][:, 0], maps[0])
    else:
        assert sizes == [((12, 16), 3, (2, 1, 12, 16)), ((6, 8), 3, (2, 1, 6, 8))]
        np.testing.assert_array_equal(levels[1][1][:, 0], maps[1])
        camera, half = batch["intrinsics"], levels[1][0].intrinsics
        np.testing.assert_allclose(half[:, :2, :2], camera[:, :2, :2] / 2, rtol=1e-6)
        np.testing.assert_allclose(half[:, :2, 2], (camera[:, :2, 2] + 0.5) / 2 - 0.5, atol=1e-5)
        pooled = batch["frames"][:, 1].reshape(2, 6, 2, 8, 2, 3).mean((2, 4))
        np.testing.assert_allclose(levels[1][0].target, pooled, atol=1e-6)


@pytest.mark.parametrize("naive", [True, False])
def test_stereo_views_are_reconstructed_from_each_other(naive):
    ramp = np.broadcast_to(np.arange(8.0), (1, 2, 8))
    pair = np.stack([ramp, ramp + 2], axis=1)[..., None]  # the right image is 2 pixels ahead
    maps = np.full((1, 2, 8, 1 if naive else 2), 0.25)
    views = jax.jit(partial(monodepth_file.stereo_views, knobs=knobs_of_pair(naive=naive)))(
        maps, pair
    )
    np.testing.assert_array_equal(views.disparity, np.full((1, 2 - naive, 2, 8), 2.0))
    images, valid = jax.jit(monodepth_file.reconstruct)(views)
    np.testing.assert_array_equal(images[..., 0][valid], views.image[..., 0][valid])
    expected = [[0] * 2 + [1] * 6, [1] * 6 + [0] * 2][naive:]
    assert valid[0, :, 0].astype(int).tolist() == expected


def knobs_of_pair(**changes):
    defaults = presets.defaults_of(monodepth, *monodepth_file.Knobs._fields)
    return monodepth_file.Knobs(**{**defaults, "max_disparity": 1.0, **changes})


def test_the_target_is_the_first_of_stacked_frames():
    frames = jnp.arange(3.0).reshape(1, 3, 1, 1, 1)
    stacked = sfm_learner_file.stack_frames(frames, Snippet(3))
    assert stacked[0, 0, 0].tolist() == [1.0, 0.0, 2.0]


def test_explainability_weights_the_error_of_each_source():
    """Logits far from zero leave out one source or the other."""
    batch, maps = batch_of(FRAMES), jax.nn.sigmoid(LOGITS["logits0"][..., :1])
    poses = geometry.pose_from_euler(0.2 * GOLDEN["twists"])
    arrays = maps, batch["frames"], batch["intrinsics"], poses

    @jax.jit
    def photometric(*arrays):
        match = sfm_learner_file.reproject_frames(*arrays, Snippet(3))
        one = jnp.broadcast_to(jnp.array([50.0, -50.0]), (*maps.shape[:3], 2))
        terms = [sfm_learner_file.scale_terms(maps, match, x) for x in (None, one, -one)]
        return [term["photometric"] for term in terms]

    whole, first, second = photometric(*arrays)
    assert min(first, second) > 0.1 * whole
    np.testing.assert_allclose(first + second, whole, rtol=1e-5)


def test_each_coarser_scale_counts_half():
    assert common.sum_halving(jnp.array([1.0, 2.0, 4.0])) == 3.0


# Configs and mistakes; nothing is compiled but the shared encoder.


@pytest.fixture
def shapes(load_config):
    """`(name, variant, overrides) -> (metrics, predictions)` of a step, as shapes."""
    files = (monodepth_file, monodepth2_file, sfm_learner_file)
    build = {file.__name__.rpartition(".")[2]: file.build for file in files}

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
            augmented = method.augment(rng, batch)
            variables = method.init(rng, augmented)
            value, output = method.loss(variables, augmented, rng, jnp.zeros((), jnp.int32))
            assert value.shape == ()
            same = jax.tree.structure(output.model_state), jax.tree.structure(variables.model_state)
            assert same[0] == same[1]
            method.encoder(variables)
            method.visualize(variables, batch, rng)
            return output.metrics, method.predict(variables, batch)

        metrics, predicted = jax.eval_shape(step, RNG, batch)
        return metrics, {k: v for k, v in predicted._asdict().items() if v is not None}

    return trace


def test_a_shared_encoder_sees_every_image_once():
    """Loss and gradient are those of encoding the frames again for their motion."""
    encoded = []

    class Halvings(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            encoded.append(len(x))
            stages = {}
            for i in range(2):
                x = stages[f"stage{i}"] = jnp.tanh(nn.Conv(4, (3, 3), strides=2)(x))
            return Encoding(x.mean((1, 2)), stages)

    encoder = models.from_linen(Halvings())
    decoder = models.from_linen(models.DepthDecoder(widths=(4,), scales=2))
    pose = models.from_linen(models.PoseDecoder(1, 8))

    def encode_both(net, pair):  # [N, H, W, 2·C]
        stages = [net.encoder(x).stages["stage1"] for x in jnp.split(pair, 2, axis=-1)]
        return net.decoder({"stages": {"stage1": jnp.stack(stages, axis=1)}})

    again = Network({"encoder": encoder, "decoder": pose}).as_model(encode_both)
    knobs = {"stereo": True, "consistency_weight": 0.5, "augmentation": unchanged, **RANGE}
    shared = monodepth2(encoder, decoder, pose, share_encoder=True, **knobs)
    separate = monodepth2(encoder, decoder, again, **knobs)
    batch = batch_of(ALL)

    def run(method, variables):
        def loss(params):
            return method.loss(variables._replace(params=params), batch, RNG, 0)[0]

        encoded.clear()
        value, gradient = jax.jit(jax.value_and_grad(loss))(variables.params)
        return value, gradient, sum(encoded)

    variables = jax.jit(shared.init)(RNG, batch)
    params = variables.params
    twice = {**params, "pose": {"encoder": params["encoder"], "decoder": params["pose"]}}
    states = {**variables.model_state, "pose": {"encoder": {}, "decoder": {}}}
    value, gradient, images = run(shared, variables)
    value_again, gradient_again, images_again = run(separate, Variables(twice, states, {}))
    # Two examples of four images; again, the target and its partner, and two pairs of frames.
    assert (images, images_again) == (2 * 4, 2 * 2 + 2 * 2 * 2)
    np.testing.assert_allclose(value, value_again, rtol=1e-5)
    of_pose = gradient_again.pop("pose")
    gradient_again["encoder"] = jax.tree.map(jnp.add, gradient_again["encoder"], of_pose["encoder"])
    gradient_again["pose"] = of_pose["decoder"]
    chex.assert_trees_all_close(gradient, gradient_again, rtol=1e-4, atol=1e-7)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("method", "task"),
    [
        (lambda: md(), Depth(frames=1, metric=True)),
        (lambda: sfm(0.2), Depth(frames=3, metric=False)),
        (lambda: md2(), Depth(frames=3, metric=False)),
        (lambda: md2(stereo=True), Depth(frames=3, metric=True)),
        (lambda: md2(frames=1, stereo=True), Depth(frames=1, metric=True)),
        (lambda: md2(frames=2, velocity_weight=0.1), Depth(frames=2, metric=True)),
    ],
)
def test_depth_is_metric_where_training_knows_a_length(method, task):
    assert method().task == task


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
    logged, predicted = shapes(name, variant, overrides)
    assert metrics <= logged.keys() and "loss_at_chance" in logged
    assert predictions <= predicted.keys()
    assert ("consistency" in logged) == ("consistency" in metrics)


@pytest.mark.parametrize(
    ("name", "overrides", "rest", "message"),
    [
        ("monodepth2", {"data.frames": 1}, {}, "no source"),
        ("monodepth2", {"monodepth2.consistency_weight": 1.0}, {}, "data.stereo=True"),
        ("monodepth2", {}, {"missing": ["intrinsics"]}, "needs 'intrinsics'"),
        ("monodepth2", {"monodepth2.pose.kind": "common"}, {}, "pose.kind is 'common'"),
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
