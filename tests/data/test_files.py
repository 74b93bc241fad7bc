"""Files round-trip bit by bit, equal OpenCV's, and damaged ones are explained.

OpenCV's files come from experiments/golden/formats.py; where a format is small enough its bytes are
written by hand.
"""

import pathlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from sslax.data.files import cameras, flow_files, listing, maps, png, point_clouds
from sslax.data.records import DataError

FILTERS = ("NONE", "SUB", "UP", "AVG", "PAETH", "mixed")


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(pathlib.Path(__file__).parent / "golden" / "formats.npz"))


@pytest.fixture
def stored(golden, tmp_path):
    """`stored('png_SUB', 'x.png')`: a file as OpenCV wrote it."""

    def store(name, file):
        path = tmp_path / file
        path.write_bytes(golden[name].tobytes())
        return path

    return store


# PNG


@pytest.mark.parametrize("name", FILTERS)
def test_png_of_every_filter(golden, stored, name):
    image = png.read_png(stored(f"png_{name}", "x.png"))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, golden["image"])


def test_png_of_other_kinds(golden, stored):
    gray = png.read_png(stored("png_gray16", "x.png"))
    np.testing.assert_array_equal(gray, golden["image"][..., 0])
    rgb = png.read_png(stored("png_rgb8", "x.png"))
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, golden["image"] >> 8)
    rgba = png.read_png(stored("png_rgba16", "x.png"))
    np.testing.assert_array_equal(rgba, golden["rgba"])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 1), (1, 7), (4, 6, 2), (4, 6, 3), (4, 6, 4)])
def test_png_round_trip(tmp_path, dtype, shape):
    image = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    png.write_png(tmp_path / "x.png", image)
    read = png.read_png(tmp_path / "x.png")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, image)


def test_pillow_reads_what_we_write(tmp_path):
    rng = np.random.default_rng(2)
    color = rng.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    png.write_png(tmp_path / "8.png", color)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "8.png")), color)
    gray = rng.integers(0, 65536, (6, 5)).astype(np.uint16)
    png.write_png(tmp_path / "16.png", gray)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "16.png")), gray)


def test_png_reads_what_pillow_writes(tmp_path):
    color = np.random.default_rng(3).integers(0, 256, (6, 5, 4)).astype(np.uint8)
    Image.fromarray(color).save(tmp_path / "x.png", optimize=True)
    np.testing.assert_array_equal(png.read_png(tmp_path / "x.png"), color)


