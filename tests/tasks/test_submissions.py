"""Archives for servers: what is written is what was predicted, and what is wrong is named."""

import shutil
import zipfile

import formulas
import numpy as np
import pytest
from PIL import Image

import sslax
from sslax.data.files.flow_files import read_flow
from sslax.data.files.maps import read_scaled_png, write_scaled_png
from sslax.errors import UserError
from sslax.tasks import submissions

SIZE = (20, 30)


@pytest.fixture(scope="module")
def estimators(tmp_path_factory):
    with formulas.runs(tmp_path_factory.mktemp("runs")) as folder:
        yield {name: sslax.load(folder / name) for name in formulas.METHODS}


@pytest.fixture
def few(monkeypatch):
    """Benchmarks of three images, and two scenes."""
    for name, known in submissions.BENCHMARKS.items():
        count = known.count and 3
        monkeypatch.setitem(submissions.BENCHMARKS, name, known._replace(count=count))
    monkeypatch.setattr(submissions, "_SINTEL_SCENES", 2)


def images(folder, names):
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def kitti(tmp_path, few):
    """A download of the two KITTI benchmarks of flow and stereo, and of depth prediction."""
    names = [f"{i:06d}_{t}.png" for i in range(3) for t in (10, 11)]
    images(tmp_path / "k" / "testing" / "image_2", names)
    images(tmp_path / "k" / "testing" / "image_0", names)
    numbers = [f"{i:010d}.png" for i in range(3)]
    images(tmp_path / "k" / "test_depth_prediction_anonymous" / "image", numbers)
    return tmp_path / "k"


def pixels(path):
    return np.asarray(Image.open(path))


def test_stereo_has_what_was_predicted(kitti, estimators, tmp_path):
    stereo, at = estimators["stereo"], kitti / "testing" / "image_2"
    assert submissions.write(stereo, "kitti2015_stereo", kitti, tmp_path / "s.zip") == 3
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == [f"disp_0/{i:06d}_10.png" for i in range(3)]
        archive.extractall(tmp_path / "out")
    for i in range(3):
        values, known = read_scaled_png(tmp_path / "out" / "disp_0" / f"{i:06d}_10.png")
        expected = stereo(pixels(at / f"{i:06d}_10.png")).disparity
        np.testing.assert_allclose(values, expected, atol=0.5 / 256 + 1e-4)
        assert known.all()
    assert submissions.check("kitti2015_stereo", kitti, tmp_path / "s.zip") == 3
    assert submissions.write(stereo, "kitti2012_stereo", kitti, tmp_path / "t.zip") == 3
    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        assert archive.namelist() == [f"{i:06d}_10.png" for i in range(3)]


def test_flow_has_what_was_predicted(kitti, estimators, tmp_path):
    pairs, at = estimators["pairs"], kitti / "testing" / "image_2"
    assert submissions.write(pairs, "kitti2015_flow", kitti, tmp_path / "f.zip") == 3
    with zipfile.ZipFile(tmp_path / "f.zip") as archive:
        archive.extractall(tmp_path / "out")
    values, _ = read_flow(tmp_path / "out" / "flow" / "000001_10.png")
    pair = np.stack([pixels(at / f"000001_{t}.png") for t in (10, 11)])
    np.testing.assert_allclose(values, pairs(pair).flow, atol=0.5 / 64 + 1e-4)
    assert submissions.check("kitti2015_flow", kitti, tmp_path / "f.zip") == 3


def test_depth_is_in_meters(kitti, estimators, tmp_path):
    assert submissions.write(estimators["speed"], "kitti_depth", kitti, tmp_path / "d.zip") == 3
    with zipfile.ZipFile(tmp_path / "d.zip") as archive:
        assert archive.namelist() == [f"{i:010d}.png" for i in range(3)]
    with pytest.raises(UserError, match="takes depth in meters; give a run that learned them"):
        submissions.write(estimators["video"], "kitti_depth", kitti, tmp_path / "e.zip")
    with pytest.raises(UserError, match="depth only with a known camera"):
        submissions.write(estimators["stereo"], "kitti_depth", kitti, tmp_path / "e.zip")
    assert not (tmp_path / "e.zip").exists()


