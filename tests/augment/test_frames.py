"""Frames of known geometry: flips, zooms and colors, the cameras that follow, keys."""

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
VIEWS = jax.jit(augment.frame_views(RECIPE, stereo=True))


@pytest.fixture(scope="module")
def batch():
    image = np.stack(
        [
            np.stack([PHOTOGRAPH[4 * i : 4 * i + 16, 2 * i + v : 2 * i + v + 20] for v in range(4)])
            for i in range(8)
        ]
    )
    return {
        "image": jnp.asarray(image),
        "index": jnp.arange(100, 108, dtype=jnp.int32),
        "intrinsics": jnp.asarray(np.stack([K + 0.1 * i * (K > 2) for i in range(8)])),
        "baseline": jnp.linspace(0.1, 0.5, 8),
        "distance": jnp.ones((8, 3)),
    }


@pytest.fixture(scope="module")
def views(batch):
    return VIEWS(RNG, batch)


def test_a_mirrored_video_has_its_partner_on_the_other_side():
    image = jnp.asarray(PHOTOGRAPH[: 4 * HEIGHT].reshape(4, HEIGHT, -1, 3)[:, :, :WIDTH]) / 255
    sample = {"image": image, "intrinsics": jnp.asarray(K), "baseline": jnp.float32(0.3)}
    made = augment.random_flip_frames(RNG, sample, probability=1.0, stereo=True)
    np.testing.assert_array_equal(made["image"], image[:, :, ::-1])
    assert made["baseline"] == np.float32(-0.3)
    # A point at X is seen where the mirrored camera sees it at -X.
    point = jnp.array([0.3, -0.2, 2.0])
    there, _ = ops.project(point, sample["intrinsics"])
    here, _ = ops.project(point * jnp.array([-1.0, 1, 1]), made["intrinsics"])
    np.testing.assert_allclose(here, [WIDTH - 1 - there[0], there[1]], rtol=1e-5)

    pair = {**sample, "image": image[:2]}
    made = augment.random_flip_frames(RNG, pair, probability=1.0, stereo=True)
    np.testing.assert_array_equal(made["image"], image[:2][::-1, :, ::-1])
    assert made["baseline"] == np.float32(0.3)
    # Two frames of a video are no pair.
    made = augment.random_flip_frames(RNG, pair, probability=1.0, stereo=False)
    np.testing.assert_array_equal(made["image"], image[:2, :, ::-1])
    kept = augment.random_flip_frames(RNG, pair, probability=0.0, stereo=True)
    for name, value in pair.items():
        np.testing.assert_array_equal(kept[name], value)


def test_a_zoom_shows_each_ray_where_its_camera_says():
    """The image is its own pixels' rays: what is read at a pixel is the pixel's ray."""
    y, x = jnp.meshgrid(jnp.arange(HEIGHT) * 1.0, jnp.arange(WIDTH) * 1.0, indexing="ij")
    rays = jnp.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], 0 * x], axis=-1)
    sample = {"image": jnp.stack([rays, 2 * rays]), "intrinsics": jnp.asarray(K)}
    zoom = jax.jit(lambda key: augment.random_zoom_frames(key, sample, zoom=(1.2, 1.5)))
    corners = []
    for key in jax.random.split(RNG, 4):
        made = zoom(key)
        k = made["intrinsics"]
        assert 1.2 * K[0, 0] <= k[0, 0] <= 1.5 * K[0, 0]
        assert 1.2 * K[1, 1] <= k[1, 1] <= 1.5 * K[1, 1]
        expected = jnp.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], 0 * x], axis=-1)
        # Beyond the centers of the outermost pixels nothing can be read.
        inner = (slice(1, -1), slice(1, -1))
        np.testing.assert_allclose(made["image"][0][inner], expected[inner], atol=2e-5)
        np.testing.assert_allclose(made["image"][1], 2 * made["image"][0], atol=1e-5)
        corners.append(expected[0, 0, :2])
    assert np.ptp(np.stack(corners), axis=0).min() > 0.01


def test_no_zoom_is_the_image():
    image = jnp.asarray(PHOTOGRAPH[None, :HEIGHT, :WIDTH]) / 255
    made = augment.random_zoom_frames(RNG, {"image": image}, zoom=(1.0, 1.0))
    np.testing.assert_allclose(made["image"], image, atol=1e-6)
    assert made.keys() == {"image"}


def test_exposure_is_a_power_and_two_factors():
    images = jnp.asarray(PHOTOGRAPH[None, :HEIGHT, :WIDTH]).repeat(2, 0) / 255 * 0.4 + 0.05
    lit = augment.random_exposure(RNG, images, gain=(0.9, 1.1), probability=1.0)
    np.testing.assert_array_equal(lit[0], lit[1])
    for channel in range(3):
        x, y = (np.log(np.asarray(z[0, ..., channel]).ravel()) for z in (images, lit))
        slope, offset = np.polyfit(x, y, 1)
        np.testing.assert_allclose(y, slope * x + offset, atol=1e-4)
        assert 0.8 <= slope <= 1.2 and 0.7 <= np.exp(offset) <= 1.35
    np.testing.assert_array_equal(augment.random_exposure(RNG, images, probability=0.0), images)
    assert augment.random_exposure(RNG, images, gain=(5.0, 6.0), probability=1.0).max() == 1.0


