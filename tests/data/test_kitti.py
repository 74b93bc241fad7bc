"""KITTI and Cityscapes in tiny copies of their published layouts."""

import json
import logging
import pickle
import runpy

import numpy as np
import pytest
import runs
from geometric_config import checked, config, noise, write_images

from sslax.data import fitting
from sslax.data.files.cameras import write_kitti_poses
from sslax.data.files.maps import write_scaled_png
from sslax.data.files.png import write_png
from sslax.data.records import DataError
from sslax.data.sources import cityscapes, kitti
from sslax.data.sources.kitti import read_split
from sslax.data.sources.kitti_layout import kitti_depth, traveled

FOCAL, OFFSETS = 24.0, {0: 0.0, 1: -12.0, 2: 1.2, 3: -11.4}
DATE, DRIVE = "2011_09_26", "2011_09_26/2011_09_26_drive_0001_sync"
PROJECTION = {
    n: np.array([[FOCAL, 0, 10, offset], [0, FOCAL, 5.5, 0.12], [0, 0, 1, 0.01]])
    for n, offset in OFFSETS.items()
}
TURN = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # laser: x forward, y left, z up


def error(source, **fields):
    with pytest.raises(DataError) as caught:
        source.load(checked(**fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def text(values):
    return " ".join(f"{value:.12g}" for value in np.ravel(values))


def write_raw(root, drive=DRIVE, frames=range(6)):
    """A drive at 10, 11, 12, ... m/s; camera 2 has image i, camera 3 image 100 + i."""
    folder = root / drive
    for camera in (2, 3):
        names = [f"{i:010d}.png" for i in frames]
        pixels = [noise(i + 100 * (camera == 3)) for i in frames]
        write_images(folder / f"image_{camera:02d}" / "data", names, pixels)
    (folder / "oxts" / "data").mkdir(parents=True, exist_ok=True)
    (folder / "velodyne_points" / "data").mkdir(parents=True, exist_ok=True)
    for i in frames:
        line = np.zeros(30)
        line[8:11] = np.array([0.6, 0.0, 0.8]) * (10 + i)
        (folder / "oxts" / "data" / f"{i:010d}.txt").write_text(text(line))
        scan = np.array([[5.0 + i, 0, 0, 0], [-5, 0, 0, 0], [4, 1, 0, 0]], "<f4")
        scan.tofile(folder / "velodyne_points" / "data" / f"{i:010d}.bin")
    stamps = [f"2011-09-26 13:02:{25 + 0.2 * i:012.9f}\n" for i in range(max(frames) + 1)]
    (folder / "oxts" / "timestamps.txt").write_text("".join(stamps))
    calibration = ["calib_time: 09-Jan-2012 13:57:47", f"R_rect_00: {text(np.eye(3))}"]
    calibration += [f"P_rect_{n:02d}: {text(matrix)}" for n, matrix in PROJECTION.items()]
    (folder.parent / "calib_cam_to_cam.txt").write_text("\n".join(calibration))
    laser = f"R: {text(TURN)}\nT: {text([0, 0, -0.25])}\n"
    (folder.parent / "calib_velo_to_cam.txt").write_text(laser)
    return root


def write_lines(path, *lines):
    path.write_text("\n".join(lines))
    return str(path)


# Raw


def test_raw_drives(tmp_path):
    write_raw(tmp_path)
    fields = {"path": str(tmp_path), "frames": 3, "stereo": True, "distances": True}
    train, test, names = kitti.load(config(**fields))
    assert test is None and names is None and len(train) == 4
    record = pickle.loads(pickle.dumps(train))[1]
    expected = [noise(i) for i in (1, 2, 3, 102)]
    np.testing.assert_array_equal(record["image"], expected)
    np.testing.assert_allclose(record["intrinsics"], PROJECTION[2][:, :3])
    assert record["baseline"] == np.float32((1.2 + 11.4) / FOCAL)
    # 0.2 s at the mean of 11 and 12 m/s, and of 12 and 13.
    np.testing.assert_allclose(record["distance"], [2.3, 0, 2.5], rtol=1e-5)


def test_split_files(tmp_path):
    write_raw(tmp_path)
    train = write_lines(tmp_path / "train.txt", f"{DRIVE} 3 r", "", f"{DRIVE} 0000000001 l")
    test = write_lines(tmp_path / "test.txt", f"{DRIVE} 0 l", f"{DRIVE} 5 l")
    fields = {"path": str(tmp_path), "frames": 3, "stereo": True}
    own = {"split_file": train, "test_split_file": test, "depth": "velodyne"}
    dataset = kitti.load(config(**fields, kitti=own))
    right, left = dataset.train[0], dataset.train[1]
    np.testing.assert_array_equal(right["image"], [noise(i) for i in (102, 103, 104, 3)])
    np.testing.assert_array_equal(left["image"], [noise(i) for i in (0, 1, 2, 101)])
    assert right["baseline"] == -left["baseline"] < 0
    # Where a test frame lacks a neighbor, it is repeated itself.
    np.testing.assert_array_equal(dataset.test[0]["image"], [noise(i) for i in (0, 0, 1, 100)])
    assert set(dataset.test[0]) == {"image", "intrinsics", "baseline", "depth", "sequence"}
    assert "depth" not in left


def test_drives_of_the_test_are_not_in_the_training_set(tmp_path):
    other = DRIVE.replace("0001", "0002")
    write_raw(tmp_path)
    write_raw(tmp_path, other)
    test = write_lines(tmp_path / "test.txt", f"{DRIVE} 3 l")
    own = {"test_split_file": test}
    train, test, _ = kitti.load(config(path=str(tmp_path), frames=3, kitti=own))
    assert [clip.name for clip in train.clips] == [f"{other}, camera 2"]
    assert len(test) == 1 and test.clips[0].name.startswith(DRIVE)


def test_laser_depth(tmp_path):
    """A point 5 m ahead of the laser is 4.75 m before camera 0, and 4.76 m by P's last entry."""
    write_raw(tmp_path)
    test = write_lines(tmp_path / "test.txt", f"{DRIVE} 0 l")
    own = {"test_split_file": test, "depth": "velodyne"}
    fields = {"path": str(tmp_path), "frames": 3, "kitti": own}
    other = write_raw(tmp_path, DRIVE.replace("0001", "0002"))
    depth = kitti.load(config(**fields)).test[0]["depth"]
    assert other == tmp_path and depth.shape == (12, 20)
    expected = np.zeros((12, 20), np.float32)
    for point in ([0, 0, 4.75, 1], [-1, 0, 3.75, 1]):
        x, y, z = PROJECTION[2] @ point
        expected[round(y / z), round(x / z)] = z
    assert np.count_nonzero(expected) == 2
    np.testing.assert_allclose(depth, expected, rtol=1e-6)
    half = kitti.load(config(**fields, size=(6, 10))).test[0]
    rows, columns = np.nonzero(half["depth"])
    # The intrinsics at that size project the points to where they are found.
    for row, column in zip(rows, columns):
        z = half["depth"][row, column] - 0.01
        x = {4.75: 0.0, 3.75: -1.0}[round(float(z), 3)]
        at = half["intrinsics"] @ [x, 0, z] + 0.5 * np.array([1.2, 0.12, 0.02])
        np.testing.assert_allclose(at[:2] / at[2], [column, row], atol=0.55)
    assert len(rows) == 2


def test_nearest_point_of_a_pixel():
    projection = np.array([[10.0, 0, 2, 0], [0, 10, 1, 0], [0, 0, 1, 0]])
    points = np.array([[0.02, 0, 4], [0, 0.03, 7], [0, 0, -2], [0.2, 0.08, 2]])
    depth = kitti_depth(points, projection, fitting.fit((3, 4)))
    np.testing.assert_array_equal(depth, [[0, 0, 0, 0], [0, 0, 4, 2], [0, 0, 0, 0]])


def test_improved_depth(tmp_path, caplog):
    root = write_raw(tmp_path / "raw")
    folder = tmp_path / "depth" / "val" / DRIVE.split("/")[1] / "proj_depth/groundtruth/image_02"
    folder.mkdir(parents=True)
    stored = np.zeros((12, 20))
    stored[2:4, 4:6] = [[3, 2], [9, 4]]
    write_scaled_png(folder / "0000000002.png", stored)
    test = write_lines(tmp_path / "test.txt", *(f"{DRIVE} {i} l" for i in range(4)))
    train = write_lines(tmp_path / "train.txt", f"{DRIVE} 2 l")
    own = {"split_file": train, "test_split_file": test, "depth": str(tmp_path / "depth")}
    fields = {"path": str(root), "frames": 3, "kitti": own}
    with caplog.at_level(logging.WARNING):
        held = kitti.load(config(**fields, size=(6, 10))).test
    assert "left out 3 of 4 test frames, whose depth was not measured" in caplog.text
    assert held.targets[:, 1].tolist() == [2]
    expected = np.zeros((6, 10))
    expected[1, 2] = 2
    np.testing.assert_array_equal(held[0]["depth"], expected)
    script = runpy.run_path(str(runs.ROOT / "experiments" / "kitti_ground_truth.py"))
    maps, frames = script["measured"](str(root), test, str(tmp_path / "depth"))
    np.testing.assert_array_equal(maps, [stored])
    assert len(frames) == 1 and frames[0].endswith("0000000002.png")
    write_scaled_png(folder / "0000000002.png", stored[:, :10])
    with pytest.raises(DataError, match=r"02\.png has 10 x 12 pixels, but its image 20 x 12"):
        kitti.load(config(**fields, size=(6, 10))).test[0]
    (folder / "0000000002.png").unlink()
    assert "no measured depth for any" in error(kitti, **fields)


def test_missing_images_of_a_drive_do_not_shift_the_rest(tmp_path):
    write_raw(tmp_path, frames=[0, 1, 2, 5, 6, 7])
    train = write_lines(tmp_path / "train.txt", f"{DRIVE} 6 l")
    own = {"split_file": train}
    fields = {"path": str(tmp_path), "frames": 3, "kitti": own, "distances": True}
    record = kitti.load(config(**fields)).train[0]
    np.testing.assert_array_equal(record["image"], [noise(i) for i in (5, 6, 7)])
    np.testing.assert_allclose(record["distance"], [0.2 * 15.5, 0, 0.2 * 16.5], rtol=1e-5)


def test_no_sample_of_a_drive_spans_missing_images(tmp_path):
    write_raw(tmp_path, frames=[0, 1, 2, 5, 6, 7])
    fields = {"path": str(tmp_path), "frames": 3}
    assert kitti.load(config(**fields)).train.targets[:, 1].tolist() == [1, 4]
    own = {"split_file": write_lines(tmp_path / "s.txt", f"{DRIVE} 2 l")}
    assert "leave that line out" in error(kitti, **fields, kitti=own)
    train = write_lines(tmp_path / "s.txt", f"{DRIVE} 1 l")
    test = write_lines(tmp_path / "t.txt", f"{DRIVE} 2 l", f"{DRIVE} 5 l")
    own = {"split_file": train, "test_split_file": test}
    held = kitti.load(config(**fields, kitti=own)).test
    np.testing.assert_array_equal(held[0]["image"], [noise(i) for i in (1, 2, 2)])
    np.testing.assert_array_equal(held[1]["image"], [noise(i) for i in (5, 5, 6)])
    folder = tmp_path / DRIVE / "image_03" / "data"
    (folder / "0000000007.png").rename(folder / "0000000008.png")
    assert "images of the same frames" in error(kitti, **fields, stereo=True)


def test_traveled_is_the_integral_of_speed():
    times = np.linspace(0, 2, 201)
    np.testing.assert_allclose(traveled(3 * times**2, times)[-1], 8.0, rtol=1e-4)


def test_mistakes_of_kitti(tmp_path):
    fields = {"path": str(tmp_path), "frames": 3}
    assert "neither KITTI's raw data" in error(kitti, **fields)
    write_raw(tmp_path)

    def listed(*lines):
        own = {"split_file": write_lines(tmp_path / "s.txt", *lines)}
        return error(kitti, **fields, kitti=own)

    assert "frame 9" in listed(f"{DRIVE} 9 l")
    assert "leave that line out" in listed(f"{DRIVE} 0 l")
    assert "line 1: 'a b c d' is not" in listed("a b c d")
    assert "a side of l or r" in listed(f"{DRIVE} 1 x")
    assert "is empty" in listed("")
    assert "no images of 2011_09_26/none" in listed("2011_09_26/none 1 l")
    assert "does not exist" in error(kitti, **fields, kitti={"split_file": "none.txt"})
    assert "test_split_file" in error(kitti, **fields, test_path="x")
    own = {"test_split_file": write_lines(tmp_path / "t.txt", f"{DRIVE} 1 l")}
    assert "whole drives" in error(kitti, **fields, kitti=own, test_fraction=0.1)
    (tmp_path / DRIVE / "oxts" / "data" / "0000000002.txt").unlink()
    assert "no camera poses or speeds" in error(kitti, **fields, distances=True)


# Odometry


def write_odometry(root, names=("00", "09"), count=4, cameras=(2, 3)):
    for name in names:
        folder = root / "sequences" / name
        files = [f"{i:06d}.png" for i in range(count)]
        for camera in cameras:
            pixels = [noise(int(name) * 10 + i) for i in range(count)]
            write_images(folder / f"image_{camera}", files, pixels)
        lines = [f"P{n}: {text(matrix)}" for n, matrix in PROJECTION.items()]
        (folder / "calib.txt").write_text("\n".join(lines))
        poses = np.tile(np.eye(4), (count, 1, 1))
        angle = 0.5 * np.arange(count)
        poses[:, 0, 0] = poses[:, 2, 2] = np.cos(angle)
        poses[:, 0, 2], poses[:, 2, 0] = np.sin(angle), -np.sin(angle)
        poses[:, 2, 3] = np.arange(count)
        (root / "poses").mkdir(exist_ok=True)
        write_kitti_poses(root / "poses" / f"{name}.txt", poses)
    return poses


def test_odometry(tmp_path):
    world = write_odometry(tmp_path)
    train, test, _ = kitti.load(config(path=str(tmp_path), frames=3, distances=True))
    assert [clip.name for clip in train.clips] == ["00, camera 2"]
    assert [clip.name for clip in test.clips] == ["09, camera 2"]
    record = test[1]
    np.testing.assert_array_equal(record["image"], [noise(90 + i) for i in (1, 2, 3)])
    # A point that camera 2 sees at time 2, transformed through camera 0 and the world.
    point = np.array([0.5, -0.25, 6.0])
    shift = np.linalg.solve(PROJECTION[2][:, :3], PROJECTION[2][:, 3])
    there = np.linalg.solve(world[3], world[2] @ [*(point - shift), 1.0])[:3] + shift
    np.testing.assert_allclose((record["pose"][2] @ [*point, 1.0])[:3], there, atol=1e-5)
    centers = [np.linalg.solve(record["pose"][k], [0, 0, 0, 1.0])[:3] for k in range(3)]
    np.testing.assert_allclose(record["distance"], np.linalg.norm(centers, axis=1), atol=1e-5)


def test_gray_odometry_and_its_split(tmp_path):
    write_odometry(tmp_path, cameras=(0, 1))
    lines = write_lines(tmp_path / "s.txt", "9 2 r")
    fields = {"path": str(tmp_path), "frames": 3, "stereo": True, "kitti": {"split_file": lines}}
    record = kitti.load(config(**fields)).train[0]
    assert record["baseline"] == -12.0 / FOCAL
    (tmp_path / "poses" / "09.txt").write_text(text(np.eye(4)[:3]))
    assert "has 1 poses but sequence 09 has 4 images" in error(kitti, **fields)


def test_split_lines(tmp_path):
    path = write_lines(tmp_path / "s.txt", "9 12 l", "a/b/ 000003 r", "a/b 4")
    assert read_split(path) == [("09", 12, "l"), ("a/b", 3, "r"), ("a/b", 4, "l")]
    assert read_split("") is None


# Cityscapes


def write_city(root, part="train", sequence="000001", frames=(3, 4, 5, 9, 10, 11), disparity=False):
    stem = [f"aachen_{sequence}_{i:06d}" for i in frames]
    for kind, shift in (("leftImg8bit", 0), ("rightImg8bit", 50)):
        folder = root / f"{kind}_sequence" / part / "aachen"
        write_images(folder, [f"{s}_{kind}.png" for s in stem], [noise(i + shift) for i in frames])
    camera = {
        "intrinsic": {"fx": 24.0, "fy": 25.0, "u0": 10.0, "v0": 5.0},
        "extrinsic": {"baseline": 0.2, "pitch": 0.03},
    }
    (root / "camera" / part / "aachen").mkdir(parents=True, exist_ok=True)
    (root / "camera" / part / "aachen" / f"{stem[1]}_camera.json").write_text(json.dumps(camera))
    if disparity:
        folder = root / "disparity_sequence" / part / "aachen"
        folder.mkdir(parents=True)
        stored = np.zeros((12, 20), np.uint16)
        stored[:, :10], stored[:, 10] = 1 + 256 * 4, 1
        for s in stem:
            write_png(folder / f"{s}_disparity.png", stored)


def test_cityscapes(tmp_path):
    write_city(tmp_path)
    write_city(tmp_path, "val", disparity=True)
    fields = {"path": str(tmp_path), "frames": 3, "stereo": True, "camera": {"cut_bottom": 0.25}}
    train, test, _ = cityscapes.load(config(**fields, size=(9, 20)))
    assert train.targets.tolist() == [[0, 1], [1, 1]]  # two runs of three frames
    record = pickle.loads(pickle.dumps(train))[1]
    expected = [noise(i)[:9] for i in (9, 10, 11, 60)]
    np.testing.assert_array_equal(record["image"], expected)
    np.testing.assert_allclose(record["intrinsics"], [[24, 0, 10], [0, 25, 5], [0, 0, 1]])
    assert record["baseline"] == np.float32(0.2)
    depth = test[0]["depth"]
    np.testing.assert_allclose(depth[:, :10], 24 * 0.2 / 4, rtol=1e-6)
    np.testing.assert_array_equal(depth[:, 10:], 0)


def test_pairs_of_cityscapes(tmp_path):
    write_city(tmp_path)
    for kind in ("leftImg8bit", "rightImg8bit"):
        (tmp_path / f"{kind}_sequence").rename(tmp_path / kind)
    train = cityscapes.load(config(path=str(tmp_path), stereo=True)).train
    assert len(train) == 6 and train[0]["image"].shape == (2, 12, 20, 3)
    assert "leftImg8bit_sequence/train" in error(
        cityscapes, path=str(tmp_path / "camera"), frames=3
    )


def test_mistakes_of_cityscapes(tmp_path):
    write_city(tmp_path)
    fields = {"path": str(tmp_path), "frames": 3}
    assert "part val" in error(cityscapes, **fields, test_path="x")
    (tmp_path / "rightImg8bit_sequence").rename(tmp_path / "elsewhere")
    assert "rightImg8bit_sequence, or set data.stereo" in error(cityscapes, **fields, stereo=True)
    file = next((tmp_path / "camera").rglob("*.json"))
    file.write_text("{}")
    assert "is not a calibration of Cityscapes" in error(cityscapes, **fields)
    file.unlink()
    assert "download camera_trainvaltest" in error(cityscapes, **fields)
