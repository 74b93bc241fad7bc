"""Pictures as text: what is decoded is what was given."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from sslax.report import pictures

RNG = np.random.default_rng(0)


def decoded(uri):
    kind, data = uri.removeprefix("data:image/").split(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.format.lower() == kind
    return picture


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_are_exact(channels):
    image = RNG.integers(0, 256, (20, 30, channels), dtype=np.uint8)
    found = np.asarray(decoded(pictures.data_uri(image)))
    np.testing.assert_array_equal(found.reshape(image.shape), image)
    as_float = np.asarray(decoded(pictures.data_uri(image / 255)))
    np.testing.assert_array_equal(as_float, found)


def test_large_images_are_reduced_and_keep_their_shape():
    ramp = np.broadcast_to(np.linspace(0, 1, 800)[:, None], (400, 800, 3))
    picture = decoded(pictures.data_uri(ramp, side=200))
    assert picture.size == (200, 100) and picture.format == "JPEG"
    found = np.asarray(picture) / 255
    np.testing.assert_allclose(found[50, :, 0], np.linspace(0, 1, 200), atol=0.02)


def test_thumbnails_of_a_sheet_do_not_bleed():
    """Black and white in turn, of a size that is no multiple of JPEG's blocks."""
    images = np.zeros((7, 12, 10, 3), np.uint8)
    images[1::2] = 255
    sheet = pictures.sheet(images)
    page = np.asarray(decoded(sheet["uri"])).astype(int)
    assert sheet["count"] == 7 and (sheet["width"], sheet["height"]) == (10, 12)
    for i, image in enumerate(images):
        y, x = (sheet["cell"] * at for at in divmod(i, sheet["columns"]))
        assert np.abs(page[y : y + 12, x : x + 10] - image).max() <= 2
    assert decoded(pictures.sheet(np.zeros((2, 96, 192, 1)))["uri"]).size == (96, 48)


def test_numbers_come_back_from_sixteen_bits():
    values = RNG.normal(0, 5, (9, 11))
    values[0, :3] = np.nan, np.inf, -np.inf
    found = pictures.quantized(values)
    codes = np.frombuffer(base64.b64decode(found["data"]), "<u2").reshape(found["shape"])
    np.testing.assert_array_equal(codes == 0, ~np.isfinite(values))
    back = found["low"] + (codes - 1.0) / 65534 * (found["high"] - found["low"])
    known = codes > 0
    step = (found["high"] - found["low"]) / 65534
    assert np.abs(back - values)[known].max() <= 0.51 * step


@pytest.mark.parametrize("values", [np.full((2, 2), np.nan), np.full((2, 2), 3.0)])
def test_maps_without_a_range_have_codes(values):
    found = pictures.quantized(values)
    codes = np.frombuffer(base64.b64decode(found["data"]), "<u2")
    assert set(codes) == ({0} if np.isnan(values).all() else {1})
    assert np.isfinite([found["low"], found["high"]]).all()