def test_colors_are_those_of_the_input_alone_and_the_same_in_all_frames(batch, views):
    assert views["image"].dtype == views["input"].dtype == jnp.float32
    assert views["image"].shape == views["input"].shape == batch["image"].shape
    gap = np.abs(views["input"] - views["image"]).max(axis=(2, 3, 4))
    changed = gap.min(axis=1) > 0.01
    assert 3 <= changed.sum() <= 8 and changed.sum() == (gap.max(axis=1) > 1e-6).sum()
    # All frames of one image: jittered, they are still one image.
    same = {**batch, "image": batch["image"][:, :1].repeat(4, axis=1)}
    jittered = VIEWS(RNG, same)["input"]
    np.testing.assert_allclose(jittered, jittered[:, :1].repeat(4, axis=1), atol=1e-6)
    clean = jax.jit(augment.frame_views(RECIPE._replace(jitter=0.0, exposure=0.0), stereo=True))
    made = clean(RNG, batch)
    np.testing.assert_allclose(made["image"], views["image"], atol=1e-6)
    np.testing.assert_array_equal(made["input"], made["image"])


def test_half_of_the_examples_are_mirrored_and_everything_follows(batch, views):
    mirrored = views["baseline"] < 0
    assert 1 <= mirrored.sum() <= 7
    np.testing.assert_array_equal(jnp.abs(views["baseline"]), batch["baseline"])
    np.testing.assert_array_equal(views["distance"], batch["distance"])
    identity = jax.jit(augment.frame_views(RECIPE._replace(zoom=(1.0, 1.0)), stereo=True))
    made = identity(RNG, batch)
    expected = jnp.where(
        mirrored[:, None, None],
        ops.flip_intrinsics(batch["intrinsics"], WIDTH),
        batch["intrinsics"],
    )
    np.testing.assert_allclose(made["intrinsics"], expected, rtol=1e-6)
    image = augment.to_float(batch["image"])
    image = jnp.where(mirrored[:, None, None, None, None], image[:, :, :, ::-1], image)
    np.testing.assert_array_equal(made["image"], image)
    # And then they are zoomed.
    scale = views["intrinsics"][:, 0, 0] / batch["intrinsics"][:, 0, 0]
    assert scale.min() >= 1.1 and scale.max() <= 1.4 + 1e-6 and np.ptp(scale) > 0.05


def test_views_depend_on_the_index_and_not_on_the_place_in_the_batch(batch, views):
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    permuted = VIEWS(RNG, {k: v[order] for k, v in batch.items()})
    for name in ("image", "input", "intrinsics", "baseline"):
        np.testing.assert_allclose(permuted[name], views[name][order], atol=1e-5)
    moved = VIEWS(RNG, {**batch, "index": batch["index"] + 1})
    assert np.abs(moved["image"] - views["image"]).mean(axis=(1, 2, 3, 4)).min() > 0.01


@pytest.mark.parametrize("name", augment.FRAME_RECIPES)
def test_recipes_of_the_papers_also_of_one_image_without_a_camera(batch, name):
    views = augment.frame_views(augment.get_frame_recipe(name))
    lone = {"image": batch["image"][:2, :1], "index": batch["index"][:2]}
    made = jax.eval_shape(views, RNG, lone)
    assert made.keys() == {"image", "index", "input"}
    assert made["input"].shape == lone["image"].shape and made["input"].dtype == jnp.float32


def test_the_identity_changes_nothing(batch):
    made = augment.frame_views(augment.FrameRecipe(), stereo=True)(RNG, batch)
    np.testing.assert_array_equal(made["input"], augment.to_float(batch["image"]))
    np.testing.assert_array_equal(made["image"], made["input"])
    for name in batch.keys() - {"image"}:
        np.testing.assert_array_equal(made[name], batch[name])


def test_mistakes_are_named(batch):
    with pytest.raises(ValueError, match="did you mean 'monodepth2'"):
        augment.get_frame_recipe("monodeph2")
    with pytest.raises(ValueError, match="did you mean 'zoom'"):
        augment.get_frame_recipe("monodepth2", zom=1)
    with pytest.raises(ValueError, match="flip is a probability"):
        augment.frame_views(augment.FrameRecipe(flip=1.5))
    with pytest.raises(ValueError, match="zoom is an increasing pair"):
        augment.random_zoom_frames(RNG, {"image": batch["image"][0]}, zoom=(0.9, 1.0))
    with pytest.raises(ValueError, match="gain must be a positive"):
        augment.random_exposure(RNG, jnp.zeros((2, 2, 3)), gain=(0.0, 1.0))
    flips = augment.frame_views(augment.FrameRecipe(flip=0.5))
    with pytest.raises(ValueError, match="holds depth, which does not follow"):
        flips(RNG, {**batch, "depth": jnp.ones((8, HEIGHT, WIDTH))})
    with pytest.raises(ValueError, match="no 'index'"):
        flips(RNG, {"image": batch["image"]})
