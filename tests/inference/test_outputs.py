"""Files of depth and flow."""

import numpy as np

from sslax.data.files.flow_files import read_flow
from sslax.data.files.maps import read_scaled_png
from sslax.inference import inputs, outputs
from sslax.types import DepthMaps, FlowMaps


def test_far_points_are_left_out_of_clouds():
    depths = np.array([[1.0, 2.0, 3.0, 11.0, np.inf, 0.0]])
    image = np.zeros((1, 6, 1), np.uint8)
    points, colors = outputs.point_cloud(depths, image, np.eye(3), reach=4.0)  # 4 x 2.5 = 10
    assert points[:, 2].tolist() == [1.0, 2.0, 3.0] and colors.shape == (3, 3)


def test_values_beyond_16_bits_are_unknown_and_counted(tmp_path):
    writer = outputs.DepthFiles(tmp_path)
    values = np.array([[1.0, 300.0, np.inf, 255.0]], np.float32)
    writer.write(inputs.Frame("a", np.zeros((1, 4, 3), np.uint8)), DepthMaps(depth=values))
    stored, known = read_scaled_png(tmp_path / "a.png")
    assert stored[0].tolist() == [1, 0, 0, 255] and known[0].tolist() == [True, False, False, True]
    assert writer.unfit == 1
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values)
    writer = outputs.FlowFiles(tmp_path)
    field = np.array([[[1.5, 2.0], [600.0, 0.0]]], np.float32)
    writer.write(inputs.Frame("b", np.zeros((1, 2, 3), np.uint8)), FlowMaps(flow=field))
    _, known = read_flow(tmp_path / "b.png")
    assert known[0].tolist() == [True, False] and writer.unfit == 1
    np.testing.assert_array_equal(read_flow(tmp_path / "b.flo")[0], field)
