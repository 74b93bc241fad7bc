"""View recipes, and the views of a batch: keys, layout, sharding."""

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from skimage import data

from sslax import augment

PHOTOGRAPH = data.astronaut()[::8, ::8]
RNG = jax.random.key(7)
make_view = jax.jit(augment.make_view, static_argnums=2)
to_grayscale = jax.jit(augment.to_grayscale)
AUGMENT = jax.jit(augment.make_views(augment.get_view_recipes("byol", size=12)))


@pytest.fixture(scope="module")
def batch():
    image = np.stack([PHOTOGRAPH[4 * i : 4 * i + 16, 2 * i : 2 * i + 20] for i in range(8)])
    return {
        "image": image,
        "index": np.arange(100, 108, dtype=np.int32),
        "label": np.arange(8, dtype=np.int32),
    }


@pytest.fixture(scope="module")
def augmented(batch):
    return jax.device_get(AUGMENT(RNG, batch))


@pytest.fixture(scope="module")
def views(augmented):
    return augmented["views"]


def test_views_of_a_batch(batch, augmented):
    assert augmented.keys() == {*batch, "views"}
    views = augmented["views"]
    assert views.shape == (8, 2, 12, 12, 3) and views.dtype == np.float32
    assert views.min() >= 0.0 and views.max() <= 1.0 + 1e-6
    assert views.std() > 0.1
    for name in batch:
        assert augmented[name].dtype == batch[name].dtype
        np.testing.assert_array_equal(augmented[name], batch[name])
    # The two views of an example differ, and so do those of another step.
    gap = np.abs(views[:, 0] - views[:, 1]).mean(axis=(1, 2, 3))
    assert gap.min() > 0.01
    later = np.asarray(AUGMENT(jax.random.fold_in(RNG, 1), batch)["views"])
    assert np.abs(views - later).mean(axis=(2, 3, 4)).min() > 0.01


def test_views_depend_on_the_index_and_not_on_the_position_in_the_batch(batch, views):
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    permuted = AUGMENT(RNG, {k: v[order] for k, v in batch.items()})["views"]
    np.testing.assert_allclose(permuted, views[order], atol=1e-6)
    single = AUGMENT(RNG, {k: v[3:4] for k, v in batch.items()})["views"]
    np.testing.assert_allclose(single, views[3:4], atol=1e-6)
    other = np.asarray(AUGMENT(RNG, {**batch, "index": batch["index"] + 1})["views"])
    assert np.abs(other - views).mean(axis=(1, 2, 3, 4)).min() > 0.01


def test_float_images_give_the_same_views_as_uint8(batch, views):
    image = augment.to_float(batch["image"])
    result = AUGMENT(RNG, {**batch, "image": image})
    np.testing.assert_allclose(result["views"], views, atol=1e-6)


def test_eight_devices_agree_with_one_without_communication(batch, views):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    sharded = jax.device_put(batch, sharding)
    rng = jax.device_put(RNG, NamedSharding(mesh, PartitionSpec()))
    compiled = AUGMENT.lower(rng, sharded).compile()
    result = compiled(rng, sharded)["views"]
    assert result.sharding.is_equivalent_to(sharding, result.ndim)
    np.testing.assert_allclose(result, views, atol=1e-6)
    program = compiled.as_text()
    collectives = ("all-gather", "all-reduce", "all-to-all", "collective", "reduce-scatter")
    assert [name for name in collectives if name in program] == []


def test_equal_recipes_are_compiled_once_and_give_the_same_views(batch):
    first, second = augment.get_view_recipes("moco_v2", size=12)
    equal = jax.jit(augment.make_views((first, second)))(RNG, batch)["views"]
    unequal = jax.jit(augment.make_views((first, second._replace(flip=0.500001))))(RNG, batch)
    np.testing.assert_allclose(equal, unequal["views"], atol=1e-6)


@pytest.fixture(scope="module")
def multi_crop(batch):
    """With and without local views; few operations, which compile fast."""
    views = augment.get_view_recipes("mae", size=8) * 2
    local = augment.get_local_recipes("dino", 5, size=6, jitter=0.0, grayscale=0.0)
    without = jax.jit(augment.make_views(views))(RNG, batch)
    with_local = jax.jit(augment.make_views(views, local))
    return with_local, jax.device_get(with_local(RNG, batch)), without


def test_local_views_do_not_change_the_other_views(multi_crop):
    _, result, without = multi_crop
    np.testing.assert_allclose(result["views"], without["views"], atol=1e-6)
    assert "local_views" not in without
    local = result["local_views"]
    assert local.shape == (8, 5, 6, 6, 3) and local.dtype == np.float32
    assert local.min() >= 0.0 and local.max() <= 1.0 + 1e-6
    # No two local views of an example are the same.
    gaps = np.abs(local[:, :, None] - local[:, None]).mean(axis=(3, 4, 5))
    assert gaps[:, ~np.eye(5, dtype=bool)].min() > 1e-3


