"""Augmentation of frames: flips, zooms and colors, the cameras that follow, keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

from sslax import augment, ops

PHOTOGRAPH = data.astronaut()[::8, ::8]
RNG = jax.random.key(7)
HEIGHT, WIDTH = 16, 20
K = np.array([[18.0, 0.0, 8.3], [0.0, 17.0, 9.1], [0.0, 0.0, 1.0]], np.float32)
RECIPE = augment.FrameRecipe(
    flip=0.5, zoom=(1.1, 1.4), jitter=0.5, brightness=0.3, hue=0.1, exposure=0.5
)
to_float = jax.jit(augment.to_float)
AUGMENT = jax.jit(augment.make_frames(RECIPE, stereo=True))


@pytest.fixture(scope="module")
def batch():
    image = np.stack(
        [
            np.stack([PHOTOGRAPH[4 * i : 4 * i + 16, 2 * i + v : 2 * i + v + 20] for v in range(4)])
            for i in range(8)
        ]
    )
    return {
        "image": image,
        "index": np.arange(100, 108, dtype=np.int32),
        "intrinsics": np.float32(np.stack([K + 0.1 * i * (K > 2) for i in range(8)])),
        "baseline": np.linspace(0.1, 0.5, 8, dtype=np.float32),
        "distance": np.ones((8, 3), np.float32),
    }


@pytest.fixture(scope="module")
def augmented(batch):
    return jax.device_get(AUGMENT(RNG, batch))


def test_a_flip_moves_the_stereo_partner_of_a_video_to_the_other_side():
    def flip(sample, probability=1.0, stereo=True):
        flips = partial(augment.random_flip_frames, probability=probability, stereo=stereo)
        return jax.jit(flips)(RNG, sample)

    image = np.float32(PHOTOGRAPH[: 4 * HEIGHT] / 255).reshape(4, HEIGHT, -1, 3)[:, :, :WIDTH]
    sample = {"frames": image, "intrinsics": K, "baseline": np.float32(0.3)}
    flipped = flip(sample)
    np.testing.assert_array_equal(flipped["frames"], image[:, :, ::-1])
    assert flipped["baseline"] == np.float32(-0.3)
    # The flipped camera sees the point (-X, Y, Z) at the flipped pixel of (X, Y, Z).
    project = jax.jit(ops.project)
    point = np.float32([0.3, -0.2, 2.0])
    before = np.asarray(project(point, sample["intrinsics"])[0])
    after, _ = project(point * np.float32([-1.0, 1, 1]), flipped["intrinsics"])
    np.testing.assert_allclose(after, [WIDTH - 1 - before[0], before[1]], rtol=1e-5)

    pair = {**sample, "frames": image[:2]}
    flipped = flip(pair)
    np.testing.assert_array_equal(flipped["frames"], image[:2][::-1, :, ::-1])
    assert flipped["baseline"] == np.float32(0.3)
    # Two frames of a video are not a stereo pair.
    flipped = flip(pair, stereo=False)
    np.testing.assert_array_equal(flipped["frames"], image[:2, :, ::-1])
    kept = flip(pair, probability=0.0)
    for name, value in pair.items():
        np.testing.assert_array_equal(kept[name], value)


def test_zoomed_cameras_match_zoomed_frames():
    """The frames hold the rays of their pixels; a zoomed frame must hold those of its camera."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], 0 * x], axis=-1)
    sample = {"frames": np.stack([rays, 2 * rays]), "intrinsics": K}
    zoom = jax.jit(lambda key: augment.random_zoom_frames(key, sample, zoom=(1.2, 1.5)))
    corners = []
    for key in jax.random.split(RNG, 4):
        zoomed = jax.device_get(zoom(key))
        k = zoomed["intrinsics"]
        assert 1.2 * K[0, 0] <= k[0, 0] <= 1.5 * K[0, 0]
        assert 1.2 * K[1, 1] <= k[1, 1] <= 1.5 * K[1, 1]
        expected = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], 0 * x], axis=-1)
        # The border is clamped to the centers of the outermost pixels.
        inner = (slice(1, -1), slice(1, -1))
        frames = zoomed["frames"]
        np.testing.assert_allclose(frames[0][inner], expected[inner], atol=2e-5)
        np.testing.assert_allclose(frames[1], 2 * frames[0], atol=1e-5)
        corners.append(expected[0, 0, :2])
    assert np.ptp(np.stack(corners), axis=0).min() > 0.01


def test_a_zoom_of_one_is_the_identity():
    frames = np.float32(PHOTOGRAPH[None, :HEIGHT, :WIDTH] / 255)
    zoom = jax.jit(partial(augment.random_zoom_frames, zoom=(1.0, 1.0)))
    zoomed = zoom(RNG, {"frames": frames})
    np.testing.assert_allclose(zoomed["frames"], frames, atol=1e-6)
    assert zoomed.keys() == {"frames"}


def test_exposure_is_a_gamma_and_a_gain():
    def expose(images, **knobs):
        return np.asarray(jax.jit(partial(augment.random_exposure, **knobs))(RNG, images))

    images = np.float32(PHOTOGRAPH[None, :HEIGHT, :WIDTH].repeat(2, 0) / 255 * 0.4 + 0.05)
    exposed = expose(images, gain=(0.9, 1.1), probability=1.0)
    np.testing.assert_array_equal(exposed[0], exposed[1])
    for channel in range(3):
        x, y = (np.log(z[0, ..., channel].ravel()) for z in (images, exposed))
        slope, offset = np.polyfit(x, y, 1)
        np.testing.assert_allclose(y, slope * x + offset, atol=1e-4)
        assert 0.8 <= slope <= 1.2 and 0.7 <= np.exp(offset) <= 1.35
    np.testing.assert_array_equal(expose(images, probability=0.0), images)
    assert expose(images, gain=(5.0, 6.0), probability=1.0).max() == 1.0


