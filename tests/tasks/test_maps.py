"""The files that depth and flow are written to, of networks that are formulas."""

import json

import formulas
import numpy as np
import pytest
from formulas import METERS, constant_image, save_frames
from PIL import Image

import sslax
from sslax.data.files import films
from sslax.data.files.cameras import read_kitti_poses, read_tum_poses, write_intrinsics
from sslax.data.files.flow_files import read_flow
from sslax.data.files.maps import read_scaled_png
from sslax.data.files.png import read_png
from sslax.errors import UserError
from sslax.inference import inputs
from sslax.tasks import maps, task_of


@pytest.fixture(scope="module")
def estimators(tmp_path_factory):
    with formulas.runs(tmp_path_factory.mktemp("runs")) as folder:
        yield {name: sslax.load(folder / name) for name in formulas.METHODS}


@pytest.fixture(autouse=True)
def no_ffmpeg(monkeypatch):
    """The same files on all machines."""
    monkeypatch.setattr(films, "ffmpeg", lambda: None)


def write(estimator, given, folder, **options):
    """What `sslax.predict` does with these flags."""
    task_of(estimator.method).write(estimator, str(given), folder, options)


def written(folder):
    return {path.name for path in folder.iterdir()}


def last_line(capsys):
    return capsys.readouterr().out.strip().splitlines()[-1]


def test_depth_of_a_folder_of_photographs(estimators, tmp_path, capsys):
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(constant_image(51, (16, 24))).save(folder / "b2.png")
    Image.fromarray(constant_image(255, (20, 10))).save(folder / "b10.jpg")
    (folder / "notes.txt").write_text("none")
    out = tmp_path / "deep" / "out"
    write(estimators["video"], folder, out)
    kinds = (".npy", ".png", "_color.png")
    assert written(out) == {f"{n}{k}" for n in ("b2", "b10") for k in kinds} | {"predictions.json"}
    exact = np.load(out / "b2.npy")
    np.testing.assert_allclose(exact, np.full((16, 24), METERS + 0.4), rtol=1e-6)
    assert exact.dtype == np.float32
    stored, known = read_scaled_png(out / "b10.png")
    assert known.all() and stored.shape == (20, 10)
    np.testing.assert_allclose(stored, np.load(out / "b10.npy"), atol=0.5 / 256)
    assert read_png(out / "b2_color.png").shape == (16, 24, 3)
    facts = json.loads((out / "predictions.json").read_text())
    assert facts["method"] == "video" and facts["predicts"] == "depth" and facts["count"] == 2
    assert facts["step"] == 2 and facts["unit"] == "unknown"
    assert last_line(capsys).startswith(f"Wrote {out}: depth of 2 images; of unknown scale")


def test_depth_learned_from_distances_is_in_meters(estimators, tmp_path, capsys):
    folder = save_frames(tmp_path / "images", [51])
    write(estimators["speed"], folder, tmp_path / "out")
    assert last_line(capsys).endswith("depth of 1 image; in meters.")
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["unit"] == "meters"