def test_local_views_depend_on_the_index_alone(batch, multi_crop):
    with_local, result, _ = multi_crop
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    permuted = with_local(RNG, {k: v[order] for k, v in batch.items()})["local_views"]
    np.testing.assert_allclose(permuted, result["local_views"][order], atol=1e-6)


def test_no_key_is_used_twice(batch):
    """All views, global and local, of one recipe and size are different draws."""
    crop = augment.ViewRecipe(size=8, crop_scale=(0.1, 0.9))
    result = jax.jit(augment.make_views((crop,) * 5, (crop,) * 5))(RNG, batch)
    views = np.concatenate([result["views"], result["local_views"]], axis=1)
    gaps = np.abs(views[:, :, None] - views[:, None]).mean(axis=(3, 4, 5))
    assert gaps[:, ~np.eye(10, dtype=bool)].min() > 1e-3


def test_local_views_on_eight_devices(batch, multi_crop):
    with_local, result, _ = multi_crop
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    rng = jax.device_put(RNG, NamedSharding(mesh, PartitionSpec()))
    local = with_local(rng, sharded)["local_views"]
    assert local.sharding.is_equivalent_to(sharded["image"].sharding, local.ndim)
    np.testing.assert_allclose(local, result["local_views"], atol=1e-6)


def test_identity_is_the_image_to_the_bit(batch):
    identity = augment.make_views(augment.VIEW_RECIPES["identity"])
    views = np.asarray(jax.jit(identity)(RNG, batch)["views"])
    np.testing.assert_array_equal(views[:, 0], jax.jit(augment.to_float)(batch["image"]))
    resized = augment.make_views(augment.get_view_recipes("identity", size=8))
    small = np.asarray(jax.jit(resized)(RNG, batch)["views"])
    expected = jax.jit(partial(augment.resize, size=8))(batch["image"][2, :, 2:18])
    np.testing.assert_allclose(small[2, 0], expected, atol=1e-6)


def test_one_channel_images():
    image = PHOTOGRAPH[None, :16, :16, :1]
    simclr = augment.make_views(augment.get_view_recipes("simclr"))
    views = jax.jit(simclr)(RNG, {"image": image, "index": np.array([3])})["views"]
    assert views.shape == (1, 2, 16, 16, 1)
    assert np.all(np.isfinite(views)) and np.std(views) > 0.05


def test_gray_comes_before_or_after_the_jitter():
    """A hue shift does not change a gray image, but it changes the gray values of colors."""
    image = PHOTOGRAPH[:16, :16]
    always = augment.ViewRecipe(jitter=1.0, contrast=0.9, grayscale=1.0)
    for first in (True, False):
        view = make_view(RNG, image, always._replace(grayscale_first=first))
        np.testing.assert_allclose(view, to_grayscale(view), atol=1e-3)
        hue = always._replace(contrast=0.0, hue=0.5, grayscale_first=first)
        gap = np.subtract(make_view(RNG, image, hue), to_grayscale(augment.to_float(image)))
        assert (np.abs(gap).max() < 1e-3) == first


def test_changing_one_operation_does_not_change_the_draws_of_others():
    image = PHOTOGRAPH[:16, :16]
    recipe = augment.ViewRecipe(crop_scale=(0.1, 1.0))
    plain = make_view(RNG, image, recipe)
    solarized = make_view(RNG, image, recipe._replace(solarize=1.0))
    np.testing.assert_allclose(solarized, jax.jit(augment.solarize)(plain), atol=1e-6)


