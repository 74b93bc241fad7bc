"""A small test bed: what is written, what is read back, and scores against NumPy in float64."""

import json
import shutil

import formulas
import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image
from scipy.spatial.transform import Rotation

from sslax import predict
from sslax.data.files.cameras import read_kitti_poses, write_kitti_poses, write_tum_poses
from sslax.data.files.flow_files import read_flow, write_flow
from sslax.data.files.maps import read_pfm, write_pfm, write_scaled_png
from sslax.errors import UserError
from sslax.measures import pose
from sslax.testbed import __main__ as command
from sslax.testbed import layout, scoring, writing
from sslax.testbed.layout import SIZE, TASKS

COUNT = 2
NAMES = layout.sample_names(COUNT)


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bed")
    writing.write(folder, ["noise"], samples=COUNT)
    return folder


@pytest.fixture
def perfect(bed, tmp_path):
    """The truth as predictions."""
    shutil.copytree(bed / "truth", tmp_path / "found" / "clean")
    return tmp_path / "found"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def mask(path):
    return pixels(path) > 127


# Writing.


def test_the_samples_are_those_of_every_machine(bed):
    """Means of images and truth; `SUMMARY` was recorded with the compiler's default settings."""
    for task, summary in writing.SUMMARY.items():
        for name, (mean, deviation, truth) in zip(NAMES, summary, strict=True):
            files = [bed / "clean" / task / name / f"{image}.png" for image in TASKS[task].images]
            images = np.stack([pixels(file) for file in files]).astype(np.float64)
            assert images.shape == (len(files), *SIZE, 3)
            assert (images.mean(), images.std()) == pytest.approx((mean, deviation), abs=0.02)
            place = bed / "truth" / task / name
            if task == "flow":
                values = np.linalg.norm(read_flow(place / "first.flo")[0], axis=-1)
            else:
                values = read_pfm(place / f"{TASKS[task].target}.pfm")
            assert np.mean(values) == pytest.approx(truth, abs=0.001)


def test_a_sample_does_not_depend_on_the_others(bed):
    for task in TASKS:
        others = writing.renderer(task)(np.array([1, 7]))["image"][0]
        for image, pixel in zip(TASKS[task].images, 255 * np.asarray(others)):
            written = pixels(bed / "clean" / task / "001" / f"{image}.png")
            assert np.abs(written - pixel).max() < 0.51


def test_another_scene_is_noticed():
    samples = jax.device_get(writing.renderer("stereo")(np.arange(COUNT)))
    samples = [jax.tree.map(lambda x, i=i: x[i], samples) for i in range(COUNT)]
    assert writing.differing("stereo", samples) == []
    assert writing.differing("stereo", samples[::-1]) == NAMES


def test_images_of_a_condition_share_cameras_and_noise_is_noise(bed):
    for task in TASKS:
        for image in TASKS[task].images:
            clean, noisy = (
                pixels(bed / condition / task / "001" / f"{image}.png").astype(float)
                for condition in ("clean", "noise_3")
            )
            inside = (clean > 80) & (clean < 175)
            assert (noisy - clean)[inside].std() == pytest.approx(20, rel=0.05)
        files = [bed / c / task / "001" / "intrinsics.txt" for c in ("clean", "noise_1")]
        assert files[0].read_text() == files[1].read_text()
    found = json.loads((bed / layout.MANIFEST).read_text())
    assert found["conditions"] == ["clean", "noise_1", "noise_2", "noise_3"]
    assert (bed / "README.md").read_text().startswith("# A test bed")