def test_a_video_has_a_trajectory_and_one_range_of_colors(estimators, tmp_path, capsys):
    positions = np.array([10, 60, 30, 160, 250])
    folder = save_frames(tmp_path / "frames", positions)
    out = tmp_path / "out"
    write(estimators["video"], folder, out, fps=4.0, batch_size=2)
    names = [f"f{i}" for i in range(8, 13)]  # f10 after f9
    kinds = (".npy", ".png", "_color.png")
    extras = {"predictions.json", "trajectory.txt", "trajectory_tum.txt", "trajectory.png"}
    assert written(out) == {f"{n}{k}" for n in names for k in kinds} | extras | {"video.webp"}
    for name, value in zip(names, positions):  # the ends of the video, too
        np.testing.assert_allclose(
            np.load(out / f"{name}.npy"), METERS + 2 * value / 255, rtol=1e-6
        )
    trajectory = read_kitti_poses(out / "trajectory.txt")
    np.testing.assert_allclose(trajectory[:, 0, 3], (positions - 10) / 255, atol=1e-5)
    np.testing.assert_allclose(trajectory[:, 1:3, 3], 0, atol=1e-7)
    times, same = read_tum_poses(out / "trajectory_tum.txt")
    np.testing.assert_allclose(times, [0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(same, trajectory, atol=1e-6)
    colors = [read_png(out / f"{n}_color.png")[0, 0].astype(int).sum() for n in names]
    assert np.argsort(colors).tolist() == np.argsort(-positions).tolist()  # near, dark, is bright
    with Image.open(out / "video.webp") as film:
        assert film.n_frames == 5 and film.size == (48, 16)
        film.seek(4)
        left = np.asarray(film.convert("RGB"))[:, :20]
        assert film.info["duration"] == 250
    assert np.abs(left.astype(int) - 250).max() < 6
    expected = "depth of 5 images, with trajectory.txt and video.webp; of unknown scale"
    assert expected in last_line(capsys)


def test_a_folder_is_no_video_where_one_says_so(estimators, tmp_path, capsys):
    folder = save_frames(tmp_path / "frames", [10, 60, 30])
    write(estimators["video"], folder, tmp_path / "out", video=False)
    assert not {"video.webp", "trajectory.txt"} & written(tmp_path / "out")
    write(estimators["stereo"], folder, tmp_path / "stereo")
    assert not {"video.webp", "trajectory.txt"} & written(tmp_path / "stereo")
    expected = "disparity of 3 images; in pixels; --intrinsics and --baseline turn it into depth"
    assert expected in last_line(capsys)
    write(estimators["stereo"], folder, tmp_path / "film", video=True)
    assert "video.webp" in written(tmp_path / "film")
    assert "trajectory.txt" not in written(tmp_path / "film")


def test_an_animation_is_a_video(estimators, tmp_path):
    first, *rest = [Image.fromarray(constant_image(v, (16, 24))) for v in (0, 85, 170, 255)]
    path = tmp_path / "clip.gif"
    first.save(path, save_all=True, append_images=rest)
    write(estimators["video"], path, tmp_path / "out")
    trajectory = read_kitti_poses(tmp_path / "out" / "trajectory.txt")
    np.testing.assert_allclose(trajectory[:, 0, 3], [0, 1 / 3, 2 / 3, 1], atol=1e-5)


def test_a_video_too_short_for_poses_has_depth(estimators, tmp_path, capsys):
    folder = save_frames(tmp_path / "frames", [10, 60])
    write(estimators["video"], folder, tmp_path / "out", video=True)
    assert {"f8.npy", "f9.npy", "video.webp"} <= written(tmp_path / "out")
    assert "There is no trajectory: poses need 3 frames." in capsys.readouterr().out


def test_points_are_the_pixels_backprojected(estimators, tmp_path):
    folder = save_frames(tmp_path / "images", [102], size=(24, 48), noise=60)
    camera = np.array([[40.0, 0, 20], [0, 90, 11], [0, 0, 1]])
    write_intrinsics(tmp_path / "camera.txt", camera)
    out = tmp_path / "out"
    file = str(tmp_path / "camera.txt")
    write(estimators["stereo"], folder, out, intrinsics=file, baseline=0.5, reach=1e9)
    depths = np.load(out / "f8.npy")
    assert depths.std() > 0.01
    head, body = (out / "f8.ply").read_bytes().split(b"end_header\n")
    assert b"element vertex 1152\n" in head
    fields = [(n, "<f4") for n in "xyz"] + [(n, "u1") for n in ("r", "g", "b")]
    points = np.frombuffer(body, fields).reshape(24, 48)
    y, x = np.mgrid[:24, :48]
    np.testing.assert_allclose(points["z"], depths, rtol=1e-6)
    np.testing.assert_allclose(points["x"], depths * (x - 20) / 40, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(points["y"], depths * (y - 11) / 90, rtol=1e-5, atol=1e-6)
    image = np.asarray(Image.open(folder / "f8.png"))
    np.testing.assert_array_equal(np.stack([points[n] for n in "rgb"], -1), image)
    assert json.loads((out / "predictions.json").read_text())["unit"] == "meters"


def test_flow_of_a_pair(estimators, tmp_path, capsys):
    folder = save_frames(tmp_path / "pair", [51, 255], size=(16, 60))
    out = tmp_path / "out"
    write(estimators["pairs"], f"{folder / 'f8.png'},{folder / 'f9.png'}", out)
    names = {"f8.flo", "f8.png", "f8_color.png", "f8_visible.png", "predictions.json"}
    assert written(out) == names
    for ending, error in ((".flo", 1e-6), (".png", 1 / 128)):
        flow, known = read_flow(out / f"f8{ending}")
        np.testing.assert_allclose(flow, np.full((16, 60, 2), [2.0, 4.0]), atol=error)
        assert known.all()
    assert (read_png(out / "f8_visible.png") == 51).all()
    assert "flow of 1 pair; in pixels" in last_line(capsys)


def test_flow_of_a_video_has_one_radius(estimators, tmp_path):
    folder = save_frames(tmp_path / "frames", [25, 50, 250, 0])
    out = tmp_path / "out"
    write(estimators["pairs"], folder, out)
    flows = [read_flow(out / f"f{i}.flo")[0][0, 0] for i in (8, 9, 10)]
    expected = np.array([[25, 50], [50, 250], [250, 0]]) * 2 / 255 * 2  # twice the network's size
    np.testing.assert_allclose(flows, expected, rtol=1e-5)
    assert not (out / "f11.flo").exists()
    colors = [read_png(out / f"f{i}_color.png")[0, 0].astype(int) for i in (8, 9, 10)]
    saturation = [255 - color.min() for color in colors]
    speeds = np.linalg.norm(expected, axis=1)
    np.testing.assert_allclose(saturation[0] / saturation[1], speeds[0] / speeds[1], atol=0.03)
    with Image.open(out / "video.webp") as film:
        assert film.n_frames == 3


@pytest.mark.parametrize(
    ("count", "target", "targets", "ends"),
    [
        (1, 0, [0, 1, 2, 3, 4], []),
        (2, 0, [0, 1, 2, 3], [4]),
        (3, 1, [1, 2, 3], [0, 4]),
        (5, 2, [2], [0, 1, 3, 4]),
        (7, 3, [], [0, 1, 2, 3, 4]),
    ],
)
def test_every_frame_is_the_target_of_a_window_or_an_end(count, target, targets, ends):
    frames = [inputs.Frame(str(i), constant_image(i)) for i in range(5)]
    left = []
    examples = [*maps.windows(frames, count, target, left)]
    assert [int(example["frame"].name) for example in examples] == targets
    assert [int(frame.name) for frame in left] == ends
    for first, example in enumerate(examples):
        assert example["image"][:, 0, 0, 0].tolist() == [*range(first, first + count)]


# Mistakes.


@pytest.fixture
def mistaken(tmp_path):
    """A folder of things to be mistaken about."""
    save_frames(tmp_path / "frames", [10, 60])
    save_frames(tmp_path / "outer" / "inner", [10])
    (tmp_path / "empty").mkdir()
    save_frames(tmp_path / "sizes", [10])
    Image.fromarray(constant_image(9, (9, 9))).save(tmp_path / "sizes" / "f9.png")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    (tmp_path / "numbers.txt").write_text("1 2 3")
    (tmp_path / "fx.txt").write_text("40 40 10 8")
    (tmp_path / "large.txt").write_text("400 400 100 80")  # of larger images
    (tmp_path / "film.mp4").write_bytes(b"")
    (tmp_path / "file").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "given", "options", "message"),
    [
        ("video", "nowhere", {}, r"--input=\S*nowhere does not exist"),
        ("video", "nowhere/a.png,frames/f9.png", {}, r"nowhere/a.png does not exist"),
        ("video", "empty", {}, r"empty has no images\. Images end in apng"),
        ("video", "outer", {}, "outer has no images; inner in it has some"),
        ("video", "numbers.txt", {}, "numbers.txt is not an image"),
        ("video", "broken", {}, "a.png cannot be read as an image"),
        ("video", "film.mp4", {}, "pip install 'sslax\\[video\\]'.*ffmpeg -i"),
        ("video", "frames/f8.png", {"video": True}, "is one image: give a folder"),
        ("video", "sizes", {"video": True}, "f9 has 9 x 9 pixels and the image before it 24 x 16"),
        ("video", "frames", {"output": "file"}, r"--output=\S*file is a file; name a folder"),
        ("video", "frames", {"output": "maps.npz"}, "name one"),
        ("video", "frames", {"output": "frames"}, "has the images"),
        ("video", "frames", {"intrinsics": "nowhere.txt"}, r"--intrinsics=\S* does not exist"),
        ("video", "frames", {"intrinsics": "numbers.txt"}, "has 3 numbers"),
        ("video", "frames", {"intrinsics": "large.txt"}, "principal point .* is outside"),
        ("video", "frames", {"baseline": 0.5}, "leave it out"),
        ("stereo", "frames", {"baseline": 0.5}, "give --intrinsics and --baseline"),
        ("stereo", "frames", {"intrinsics": "fx.txt"}, "give --intrinsics and --baseline"),
        ("stereo", "frames", {"intrinsics": "fx.txt", "baseline": 0.0}, "above 0"),
        ("pairs", "frames/f8.png", {}, "Flow takes two images"),
        ("pairs", "sizes", {}, "consecutive frames must have the same size"),
    ],
)
def test_mistakes_are_named(estimators, mistaken, monkeypatch, name, given, options, message):
    monkeypatch.chdir(mistaken)
    options = dict(options)
    output = mistaken / options.pop("output", "out")
    with pytest.raises(UserError, match=message) as error:
        write(estimators[name], given, output, **options)
    assert "\n" not in str(error.value)
