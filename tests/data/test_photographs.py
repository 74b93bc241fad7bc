"""Crops of photographs: their positions, decoded from synthetic photographs, and mistakes."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sslax import data
from sslax.data.files import installed
from sslax.data.sources import photographs
from sslax.errors import MissingExtra

HEIGHT, WIDTH = 200, 250
CUT = 75  # 30 % of the width


def config(**fields):
    result = data.defaults()
    result.update({"source": "photographs", "labels": False, "device": "stream", **fields})
    return result


def error(**fields):
    with pytest.raises(data.DataError) as caught:
        data.load(config(**fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def ramps(monkeypatch):
    """Two photographs that encode x in red, y in green and their index in blue; a correct filter
    keeps ramps ramps."""

    def decode(name):
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        return np.stack([x, y, np.full_like(x, name)], -1).astype(np.uint8)

    monkeypatch.setattr(installed, "FILES", ((None, 0), (None, 1)))
    monkeypatch.setattr(installed, "installed_file", lambda package, name: name)
    monkeypatch.setattr(installed.images, "decode", decode)
    installed.photograph_parts.cache_clear()
    yield
    installed.photograph_parts.cache_clear()


def boxes(source):
    """`[N, 6]`: first and last row, first and last column, side of the crop, photograph."""
    found = []
    for i in range(len(source)):
        pixels = source[i]["image"].astype(np.float64)
        inner = pixels[2:-2, 2:-2]  # at the border the filter is truncated
        step = np.diff(inner, axis=1)[..., 0].mean()
        np.testing.assert_allclose(np.diff(inner, axis=0)[..., 1].mean(), step, atol=0.07)
        half = step * source.size / 2
        (y, x), photograph = inner[..., [1, 0]].mean((0, 1)), pixels[0, 0, 2]
        found.append([y - half + 0.5, y + half - 0.5, x - half + 0.5, x + half - 0.5, 2 * half])
        found[-1].append(photograph)
    return np.array(found)


@pytest.mark.parametrize("size", [16, 60])
def test_crops_cover_their_part_alone(ramps, size):
    train, test, _ = photographs.load(config(image_size=size))
    largest, sides = min(4 * size, CUT), []
    for source, first, last in ((train, CUT, WIDTH - 1), (test, 0, CUT - 1)):
        source.length = 400
        top, bottom, left, right, side, which = boxes(source).T
        slack = 1.0  # from rounded pixels
        assert first - slack < left.min() and right.max() < last + slack
        assert -slack < top.min() and bottom.max() < HEIGHT - 1 + slack
        # Up to the borders, and uniformly over all scales.
        assert left.min() < first + 4 and right.max() > last - 4
        assert top.min() < 4 and bottom.max() > HEIGHT - 5
        assert size - slack < side.min() < 1.1 * size
        assert 0.95 * largest < side.max() < largest + slack
        np.testing.assert_allclose(np.median(side), (size * largest) ** 0.5, rtol=0.1)
        assert 0.4 < which.mean() < 0.6
        sides.append(side)
    assert abs(np.corrcoef(sides)[0, 1]) < 0.2  # the parts are drawn independently


def test_records_are_functions_of_their_index():
    train, test, names = data.load(config())
    assert (len(train), len(test), names) == (8000, 2000, None)
    numbers = [7999, 3, 0, 3]
    first = [train[i] for i in numbers]
    copy = pickle.loads(pickle.dumps(train))
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(copy.__getitem__, numbers))
    for one, other in zip(first, again):
        assert set(one) == {"image"}
        assert one["image"].shape == (32, 32, 3) and one["image"].dtype == np.uint8
        np.testing.assert_array_equal(one["image"], other["image"])
    some = {source[i]["image"].tobytes() for source in (train, test) for i in range(200)}
    assert len(some) > 350  # only crops of flat regions may be equal
    with pytest.raises(IndexError):
        photographs.load(config()).test[2000]


def test_these_are_photographs_in_color():
    parts = installed.photograph_parts()
    assert len(parts.train) == len(parts.test) == 8 and parts.narrowest == 135
    for right, left in zip(parts.train, parts.test):
        whole = np.concatenate([left, right], axis=1)
        assert left.shape[1] == round(0.3 * whole.shape[1])
        assert whole.std() > 25 and np.ptp(whole, axis=-1).mean() > 10


def test_size_and_channels_are_as_asked():
    dataset = data.load(config(image_size=24, channels=1))
    assert dataset.test[5]["image"].shape == (24, 24, 1)
    colored = data.load(config(image_size=24)).test[5]["image"]
    gray = colored @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(dataset.test[5]["image"][..., 0], gray, atol=1.5)
    assert data.load(config(image_size=135)).train[0]["image"].shape == (135, 135, 3)


def test_mistakes(monkeypatch):
    assert "data.labels=False" in error(labels=True)
    assert "reads no path" in error(path="/somewhere")
    assert "at most 135" in error(image_size=136)
    assert "data.test_fraction" in error(test_fraction=0.1)
    monkeypatch.setattr(installed, "FILES", (("skimage", "data/nothing.png"),))
    installed.photograph_parts.cache_clear()
    assert "skimage/data/nothing.png is missing: install scikit-image again" in error()
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"skimage is not .* pip install 'sslax\[geometry\]'"):
        data.load(config())
    monkeypatch.undo()
    assert len(installed.photograph_parts().train) == 8