def test_the_truth_explains_the_images(bed):
    """Where the other image shows a pixel, it has the same color there."""
    sources = {
        "stereo": ("right", lambda place: -read_pfm(place / "left.pfm")[..., None] * [1.0, 0.0]),
        "flow": ("second", lambda place: read_flow(place / "first.flo")[0]),
    }
    for task, (other, displacement) in sources.items():
        images, place = bed / "clean" / task / "000", bed / "truth" / task / "000"
        target = pixels(images / f"{TASKS[task].target}.png").astype(float)
        source = pixels(images / f"{other}.png").astype(float)
        visible = mask(place / f"{TASKS[task].target}_visible.png")
        y, x = np.indices(SIZE)
        column, row = np.rint(np.moveaxis(displacement(place), -1, 0)).astype(int)
        warped = source[np.clip(y + row, 0, SIZE[0] - 1), np.clip(x + column, 0, SIZE[1] - 1)]
        error = np.abs(warped - target).mean(-1)[visible].mean()
        assert error < 0.5 * np.abs(source - target).mean(-1)[visible].mean()


def test_poses_and_depth_give_the_motion_of_the_image(bed):
    place = bed / "truth" / "video" / "001"
    cameras = read_kitti_poses(place / "trajectory.txt")
    np.testing.assert_allclose(cameras[0], np.eye(4), atol=1e-6)
    images = bed / "clean" / "video" / "001"
    intrinsics = np.loadtxt(images / "intrinsics.txt")
    depth, moving = read_pfm(place / "2.pfm"), mask(place / "2_moving.png")
    y, x = np.indices(SIZE)
    rays = np.stack([x, y, np.ones(SIZE)], -1) @ np.linalg.inv(intrinsics).T
    to_next = np.linalg.inv(cameras[3]) @ cameras[2]
    points = (depth[..., None] * rays) @ to_next[:3, :3].T + to_next[:3, 3]
    column, row, scale = np.moveaxis(points @ intrinsics.T, -1, 0)
    column, row = (np.rint(v / scale).astype(int) for v in (column, row))
    target, source = (pixels(images / f"{i}.png").astype(float) for i in (2, 3))
    inside = (row >= 0) & (row < SIZE[0]) & (column >= 0) & (column < SIZE[1]) & ~moving
    error = np.abs(source[row[inside], column[inside]] - target[inside]).mean()
    assert error < 0.6 * np.abs(source - target)[inside].mean()


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "photograph.jpg").touch()
    with pytest.raises(UserError, match=r"has other files, such as photograph.jpg: name a new"):
        writing.write(tmp_path)
    with pytest.raises(UserError, match=r'--corruptions is \'nose\': did you mean "noise"\?'):
        writing.write(tmp_path / "new", ["nose"])


# Scoring.


def test_the_truth_is_perfect(bed, perfect):
    results = scoring.score(perfect, bed)
    assert results["missing"] == {"clean": []}
    ones = ("delta_", "occlusion_", "scale")
    for task, numbers in results["conditions"]["clean"].items():
        assert {*scoring.SHOWN[task]} - {*numbers} <= {"epe_s40", "abs_rel_moving", "epe_moving"}
        for name, value in numbers.items():
            perfectly = float(name.startswith(ones) and name != "scale_deviation")
            assert value == pytest.approx(perfectly, abs=2e-5), (task, name)
    for task, numbers in results["trivial"].items():
        assert numbers[scoring.SHOWN[task][0]] > 0.1
    text = scoring.table(results)
    assert text.count("\ntrivial ") == 3 and ": no " not in text


