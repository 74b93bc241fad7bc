"""Estimators of depth and flow: maps of images of any size, from networks that are formulas."""

import formulas
import jax.numpy as jnp
import numpy as np
import pytest
from formulas import METERS, SIZE, constant_image
from PIL import Image

import sslax
from sslax import methods
from sslax.errors import UserError
from sslax.inference import estimator
from sslax.measures import depth
from sslax.types import DepthMaps, FlowMaps

OUTSIDE = np.array([[9.0, 0, 99], [0, 9, 3], [0, 0, 1]])  # a principal point beside the image


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with formulas.runs(tmp_path_factory.mktemp("runs")) as folder:
        yield folder


@pytest.fixture(scope="module")
def estimators(runs):
    return {name: sslax.load(runs / name) for name in formulas.METHODS}


def random_image(seed, size=SIZE, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels)).astype(np.uint8)


def enlarged(values, length):
    """Rows interpolated between their centers, `[length, W]`."""
    at = (np.arange(length) + 0.5) * len(values) / length - 0.5
    return np.stack([np.interp(at, np.arange(len(values)), column) for column in values.T], 1)


def test_what_a_run_predicts_is_known(estimators):
    facts = {n: (type(e), e.predicts, e.frames, e.size, e.step) for n, e in estimators.items()}
    assert facts == {
        "video": (estimator.DepthEstimator, ("depth", "pose"), 3, SIZE, 2),
        "speed": (estimator.DepthEstimator, ("depth", "pose"), 3, SIZE, 2),
        "stereo": (estimator.DepthEstimator, ("depth", "disparity"), 1, SIZE, 2),
        "pairs": (estimator.FlowEstimator, ("flow", "backward", "visible"), 2, SIZE, 2),
    }
    metric = {name: estimators[name].metric for name in ("video", "speed", "stereo")}
    assert metric == {"video": False, "speed": True, "stereo": True}


def test_depth_comes_back_at_the_size_of_the_image(estimators):
    estimate = estimators["video"]
    small = random_image(0)
    same = estimate(small)
    np.testing.assert_allclose(same.depth, METERS + small[..., 0] / 127.5, rtol=1e-6)
    assert isinstance(same, DepthMaps) and same.depth.dtype == np.float32
    assert same.disparity is None and same.pose is None
    large = random_image(1, (20, 30))
    found = estimate(np.stack([large, large])).depth
    shrunk = Image.fromarray(large).resize(SIZE[::-1], Image.Resampling.BILINEAR)  # antialiased
    inverse = 1 / (METERS + np.asarray(shrunk)[..., 0] / 127.5)
    expected = 1 / enlarged(enlarged(inverse, 20).T, 30).T
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-5)
    flat = estimate(constant_image(51, (5, 31))).depth
    np.testing.assert_allclose(flat, np.full((5, 31), METERS + 0.4), rtol=1e-6)


def test_images_may_be_gray_or_float_and_batches_small(estimators):
    estimate = estimators["video"]
    images = np.stack([random_image(seed, channels=1) for seed in range(3)])
    expected = METERS + images[..., 0] / 127.5
    np.testing.assert_allclose(estimate(images).depth, expected, rtol=1e-6)
    floats = estimate(images.repeat(3, -1) / np.float64(255), batch_size=2)
    np.testing.assert_allclose(floats.depth, expected, rtol=1e-6)


def test_frames_have_poses_and_the_middle_one_the_depth(estimators):
    frames = np.stack([constant_image(v) for v in (0, 51, 204)])
    maps = estimators["video"](frames[None])
    np.testing.assert_allclose(maps.depth, np.full((1, *SIZE), METERS + 0.4), rtol=1e-6)
    np.testing.assert_allclose(maps.pose[0, :, 0, 3], [0.2, 0.0, -0.6], atol=1e-5)


