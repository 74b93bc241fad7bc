"""Crops against torchvision's definition on photographs (experiments/golden/augment.py)."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import exact_jit
from PIL import Image
from skimage import data

from sslax import augment

GOLDEN = np.load(Path(__file__).parent / "golden" / "augment.npz")
PHOTOGRAPHS = {
    "astronaut": data.astronaut()[::8, ::8],
    "chelsea": data.chelsea()[::5, ::6],
    "coffee": data.coffee()[::8, ::8],
}
BOXES = [
    ("astronaut", (0, 0, 64, 64), (24, 24)),
    ("astronaut", (5, 17, 40, 31), (24, 20)),
    ("chelsea", (12, 30, 11, 9), (24, 24)),
    ("chelsea", (0, 2, 60, 7), (16, 24)),
    ("coffee", (40, 66, 10, 9), (24, 24)),
    ("coffee", (3, 1, 24, 24), (24, 24)),
]

resized_crop = jax.jit(augment.resized_crop, static_argnames="size")


@pytest.mark.parametrize("case", range(len(BOXES)))
def test_resized_crop_equals_torchvision(case):
    name, box, size = BOXES[case]
    image = PHOTOGRAPHS[name]
    crop = np.asarray(resized_crop(image, *box, size=size))
    assert crop.shape == (*size, 3)
    # The golden values are float16, with errors of up to 2.5e-4.
    np.testing.assert_allclose(crop, GOLDEN[f"crop_{case}"], atol=4e-4)
    # torchvision rounds 8-bit crops and their weights to integers.
    np.testing.assert_allclose(crop * 255, GOLDEN[f"crop_bytes_{case}"], atol=1.01)
    np.testing.assert_allclose(
        crop, resized_crop(image / np.float32(255), *box, size=size), atol=1e-6
    )


@pytest.mark.parametrize(("box", "size"), [((5, 17, 40, 31), (24, 20)), ((0, 2, 60, 7), (16, 24))])
def test_bicubic_crops_equal_pillow(box, size):
    image = np.clip(PHOTOGRAPHS["chelsea"].astype(np.float32) / 255 * 1.6 - 0.3, 0, 1)
    top, left, height, width = box
    crop = jax.jit(augment.resized_crop, static_argnames=("size", "interpolation"))(
        image, *box, size=size, interpolation="bicubic"
    )
    cut = image[top : top + height, left : left + width]
    channels = [
        Image.fromarray(cut[..., c]).resize(size[::-1], Image.Resampling.BICUBIC) for c in range(3)
    ]
    expected = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    assert expected.min() < 0 or expected.max() > 1  # there is something to clip
    np.testing.assert_allclose(crop, np.clip(expected, 0, 1), atol=2e-5)


def test_vmap_over_boxes_equals_single_crops():
    image = PHOTOGRAPHS["astronaut"]
    boxes = np.array([[0, 0, 64, 64], [3, 7, 20, 31], [50, 60, 1, 4]])
    crops = jax.jit(jax.vmap(lambda box: augment.resized_crop(image, *box, size=24)))(boxes)
    for box, crop in zip(boxes, np.asarray(crops)):
        np.testing.assert_allclose(crop, resized_crop(image, *box, size=24), atol=1e-6)


def test_a_crop_ignores_pixels_outside_its_box():
    image = np.zeros((16, 16, 1), np.float32)
    image[4:12, 6:13] = 1.0
    for size in (5, 8, 21):
        crop = exact_jit(lambda image, size=size: resized_crop(image, 4, 6, 8, 7, size=size))
        np.testing.assert_allclose(crop(image), 1.0, atol=1e-6)


def test_resize_equals_the_crop_of_the_whole_image_and_is_exact_at_equal_size():
    image = PHOTOGRAPHS["astronaut"]
    resize = jax.jit(augment.resize, static_argnames="size")
    np.testing.assert_array_equal(resize(image, size=64), jax.jit(augment.to_float)(image))
    np.testing.assert_allclose(resize(image, size=24), GOLDEN["crop_0"], atol=4e-4)


def test_center_crop():
    image = np.arange(30).reshape(5, 6, 1)
    np.testing.assert_array_equal(augment.center_crop(image, size=(3, 2)), image[1:4, 2:4])
    with pytest.raises(ValueError, match="resize it first"):
        augment.center_crop(image, size=7)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (224, 300), (20, 100)])
def test_boxes_have_the_distribution_of_torchvision(height, width):
    draws = 20_000
    keys = jax.random.split(jax.random.key(1), draws)
    boxes = jax.jit(jax.vmap(lambda key: augment.sample_box(key, height, width)))(keys)
    boxes = jax.tree.map(np.asarray, boxes)
    assert np.all((boxes.top >= 0) & (boxes.top + boxes.height <= height))
    assert np.all((boxes.left >= 0) & (boxes.left + boxes.width <= width))
    assert np.all((boxes.height >= 1) & (boxes.width >= 1))
    # Two-sample Kolmogorov-Smirnov statistic; 0.022 is exceeded by chance once in 7,000.
    for side, count in (("height", height), ("width", width), ("top", height), ("left", width)):
        distribution = np.cumsum(np.bincount(getattr(boxes, side), minlength=count + 1)) / draws
        gap = np.abs(distribution - GOLDEN[f"box_{height}_{width}_{side}"]).max()
        assert gap < 0.022, side
    area = boxes.height * boxes.width / (height * width)
    aspect = boxes.width / boxes.height
    quantiles = np.linspace(0.05, 0.95, 19)
    for name, values in (("area", area), ("aspect", aspect)):
        golden = GOLDEN[f"box_{height}_{width}_{name}"]
        np.testing.assert_allclose(np.quantile(values, quantiles), golden, rtol=0.03, atol=0.02)


def test_fallback_is_the_largest_central_box_with_an_allowed_aspect():
    for height, width, expected in [
        (10, 40, (0, 13, 10, 13)),
        (40, 10, (13, 0, 13, 10)),
        (9, 8, (0, 0, 9, 8)),
    ]:
        # A box of four times the image never fits.
        sample = partial(augment.sample_box, height=height, width=width, scale=(4.0, 4.0))
        box = jax.jit(sample)(jax.random.key(0))
        assert tuple(int(x) for x in box) == expected


def test_random_resized_crop_of_the_whole_image_is_the_image():
    image = PHOTOGRAPHS["astronaut"]
    crop = jax.jit(
        partial(augment.random_resized_crop, size=64, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    )
    np.testing.assert_allclose(crop(jax.random.key(0), image), image / 255, atol=1e-6)


def test_random_flip_flips_half():
    image = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    keys = jax.random.split(jax.random.key(0), 4096)
    images = np.asarray(jax.jit(jax.vmap(partial(augment.random_flip, image=image)))(keys))
    flipped = np.all(images == image[:, ::-1], axis=(1, 2, 3))
    kept = np.all(images == image, axis=(1, 2, 3))
    assert np.all(flipped ^ kept)
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / 64


def test_errors():
    image = jnp.zeros((4, 4, 3))
    with pytest.raises(ValueError, match="size is a height"):
        augment.resize(image, size=0)
    with pytest.raises(ValueError, match="scale must be a range"):
        augment.sample_box(jax.random.key(0), 4, 4, scale=(1.0, 0.1))
    with pytest.raises(TypeError, match="int32"):
        augment.resize(jnp.zeros((4, 4, 3), jnp.int32), size=2)