def test_scores_equal_numpy(bed, perfect):
    """Predictions off by known amounts, measured by NumPy in float64."""
    rng = np.random.default_rng(0)
    wanted = {name: [] for name in ("epe", "occluded", "fast", "disparity", "d1", "abs_rel")}
    poses = {"rotation": [], "direction": [], "ate": []}
    for name in NAMES:
        place = perfect / "clean" / "flow" / name
        true = read_flow(place / "first.flo")[0].astype(np.float64)
        found = np.float32(true + rng.normal(0, 3, true.shape))
        (place / "first.flo").unlink()
        np.save(place / "first.npy", found)
        error, speed = np.linalg.norm(found - true, axis=-1), np.linalg.norm(true, axis=-1)
        wanted["epe"].append(error.ravel())
        wanted["occluded"].append(error[~mask(place / "first_visible.png")])
        wanted["fast"].append(error[(speed >= 10) & (speed < 40)])

        place = perfect / "clean" / "stereo" / name
        true = read_pfm(place / "left.pfm").astype(np.float64)
        found = np.float32(true + rng.normal(0, 4, true.shape))
        write_pfm(place / "left.pfm", found)
        error = np.abs(found - true)
        wanted["disparity"].append(error[~mask(place / "left_visible.png")])
        wanted["d1"].append(((error > 3) & (error > 0.05 * true)).ravel())

        place = perfect / "clean" / "video" / name
        true = read_pfm(place / "2.pfm").astype(np.float64)
        found = np.float32(0.1 * true * rng.lognormal(0, 0.2, true.shape))
        write_pfm(place / "2.pfm", found)
        scaled = found.astype(np.float64) * np.median(true) / np.median(found)
        edges = np.zeros(SIZE, bool)
        for y, x in np.ndindex(SIZE):
            for other in ((y + 1, x), (y, x + 1)):
                if other[0] < SIZE[0] and other[1] < SIZE[1]:
                    ratio = true[y, x] / true[other]
                    if max(ratio, 1 / ratio) > 1.1:
                        for i, j in ((y, x), other):
                            edges[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3] = True
        wanted["abs_rel"].append([(np.abs(scaled - true) / true)[edges].mean()])

        true = read_kitti_poses(place / "trajectory.txt")
        found = np.tile(np.eye(4), (5, 1, 1))
        found[:, :3, :3] = (
            true[:, :3, :3] @ Rotation.from_euler("y", np.arange(5.0)[:, None], True).as_matrix()
        )
        found[:, :3, 3] = 7 * true[:, :3, 3] + rng.normal(0, 0.1, (5, 3))
        found[:, :3, 3] -= found[0, :3, 3]
        write_tum_poses(place / "trajectory_tum.txt", np.arange(5.0), found)
        (place / "trajectory.txt").unlink()
        for i in range(4):
            motion, exact = (np.linalg.inv(c[i]) @ c[i + 1] for c in (found, true))
            turn = np.linalg.inv(exact) @ motion
            poses["rotation"].append(np.degrees(Rotation.from_matrix(turn[:3, :3]).magnitude()))
            t, g = motion[:3, 3], exact[:3, 3]
            cosine = t @ g / np.linalg.norm(t) / np.linalg.norm(g)
            poses["direction"].append(np.degrees(np.arccos(cosine)))
        x, g = found[:, :3, 3], true[:, :3, 3]
        scale = np.linalg.lstsq(x.reshape(-1, 1), g.ravel())[0]
        poses["ate"].append(np.sqrt(np.sum((scale * x - g) ** 2) / 5))

    scores = scoring.score(perfect, bed)["conditions"]["clean"]
    means = {name: np.mean(np.concatenate(values)) for name, values in wanted.items()}
    named = {
        "flow": {"epe": "epe", "epe_occluded": "occluded", "epe_s10_40": "fast"},
        "stereo": {"disparity_error_occluded": "disparity", "d1": "d1"},
        "video": {"abs_rel_edges": "abs_rel"},
    }
    for task, names in named.items():
        for measure, name in names.items():
            assert scores[task][measure] == pytest.approx(means[name], rel=1e-4), measure
    for name, values in poses.items():
        assert scores["video"][name] == pytest.approx(np.mean(values), rel=1e-5), name


