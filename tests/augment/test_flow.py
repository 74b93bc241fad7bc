"""Augmentation of frame pairs: exact flow under affine maps, and what both frames share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.augment import flow

SIZE = (18, 26)
MOVES = flow.AffineRecipe(
    flip=0.5, flip_vertical=0.5, zoom=(1.0, 1.5), squeeze=(0.9, 1.1), rotate=0.2, translate=0.1
)
APART = MOVES._replace(
    relative=flow.RelativeAffine(zoom=(1.0, 1.1), squeeze=(0.98, 1.02), rotate=0.04, translate=0.02)
)


@pytest.fixture(scope="module")
def maps():
    """`[64, 2, 3, 3]` maps of both frames."""
    draw = lambda key: jnp.stack(flow.sample_affine(key, SIZE, APART))  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), 64)), np.float64)


def grid(height, width):
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([x, y], -1)


def moved(matrix, points):
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def test_maps_read_inside_the_frame_and_differ_between_frames_and_examples(maps):
    corners = np.array([[x, y] for x in (0, SIZE[1] - 1) for y in (0, SIZE[0] - 1)], np.float64)
    positions = np.stack([[moved(m, corners) for m in pair] for pair in maps])
    assert positions.min() > -0.01 and (positions <= np.array(SIZE[::-1]) - 1 + 0.01).all()
    apart = np.abs(maps[:, 0] - maps[:, 1]).max((1, 2))
    assert (apart > 1e-3).mean() > 0.8  # no draw fit for the others
    assert len({float(m[0, 0, 0]) for m in maps}) > 40
    determinants = maps[:, 0, 0, 0] * maps[:, 0, 1, 1] - maps[:, 0, 0, 1] * maps[:, 0, 1, 0]
    assert 10 < (determinants < 0).sum() < 54  # exactly one of the two flips
    assert 0.3 < np.abs(determinants).min() < np.abs(determinants).max() <= 1.0


@pytest.mark.parametrize("recipe", [MOVES, MOVES._replace(zoom=(0.5, 0.6))])
def test_equal_maps_without_relative_motion_and_only_flips_if_nothing_fits(recipe):
    draw = jax.jit(jax.vmap(lambda key: flow.sample_affine(key, SIZE, recipe)))
    first, second = jax.device_get(draw(jax.random.split(jax.random.key(0), 8)))
    np.testing.assert_array_equal(first, second)
    only_flips = np.abs(np.abs(first[:, :2, :2]) - np.eye(2)).max((1, 2)) < 1e-6
    assert only_flips.all() == (recipe is not MOVES)


def test_the_second_frame_moves_within_its_own_ranges():
    change = flow.RelativeAffine(zoom=(1.2, 1.4), rotate=0.1)
    recipe = flow.AffineRecipe(flip=0.5, zoom=(1.5, 2.0), relative=change)
    draw = jax.jit(jax.vmap(lambda key: flow.sample_affine(key, SIZE, recipe)))
    first, second = (np.asarray(x) for x in draw(jax.random.split(jax.random.key(1), 64)))
    between = second @ np.linalg.inv(first)
    zoom = 1 / np.sqrt(np.linalg.det(between))
    angle = np.arctan2(between[:, 1, 0], between[:, 0, 0])
    assert 1.199 < zoom.min() < 1.22 and 1.38 < zoom.max() < 1.401
    assert -0.101 < angle.min() < -0.08 and 0.08 < angle.max() < 0.101
    names = flow.get_flow_recipe("unflow", affine={"relative": {"rotate": 0.2}}).affine
    assert names.relative == flow.RelativeAffine((0.99, 1.01), rotate=0.2, translate=0.01)
    assert names.rotate == 0.1


def test_the_inverse(maps):
    inverse = jax.jit(jax.vmap(flow.invert_affine))(np.float32(maps[:, 1]))
    np.testing.assert_allclose(
        np.asarray(inverse) @ maps[:, 1], np.broadcast_to(np.eye(3), (64, 3, 3)), atol=2e-5
    )


def test_an_affine_flow_stays_exact(maps):
    """Bilinear interpolation of an affine field is exact: compared with the closed form."""
    linear, constant = np.array([[0.05, -0.03], [0.02, 0.04]]), np.array([1.25, -0.5])
    field = grid(*SIZE) @ linear.T + constant
    firsts, seconds = np.float32(np.moveaxis(maps[:8], 1, 0))
    run = jax.jit(jax.vmap(flow.warp_affine_flow, (None, 0, 0)))
    result, inside = jax.device_get(run(np.float32(field), firsts, seconds))
    for i in range(8):
        read = moved(maps[i, 0], grid(*SIZE))
        ends = moved(np.linalg.inv(maps[i, 1]), read + read @ linear.T + constant)
        expected = ends - grid(*SIZE)
        np.testing.assert_allclose(result[i][inside[i]], expected[inside[i]], rtol=1e-5, atol=2e-4)
        clearly_inside = ((read >= 0.01) & (read <= np.array(SIZE[::-1]) - 1.01)).all(-1)
        assert inside[i][clearly_inside].all()


def test_warped_frames_match_along_the_warped_flow(maps):
    """A translated smooth texture: the new flow warps the new second frame to the first."""

    def texture(points):
        x, y = points[..., 0], points[..., 1]
        return 0.5 + 0.2 * np.sin(0.35 * x + 0.2 * y) + 0.2 * np.cos(0.3 * y - 0.1 * x)

    shift = np.array([2.0, -1.0])
    first, second = texture(grid(*SIZE)), texture(grid(*SIZE) - shift)
    one, two = np.float32(maps[0])
    warp = jax.jit(flow.warp_affine)
    new_first, _ = jax.device_get(warp(np.float32(first)[..., None], one))
    new_second, _ = jax.device_get(warp(np.float32(second)[..., None], two))
    field = np.broadcast_to(np.float32(shift), (*SIZE, 2))
    new_flow, inside = jax.device_get(jax.jit(flow.warp_affine_flow)(field, one, two))
    ends = grid(*SIZE) + new_flow
    read = np.asarray(jax.jit(flow.bilinear_sample)(new_second, np.float32(ends))[0])
    seen = inside & ((ends >= 0) & (ends <= np.array(SIZE[::-1]) - 1)).all(-1)
    assert seen.mean() > 0.5
    error = np.abs(read - new_first)[..., 0]
    assert error[seen].max() < 0.02
    assert np.abs(new_second - new_first)[..., 0][seen].mean() > 0.05


def test_zero_flow_stays_zero_under_equal_maps(maps):
    matrix = np.float32(maps[1, 0])
    zero = np.zeros((*SIZE, 2), np.float32)
    result, _ = jax.jit(flow.warp_affine_flow)(zero, matrix, matrix)
    np.testing.assert_allclose(result, 0.0, atol=1e-4)


# Frame pairs of a batch.


def pair(count=6, size=SIZE, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, 2, *size, channels), dtype=np.uint8)


def augment(recipe, images, index=None, key=1):
    batch = {"image": images, "index": np.arange(len(images)) if index is None else index}
    return jax.device_get(jax.jit(flow.make_frame_pairs(recipe))(jax.random.key(key), batch))


def test_identity_changes_nothing():
    images = pair()
    result = augment(flow.get_flow_recipe("identity"), images)
    assert result.keys() == {"image", "index", "frames", "input"}
    assert result["image"].dtype == jnp.uint8
    np.testing.assert_array_equal(result["image"], images)
    np.testing.assert_allclose(result["frames"], images / 255, atol=1e-6)
    np.testing.assert_array_equal(result["input"], result["frames"])


def test_flips_are_exact_and_apply_to_both_frames():
    images = pair(24)
    recipe = flow.FlowRecipe(affine=flow.AffineRecipe(flip=0.5, flip_vertical=0.5))
    frames = augment(recipe, images)["frames"]
    seen = set()
    for image, result in zip(images.astype(np.float32) / np.float32(255), frames):
        kinds = [
            (a, b) for a in (1, -1) for b in (1, -1) if np.allclose(image[:, ::a, ::b], result)
        ]
        assert len(kinds) == 1
        seen.update(kinds)
    assert len(seen) == 4


def test_the_input_is_a_crop_of_the_full_frames_at_its_offset():
    images = pair(8)
    recipe = flow.FlowRecipe(size=(10, 12), full_frames=True)
    result = augment(recipe, images)
    offsets = result["offset"].astype(int)
    assert len({tuple(o) for o in offsets}) > 4
    np.testing.assert_array_equal(result["image"], images)
    for i, (x, y) in enumerate(offsets):
        np.testing.assert_allclose(result["frames"][i], images[i] / 255, atol=1e-6)
        crop = images[i, :, y : y + 10, x : x + 12] / 255
        np.testing.assert_allclose(result["input"][i], crop, atol=1e-6)
    cropped = augment(recipe._replace(full_frames=False), images)
    assert "offset" not in cropped
    np.testing.assert_array_equal(cropped["frames"], result["input"])


COLORS = flow.FlowRecipe(
    jitter=1.0, brightness=0.4, contrast=0.3, saturation=0.3, hue=0.2, exposure=1.0
)


def test_colors_are_shared_unless_asymmetric_and_never_reach_the_loss():
    same = np.repeat(pair(24)[:, :1], 2, axis=1)
    for share, bounds in ((0.0, (0, 0)), (0.5, (4, 20)), (1.0, (24, 24))):
        result = augment(COLORS._replace(asymmetric=share), same)
        np.testing.assert_allclose(result["frames"], same / 255, atol=1e-6)
        change = np.abs(result["input"] - same / 255).max((1, 2, 3, 4))
        assert (change > 1e-3).all()
        differ = np.abs(result["input"][:, 0] - result["input"][:, 1]).max((1, 2, 3)) > 1e-5
        assert bounds[0] <= differ.sum() <= bounds[1], (share, differ.sum())


def test_swapped_channels_are_shared_and_noise_is_not():
    same = np.repeat(pair(16)[:, :1], 2, axis=1)
    swapped = augment(flow.FlowRecipe(swap_channels=1.0), same)["input"]
    np.testing.assert_array_equal(swapped[:, 0], swapped[:, 1])
    np.testing.assert_allclose(np.sort(swapped), np.sort(same / np.float32(255)), atol=1e-6)
    assert np.abs(swapped - same / 255).max() > 0.1
    noise = augment(flow.FlowRecipe(noise=0.05), same)["input"] - same / 255
    assert 0.005 < np.abs(noise).mean() < 0.05
    assert np.abs(noise[:, 0] - noise[:, 1]).mean() > 0.005
    assert np.abs(np.diff(noise, axis=-1)).mean() > 0.003  # independent in each channel


def test_the_eraser_fills_boxes_of_the_second_frame_with_its_mean():
    images = pair(16)
    recipe = flow.FlowRecipe(erase=1.0, erase_side=(0.2, 0.4), erase_boxes=2)
    result = augment(recipe, images)
    frames, erased = result["frames"], result["input"]
    np.testing.assert_array_equal(erased[:, 0], frames[:, 0])
    changed = (np.abs(erased[:, 1] - frames[:, 1]) > 1e-6).any(-1)
    share = changed.mean((1, 2))
    assert (share > 0.02).all() and (share < 0.25).all()
    for i in range(16):
        filled = erased[i, 1][changed[i]]
        mean = np.broadcast_to(frames[i, 1].mean((0, 1)), filled.shape)
        np.testing.assert_allclose(filled, mean, atol=1e-5)
    half = augment(recipe._replace(erase=0.5), images)
    changed = (half["input"][:, 1] != half["frames"][:, 1]).any((1, 2, 3))
    assert 2 < changed.sum() < 14


def test_blur_is_shared():
    frames = np.random.RandomState(0).rand(8, 9, 12, 3).astype(np.float32)
    frames = np.stack([frames, frames], axis=1)
    recipe = flow.FlowRecipe(blur=0.5, blur_sigma=(0.5, 1.0))
    keys = jax.random.split(jax.random.key(0), 8)
    blur = jax.jit(jax.vmap(lambda k, x: flow.photometric_augmentation(k, x, recipe)))
    result = np.asarray(blur(keys, frames))
    np.testing.assert_array_equal(result[:, 0], result[:, 1])
    spread = result.std((1, 2, 3, 4)) / frames.std((1, 2, 3, 4))
    blurred = spread < 0.8
    assert blurred.any() and not blurred.all()
    np.testing.assert_allclose(spread[~blurred], 1, rtol=1e-5)


def test_the_range_of_blur_must_be_positive():
    with pytest.raises(ValueError, match="blur_sigma must be a range"):
        flow.get_flow_recipe("identity", blur=0.5, blur_sigma=(0.0, 1.0))


def test_an_occluder_fills_only_its_boxes_with_noise_or_another_part():
    image = pair(1, (24, 24))[0, 0] / np.float32(255)
    draw = jax.jit(jax.vmap(partial(flow.random_occluder, image=image)))
    result = np.asarray(draw(jax.random.split(jax.random.key(0), 16)))
    changed = (result != image).any(-1)
    assert (changed.mean((1, 2)) < 0.3).all() and (changed.mean((1, 2)) > 0).all()
    known = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
    pasted = [all(tuple(p) in known for p in m[c].tolist()) for m, c in zip(result, changed)]
    assert 0 < sum(pasted) < 16


def test_an_example_depends_on_its_index_alone():
    images = pair(4)
    recipe = flow.get_flow_recipe("smurf", size=(10, 12), affine={"rotate": 0.1, "zoom": (1, 1.4)})
    result = augment(recipe, images)
    reversed_ = augment(recipe, images[::-1], index=np.arange(4)[::-1])
    for name in ("image", "frames", "input", "offset"):
        np.testing.assert_allclose(result[name], reversed_[name][::-1], atol=1e-6)


@pytest.mark.parametrize("name", sorted(flow.FLOW_RECIPES))
@pytest.mark.parametrize("channels", [1, 3])
def test_published_recipes_keep_images_in_range(name, channels):
    images = pair(2, channels=channels)
    result = augment(flow.get_flow_recipe(name), images)
    assert result["input"].shape == images.shape
    for name in ("frames", "input"):
        assert result[name].min() >= 0 and result[name].max() <= 1


def test_errors():
    batch = {"image": jnp.zeros((1, 2, 8, 8, 3)), "index": jnp.arange(1)}
    with pytest.raises(ValueError, match="smaller than the crop"):
        flow.make_frame_pairs(flow.FlowRecipe(size=(9, 8)))(jax.random.key(0), batch)
    with pytest.raises(ValueError, match="has flow, which this augmentation does not update"):
        crop = flow.make_frame_pairs(flow.FlowRecipe(size=(4, 4)))
        crop(jax.random.key(0), {**batch, "flow": jnp.zeros((1, 8, 8, 2))})
    with pytest.raises(ValueError, match="'index'"):
        flow.make_frame_pairs(flow.FlowRecipe())(jax.random.key(0), {"image": batch["image"]})
    with pytest.raises(ValueError, match="erase must be a number in"):
        flow.make_frame_pairs(flow.FlowRecipe(erase=1.5))
    with pytest.raises(ValueError, match='did you mean "smurf"'):
        flow.get_flow_recipe("smurv")
    with pytest.raises(ValueError, match='did you mean "rotate"'):
        flow.get_flow_recipe("smurf", affine={"rotat": 0.1})
    with pytest.raises(ValueError, match="zoom"):
        flow.sample_affine(jax.random.key(0), SIZE, flow.AffineRecipe(zoom=(0.0, 1.0)))
    with pytest.raises(ValueError, match="side"):
        flow.random_box_mask(jax.random.key(0), SIZE, side=(0.5, 0.2))
