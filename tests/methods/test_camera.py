"""Learned cameras: formulas, what determines a focal length, augmentation, devices, mistakes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from sslax import augment, data, losses, models, ops
from sslax.errors import UserError
from sslax.methods.depth import camera as cameras
from sslax.methods.depth.monodepth2 import monodepth2
from sslax.methods.depth.sfm_learner import sfm_learner
from sslax.models.compose import Network
from sslax.training import sharding
from sslax.training.plan import make_plan
from sslax.training.step import train_step
from sslax.types import Encoding, Model

RNG = jax.random.key(0)
SIZE = (24, 40)
TRUE = np.array([[22.0, 0, 18.5], [0, 26.0, 12.0], [0, 0, 1]])


# The two parametrizations, against NumPy.


def softplus(x):
    return np.log1p(np.exp(x))


def test_gordons_head_reads_the_mean_of_the_features():
    """f = softplus(a) (W, H) and c = (b + 1/2) (W, H), minus 1/2 for centers at integers."""
    rng = np.random.default_rng(0)
    stage = rng.normal(size=(6, 2, 3, 5)).astype(np.float32)
    model = models.from_linen(models.PoseDecoder(1, 4, camera=True))
    params, state = jax.jit(model.init)(RNG, {"stages": {"a": stage}})
    assert params["focal"].keys() == {"kernel", "bias"} and params["center"].keys() == {"kernel"}
    draw = {n: rng.normal(size=np.shape(params["focal"][n])) for n in ("kernel", "bias")}
    params = {**params, "focal": draw, "center": {"kernel": rng.normal(size=(1, 1, 4, 2))}}

    def run(params):
        output, _ = model.apply(params, state, {"stages": {"a": stage}}, False)
        images = jnp.zeros((2, 4, *SIZE, 3))  # three pairs each
        return output, cameras.separate(output, None, images, "per_image")

    (twists, unit), (same, found) = jax.jit(run)(params)
    np.testing.assert_array_equal(twists, same)
    assert found.shape == (2, 3, 3)
    # The features that both heads read, from the motion's convolutions alone.
    features = stage
    for name in ("squeeze", "conv1", "conv2"):
        layer = params[name]
        features = jax.lax.conv_general_dilated(
            features, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        features = np.maximum(features + layer["bias"], 0)
    mean = np.float64(features).mean((1, 2))
    focal = softplus(mean @ draw["kernel"][0, 0] + draw["bias"]) * SIZE[::-1]
    center = (mean @ params["center"]["kernel"][0, 0] + 0.5) * SIZE[::-1] - 0.5
    focal, center = (x.reshape(2, 3, 2).mean(1) for x in (focal, center))
    np.testing.assert_allclose(found[:, [0, 1], [0, 1]], focal, rtol=1e-4)
    np.testing.assert_allclose(found[:, :2, 2], center, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(unit[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], [[0, 0, 0, 0, 1]] * 6)


@pytest.mark.parametrize("name", ["posecnn", "correlation", "resnet10"])
def test_every_pose_network_has_the_head_and_is_otherwise_the_same(name):
    config = models.defaults()
    config.width, config.blocks = 0.125, () if name == "resnet10" else config.blocks
    x = jax.ShapeDtypeStruct((2, 32, 48, 9), jnp.float32)
    masks = {"explainability": True} if name != "resnet10" else {}
    found = []
    for camera in (False, True):
        model = models.build_pose_network(
            config, name=name, frames=3, decoder_width=8, camera=camera, **masks
        )
        params, state = jax.eval_shape(model.init, RNG, x)
        output, _ = jax.eval_shape(partial(model.apply, train=True), params, state, x)
        found.append((params, output))
    (params, output), (with_head, (same, intrinsics)) = found
    assert intrinsics.shape == (2, 3, 3) and intrinsics.dtype == jnp.float32
    assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, output)
    place = with_head["decoder"] if name == "resnet10" else with_head
    del place["focal"], place["center"]
    assert jax.tree.map(jnp.shape, with_head) == jax.tree.map(jnp.shape, params)


def test_the_shared_vector_is_vidars():
    network = Network(cameras.parts("shared"))
    theta = np.array([0.3, -0.2, 0.1, 0.5])
    images = jnp.zeros((2, 3, *SIZE, 3))

    def forward(net, images):
        return net.camera(images)

    variables = network.init(forward, RNG, images)
    start, _ = network.apply(forward, variables, images)
    np.testing.assert_allclose(start[1], [[32, 0, 19.5], [0, 32, 11.5], [0, 0, 1]], rtol=1e-6)
    params = {"camera": {"vector": jnp.float32(theta / 50)}}
    found, _ = network.apply(forward, variables._replace(params=params), images)
    share, (h, w) = 1 / (1 + np.exp(-theta)), SIZE
    fx, fy, cx, cy = share * [h + w, h + w, w, h]
    expected = [[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]]
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-5)
    # With a wide lens there is one number more, and the rest is the same.
    wide = Network(cameras.parts("unified"))
    params = {"camera": {"vector": jnp.float32(np.append(theta, 0.7) / 50)}}
    found, _ = wide.apply(forward, wide.init(forward, RNG, images)._replace(params=params), images)
    np.testing.assert_allclose(found.intrinsics, [expected] * 2, rtol=1e-5)
    np.testing.assert_allclose(found.alpha, [1 / (1 + np.exp(-0.7))] * 2, rtol=1e-5)


# A shared camera goes through the augmentation as a given one does.


@pytest.mark.parametrize(("flip", "zoom"), [(0.0, (1, 1)), (0.5, (1, 1)), (0.5, (1.1, 1.6))])
def test_a_shared_camera_is_augmented_exactly(flip, zoom):
    made = augment.make_frames(augment.FrameRecipe(flip=flip, zoom=zoom))
    image = jnp.zeros((16, 2, *SIZE, 1), jnp.uint8)
    camera = jnp.broadcast_to(jnp.float32(TRUE), (16, 3, 3))
    batch = {"image": image, "index": jnp.arange(16), "intrinsics": camera}

    @jax.jit
    def both(batch):
        probed = cameras.with_probes(made, "shared")(RNG, batch)
        lens = ops.UnifiedCamera(camera, jnp.full(16, 0.4))
        shared = cameras.of_frames(camera, probed, "shared")
        unified = cameras.of_frames(lens, probed, "unified")
        return made(RNG, batch)["intrinsics"], shared, unified

    expected, found, wide = both(batch)
    np.testing.assert_array_equal(wide.intrinsics, found)
    np.testing.assert_array_equal(wide.alpha, np.full(16, np.float32(0.4)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    if flip:  # some of both kinds, so that it says something
        assert len({round(float(cx), 3) for cx in expected[:, 0, 2]}) > 1
    assert cameras.with_probes(made, "per_image") is made


# What determines a focal length.


def numpy_flow(depth, rotation, translation, camera):
    """Rigid flow in float64, from its definition."""
    h, w = depth.shape
    pixels = np.stack([*np.meshgrid(np.arange(w), np.arange(h)), np.ones((h, w))], -1)
    points = depth[..., None] * (pixels @ np.linalg.inv(camera).T)
    moved = (points @ rotation.T + translation) @ camera.T
    return moved[..., :2] / moved[..., 2:] - pixels[..., :2]


DEPTH = 2 + np.random.default_rng(1).random(SIZE)
TURN = np.array([0.02, 0.15, -0.03])
STEP = np.array([0.2, -0.1, 0.15])


def pose_of(turn, step):
    return ops.rigid_transform(ops.so3_exp(jnp.asarray(turn)), jnp.asarray(step))


def test_gradients_reach_the_camera_and_are_finite_differences():
    """Through the formula of a learned camera, its resize to the frames and the rigid flow."""
    weight = np.random.default_rng(2).normal(size=(*SIZE, 2))
    raw = np.array([0.1, 0.4, 0.02, -0.03])  # before the softplus; offsets

    def ours(raw):
        unit = ops.intrinsics_matrix(jax.nn.softplus(raw[:2]), raw[2:])
        camera = ops.resize_intrinsics(unit, SIZE[::-1])
        flow, _ = ops.rigid_flow(jnp.float32(DEPTH), pose_of(TURN, STEP), camera)
        return jnp.sum(weight * flow)

    def theirs(raw):
        (fx, fy), (cx, cy) = softplus(raw[:2]) * SIZE[::-1], (raw[2:] + 0.5) * SIZE[::-1] - 0.5
        camera = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        rotation = np.asarray(jax.jit(ops.so3_exp)(jnp.float32(TURN)), np.float64)
        return np.sum(weight * numpy_flow(DEPTH, rotation, STEP, camera))

    value, gradient = jax.jit(jax.value_and_grad(ours))(jnp.float32(raw))
    np.testing.assert_allclose(value, theirs(raw), rtol=1e-3)
    steps = 1e-5 * np.eye(4)
    differences = [(theirs(raw + s) - theirs(raw - s)) / 2e-5 for s in steps]
    np.testing.assert_allclose(gradient, differences, rtol=2e-3)


def photometric(log_focal, turn, step, depth):
    """A loss of a camera whose focal lengths are e^log_focal times the true ones."""
    factor = jnp.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]]) * jnp.expm1(log_focal)
    camera = jnp.float32(TRUE) * (1 + factor)
    images = jax.random.uniform(RNG, (2, 1, *SIZE, 3))
    flow, valid = ops.rigid_flow(depth, pose_of(turn, step), camera)
    warped, inside = ops.warp_flow(images[0], flow[None])
    return losses.masked_mean(losses.l1(warped - images[1]).mean(-1), inside & valid)


@pytest.mark.parametrize("turns", [False, True])
def test_under_pure_translation_the_focal_length_is_free(turns):
    """A focal length s times as large, with tx and ty divided by s, explains the frames as well:
    the gradient vanishes along that direction, but not where the camera turns."""
    turn = jnp.float32(TURN) * turns
    step, depth = jnp.float32(STEP), jnp.float32(DEPTH)
    slopes = jax.jit(jax.grad(photometric, (0, 2, 3)))
    of_focal, of_step, of_depth = jax.device_get(slopes(jnp.float32(0.0), turn, step, depth))
    along = of_focal - np.sum(of_step[:2] * STEP[:2])
    assert abs(of_focal) > 1e-3
    assert (abs(along) < 1e-3 * abs(of_focal)) != turns
    # Whether it turns or not, scaling depths and translation together changes nothing.
    np.testing.assert_allclose(np.sum(of_depth * DEPTH), -np.sum(of_step * STEP), rtol=1e-2)


def test_a_pure_rotation_determines_the_camera():
    """From a focal length that is 40 % too long and no rotation, Gauss-Newton finds both."""
    far = jnp.full(SIZE, jnp.inf)

    def flow(unknown):  # log of the focal lengths' factor, rotation
        focal, center = jnp.array([TRUE[0, 0], TRUE[1, 1]]), jnp.array(TRUE[:2, 2])
        camera = ops.intrinsics_matrix(jnp.exp(unknown[0]) * focal, center)
        return ops.rigid_flow(far, pose_of(unknown[1:], jnp.zeros(3)), camera)[0].ravel()

    rotation = np.asarray(jax.jit(ops.so3_exp)(jnp.float32(TURN)), np.float64)
    target = numpy_flow(np.ones(SIZE), rotation, np.zeros(3), TRUE).ravel()
    jacobian = jax.jit(lambda x: (flow(x), jax.jacfwd(flow)(x)))
    found = np.append(np.log(1.4), np.zeros(3))
    for _ in range(12):
        value, slope = (np.float64(x) for x in jacobian(jnp.float32(found)))
        found = found + np.linalg.lstsq(slope, target - value)[0]
    np.testing.assert_allclose(found, [0, *TURN], atol=1e-4)
    _, slope = jacobian(jnp.zeros(4))  # a static camera says nothing
    assert np.abs(slope[:, 0]).max() == 0.0 and np.linalg.matrix_rank(np.asarray(slope)) == 3


# Whole methods.


def encoder():
    """Of no parameters and no stages, for a decoder that reads the image itself."""
    return Model(
        lambda rng, x: ({}, {}),
        lambda params, state, x, train: (Encoding(jnp.mean(x, (1, 2)), {}), state),
    )


def decoder():
    """Depth by the brightness of each pixel: one map, whose step compiles in no time."""

    def apply(params, state, x, train):
        bright = jnp.mean(x["like"], axis=-1, keepdims=True)
        return (jax.nn.sigmoid(params["slope"] * bright + params["offset"]),), state

    return Model(lambda rng, x: ({"slope": jnp.ones(()), "offset": jnp.zeros(())}, {}), apply)


def small(camera, name="monodepth2"):
    """A method with a real pose network, whose step compiles in seconds."""
    config = models.defaults()
    config.width = 0.0625
    knobs = {"name": "posecnn", "camera": camera == "per_image"}
    networks = encoder(), decoder()
    augmentation = augment.make_frames(augment.FrameRecipe(flip=0.5, zoom=(1.0, 1.2)))
    if name == "sfm_learner":
        pose = models.build_pose_network(config, frames=3, **knobs)
        knobs = {"explainability_weight": 0.0, "smoothness_weight": 0.0}
        return sfm_learner(*networks, pose, augmentation=augmentation, camera=camera, **knobs)
    bare = {"minimum": False, "automask": False, "ssim_weight": 0.0}
    pose = models.build_pose_network(config, **knobs)
    return monodepth2(*networks, pose, augmentation=augmentation, camera=camera, **bare)


def uncalibrated(count=8):
    images = np.random.default_rng(3).integers(0, 255, (count, 3, *SIZE, 3))
    return {"image": images.astype(np.uint8), "index": np.arange(count, dtype=np.int32)}


def drawn(leaf):
    """A parameter of this shape: kernels of the usual scale, small biases."""
    scale = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.01
    return jnp.float32(scale * np.random.default_rng(4).normal(size=leaf.shape))


@pytest.mark.parametrize("camera", ["per_image", "shared", "unified"])
def test_learned_without_calibration_and_alike_on_eight_devices(camera):
    method, batch = small(camera), uncalibrated()
    shapes = jax.eval_shape(lambda: method.init(RNG, method.augment(RNG, batch)))
    variables = jax.tree.map(drawn, shapes)  # without compiling `init`

    @jax.jit
    def step(variables, batch):
        def loss(params):
            augmented = method.augment(RNG, batch)
            at = variables._replace(params=params)
            value, output = method.loss(at, augmented, RNG, jnp.zeros((), jnp.int32))
            return value, output.metrics

        return jax.value_and_grad(loss, has_aux=True)(variables.params)

    (value, metrics), gradient = step(variables, batch)
    heads = gradient["pose"] if camera == "per_image" else gradient["camera"]
    for name in ("focal", "center") if camera == "per_image" else ("vector",):
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(heads[name])), name
    assert 0.2 < metrics["focal"] < 1.6
    if camera == "unified":
        assert (np.abs(heads["vector"]) > 0).all() and 0.1 < metrics["alpha"] < 0.9
    mesh = sharding.make_mesh()
    spread = jax.device_put(batch, sharding.batch_sharding(mesh))
    everywhere = jax.device_put(variables, sharding.replicated(mesh))
    (together, _), theirs = step(everywhere, spread)
    np.testing.assert_allclose(together, value, rtol=1e-4)
    for ours, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(theirs)):
        np.testing.assert_allclose(other, ours, rtol=2e-3, atol=1e-3 * np.abs(ours).max() + 1e-9)


@pytest.mark.parametrize("name", ["monodepth2", "sfm_learner"])
@pytest.mark.parametrize("camera", ["given", "per_image", "shared", "unified"])
def test_predictions_have_the_learned_camera(name, camera):
    method = small(camera, name)
    (size,) = export.symbolic_shape("b")
    known = {"intrinsics": jax.ShapeDtypeStruct((2, 3, 3), jnp.float32)}
    batch = uncalibrated(2) | (known if camera == "given" else {})
    init = lambda batch: method.init(RNG, method.augment(RNG, batch))  # noqa: E731
    variables = jax.eval_shape(init, batch)
    of_the_set = camera in ("shared", "unified")
    assert ("camera" in variables.params) == of_the_set
    assert ("focal" in variables.params["pose"]) == (camera == "per_image")
    symbolic = {
        name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for name, x in batch.items()
    }
    predicted = jax.eval_shape(method.predict, variables, symbolic)
    assert (predicted.intrinsics is None) == (camera == "given")
    one = {**batch, "image": batch["image"][:, 1:2]}
    alone = jax.eval_shape(method.predict, variables, one)
    assert alone.pose is None and (alone.intrinsics is None) != of_the_set
    assert (predicted.alpha is None) == (alone.alpha is None) == (camera != "unified")
    pictures = jax.eval_shape(method.visualize, variables, batch, RNG)
    assert "reconstruction" in pictures
    if camera == "given":
        return
    assert predicted.intrinsics.shape == (size, 3, 3)
    exported = export.export(jax.jit(method.predict))(variables, symbolic)
    lens = [(size,)] * (camera == "unified")
    assert [x.shape for x in exported.out_avals[2:]] == [(size, 3, 3), *lens]


def test_pairs_are_averaged_and_used_by_the_loss():
    """With the true camera as the mean of what two pairs give, the loss is that of a given one."""
    unit = ops.resize_intrinsics(jnp.float32(TRUE), (1 / SIZE[1], 1 / SIZE[0]))
    aside = jnp.array([[0.1, 0.0, 0.05], [0.0, 0.2, 0.0], [0.0, 0.0, 0.0]])
    twists = 0.02 * jnp.arange(6.0).reshape(1, 1, 6)

    def pose(camera):
        def apply(params, state, x, train):
            both = jnp.stack([unit - aside, unit + aside])  # of the two pairs
            every = jnp.tile(twists, (len(x), 1, 1))
            found = jnp.tile(both, (len(x) // 2, 1, 1))
            return ((every, found) if camera == "per_image" else every), state

        return Model(lambda rng, x: ({}, {}), apply)

    batch = uncalibrated(2)
    batch["intrinsics"] = np.broadcast_to(np.float32(TRUE), (2, 3, 3))
    same = augment.make_frames(augment.FrameRecipe())
    bare = {"minimum": False, "automask": False, "ssim_weight": 0.0}
    build = partial(monodepth2, encoder(), decoder(), augmentation=same, **bare)
    given, learned = (build(pose(c), camera=c) for c in ("given", "per_image"))

    @jax.jit
    def both(batch):
        frames = same(RNG, batch)
        variables = given.init(RNG, frames)
        wrong = {**frames, "intrinsics": 2 * frames["intrinsics"]}
        first, _ = given.loss(variables, frames, RNG, 0)
        second, output = learned.loss(variables, wrong, RNG, 0)
        return first, second, given.loss(variables, wrong, RNG, 0)[0], output.metrics["focal"]

    first, second, wrong, focal = both(batch)
    np.testing.assert_allclose(second, first, rtol=1e-5)
    assert abs(wrong - first) > 1e-4
    np.testing.assert_allclose(focal, TRUE[0, 0] / SIZE[1], rtol=1e-5)


# Mistakes, and where a camera is not demanded.


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("monodepth2", {"monodepth2.camera": "learned"}, "camera is 'learned'"),
        ("sfm_learner", {"sfm_learner.camera": "ucm"}, "Known: given, per_image, shared, unified"),
        (
            "monodepth2",
            {"monodepth2.camera": "shared", "data.frames": 1, "data.stereo": True},
            'monodepth2.camera="shared" is learned from video: set config.data.frames to 2',
        ),
        ("monodepth2", {}, "needs 'intrinsics'.*intrinsics.txt, or learn them.*camera=\"shared\""),
    ],
)
def test_mistakes_are_named(load_config, name, overrides, message):
    config = load_config(name, "tiny")
    config.update_from_flattened_dict(overrides)
    with pytest.raises(UserError, match=message):
        plan = make_plan(config, examples=64, image_shape=(3, 32, 48, 3), classes=None)
        jax.eval_shape(partial(train_step, plan.method, plan.tx), plan.shapes, plan.batch)


def test_uncalibrated_video_is_taken_by_methods_that_learn_the_camera(load_config, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (12, 32, 48, 3), np.uint8)
    np.savez(tmp_path / "film.npz", image=frames)
    config = load_config("monodepth2", "tiny")
    config.update_from_flattened_dict(
        {"data.source": "video", "data.path": str(tmp_path / "film.npz")}
    )
    dataset = data.load(config.data)
    assert "intrinsics" not in dataset.train[0]
    shape = dataset.train[0]["image"].shape
    for camera in ("per_image", "shared"):
        config.monodepth2.camera = camera
        plan = make_plan(config, examples=10, image_shape=shape, classes=None)
        assert plan.prediction().intrinsics.shape == (8, 3, 3)