def test_quantities_may_be_missing(bed, perfect, capsys):
    shutil.rmtree(perfect / "clean" / "stereo")
    for name in NAMES:
        (perfect / "clean" / "video" / name / "2.pfm").unlink()
        (perfect / "clean" / "flow" / name / "first_visible.png").unlink()
    shutil.copytree(perfect / "clean", perfect / "noise_2")
    command._score(perfect, bed)
    printed = capsys.readouterr().out
    assert (
        "clean, noise_2: no disparity, visible, depth" in printed and "occlusion_f1" not in printed
    )
    found = json.loads((perfect / scoring.SCORES).read_text())
    assert [*found["conditions"]] == ["clean", "noise_2"]
    assert [*found["trivial"]] == [*found["conditions"]["clean"]] == ["flow", "video"]
    assert "abs_rel" not in found["conditions"]["clean"]["video"]


def test_pngs_are_scored_as_written(bed, perfect):
    for name in NAMES:
        place = perfect / "clean" / "stereo" / name
        write_scaled_png(place / "left.png", read_pfm(place / "left.pfm"))
        (place / "left.pfm").unlink()
        place = perfect / "clean" / "flow" / name
        write_flow(place / "first.png", read_flow(place / "first.flo")[0])
        (place / "first.flo").unlink()
    scores = scoring.score(perfect, bed)["conditions"]["clean"]
    assert scores["stereo"]["disparity_error"] < 0.5 / 256
    assert scores["flow"]["epe"] < 0.5 / 64


def spoiled(change):
    """Changes a file of predictions; for `parametrize`."""
    return pytest.param(change, id=change.__name__)


def half_a_task(root):
    (root / "clean/flow/001/first.flo").unlink()
    return r"flow/001 has no first.flo or first.npy or first.png: flow is scored over all 2 samples"


def another_size(root):
    write_pfm(root / "clean/stereo/000/left.pfm", np.ones((64, 128)))
    return r"left.pfm is float32 \[64, 128\]; it has to have the size of the images, \[128, 256\]"


def a_hole(root):
    values = np.ones(SIZE)
    values[0, :64] = np.nan
    write_pfm(root / "clean/stereo/000/left.pfm", values)
    return r"left.pfm: 0.2% of the pixels are unknown or not finite; every pixel is scored: fill"


def a_hole_in_the_flow(root):
    flow = np.zeros((*SIZE, 2))
    flow[:64] = np.nan
    write_flow(root / "clean/flow/001/first.flo", flow)
    return r"first.flo: 50.0% of the pixels are unknown"


def no_depth(root):
    write_pfm(root / "clean/video/000/2.pfm", np.zeros(SIZE))
    return r"2.pfm: 100.0% of the depths are not positive"


def not_an_array(root):
    (root / "clean/video/000/2.pfm").unlink()
    (root / "clean/video/000/2.npy").write_text("depth")
    return r"2.npy is not an .npy file of numbers"


def too_few_poses(root):
    write_kitti_poses(root / "clean/video/000/trajectory.txt", np.stack([np.eye(4)] * 3))
    return r"trajectory.txt has 3 poses; write one for each of 5 frames"


def no_rotation(root):
    write_kitti_poses(root / "clean/video/000/trajectory.txt", np.stack([2 * np.eye(4)] * 5))
    return r"trajectory.txt: poses must be rigid motions"


def nowhere(root):
    poses = np.stack([np.eye(4)] * 5)
    poses[1, 0, 3] = np.nan
    write_kitti_poses(root / "clean/video/000/trajectory.txt", poses)
    return r"trajectory.txt has positions that are not finite"


def a_colored_map(root):
    (root / "clean/stereo/000/left.pfm").unlink()
    Image.new("RGB", SIZE[::-1]).save(root / "clean/stereo/000/left.png")
    return r"left.png is uint8 \[128, 256, 3\]; disparity and depth are 16-bit gray"


def an_unknown_task(root):
    (root / "clean/steroe/000").mkdir(parents=True)
    return r'clean/steroe is no task of the test bed: did you mean "stereo"\?'


def an_unknown_condition(root):
    (root / "noise_4/stereo/000").mkdir(parents=True)
    return r"noise_4 is no condition of the test bed: did you mean"


def an_unknown_sample(root):
    (root / "clean/stereo/100").mkdir(parents=True)
    return r"stereo/100 is no sample of the test bed"