def test_the_camera_is_brought_to_the_size_of_the_network(estimators):
    """Depth is that of the image's own camera, whatever the network's size."""
    estimate = estimators["stereo"]
    size = (24, 48)  # 3 x and 4 x
    camera = np.array([[40.0, 0, 20], [0, 90, 11], [0, 0, 1]])
    maps = estimate(constant_image(102, size), camera, 0.5)
    np.testing.assert_allclose(maps.disparity, np.full(size, 1.8 * 4), rtol=1e-6)
    np.testing.assert_allclose(maps.depth, np.full(size, 0.5 * 40 / 7.2), rtol=1e-6)
    example = {"image": constant_image(0, size)[None], "intrinsics": camera}
    fitted = estimate._fitted(example)["intrinsics"]
    expected = [[10, 0, 20.5 / 4 - 0.5], [0, 30, 11.5 / 3 - 0.5], [0, 0, 1]]
    np.testing.assert_allclose(fitted, expected, rtol=1e-6)
    without = estimate(constant_image(102, size))
    assert without.depth is None and without.disparity is not None
    several = estimate(np.stack([constant_image(102, size)] * 2), camera, [0.5, 1.0]).depth
    np.testing.assert_allclose(several[1], 2 * several[0], rtol=1e-6)


def test_flow_is_in_pixels_of_the_images(estimators):
    pair = np.stack([constant_image(v, (16, 60)) for v in (51, 255)])  # 2 x and 5 x
    maps = estimators["pairs"](pair)
    assert isinstance(maps, FlowMaps)
    np.testing.assert_allclose(maps.flow[..., 0], np.full((16, 60), 0.4 * 5), rtol=1e-6)
    np.testing.assert_allclose(maps.flow[..., 1], np.full((16, 60), 2.0 * 2), rtol=1e-6)
    np.testing.assert_array_equal(maps.backward, -maps.flow)
    np.testing.assert_allclose(maps.visible, np.full((16, 60), 0.2), rtol=1e-5)
    np.testing.assert_array_equal(estimators["pairs"](pair[None]).flow[0], maps.flow)


def test_the_network_may_work_at_another_size(runs, estimators):
    height, width = SIZE
    estimate = sslax.load(runs / "pairs", size=(2 * height, 3 * width))
    assert estimate.size == (2 * height, 3 * width)
    pair = np.stack([constant_image(v, (16, 60)) for v in (51, 255)])
    # The formula's flow is constant in pixels of the network, which are smaller now.
    expected = estimators["pairs"](pair).flow / [3, 2]
    np.testing.assert_allclose(estimate(pair).flow, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(0, 0), (8, -1), (8,), (8, 8, 3), (8.5, 8), ("8", "8"), 8, "88"])
def test_what_is_no_size_is_refused(runs, size):
    with pytest.raises(UserError, match=r"^size must be a height and a width in pixels"):
        sslax.load(runs / "pairs", size=size)


def test_a_size_that_the_network_cannot_work_at_is_refused(runs, monkeypatch):
    method = formulas.METHODS["pairs"]

    def predict(variables, batch):
        if batch["image"].shape[2] < 4:
            raise ValueError("Frames of 1 x 1 are too small.")
        return method.predict(variables, batch)

    demanding = method._replace(predict=predict)
    monkeypatch.setitem(methods.METHODS, "pairs", lambda *_: demanding)
    assert sslax.load(runs / "pairs", size=(4, 4)).size == (4, 4)
    message = r"cannot work at a size of \(1, 1\): Frames of 1 x 1 are too small"
    with pytest.raises(UserError, match=message):
        sslax.load(runs / "pairs", size=(1, 1))


def test_examples_may_differ_in_size_and_come_back_with_what_they_hold(estimators):
    """Two sizes in one batch of three, the last batch padded; the caller's own entries stay."""
    sizes = [(8, 12), (16, 24), (5, 31), (8, 12)]
    examples = [
        {"image": constant_image(51 * i, size)[None], "name": f"image {i}"}
        for i, size in enumerate(sizes)
    ]
    found = [*estimators["video"].over(examples, batch_size=3)]
    assert [example["name"] for example, _ in found] == [f"image {i}" for i in range(4)]
    for i, (size, (_, maps)) in enumerate(zip(sizes, found)):
        np.testing.assert_allclose(maps.depth, np.full(size, METERS + 0.4 * i), rtol=1e-6)