def test_recipes_have_the_published_values():
    def row(r):
        jitter = (r.jitter, r.brightness, r.contrast, r.saturation, r.hue)
        return (r.crop_scale, r.flip, jitter, r.grayscale, r.blur, r.solarize, r.grayscale_first)

    crop, small_crop = (0.08, 1.0), (0.2, 1.0)
    simclr = (crop, 0.5, (0.8, 0.8, 0.8, 0.8, 0.2), 0.2, 0.5, 0.0, False)
    moco_v1 = (small_crop, 0.5, (1.0, 0.4, 0.4, 0.4, 0.4), 0.2, 0.0, 0.0, True)
    moco_v2 = (small_crop, 0.5, (0.8, 0.4, 0.4, 0.4, 0.1), 0.2, 0.5, 0.0, False)
    byol_1 = (crop, 0.5, (0.8, 0.4, 0.4, 0.2, 0.1), 0.2, 1.0, 0.0, False)
    byol_2 = (crop, 0.5, (0.8, 0.4, 0.4, 0.2, 0.1), 0.2, 0.1, 0.2, False)
    lejepa = ((0.3, 1.0), *byol_1[1:4], 0.5, 0.2, False)
    msn = ((0.3, 1.0), *moco_v2[1:])
    emp_ssl = ((0.25, 0.25), 0.5, (0.8, 0.4, 0.4, 0.4, 0.2), 0.2, 0.1, 0.1, False)
    for name, rows in {
        "simclr": [simclr, simclr],
        "moco_v1": [moco_v1, moco_v1],
        "moco_v2": [moco_v2, moco_v2],
        "byol": [byol_1, byol_2],
        "barlow_twins": [byol_1, byol_2],
        "moco_v3": [byol_1, byol_2],
        "swav": [((0.14, 1.0), *simclr[1:])] * 2,
        "dino": [((0.4, 1.0), *byol_1[1:]), ((0.4, 1.0), *byol_2[1:])],
        "ibot": [((0.25, 1.0), *byol_1[1:]), ((0.25, 1.0), *byol_2[1:])],
        "dinov2": [((0.32, 1.0), *byol_1[1:]), ((0.32, 1.0), *byol_2[1:])],
        "lejepa": [lejepa, lejepa],
        "msn": [msn, msn],
        "emp_ssl": [emp_ssl] * 20,
        "mae": [(small_crop, 0.5, (0.0,) * 5, 0.0, 0.0, 0.0, False)],
        "simmim": [((0.67, 1.0), 0.5, (0.0,) * 5, 0.0, 0.0, 0.0, False)],
        "supervised": [(crop, 0.5, (0.0,) * 5, 0.0, 0.0, 0.0, False)],
    }.items():
        assert [row(recipe) for recipe in augment.VIEW_RECIPES[name]] == rows
    local = {name: row(recipe) for name, recipe in augment.LOCAL_RECIPES.items()}
    assert local == {
        "swav": ((0.05, 0.14), *simclr[1:]),
        "dino": ((0.05, 0.4), *byol_1[1:4], 0.5, 0.0, False),
        "ibot": ((0.05, 0.25), *byol_1[1:4], 0.5, 0.0, False),
        "dinov2": ((0.05, 0.32), *byol_1[1:4], 0.5, 0.0, False),
        "lejepa": ((0.05, 0.3), *lejepa[1:]),
        "msn": ((0.05, 0.3), *msn[1:]),
    }
    for recipes in (*augment.VIEW_RECIPES.values(), augment.LOCAL_RECIPES.values()):
        for recipe in recipes:
            square = recipe in augment.VIEW_RECIPES["emp_ssl"]
            assert recipe.crop_ratio == ((1.0, 1.0) if square else (3 / 4, 4 / 3))
            assert recipe.blur_sigma == (0.1, 2.0)
            assert recipe.solarize_threshold == 0.5 and recipe.strength == 1.0


def test_views_of_a_recipe_take_turns():
    first, second = augment.VIEW_RECIPES["byol"]
    assert augment.get_view_recipes("byol", count=3) == (first, second, first)
    assert augment.get_view_recipes("byol", count=1, flip=0.0) == (first._replace(flip=0.0),)


def test_errors(batch):
    with pytest.raises(ValueError, match="recipe is 'simcrl': did you mean \"simclr\""):
        augment.get_view_recipes("simcrl")
    with pytest.raises(ValueError, match="field is 'solarzie': did you mean \"solarize\""):
        augment.get_view_recipes("byol", solarzie=0.0)
    with pytest.raises(ValueError, match='did you mean "dino"'):
        augment.get_local_recipes("dion", 2)
    with pytest.raises(ValueError, match='did you mean "size"'):
        augment.get_local_recipes("dino", 2, sise=8)
    with pytest.raises(ValueError, match="at least 0; got -1"):
        augment.get_local_recipes("dino", -1)
    with pytest.raises(ValueError, match="sizes must be equal"):
        augment.make_views(
            [augment.ViewRecipe()], [augment.ViewRecipe(size=8), augment.ViewRecipe(size=4)]
        )
    with pytest.raises(ValueError, match="flip must be a number in"):
        augment.make_views([augment.ViewRecipe()], [augment.ViewRecipe(flip=2.0)])
    with pytest.raises(ValueError, match="sizes must be equal"):
        augment.make_views([augment.ViewRecipe(size=8), augment.ViewRecipe(size=4)])
    with pytest.raises(ValueError, match="blur must be a number in"):
        augment.make_views([augment.ViewRecipe(blur=1.5)])
    with pytest.raises(ValueError, match="one recipe per view"):
        augment.make_views([])
    with pytest.raises(ValueError, match="has no 'index'"):
        AUGMENT(RNG, {"image": batch["image"]})