def no_condition(root):
    (root / "clean/stereo").rename(root / "stereo")
    return r"has stereo without a condition; predictions for the clean images go to .*clean/stereo"


def nothing(root):
    shutil.rmtree(root / "clean")
    return r"has no predictions, such as clean/stereo/000"


def no_files(root):
    shutil.rmtree(root / "clean")
    (root / "clean/stereo/000").mkdir(parents=True)
    return r"clean has no predictions; README.md of the test bed says how files are named"


MISTAKES = (
    *(half_a_task, another_size, a_hole, a_hole_in_the_flow, no_depth, not_an_array, too_few_poses),
    *(no_rotation, nowhere, a_colored_map, an_unknown_task, an_unknown_condition),
    *(an_unknown_sample, no_condition, nothing, no_files),
)


@pytest.mark.parametrize("change", [spoiled(change) for change in MISTAKES])
def test_mistakes_are_named(bed, perfect, change):
    message = change(perfect)
    with pytest.raises(UserError, match=message) as error:
        scoring.score(perfect, bed)
    assert "\n" not in str(error.value)


def test_no_test_bed(bed, perfect, tmp_path):
    with pytest.raises(UserError, match=r"has no testbed.json: it is no test bed, or writing it"):
        scoring.score(perfect, bed / "truth")
    with pytest.raises(UserError, match="is no folder; name the one to score"):
        scoring.score(tmp_path / "nowhere", bed)
    shutil.copy(bed / layout.MANIFEST, tmp_path)
    with pytest.raises(UserError, match="truth is missing, and scores need the truth; write"):
        scoring.score(perfect, tmp_path)
    (tmp_path / layout.MANIFEST).write_text('{"version": 0}')
    with pytest.raises(UserError, match="is a test bed of version 0"):
        scoring.score(perfect, tmp_path)


# Predictions of a run.


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with formulas.runs(tmp_path_factory.mktemp("runs")) as folder:
        yield folder


def run_command(workdir, bed, output, *options):
    with flagsaver.flagsaver():
        flags.FLAGS(["", f"--workdir={workdir}", f"--input={bed}", f"--output={output}", *options])
        predict.main([])


@pytest.mark.parametrize(
    ("run", "task", "quantities"),
    [
        ("pairs", "flow", {"flow", "visible"}),
        ("video", "video", {"depth", "poses"}),
        ("stereo", "stereo", {"disparity"}),
    ],
)
def test_a_run_predicts_a_test_bed(runs, bed, tmp_path, run, task, quantities, capsys):
    run_command(runs / run, bed, tmp_path)
    assert "2 samples in 4 condition(s)" in capsys.readouterr().out
    results = scoring.score(tmp_path, bed)
    assert {*results["conditions"]} == {"clean", "noise_1", "noise_2", "noise_3"}
    assert {*results["conditions"]["clean"]} == {task}
    assert {*layout.QUANTITIES} - {*results["missing"]["clean"]} == quantities
    if task == "video":  # the network sees the camera at minus the mean brightness
        images = [pixels(bed / "clean/video/000" / f"{i}.png") for i in range(5)]
        brightness = np.array([image.mean() / 255 for image in images])
        cameras = read_kitti_poses(tmp_path / "clean/video/000/trajectory.txt")
        np.testing.assert_allclose(cameras[:, 0, 3], brightness - brightness[0], atol=2e-3)
        motions = pose.relative_poses(cameras)
        assert np.abs(motions[:, 1:3, 3]).max() < 1e-6


def test_options_without_effect_are_refused(runs, bed, tmp_path):
    with pytest.raises(UserError, match="--fps has no effect on a test bed: leave it out"):
        run_command(runs / "pairs", bed, tmp_path, "--fps=3")
    with pytest.raises(UserError, match="is the test bed itself: name another folder"):
        run_command(runs / "pairs", bed, bed)