def test_sintel_is_a_folder_for_its_bundler(tmp_path, few, estimators):
    frames = [f"frame_{i:04d}.png" for i in range(1, 4)]
    for scene in ("ambush_1", "wall"):
        for part in ("clean", "final"):
            images(tmp_path / "s" / "test" / part / scene, frames)
    written = submissions.write(estimators["pairs"], "sintel", tmp_path / "s", tmp_path / "out")
    assert written == 2 * 2 * 2 == submissions.check("sintel", tmp_path / "s", tmp_path / "out")
    values, _ = read_flow(tmp_path / "out" / "final" / "wall" / "frame_0002.flo")
    at = tmp_path / "s" / "test" / "final" / "wall"
    pair = np.stack([pixels(at / name) for name in frames[1:]])
    np.testing.assert_allclose(values, estimators["pairs"](pair).flow, atol=1e-5)
    shutil.rmtree(tmp_path / "s" / "test" / "clean" / "wall")
    with pytest.raises(UserError, match="1 of the 2 scenes"):
        submissions.check("sintel", tmp_path / "s", tmp_path / "out")


def archive_of(path, **maps):
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in maps.items():
            file = path.with_name(f"{name}_10.png")
            write_scaled_png(file, values)
            archive.write(file, f"disp_0/{file.name}")


def test_what_is_wrong_with_an_archive_is_named(kitti, tmp_path):
    good = {f"{i:06d}": np.full(SIZE, 3.0) for i in range(3)}
    holes = np.where(np.arange(30) < 3, 0.0, good["000001"])
    cases = (
        (good, None),
        ({"000000": good["000000"]}, "lacks disp_0/000001_10.png, disp_0/000002_10.png."),
        (good | {"000007": good["000000"]}, "does not expect: disp_0/000007_10.png"),
        (good | {"000001": np.full((30, 20), 3.0)}, "20 x 30 pixels, and its image 000001_10.png"),
        (good | {"000001": holes}, "000001_10.png is unknown at 10.0 % of its pixels"),
    )
    for maps, message in cases:
        archive_of(tmp_path / "a.zip", **maps)
        if message is None:
            assert submissions.check("kitti2015_stereo", kitti, tmp_path / "a.zip") == 3
            continue
        with pytest.raises(UserError, match=message):
            submissions.check("kitti2015_stereo", kitti, tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"b\.zip is no \.zip archive"):
        submissions.check("kitti2015_stereo", kitti, tmp_path / "b.zip")


def test_mistakes_are_named_before_work_is_done(kitti, estimators, tmp_path):
    stereo, out = estimators["stereo"], tmp_path / "s.zip"
    cases = (
        (("kitti2015_stereo", kitti, tmp_path / "s.tar"), "must end in .zip"),
        (("kitti2015", kitti, out), "kitti2015_stereo"),
        (("kitti2015_flow", kitti, out), "takes flow; give a run or weights that learned it"),
        (("kitti2015_stereo", tmp_path / "none", out), "has no folder testing/image_2"),
    )
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            submissions.write(stereo, *arguments)
    (kitti / "testing" / "image_2" / "000002_10.png").unlink()
    with pytest.raises(UserError, match="has 2 of the 3 test images of kitti2015_stereo"):
        submissions.write(stereo, "kitti2015_stereo", kitti, out)
    (kitti / "testing" / "image_2" / "000001_11.png").unlink()
    with pytest.raises(UserError, match=r"lacks 000001_11\.png"):
        submissions.write(estimators["pairs"], "kitti2015_flow", kitti, out)
    assert not out.exists()
