"""Images that are neither gray nor RGB: arrays, TIFF files, and what views do with them."""

import io
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

from sslax import augment, data
from sslax.data.files import bands, images

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4000, (4, 12, 10, 5), dtype=np.uint16)


def config(**fields):
    result = data.defaults()
    result.update(fields)
    return result


def error(**fields):
    with pytest.raises(data.DataError) as caught:
        data.load(config(**fields))
    return str(caught.value)


def eight_bits(values, low, high):
    return np.rint(255 * np.clip((values.astype(float) - low) / (high - low), 0, 1))


@pytest.fixture
def folder(tmp_path):
    for i, image in enumerate(DEEP):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        np.save(tmp_path / "ab"[i % 2] / f"{i}.npy", image)
    return str(tmp_path)


def test_arrays_of_a_folder(folder, tmp_path):
    fields = {"source": "folder", "path": folder, "channels": 5}
    train = data.load(config(**fields, value_range=(0, 4000))).train
    np.testing.assert_array_equal(train.images, eight_bits(DEEP[[0, 2, 1, 3]], 0, 4000))
    ends = tuple((100 * i, 2000 + 100 * i) for i in range(5))
    train = data.load(config(**fields, value_range=ends)).train
    low, high = np.transpose(ends)
    np.testing.assert_array_equal(train.images, eight_bits(DEEP[[0, 2, 1, 3]], low, high))
    whole = data.load(config(**fields)).train  # all 16 bits
    np.testing.assert_array_equal(whole.images, np.rint(DEEP[[0, 2, 1, 3]] / 257))
    small = data.load(config(**fields, value_range=ends, image_size=6)).train
    # Each band as a gray image.
    for i in range(5):
        gray = Image.fromarray(train.images[0, ..., i])
        want = gray.resize((6, 6), Image.Resampling.BILINEAR, box=(0, 1, 10, 11))
        np.testing.assert_array_equal(small.images[0, ..., i], np.asarray(want))


def test_tiff_files_of_bands(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    image = DEEP[0]
    options = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "last.tif", image, planarconfig="contig", **options)
    tifffile.imwrite(tmp_path / "first.tif", image.transpose(2, 0, 1), **options)
    planes = {"planarconfig": "separate", **options}
    tifffile.imwrite(tmp_path / "planes.tif", image.transpose(2, 0, 1), **planes)
    for name in ("last", "first", "planes"):
        read = images.read_image(tmp_path / f"{name}.tif", channels=5, value_range=(0, 4000))
        np.testing.assert_array_equal(read, eight_bits(image, 0, 4000), err_msg=name)
    (tmp_path / "broken.tif").write_bytes((tmp_path / "last.tif").read_bytes()[:300])
    with pytest.raises(data.ImageError, match=r"broken\.tif cannot be read as an image"):
        images.read_image(tmp_path / "broken.tif", channels=5)


def test_arrays_in_archives_and_tar_files(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=DEEP, y_train=np.arange(4))
    fields = {"channels": 5, "value_range": (0, 4000)}
    train = data.load(config(source="npz", path=str(tmp_path / "a.npz"), **fields)).train
    np.testing.assert_array_equal(train.images, eight_bits(DEEP, 0, 4000))
    resized = data.load(
        config(source="npz", path=str(tmp_path / "a.npz"), **fields, image_size=6)
    ).train
    assert resized.images.shape == (4, 6, 6, 5)
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for i, image in enumerate(DEEP):
            buffer = io.BytesIO()
            np.save(buffer, image)
            entry = tarfile.TarInfo(f"{i}.npy")
            entry.size = buffer.tell()
            buffer.seek(0)
            shard.addfile(entry, buffer)
    shard = {"source": "webdataset", "path": str(tmp_path / "a.tar"), "labels": False}
    np.testing.assert_array_equal(data.load(config(**shard, **fields)).train.images, train.images)


def test_mistakes_about_bands(folder, tmp_path):
    fields = {"source": "folder", "path": folder}
    assert "is uint16 [12, 10, 5], and images of data.channels=4 bands" in error(
        **fields, channels=4
    )
    assert "has 2 pairs for 5 bands" in error(**fields, channels=5, value_range=((0, 1), (0, 1)))
    assert "one pair for each band" in error(**fields, channels=5, value_range=((0, 1), (3, 2)))
    assert "images are the files ending in" in error(**fields)  # arrays are no RGB images
    ramp = np.linspace(0, 100, 101)[:, None, None] * np.array([1.0, 2.0])
    with pytest.raises(
        data.ImageError, match=r"float64: set data.value_range=\(\(1, 99\), \(2, 198"
    ):
        bands.to_eight_bits(ramp)
    with pytest.raises(data.ImageError, match="not finite"):
        bands.to_eight_bits(np.full((2, 2, 2), np.nan), (0, 1))
    np.save(tmp_path / "a" / "0.npy", np.array([object()]), allow_pickle=True)
    assert "one of Python objects" in error(**fields, channels=5)
    np.savez(tmp_path / "x.npz", x_train=DEEP.astype(np.float32), y_train=np.arange(4))
    assert "x_train of" in error(source="npz", path=str(tmp_path / "x.npz"), channels=5)
    with pytest.raises(data.ImageError, match=r"5 channels, which cannot become"):
        images.convert(DEEP[0].astype(np.uint8), channels=3)


def test_views_of_bands(caplog):
    image = (DEEP[0] / 4000).astype(np.float32)
    (recipe, _) = augment.get_view_recipes("simclr", size=8, jitter=1.0, grayscale=1.0)
    view = augment.make_view(jax.random.key(0), image, recipe)
    plain = recipe._replace(saturation=0.0, hue=0.0, grayscale=0.0)
    np.testing.assert_array_equal(view, augment.make_view(jax.random.key(0), image, plain))
    assert view.shape == (8, 8, 5) and 0 <= view.min() < view.max() <= 1
    assert (
        "leave out saturation, hue, grayscale, which only RGB has: the images have 5" in caplog.text
    )
    # Contrast leaves the mean over all bands where it is.
    pale = augment.adjust_contrast(image, 0.5)
    np.testing.assert_allclose(pale, 0.5 * image + 0.5 * image.mean(), atol=1e-6)
    with pytest.raises(ValueError, match="expected 1"):
        augment.color_jitter(jax.random.key(0), image, saturation=0.2)