def test_a_png_unfiltered_byte_by_byte(tmp_path):
    """The specification's own loop over bytes, for random bytes and filters."""
    rng = np.random.default_rng(4)
    height, width, pixel = 12, 5, 6
    filters = rng.integers(0, 5, height)
    rows = rng.integers(0, 256, (height, width * pixel))
    wanted = np.zeros((height, width * pixel), int)
    for y in range(height):
        for i in range(width * pixel):
            a = wanted[y, i - pixel] if i >= pixel else 0
            b = wanted[y - 1, i] if y else 0
            c = wanted[y - 1, i - pixel] if y and i >= pixel else 0
            nearest = min((a, b, c), key=lambda v: abs(a + b - c - v))  # the first of equals
            wanted[y, i] = (rows[y, i] + (0, a, b, (a + b) // 2, nearest)[filters[y]]) % 256
    data = np.concatenate([filters[:, None], rows], 1).astype(np.uint8).tobytes()
    _write_chunks(tmp_path / "x.png", (width, height, 16, 2, 0, 0, 0), data)
    found = png.read_png(tmp_path / "x.png")
    big_endian = wanted.reshape(height, width, 3, 2)
    np.testing.assert_array_equal(found, big_endian[..., 0] * 256 + big_endian[..., 1])


def _write_chunks(path, header, data):
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in (
        (b"IHDR", struct.pack(">IIBBBBB", *header)),
        (b"tEXt", b"Comment\x00hello"),
        (b"IDAT", zlib.compress(data)[:7]),
        (b"IDAT", zlib.compress(data)[7:]),
        (b"IEND", b""),
    ):
        content += struct.pack(">I", len(body)) + name + body
        content += struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(content)


def test_png_mistakes(golden, stored, tmp_path):
    path = stored("png_PAETH", "x.png")
    content = path.read_bytes()

    def broken(new, message):
        path.write_bytes(new)
        with pytest.raises(DataError, match=message):
            png.read_png(path)

    broken(b"GIF89a", "not a PNG file: it begins with b'GIF89a'")
    broken(content[:-20], "truncated")
    broken(content[:40], "truncated")
    broken(content[:100] + bytes([content[100] ^ 1]) + content[101:], "checksum of b'IDAT'")
    ok = (2, 1, 8, 0, 0, 0, 0)
    for header, data, message in (
        ((2, 1, 4, 0, 0, 0, 0), b"\0\0", "4-bit"),
        ((2, 1, 8, 3, 0, 0, 0), b"\0\0\0", "palette"),
        ((2, 1, 8, 0, 0, 0, 1), b"\0\0\0", "interlaced"),
        ((0, 1, 8, 0, 0, 0, 0), b"\0", "header says 0 x 1"),
        (ok, b"\0\1", "rows are missing"),
        (ok, b"\7\1\1", "unknown row filter"),
    ):
        _write_chunks(path, header, data)
        with pytest.raises(DataError, match=message):
            png.read_png(path)
    _write_chunks(path, ok, b"\0\1\2")
    assert png.read_png(path).tolist() == [[1, 2]]
    for image, message in (
        (np.zeros((2, 2), np.float32), "float32"),
        (np.zeros((2, 2, 5), np.uint8), "1 to 4 channels, not 5"),
        (np.zeros((0, 2), np.uint8), "uint8"),
    ):
        with pytest.raises(DataError, match=message):
            png.write_png(tmp_path / "y.png", image)


def test_a_png_takes_no_more_memory_than_its_header_says(tmp_path):
    """64 MB of zeros in 64 kB, behind a header of 2 x 1 pixels."""
    path = tmp_path / "x.png"
    _write_chunks(path, (2, 1, 8, 0, 0, 0, 0), bytes(1 << 26))
    tracemalloc.start()
    assert png.read_png(path).tolist() == [[0, 0]]
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 1 << 22
    _write_chunks(path, (40000, 40000, 16, 6, 0, 0, 0), b"")
    with pytest.raises(DataError, match=r"40000 x 40000 pixels.*SSLAX_MAX_PIXELS=12800000000"):
        png.read_png(path)


def test_a_png_takes_few_times_its_pixels(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1000, 900), np.uint8)
    png.write_png(tmp_path / "x.png", image)
    tracemalloc.start()
    found = png.read_png(tmp_path / "x.png")
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, image)
    assert used < 6 * image.nbytes


# Flow


def test_flo_bytes_by_hand(tmp_path):
    flow = np.array([[[1.0, -2.0], [0.5, 0.0]]], np.float32)
    flow_files.write_flow(tmp_path / "x.flo", flow)
    by_hand = b"PIEH" + bytes([2, 0, 0, 0, 1, 0, 0, 0])
    by_hand += bytes.fromhex("0000803f 000000c0 0000003f 00000000")
    assert (tmp_path / "x.flo").read_bytes() == by_hand
    read, known = flow_files.read_flow(tmp_path / "x.flo")
    np.testing.assert_array_equal(read, flow)
    assert read.dtype == np.float32 and known.all()


def test_flo_of_opencv(golden, stored, tmp_path):
    flow, known = flow_files.read_flow(stored("flo", "x.flo"))
    np.testing.assert_array_equal(flow, golden["flow"])
    assert known.all()
    flow_files.write_flow(tmp_path / "y.FLO", golden["flow"])
    assert (tmp_path / "y.FLO").read_bytes() == golden["flo"].tobytes()