def test_post_processing_averages_with_the_mirror_image(estimators):
    image = random_image(2)
    estimate = estimators["stereo"]
    plain, both = (estimate(image, post_process=p).disparity for p in (False, True))
    assert np.abs(both - plain).max() > 0.05
    mirrored = estimate(image[:, ::-1]).disparity
    np.testing.assert_allclose(depth.flip_average(plain, mirrored), both, rtol=1e-6)


def test_post_processing_averages_inverse_depth():
    depths = np.random.default_rng(0).uniform(1.0, 5.0, (2, 4, 40)).astype(np.float32)
    batch = {"image": np.zeros((2, 1, 4, 40, 3), np.uint8)}

    def predict(factor):
        """A network that sees the mirror image `factor` times as far away."""
        predictions = iter([depths, factor * depths[..., ::-1]])
        maps, kept = estimator.predict_depth(
            lambda batch: (DepthMaps(depth=next(predictions)), {"kept": batch["image"]}),
            batch,
            post_process=True,
        )
        assert kept["kept"] is batch["image"] and maps.disparity is None
        return maps.depth

    np.testing.assert_allclose(predict(1.0), depths, rtol=1e-5)
    np.testing.assert_allclose(1 / predict(2.0)[..., 20], 0.75 / depths[..., 20], rtol=1e-5)


def test_mirrored_batches_have_mirrored_cameras():
    images = np.stack([random_image(seed, (4, 6))[None] for seed in range(2)])
    camera = np.tile(np.array([[5.0, 0, 1.5], [0, 5, 2], [0, 0, 1]], np.float32), (2, 1, 1))
    mirrored = estimator.mirrored({"image": images, "intrinsics": camera, "mask": jnp.ones(2)})
    np.testing.assert_array_equal(mirrored["image"][:, :, :, 0], images[:, :, :, 5])
    intrinsics = mirrored["intrinsics"]
    assert intrinsics[0, 0, 2] == 3.5 and intrinsics[0, 0, 0] == 5.0


def test_an_estimator_leaves_as_safetensors(estimators, tmp_path):
    from safetensors.numpy import load_file

    estimators["video"].save(tmp_path / "encoder.safetensors")
    assert load_file(tmp_path / "encoder.safetensors") == {"params/scale": np.float32(2.0)}


@pytest.mark.parametrize(
    ("name", "images", "options", "message"),
    [
        ("video", np.zeros((8, 12), np.uint8), {}, r"images \[N, H, W, C\].*shape \[8, 12\]"),
        ("video", np.zeros((8, 12, 4), np.uint8), {}, "C 1 or 3. Got images of shape"),
        ("video", np.zeros((1, 2, 8, 12, 3), np.uint8), {}, r"poses of 3 frames \[N, 3, H, W, C\]"),
        ("video", np.zeros((0, 8, 12, 3), np.uint8), {}, "There is no image"),
        ("video", np.full((8, 12, 3), 9.0), {}, r"lie in \[0, 1\]"),
        ("video", np.zeros((8, 12, 3), np.int32), {}, "uint8, or float"),
        ("pairs", np.zeros((8, 12, 3), np.uint8), {}, "Flow is predicted from pairs"),
        ("pairs", np.zeros((3, 8, 12, 3), np.uint8), {}, "Flow is predicted from pairs"),
        ("stereo", constant_image(0), {"intrinsics": np.eye(4)}, r"shape \[1, 3, 3\], or \[3, 3\]"),
        (
            "stereo",
            constant_image(0),
            {"intrinsics": OUTSIDE},
            r"principal point \(99, 3\) is outside",
        ),
        ("stereo", constant_image(0), {"baseline": [1.0, 2.0]}, r"baseline of 1 image\(s\)"),
    ],
)
def test_images_that_are_none_are_named(estimators, name, images, options, message):
    with pytest.raises(UserError, match=message):
        estimators[name](images, **options)


def test_a_run_without_a_checkpoint_is_named(runs, tmp_path):
    for name in ("config.json", "data.json"):
        (tmp_path / name).write_text((runs / "video" / name).read_text())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        sslax.load(tmp_path)
