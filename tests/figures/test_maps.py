"""Colors of maps against values derived by hand from the published definitions."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from sslax import figures
from sslax.figures import maps, style
from sslax.types import FlowField, InverseDepth


def test_wheel_has_the_published_colors():
    wheel = maps.flow_wheel()
    assert wheel.shape == (55, 3)
    # The first, the second and the last color of each of the six arcs: 255 i / n, rounded down.
    by_hand = {
        0: (255, 0, 0),
        1: (255, 17, 0),
        14: (255, 238, 0),
        15: (255, 255, 0),
        16: (213, 255, 0),
        20: (43, 255, 0),
        21: (0, 255, 0),
        22: (0, 255, 63),
        24: (0, 255, 191),
        25: (0, 255, 255),
        26: (0, 232, 255),
        35: (0, 24, 255),
        36: (0, 0, 255),
        37: (19, 0, 255),
        48: (235, 0, 255),
        49: (255, 0, 255),
        50: (255, 0, 213),
        54: (255, 0, 43),
    }
    assert {index: tuple(wheel[index]) for index in by_hand} == by_hand


@pytest.mark.parametrize(
    ("flow", "color"),
    [
        ((1, 0), (255, 0, 0)),  # position 0
        ((-1, 0), (0, 209, 255)),  # position 27: (0, 255 - 46, 255)
        ((0, 1), (255, 229, 0)),  # position 13.5: between (255, 221, 0) and (255, 238, 0)
        ((0, -1), (88, 0, 255)),  # position 40.5: between (78, 0, 255) and (98, 0, 255)
        ((0, 0), (255, 255, 255)),
        ((0.5, 0), (255, 127, 127)),  # halfway from white
        ((2, 0), (191, 0, 0)),  # beyond the radius: darkened to three quarters
        ((np.nan, 0), (0, 0, 0)),
        ((1.7e9, 0), (0, 0, 0)),
    ],
)
def test_flow_colors_by_hand(flow, color):
    found = figures.flow_colors(np.array([[flow]]), max_radius=1.0)
    assert found.dtype == np.uint8
    assert tuple(found[0, 0]) == color


def test_the_sign_of_zero_changes_nothing():
    both = figures.flow_colors(np.array([[1.0, 0.0], [1.0, -0.0], [-1.0, -0.0], [-1.0, 0.0]]))
    assert both[0].tolist() == both[1].tolist() and both[2].tolist() == both[3].tolist()


def test_flow_colors_equal_a_loop():
    """Pixel by pixel, with the position on the wheel from the angle in turns."""
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 5, (6, 7, 2))
    flow[0, 0] = np.nan
    mask = rng.random((6, 7)) < 0.8
    known = mask & np.isfinite(flow).all(-1)
    largest = np.hypot(*flow[known].T).max()
    found = figures.flow_colors(flow, mask=mask)
    wheel = maps.flow_wheel()
    for y, x in np.ndindex(6, 7):
        if not known[y, x]:
            assert found[y, x].tolist() == [0, 0, 0]
            continue
        turn = (np.angle(complex(*flow[y, x])) / (2 * np.pi)) % 1  # 0 to 1, from right by down
        position = turn * 54
        low = int(position)
        hue = wheel[low] + (position - low) * (wheel[(low + 1) % 55] - wheel[low])
        radius = np.hypot(*flow[y, x]) / largest
        np.testing.assert_allclose(found[y, x], 255 - radius * (255 - hue), atol=1)


def test_flow_scale_and_shape():
    flow = np.random.default_rng(1).normal(size=(2, 3, 4, 2))
    np.testing.assert_array_equal(figures.flow_colors(flow), figures.flow_colors(8 * flow))
    assert (figures.flow_colors(np.zeros((3, 4, 2))) == 255).all()
    assert (figures.flow_colors(flow, mask=np.zeros((2, 3, 4))) == 0).all()
    with pytest.raises(AssertionError):
        figures.flow_colors(np.zeros((4, 3)))


def test_legend():
    legend = figures.flow_legend(101)
    assert legend.shape == (101, 101, 3)
    for pixel, color in (
        ((50, 50), (255, 255, 255)),
        ((50, 100), (255, 0, 0)),
        ((100, 50), (255, 229, 0)),
        ((0, 0), (255, 255, 255)),
    ):
        assert tuple(legend[pixel]) == color


def test_disparity_colors():
    disparity = np.array([[0.0, 1.0, 2.0, 4.0, np.nan, np.inf, 9.0]])
    mask = np.array([[1, 1, 1, 1, 1, 1, 0]])
    magma = (np.array(matplotlib.colormaps["magma"].colors) * 255).astype(int)
    found = figures.disparity_colors(disparity, mask=mask, highest=2.0).astype(int)
    # 0 is the darkest of 256 colors, 1 the middle one, 2 and beyond the brightest.
    for index, shade in ((0, 0), (1, 128), (2, 255), (3, 255)):
        np.testing.assert_allclose(found[0, index], magma[shade], atol=1)
    assert found[0, 4:].tolist() == [[128] * 3] * 3
    # By default up to the 95th percentile of 0, 1, 2, 4: 3.7.
    default = figures.disparity_colors(disparity, mask=mask)
    explicit = figures.disparity_colors(disparity, mask=mask, lowest=0.0, highest=3.7)
    np.testing.assert_array_equal(default, explicit)
    assert (figures.disparity_colors(np.full((2, 2), np.nan)) == 128).all()
    # Nearer is brighter, and no color is the gray of the unknown.
    assert (np.diff(magma.astype(float) @ [0.2126, 0.7152, 0.0722])[5:] > -1).all()
    assert np.abs(magma - 128).max(1).min() > 20


def test_depth_colors_are_those_of_inverse_depth():
    depth = np.array([[0.5, 1.0, 4.0, np.inf, 0.0, -1.0, np.nan]])
    found = figures.depth_colors(depth, nearest=0.5, farthest=10.0)
    wanted = figures.disparity_colors(
        np.array([[2.0, 1.0, 0.25, 0.0, np.nan, np.nan, np.nan]]), lowest=0.1, highest=2.0
    )
    np.testing.assert_array_equal(found, wanted)
    hidden = figures.depth_colors(depth, mask=np.zeros_like(depth))
    assert (hidden == 128).all()


def test_columns_of_maps_are_colorized_one_by_one():
    rng = np.random.default_rng(0)
    disparity = rng.random((2, 8, 10)).astype(np.float32)
    disparity[1] *= 7
    found = figures.colorize(InverseDepth(disparity))
    for colors, values in zip(found, disparity):
        np.testing.assert_array_equal(colors, figures.disparity_colors(values))
    flow = rng.normal(0, 3, (2, 9, 11, 2)).astype(np.float32)
    flow[1] *= 7
    found = figures.colorize(FlowField(flow))
    for colors, field in zip(found, flow):
        np.testing.assert_array_equal(colors, figures.flow_colors(field))
    radius = np.array([2.5, 9.0]).reshape(2, 1, 1)
    found = figures.colorize(FlowField(flow, radius))
    for colors, field, most in zip(found, flow, (2.5, 9.0)):
        np.testing.assert_array_equal(colors, figures.flow_colors(field, max_radius=most))
    images = rng.random((2, 4, 4, 3), dtype=np.float32)
    np.testing.assert_array_equal(figures.colorize(images), images)


def test_the_fastest_pixel_is_not_darkened_by_a_radius_in_float32():
    flow = np.random.default_rng(0).normal(0, 3, (100, 1, 2)).astype(np.float32)
    speed = np.hypot(flow[..., 0], flow[..., 1])
    assert speed.dtype == np.float32
    for radius in (speed, np.nextafter(speed, np.float32(0))):
        found = figures.flow_colors(flow, max_radius=radius)
        expected = np.stack([figures.flow_colors(vector) for vector in flow])  # all of full color
        np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=1)


def test_trajectories(tmp_path):
    poses = np.tile(np.eye(4), (50, 1, 1))
    poses[:, 0, 3], poses[:, 2, 3] = np.linspace(0, 10, 50), np.linspace(0, 80, 50)
    path = tmp_path / "new" / "trajectory.png"
    figures.trajectories({"ground truth": poses, "predicted": poses[:, :3, 3] * 0.8}, path)
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape[:2] == (round(5.8 * style.DPI), round(5.6 * style.DPI))

    def pixels(color):
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        inside = picture[100:-80, 100:]
        return np.argwhere(np.abs(inside - wanted).max(-1) <= 6)

    black, blue = pixels(style.INK), pixels(style.PALETTE[0])
    # The ground truth continues above the other's end; both rise more than they move right.
    assert len(black) > 20 and len(blue) > 100
    assert black[:, 0].min() < blue[:, 0].min() - 30
    assert np.ptp(blue[:, 0]) > 3 * np.ptp(blue[:, 1])  # of 8 to the right and 64 ahead
    with pytest.raises(AssertionError):
        figures.trajectories({"x": np.zeros((4, 2))}, path)