@pytest.mark.parametrize("ending", ["flo", "png"])
def test_unknown_flow(tmp_path, ending):
    flow = np.array([[[1.0, 2.0], [np.nan, 3.0], [4.0, np.inf]]])
    path = tmp_path / f"x.{ending}"
    flow_files.write_flow(path, flow)
    read, known = flow_files.read_flow(path)
    assert known.tolist() == [[True, False, False]]
    assert read.tolist() == [[[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]]
    flow_files.write_flow(path, np.ones((1, 2, 2)), np.array([[0, 1]]))
    assert flow_files.read_flow(path)[1].tolist() == [[False, True]]
    with pytest.raises(DataError, match="not finite at known"):
        flow_files.write_flow(path, flow, np.ones((1, 3), bool))


def test_foreign_flo_marks(tmp_path):
    values = [1e9, -1e9, 1.666667e9, 0.0, np.nan, 0.0]
    (tmp_path / "x.flo").write_bytes(b"PIEH" + struct.pack("<ii6f", 3, 1, *values))
    flow, known = flow_files.read_flow(tmp_path / "x.flo")
    assert known.tolist() == [[True, False, False]] and flow[0, 1:].tolist() == [[0, 0], [0, 0]]


def test_kitti_flow_coding(golden, stored, tmp_path):
    """u = (R - 2^15) / 64, v = (G - 2^15) / 64, known where B > 0."""
    flow, known = flow_files.read_flow(stored("png_mixed", "x.png"))
    image = golden["image"].astype(np.float64)
    np.testing.assert_array_equal(known, image[..., 2] > 0)
    np.testing.assert_array_equal(flow, (image[..., :2] - 32768) / 64)
    flow = np.array([[[-512.0, 511.984375], [0.0, 1.01], [0.0, -1.0]]])
    flow_files.write_flow(tmp_path / "y.png", flow, np.array([[1, 1, 0]]))
    coded = png.read_png(tmp_path / "y.png")
    # 1.01 * 64 = 64.64 rounds to 65.
    assert coded.tolist() == [[[0, 65535, 1], [32768, 32833, 1], [0, 0, 0]]]


def test_flow_round_trip_is_within_half_a_step(tmp_path):
    flow = np.random.default_rng(5).normal(0, 50, (7, 6, 2)).astype(np.float32)
    flow_files.write_flow(tmp_path / "x.png", flow)
    read, _ = flow_files.read_flow(tmp_path / "x.png")
    assert 0 < np.abs(read - flow).max() <= 1 / 128
    flow_files.write_flow(tmp_path / "x.flo", flow)
    np.testing.assert_array_equal(flow_files.read_flow(tmp_path / "x.flo")[0], flow)


def test_flow_mistakes(stored, tmp_path):
    path = tmp_path / "x.flo"
    for content, message in (
        (b"PIEG" + bytes(16), "not a .flo file: it begins with b'PIEG'"),
        (b"PIEH" + bytes(4), "truncated"),
        (
            b"PIEH" + struct.pack("<ii2f", 2, 1, 0, 0),
            "2 x 1 pixels take 16 bytes, but it has 8; copy",
        ),
        (
            b"PIEH" + struct.pack("<ii4f", 1, 1, 0, 0, 0, 0),
            "damaged: 1 x 1 pixels take 8 bytes, but it has 16",
        ),
        (b"PIEH" + struct.pack("<ii", -2, 1), "header says -2 x 1"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            flow_files.read_flow(path)
    with pytest.raises(DataError, match=r"16-bit RGB\. An 8-bit file is a visualization"):
        flow_files.read_flow(stored("png_rgb8", "x.png"))
    with pytest.raises(DataError, match="16-bit RGB"):
        flow_files.read_flow(stored("png_gray16", "x.png"))
    with pytest.raises(DataError, match=r"\.flo and \.png"):
        flow_files.read_flow(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"\.flo and \.png"):
        flow_files.write_flow(tmp_path / "x.npy", np.zeros((1, 1, 2)))
    with pytest.raises(DataError, match="600 pixels does not fit"):
        flow_files.write_flow(tmp_path / "x.png", np.full((1, 1, 2), 600.0))


# Disparity, depth, PFM


def test_scaled_png(golden, stored, tmp_path):
    values, known = maps.read_scaled_png(stored("png_gray16", "x.png"))
    np.testing.assert_array_equal(values, golden["image"][..., 0] / 256)
    assert values.dtype == np.float32 and known.all()
    values = np.array([[0.0, 1e-4, 1.0], [np.inf, np.nan, 255.99]])
    maps.write_scaled_png(tmp_path / "y.png", values)
    # A known value near zero is stored as 1: 0 would make it unknown.
    assert png.read_png(tmp_path / "y.png").tolist() == [[0, 1, 256], [0, 0, 65533]]
    read, known = maps.read_scaled_png(tmp_path / "y.png")
    assert known.tolist() == [[False, True, True], [False, False, True]]
    assert read[0].tolist() == [0.0, 1 / 256, 1.0]
    maps.write_scaled_png(tmp_path / "y.png", np.full((1, 2), 2.5), [[1, 0]], scale=1000)
    assert maps.read_scaled_png(tmp_path / "y.png", scale=5000)[0].tolist() == [[0.5, 0.0]]


def test_scaled_png_mistakes(stored, tmp_path):
    with pytest.raises(DataError, match=r"uint8 \[9, 11, 3\]; disparity and depth are 16-bit gray"):
        maps.read_scaled_png(stored("png_rgb8", "x.png"))
    with pytest.raises(DataError, match=r"hold 0 to 256.00, but values span 1 to 300"):
        maps.write_scaled_png(tmp_path / "x.png", np.array([[1.0, 300.0]]))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(DataError, match="mark those outside"):
            maps.write_scaled_png(tmp_path / "x.png", np.array([[bad]]), np.array([[True]]))


def test_pfm_of_opencv(golden, stored):
    np.testing.assert_array_equal(maps.read_pfm(stored("pfm", "x.pfm")), golden["disparity"])
    np.testing.assert_array_equal(maps.read_pfm(stored("pfm_color", "x.pfm")), golden["color"])


def test_pfm_bytes_by_hand(tmp_path):
    path = tmp_path / "x.pfm"
    maps.write_pfm(path, np.array([[1.0, 2.0], [3.0, np.inf]]))
    rows = struct.pack("<4f", 3, np.inf, 1, 2)  # the last row first
    assert path.read_bytes() == b"Pf\n2 2\n-1.0\n" + rows
    path.write_bytes(b"Pf 2 1 0.0039\n" + struct.pack(">2f", 10, -1))  # big-endian, Middlebury's
    assert maps.read_pfm(path).tolist() == [[10.0, -1.0]]
    image = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    maps.write_pfm(path, image)
    np.testing.assert_array_equal(maps.read_pfm(path), image)
    for content, message in (
        (b"P6\n2 2\n255\n", "not a PFM file: it begins with b'P6"),
        (b"Pf\n2 2\n-1\n" + bytes(12), "take 16 bytes, but it has 12; copy"),
        (b"Pf\n0 2\n-1\n", "header says 0 x 2"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            maps.read_pfm(path)


def test_ply_bytes_by_hand(tmp_path):
    path = tmp_path / "x.ply"
    points = np.array([[[1.0, 2.0, 3.0], [np.nan, 0, 0], [0, np.inf, 0], [-1.0, 0.5, 4.0]]])
    colors = np.array([[[255, 0, 128], [1, 1, 1], [2, 2, 2], [0, 7, 255]]], np.uint8)
    point_clouds.write_ply(path, points, colors)
    header, _, body = path.read_bytes().partition(b"end_header\n")
    assert header.decode().splitlines() == [
        "ply",
        "format binary_little_endian 1.0",
        "element vertex 2",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
    ]
    assert body == struct.pack("<3f3B", 1, 2, 3, 255, 0, 128) + struct.pack(
        "<3f3B", -1, 0.5, 4, 0, 7, 255
    )
    colored = path.read_bytes()
    point_clouds.write_ply(path, points, colors / 255.0)
    assert path.read_bytes() == colored
    point_clouds.write_ply(path, points[0])
    assert path.read_bytes().partition(b"end_header\n")[2] == struct.pack(
        "<6f", 1, 2, 3, -1, 0.5, 4
    )


# Trajectories and intrinsics


@pytest.fixture
def poses():
    rng = np.random.default_rng(6)
    poses = np.tile(np.eye(4), (40, 1, 1))
    turns = Rotation.random(40, random_state=7).as_rotvec()
    turns[:4] = np.diag([np.pi, np.pi, np.pi, 0])[:, :3]  # half turns, and none
    poses[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
    poses[:, :3, 3] = rng.normal(0, 100, (40, 3))
    return poses


def test_kitti_poses(poses, tmp_path):
    path = tmp_path / "00.txt"
    cameras.write_kitti_poses(path, poses)
    np.testing.assert_array_equal(np.loadtxt(path), poses[:, :3].reshape(40, 12))
    np.testing.assert_array_equal(cameras.read_kitti_poses(path), poses)


def test_tum_poses(poses, tmp_path):
    path = tmp_path / "trajectory.txt"
    times = 1305031098.6659 + np.arange(40) / 30
    cameras.write_tum_poses(path, times, poses)
    rows = np.loadtxt(path)
    np.testing.assert_array_equal(rows[:, :4], np.column_stack([times, poses[:, :3, 3]]))
    by_scipy = Rotation.from_matrix(poses[:, :3, :3]).as_quat(canonical=True)
    half_turns, rest = slice(0, 3), slice(3, None)
    np.testing.assert_allclose(rows[rest, 4:], by_scipy[rest], atol=1e-12)
    np.testing.assert_allclose(abs(rows[half_turns, 4:]), abs(by_scipy[half_turns]), atol=1e-12)
    read_times, read = cameras.read_tum_poses(path)
    np.testing.assert_array_equal(read_times, times)
    np.testing.assert_allclose(read, poses, atol=1e-12)
    path.write_text("# a comment\n0.5 1 2 3 0 0 2 2  # not normalized\n\n")
    times, read = cameras.read_tum_poses(path)
    assert times.tolist() == [0.5]
    np.testing.assert_allclose(read[0, :3], [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]], atol=1e-15)


def test_trajectory_mistakes(tmp_path):
    path = tmp_path / "x.txt"
    for read, text, message in (
        (cameras.read_kitti_poses, "1 2 3\n", "line 1 has 3 columns; KITTI poses are the 12"),
        (cameras.read_kitti_poses, "a" + " 0" * 11, "line 1: not all are numbers"),
        (cameras.read_kitti_poses, "# nothing\n", "empty"),
        (cameras.read_tum_poses, "0 1 2 3 0 0 0 1\n0 1 2 3 0 0 1", "line 2 has 7 columns; TUM"),
        (cameras.read_tum_poses, "0 1 2 3 0 0 0 0", "pose 0 has a quaternion of zero"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file"):
        cameras.read_kitti_poses(path)


def test_intrinsics(tmp_path):
    path = tmp_path / "cam.txt"
    wanted = [[241.67, 0.0, 204.17], [0.0, 246.28, 59.0], [0.0, 0.0, 1.0]]
    for text in (
        "241.67 0 204.17\n0 246.28 59\n0 0 1\n",
        "241.67,0.0,204.17,0.0,246.28,59.0,0.0,0.0,1.0",  # SfMLearner's cam.txt
        "# fx fy cx cy\n241.67 246.28 204.17 59\n",
        "[[241.67, 0, 204.17],\n [0, 246.28, 59],\n [0, 0, 1]]",
    ):
        path.write_text(text)
        assert cameras.read_intrinsics(path).tolist() == wanted
    cameras.write_intrinsics(path, np.array(wanted))
    assert cameras.read_intrinsics(path).tolist() == wanted
    for text, message in (
        ("1 2 3", "has 3 numbers"),
        ("P0: 1 2 3", "read_kitti_calibration"),
        ("1 2 3 4 5 6 7 8 9", "not a matrix of intrinsics"),
        ("-5 10 3 4", "not a matrix of intrinsics"),
        ("0.58 1.92 0.5 0.5", "gives intrinsics as fractions of the image, fx = 0.58; multiply"),
        ("0.58 1.92 320 96", "gives some of the numbers as fractions of the image, fx = 0.58"),
        ("371 368 0.5 0.5", "gives some of the numbers as fractions of the image, fx = 371"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            cameras.read_intrinsics(path)


def test_kitti_calibration(tmp_path):
    path = tmp_path / "calib.txt"
    left = (
        "7.215377e+02 0 6.095593e+02 4.485728e+01 0 7.215377e+02 1.728540e+02 2.163791e-01 0 0 1 0"
    )
    right = (
        "7.215377e+02 0 6.095593e+02 -3.395242e+02 0 7.215377e+02 1.728540e+02 2.199936e+00 0 0 1 0"
    )
    for names in (("P2", "P3"), ("P_rect_02", "P_rect_03")):
        path.write_text(
            f"calib_time: 09-Jan-2012 13:57:47\n{names[0]}: {left}\n{names[1]}: {right}\n"
            "R_rect_00: 1 0 0 0 1 0 0 0 1\nS_rect_02: 1.242e+03 3.75e+02\n"
        )
        calibration = cameras.read_kitti_calibration(path)
        assert {name: matrix.shape for name, matrix in calibration.items()} == {
            names[0]: (3, 4),
            names[1]: (3, 4),
            "R_rect_00": (3, 3),
            "S_rect_02": (2,),
        }
        intrinsics = cameras.kitti_intrinsics(calibration)
        wanted = [[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]]
        np.testing.assert_array_equal(intrinsics, wanted)
        baseline = cameras.kitti_baseline(calibration)
        assert baseline == pytest.approx((44.85728 + 339.5242) / 721.5377)  # 0.5327 m
        with pytest.raises(DataError, match="no camera 0: neither P_rect_00 nor P0 among"):
            cameras.kitti_intrinsics(calibration, camera=0)
    path.write_text("1 0 0 0 1 0 0 0 1")
    with pytest.raises(DataError, match="plain numbers are read by read_intrinsics"):
        cameras.read_kitti_calibration(path)


# Directories


def test_runs_of_frames():
    def found(*names):
        return listing.runs(names).tolist()

    assert found("f1", "f2", "f3", "f50", "f51") == [0, 0, 0, 1, 1]
    assert found("0", "5", "10", "20", "25") == [0, 0, 0, 1, 1]  # each fifth frame
    assert found("a1", "a2", "b1", "b2") == [0, 0, 1, 1]
    assert found("1.033", "1.067", "1.100", "1.201", "1.233") == [0, 0, 0, 1, 1]  # seconds
    assert found("1_left", "2_left", "9_left", "10_left") == [0, 0, 1, 1]
    assert found("1", "2", "cover") == [0, 0, 1]
    assert found("ann", "bob", "eve") == [0, 0, 0]
    assert found("7") == [0] and found() == []


def test_frames_are_listed_once(tmp_path):
    for folder in ("a", "b", ".b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_text("")
    (tmp_path / "a" / "latest.png").symlink_to("1.png")
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "b" / "1.png")
    (tmp_path / "a" / "dir.png").mkdir()
    (tmp_path / "latest").symlink_to("b")
    (tmp_path / "up").symlink_to("..")
    names = [
        [pathlib.Path(file).name for file in files] for _, files in listing.sequences(tmp_path)
    ]
    assert names == [["1.png", "2.png"], ["1.png"]]