def test_only_the_input_changes_colors_and_all_of_its_frames_alike(batch, augmented):
    assert augmented["frames"].dtype == augmented["input"].dtype == jnp.float32
    assert augmented["frames"].shape == augmented["input"].shape == batch["image"].shape
    gap = np.abs(augmented["input"] - augmented["frames"]).max(axis=(2, 3, 4))
    changed = gap.min(axis=1) > 0.01
    assert 3 <= changed.sum() <= 8 and changed.sum() == (gap.max(axis=1) > 1e-6).sum()
    # Equal frames stay equal.
    same = {**batch, "image": batch["image"][:, :1].repeat(4, axis=1)}
    jittered = np.asarray(AUGMENT(RNG, same)["input"])
    np.testing.assert_allclose(jittered, jittered[:, :1].repeat(4, axis=1), atol=1e-6)
    no_colors = RECIPE._replace(jitter=0.0, exposure=0.0)
    plain = jax.jit(augment.make_frames(no_colors, stereo=True))(RNG, batch)
    np.testing.assert_allclose(plain["frames"], augmented["frames"], atol=1e-6)
    np.testing.assert_array_equal(plain["input"], plain["frames"])


def test_half_of_the_examples_are_flipped_with_their_cameras(batch, augmented):
    flipped = augmented["baseline"] < 0
    assert 1 <= flipped.sum() <= 7
    np.testing.assert_array_equal(np.abs(augmented["baseline"]), batch["baseline"])
    for name in ("image", "index", "distance"):
        np.testing.assert_array_equal(augmented[name], batch[name])
    no_zoom = jax.jit(augment.make_frames(RECIPE._replace(zoom=(1.0, 1.0)), stereo=True))
    result = no_zoom(RNG, batch)
    expected = np.where(
        flipped[:, None, None],
        jax.jit(ops.flip_intrinsics)(batch["intrinsics"], WIDTH),
        batch["intrinsics"],
    )
    np.testing.assert_allclose(result["intrinsics"], expected, rtol=1e-6)
    image = np.asarray(to_float(batch["image"]))
    image = np.where(flipped[:, None, None, None, None], image[:, :, :, ::-1], image)
    np.testing.assert_array_equal(result["frames"], image)
    # Then they are zoomed.
    scale = augmented["intrinsics"][:, 0, 0] / batch["intrinsics"][:, 0, 0]
    assert scale.min() >= 1.1 and scale.max() <= 1.4 + 1e-6 and np.ptp(scale) > 0.05


def test_frames_depend_on_the_index_and_not_on_the_position_in_the_batch(batch, augmented):
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    permuted = AUGMENT(RNG, {k: v[order] for k, v in batch.items()})
    for name in ("frames", "input", "intrinsics", "baseline"):
        np.testing.assert_allclose(permuted[name], augmented[name][order], atol=1e-5)
    other = np.asarray(AUGMENT(RNG, {**batch, "index": batch["index"] + 1})["frames"])
    assert np.abs(other - augmented["frames"]).mean(axis=(1, 2, 3, 4)).min() > 0.01


@pytest.mark.parametrize("name", augment.FRAME_RECIPES)
def test_published_recipes_work_on_single_images_without_cameras(batch, name):
    single = {"image": batch["image"][:2, :1], "index": batch["index"][:2]}
    result = jax.eval_shape(augment.make_frames(augment.get_frame_recipe(name)), RNG, single)
    assert result.keys() == {"image", "index", "frames", "input"}
    assert result["image"].dtype == jnp.uint8
    for key in ("frames", "input"):
        assert result[key].shape == single["image"].shape and result[key].dtype == jnp.float32


def test_the_identity_changes_nothing(batch):
    result = jax.jit(augment.make_frames(augment.FrameRecipe(), stereo=True))(RNG, batch)
    np.testing.assert_array_equal(result["frames"], to_float(batch["image"]))
    np.testing.assert_array_equal(result["input"], result["frames"])
    for name in batch:
        np.testing.assert_array_equal(result[name], batch[name])


def test_errors(batch):
    with pytest.raises(ValueError, match='did you mean "monodepth2"'):
        augment.get_frame_recipe("monodeph2")
    with pytest.raises(ValueError, match='did you mean "zoom"'):
        augment.get_frame_recipe("monodepth2", zom=1)
    with pytest.raises(ValueError, match="flip must be a number in"):
        augment.make_frames(augment.FrameRecipe(flip=1.5))
    with pytest.raises(ValueError, match="zoom must be a range"):
        augment.random_zoom_frames(RNG, {"frames": batch["image"][0]}, zoom=(0.9, 1.0))
    with pytest.raises(ValueError, match="gain must be a range"):
        augment.random_exposure(RNG, jnp.zeros((2, 2, 3)), gain=(0.0, 1.0))
    flips = augment.make_frames(augment.FrameRecipe(flip=0.5))
    with pytest.raises(ValueError, match="has depth, which flips and zooms do not update"):
        flips(RNG, {**batch, "depth": jnp.ones((8, HEIGHT, WIDTH))})
    with pytest.raises(ValueError, match="no 'index'"):
        flips(RNG, {"image": batch["image"]})
