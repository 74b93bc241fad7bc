"""Files of depth and flow."""

import numpy as np

from sslax.data.files.cameras import read_intrinsics
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


def test_learned_cameras_make_clouds_and_a_file(tmp_path):
    """The given camera has precedence in clouds; the file is the median of the learned ones."""
    frame = inputs.Frame("a", np.zeros((2, 3, 3), np.uint8))
    cameras = [np.array([[f, 0, 2.0], [0, f, 1.5], [0, 0, 1]]) for f in (10.0, 20.0, 90.0)]
    writer = outputs.DepthFiles(tmp_path)
    depth = np.full((2, 3), 2.0, np.float32)
    for camera in cameras:
        writer.write(frame, DepthMaps(depth=depth, intrinsics=camera))
    said = outputs.write_camera(tmp_path, writer.cameras)
    assert (
        "focal lengths 20.0 and 20.0 pixels, 6.667 widths, and center (2.0, 1.5) of 3 x 2" in said
    )
    np.testing.assert_array_equal(read_intrinsics(tmp_path / "intrinsics.txt"), cameras[1])
    last = (tmp_path / "a.ply").read_bytes()
    given = outputs.DepthFiles(tmp_path, intrinsics=cameras[0])
    given.write(frame, DepthMaps(depth=depth, intrinsics=cameras[2]))
    assert (tmp_path / "a.ply").read_bytes() != last
    other = [*writer.cameras, (cameras[0], (5, 2))]
    assert "There is no intrinsics.txt" in outputs.write_camera(tmp_path, other)
