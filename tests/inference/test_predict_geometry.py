"""Depth and flow put to use: networks that are formulas, so that nothing is trained."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import sslax
from sslax import methods, predict
from sslax.augment.image import to_float
from sslax.data import defaults
from sslax.data.files import cameras, flow_files, maps
from sslax.data.files.png import read_png
from sslax.errors import UserError
from sslax.inference import inputs, outputs, use
from sslax.measures import depth, pose
from sslax.training import checkpoint, configuration, sharding, train
from sslax.types import Method, Variables

FFMPEG = inputs.ffmpeg()
SIZE = (8, 12)  # of the networks
METERS = 3.0  # the video network's depth of black


def stand_in(predict):
    """A method that predicts by a formula."""
    return Method(
        views=lambda rng, batch: batch,
        init=lambda rng, batch: Variables(
            {"encoder": {"scale": jnp.float32(2.0)}}, {"encoder": {}}, {}
        ),
        loss=None,
        update=lambda params, extra, step: extra,
        predict=lambda params, state, extra, batch: predict(
            params["encoder"]["scale"], to_float(batch["image"]), batch
        ),
        show=None,
        encoder=lambda params, state, extra: (params["encoder"], state["encoder"]),
        prepare=lambda images: images,
    )


def video_network(scale, images, batch):
    """Depth 3 + 2 brightness; cameras stand at x = brightness of the frame's mean."""
    views = images.shape[1]
    found = {"depth": METERS + scale * images[:, views // 2, ..., 0]}
    if views >= 3:
        place = jnp.mean(images[:, :3], axis=(2, 3, 4))
        poses = jnp.tile(jnp.eye(4), (len(images), 3, 1, 1))
        found["pose"] = poses.at[..., 0, 3].set(place[:, 1:2] - place)
    return found


def stereo_network(scale, images, batch):
    """Disparity: 1 + 2 red, and of what is not gray more to the right."""
    red, green, _ = jnp.moveaxis(images[:, 0], -1, 0)
    disparity = 1 + scale * red + (green - red) * jnp.linspace(0, 0.5, images.shape[-2])
    found = {"disparity": disparity}
    if {"intrinsics", "baseline"} <= batch.keys():
        product = batch["baseline"] * batch["intrinsics"][:, 0, 0]
        found["depth"] = product[:, None, None] / disparity
    return found


def flow_network(scale, images, batch):
    """x: 2 brightness of the first; y: of the second; visible where the first is bright."""
    flow = scale * jnp.stack([images[:, 0, ..., 0], images[:, 1, ..., 0]], axis=-1)
    return {"flow": flow, "backward": -flow, "visible": images[:, 0, ..., 0]}


VIEWS = {"video": 3, "stereo": 2, "pairs": 2, "speed": 3}
NETWORKS = {
    "video": video_network,
    "stereo": stereo_network,
    "pairs": flow_network,
    "speed": video_network,
}
DISTANCES = {"distance": ("float32", (3,))}
CENTER = np.array([[9.0, 0, 99], [0, 9, 3], [0, 0, 1]])  # outside of the images
CAMERA = {"intrinsics": ("float32", (3, 3)), "baseline": ("float32", ())}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs of the three networks, written without training."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name, network in NETWORKS.items():
            patch.setitem(methods.METHODS, name, lambda *_, network=network: stand_in(network))
            config = configuration.defaults()
            config.update(method=name, batch_size=2, duration="2 steps")
            config.data = defaults()
            with config.unlocked():
                config[name] = ConfigDict({"velocity_weight": 0.1 if name == "speed" else 0.0})
            config.lock()
            others = {"stereo": CAMERA, "pairs": {}}.get(name, DISTANCES)
            spec = {"examples": 4, "image_shape": [VIEWS[name], *SIZE, 3], "classes": None}
            spec |= {"others": {n: [d, list(s)] for n, (d, s) in others.items()}} if others else {}
            plan = train.make_plan(config, **spec)
            (folder / name).mkdir()
            checkpoint.keep_description(config, spec, folder / name)
            mesh = sharding.make_mesh(jax.devices()[:1])
            state = jax.jit(plan.initial_state, out_shardings=sharding.replicated(mesh))()
            with checkpoint.Checkpoints(folder / name / "checkpoints") as checkpoints:
                checkpoints.save(2, state._replace(step=jnp.int32(2)), 0.0)
        yield folder


@pytest.fixture(scope="module")
def estimators(runs):
    return {name: sslax.load(runs / name) for name in NETWORKS}


def brightness(value, size=SIZE, channels=3):
    return np.full((*size, channels), value, np.uint8)


def enlarged(values, length):
    """Rows interpolated between their centers, `[length, W]`."""
    at = (np.arange(length) + 0.5) * len(values) / length - 0.5
    return np.stack([np.interp(at, np.arange(len(values)), column) for column in values.T], 1)


def save_frames(folder, values, size=(16, 24), suffix="png", noise=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i, value in enumerate(values):
        image = brightness(value, size).astype(int)
        image = np.clip(image + rng.integers(-noise, noise + 1, image.shape), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"f{i + 8}.{suffix}")
    return folder


@pytest.fixture(autouse=True)
def no_ffmpeg(monkeypatch):
    """The same files on all machines."""
    monkeypatch.setattr(inputs, "ffmpeg", lambda: None)


# The estimator.


def test_what_a_run_predicts_is_known(estimators):
    found = {n: (e.predicts, e.frames, e.metric, e.size, e.step) for n, e in estimators.items()}
    assert found == {
        "video": (("depth", "pose"), 3, False, SIZE, 2),
        "stereo": (("depth", "disparity"), 1, True, SIZE, 2),
        "pairs": (("flow", "backward", "visible"), 2, False, SIZE, 2),
        "speed": (("depth", "pose"), 3, True, SIZE, 2),
    }


def test_depth_comes_back_at_the_size_of_the_image(estimators):
    estimate = estimators["video"]
    small = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    same = estimate(small)
    np.testing.assert_allclose(same["depth"], METERS + small[..., 0] / 127.5, rtol=1e-6)
    assert same["depth"].dtype == np.float32 and "pose" not in same
    large = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    found = estimate(np.stack([large, large]))["depth"]
    shrunk = Image.fromarray(large).resize(SIZE[::-1], Image.Resampling.BILINEAR)  # antialiased
    inverse = 1 / (METERS + np.asarray(shrunk)[..., 0] / 127.5)
    wanted = 1 / enlarged(enlarged(inverse, 20).T, 30).T
    np.testing.assert_allclose(found, [wanted, wanted], rtol=1e-5)
    flat = estimate(brightness(51, (5, 31)))["depth"]
    np.testing.assert_allclose(flat, np.full((5, 31), METERS + 0.4), rtol=1e-6)


def test_images_may_be_gray_or_float_and_batches_small(estimators):
    estimate = estimators["video"]
    images = np.random.default_rng(1).integers(0, 256, (3, *SIZE, 1)).astype(np.uint8)
    wanted = METERS + images[..., 0] / 127.5
    np.testing.assert_allclose(estimate(images)["depth"], wanted, rtol=1e-6)
    floats = estimate(images.repeat(3, -1) / np.float64(255), batch_size=2)
    np.testing.assert_allclose(floats["depth"], wanted, rtol=1e-6)


def test_frames_have_poses_and_the_middle_one_the_depth(estimators):
    frames = np.stack([brightness(v) for v in (0, 51, 204)])
    found = estimators["video"](frames[None])
    np.testing.assert_allclose(found["depth"], np.full((1, *SIZE), METERS + 0.4), rtol=1e-6)
    np.testing.assert_allclose(found["pose"][0, :, 0, 3], [0.2, 0.0, -0.6], atol=1e-5)


def test_the_camera_is_brought_to_the_size_of_the_network(estimators):
    """Depth is that of the image's own camera, whatever the network's size."""
    estimate = estimators["stereo"]
    size = (24, 48)  # 3 x and 4 x
    camera = np.array([[40.0, 0, 20], [0, 90, 11], [0, 0, 1]])
    found = estimate(brightness(102, size), camera, 0.5)
    np.testing.assert_allclose(found["disparity"], np.full(size, 1.8 * 4), rtol=1e-6)
    np.testing.assert_allclose(found["depth"], np.full(size, 0.5 * 40 / 7.2), rtol=1e-6)
    example = {"image": brightness(0, size)[None], "intrinsics": camera}
    fitted = estimate._fitted(example)["intrinsics"]
    wanted = [[10, 0, 20.5 / 4 - 0.5], [0, 30, 11.5 / 3 - 0.5], [0, 0, 1]]
    np.testing.assert_allclose(fitted, wanted, rtol=1e-6)
    assert set(estimate(brightness(102, size))) == {"disparity"}
    several = estimate(np.stack([brightness(102, size)] * 2), camera, [0.5, 1.0])["depth"]
    np.testing.assert_allclose(several[1], 2 * several[0], rtol=1e-6)


def test_flow_is_in_pixels_of_the_images(estimators):
    pair = np.stack([brightness(v, (16, 60)) for v in (51, 255)])  # 2 x and 5 x
    found = estimators["pairs"](pair)
    np.testing.assert_allclose(found["flow"][..., 0], np.full((16, 60), 0.4 * 5), rtol=1e-6)
    np.testing.assert_allclose(found["flow"][..., 1], np.full((16, 60), 2.0 * 2), rtol=1e-6)
    np.testing.assert_array_equal(found["backward"], -found["flow"])
    np.testing.assert_allclose(found["visible"], np.full((16, 60), 0.2), rtol=1e-5)
    np.testing.assert_array_equal(estimators["pairs"](pair[None])["flow"][0], found["flow"])


def test_the_network_may_work_at_another_size(runs, estimators, tmp_path, capsys):
    height, width = SIZE
    estimate = sslax.load(runs / "pairs", size=(2 * height, 3 * width))
    assert estimate.size == (2 * height, 3 * width)
    pair = np.stack([brightness(v, (16, 60)) for v in (51, 255)])
    # The stand-in's flow is constant in pixels of the network, which are smaller now.
    wanted = estimators["pairs"](pair)["flow"] / [3, 2]
    np.testing.assert_allclose(estimate(pair)["flow"], wanted, rtol=1e-6)

    folder = save_frames(tmp_path / "frames", [51, 255])
    run_command(runs, "pairs", f"--input={folder}", f"--output={tmp_path}", f"--size={height},24")
    flow, _ = flow_files.read_flow(tmp_path / "f8.flo")
    np.testing.assert_allclose(flow[..., 0], np.full(flow.shape[:2], 0.4), rtol=1e-6)
    for size in ("8", "8,x", "8,0"):
        with pytest.raises(UserError, match=f"--size={size} is not a height and a width"):
            run_command(runs, "pairs", f"--input={folder}", "--output=out", f"--size={size}")


def test_post_processing_averages_with_the_mirror_image(estimators):
    image = np.random.default_rng(2).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    estimate = estimators["stereo"]
    plain, both = (estimate(image, post_process=p)["disparity"] for p in (False, True))
    assert np.abs(both - plain).max() > 0.05
    mirrored = estimate(image[:, ::-1])["disparity"]
    np.testing.assert_allclose(depth.flip_average(plain, mirrored), both, rtol=1e-6)


def test_an_estimator_leaves_as_safetensors(estimators, tmp_path):
    from safetensors.numpy import load_file

    estimators["video"].save(tmp_path / "encoder.safetensors")
    assert load_file(tmp_path / "encoder.safetensors") == {"params/scale": np.float32(2.0)}


@pytest.mark.parametrize(
    ("name", "images", "options", "message"),
    [
        ("video", np.zeros((8, 12), np.uint8), {}, r"images \[N, H, W, C\].*shape \[8, 12\]"),
        ("video", np.zeros((8, 12, 4), np.uint8), {}, "C 1 or 3. Got images of shape"),
        ("video", np.zeros((1, 2, 8, 12, 3), np.uint8), {}, r"poses of 3 frames \[N, 3, H, W, C\]"),
        ("video", np.zeros((0, 8, 12, 3), np.uint8), {}, "There is no image"),
        ("video", np.full((8, 12, 3), 9.0), {}, r"lie in \[0, 1\]"),
        ("video", np.zeros((8, 12, 3), np.int32), {}, "uint8, or float"),
        ("pairs", np.zeros((8, 12, 3), np.uint8), {}, "Flow is predicted of pairs"),
        ("pairs", np.zeros((3, 8, 12, 3), np.uint8), {}, "Flow is predicted of pairs"),
        ("stereo", brightness(0), {"intrinsics": np.eye(4)}, r"shape \[1, 3, 3\], or \[3, 3\]"),
        ("stereo", brightness(0), {"intrinsics": CENTER}, "center .* is outside"),
        ("stereo", brightness(0), {"baseline": [1.0, 2.0]}, r"baseline of 1 image\(s\)"),
    ],
)
def test_images_that_are_none_are_named(estimators, name, images, options, message):
    with pytest.raises(UserError, match=message):
        estimators[name](images, **options)


# The files.


def written(folder):
    return {path.name for path in folder.iterdir()}


def test_depth_of_a_folder_of_photographs(estimators, tmp_path, capsys):
    folder = tmp_path / "photographs"
    Image.fromarray(brightness(51, (16, 24))).save(_made(folder) / "b2.png")
    Image.fromarray(brightness(255, (20, 10))).save(folder / "b10.jpg")
    (folder / "notes.txt").write_text("none")
    out = tmp_path / "deep" / "out"
    predict.write_maps(estimators["video"], str(folder), out)
    kinds = (".npy", ".png", "_color.png")
    assert written(out) == {f"{n}{k}" for n in ("b2", "b10") for k in kinds} | {"predictions.json"}
    exact = np.load(out / "b2.npy")
    np.testing.assert_allclose(exact, np.full((16, 24), METERS + 0.4), rtol=1e-6)
    assert exact.dtype == np.float32
    stored, known = maps.read_scaled_png(out / "b10.png")
    assert known.all() and stored.shape == (20, 10)
    np.testing.assert_allclose(stored, np.load(out / "b10.npy"), atol=0.5 / 256)
    assert read_png(out / "b2_color.png").shape == (16, 24, 3)
    facts = json.loads((out / "predictions.json").read_text())
    assert facts["method"] == "video" and facts["predicts"] == "depth" and facts["count"] == 2
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"Wrote {out}: depth of 2 images; of unknown scale")


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def test_a_video_has_a_trajectory_and_one_range_of_colors(estimators, tmp_path, capsys):
    places = np.array([10, 60, 30, 160, 250])
    folder = save_frames(tmp_path / "frames", places)
    out = tmp_path / "out"
    predict.write_maps(estimators["video"], str(folder), out, fps=4.0, batch_size=2)
    names = [f"f{i}" for i in range(8, 13)]  # f10 after f9
    kinds = (".npy", ".png", "_color.png")
    extras = {"predictions.json", "trajectory.txt", "trajectory_tum.txt", "trajectory.png"}
    assert written(out) == {f"{n}{k}" for n in names for k in kinds} | extras | {"video.webp"}
    for name, value in zip(names, places):  # the ends of the video, too
        np.testing.assert_allclose(
            np.load(out / f"{name}.npy"), METERS + 2 * value / 255, rtol=1e-6
        )
    way = cameras.read_kitti_poses(out / "trajectory.txt")
    np.testing.assert_allclose(way[:, 0, 3], (places - 10) / 255, atol=1e-5)
    np.testing.assert_allclose(way[:, 1:3, 3], 0, atol=1e-7)
    times, same = cameras.read_tum_poses(out / "trajectory_tum.txt")
    np.testing.assert_allclose(times, [0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(same, way, atol=1e-6)
    colors = [read_png(out / f"{n}_color.png")[0, 0].astype(int).sum() for n in names]
    assert np.argsort(colors).tolist() == np.argsort(-places).tolist()  # near, dark, is bright
    with Image.open(out / "video.webp") as film:
        assert film.n_frames == 5 and film.size == (48, 16)
        film.seek(4)
        left = np.asarray(film.convert("RGB"))[:, :20]
        assert film.info["duration"] == 250
    assert np.abs(left.astype(int) - 250).max() < 6
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "depth of 5 images, with trajectory.txt and video.webp; of unknown scale" in last


def test_a_folder_is_no_video_where_one_says_so(estimators, tmp_path, capsys):
    folder = save_frames(tmp_path / "frames", [10, 60, 30])
    predict.write_maps(estimators["video"], str(folder), tmp_path / "out", video=False)
    assert not {"video.webp", "trajectory.txt"} & written(tmp_path / "out")
    predict.write_maps(estimators["stereo"], str(folder), tmp_path / "stereo")
    assert not {"video.webp", "trajectory.txt"} & written(tmp_path / "stereo")
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "disparity of 3 images; in pixels, of which --intrinsics and --baseline make" in last
    predict.write_maps(estimators["stereo"], str(folder), tmp_path / "film", video=True)
    assert "video.webp" in written(tmp_path / "film")
    assert "trajectory.txt" not in written(tmp_path / "film")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_animations_are_videos(estimators, tmp_path, suffix):
    first, *rest = [Image.fromarray(brightness(v, (16, 24))) for v in (0, 85, 170, 255)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"clip.{suffix}"
    first.save(path, save_all=True, append_images=rest, **options)
    frames = [*inputs.open_frames(str(path), channels=1)]
    assert [frame.name for frame in frames] == [f"clip_{i:06d}" for i in range(4)]
    assert [frame.image.mean() for frame in frames] == [0, 85, 170, 255]
    if suffix == "gif":
        predict.write_maps(estimators["video"], str(path), tmp_path / "out")
        way = cameras.read_kitti_poses(tmp_path / "out" / "trajectory.txt")
        np.testing.assert_allclose(way[:, 0, 3], [0, 1 / 3, 2 / 3, 1], atol=1e-5)


def test_a_video_too_short_for_poses_has_depth(estimators, tmp_path, capsys):
    folder = save_frames(tmp_path / "frames", [10, 60])
    predict.write_maps(estimators["video"], str(folder), tmp_path / "out", video=True)
    assert {"f8.npy", "f9.npy", "video.webp"} <= written(tmp_path / "out")
    assert "There is no trajectory: poses take 3 frames." in capsys.readouterr().out


def test_points_are_the_pixels_backprojected(estimators, tmp_path):
    folder = save_frames(tmp_path / "images", [102], size=(24, 48), noise=60)
    camera = np.array([[40.0, 0, 20], [0, 90, 11], [0, 0, 1]])
    cameras.write_intrinsics(tmp_path / "camera.txt", camera)
    out = tmp_path / "out"
    file = str(tmp_path / "camera.txt")
    predict.write_maps(
        estimators["stereo"], str(folder), out, intrinsics=file, baseline=0.5, reach=1e9
    )
    depths = np.load(out / "f8.npy")
    assert depths.std() > 0.01
    content = (out / "f8.ply").read_bytes()
    head, body = content.split(b"end_header\n")
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


def test_far_points_are_left_out_of_clouds():
    depths = np.array([[1.0, 2.0, 3.0, 11.0, np.inf, 0.0]])
    image = np.zeros((1, 6, 1), np.uint8)
    points, colors = outputs.point_cloud(depths, image, np.eye(3), reach=4.0)  # 4 x 2.5 = 10
    assert points[:, 2].tolist() == [1.0, 2.0, 3.0] and colors.shape == (3, 3)


def test_values_beyond_16_bits_are_unknown_and_counted(tmp_path):
    writer = outputs.DepthFiles(tmp_path)
    values = np.array([[1.0, 300.0, np.inf, 255.0]], np.float32)
    writer.write(inputs.Frame("a", np.zeros((1, 4, 3), np.uint8)), {"depth": values})
    stored, known = maps.read_scaled_png(tmp_path / "a.png")
    assert stored[0].tolist() == [1, 0, 0, 255] and known[0].tolist() == [True, False, False, True]
    assert writer.unfit == 1
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values)
    flow = outputs.FlowFiles(tmp_path)
    field = np.array([[[1.5, 2.0], [600.0, 0.0]]], np.float32)
    flow.write(inputs.Frame("b", np.zeros((1, 2, 3), np.uint8)), {"flow": field})
    _, known = flow_files.read_flow(tmp_path / "b.png")
    assert known[0].tolist() == [True, False] and flow.unfit == 1
    np.testing.assert_array_equal(flow_files.read_flow(tmp_path / "b.flo")[0], field)


def test_flow_of_a_pair(estimators, tmp_path, capsys):
    folder = save_frames(tmp_path / "pair", [51, 255], size=(16, 60))
    out = tmp_path / "out"
    predict.write_maps(estimators["pairs"], f"{folder / 'f8.png'},{folder / 'f9.png'}", out)
    names = {"f8.flo", "f8.png", "f8_color.png", "f8_visible.png", "predictions.json"}
    assert written(out) == names
    for ending, error in ((".flo", 1e-6), (".png", 1 / 128)):
        flow, known = flow_files.read_flow(out / f"f8{ending}")
        np.testing.assert_allclose(flow, np.full((16, 60, 2), [2.0, 4.0]), atol=error)
        assert known.all()
    assert (read_png(out / "f8_visible.png") == 51).all()
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "flow of 1 pair; in pixels" in last


def test_flow_of_a_video_has_one_radius(estimators, tmp_path):
    folder = save_frames(tmp_path / "frames", [25, 50, 250, 0])
    out = tmp_path / "out"
    predict.write_maps(estimators["pairs"], str(folder), out)
    flows = [flow_files.read_flow(out / f"f{i}.flo")[0][0, 0] for i in (8, 9, 10)]
    wanted = np.array([[25, 50], [50, 250], [250, 0]]) * 2 / 255 * 2  # twice the network's size
    np.testing.assert_allclose(flows, wanted, rtol=1e-5)
    assert not (out / "f11.flo").exists()
    colors = [read_png(out / f"f{i}_color.png")[0, 0].astype(int) for i in (8, 9, 10)]
    saturation = [255 - color.min() for color in colors]
    speeds = np.linalg.norm(wanted, axis=1)
    np.testing.assert_allclose(saturation[0] / saturation[1], speeds[0] / speeds[1], atol=0.03)
    with Image.open(out / "video.webp") as film:
        assert film.n_frames == 3


def test_motions_of_overlapping_samples_make_the_way(estimators):
    rng = np.random.default_rng(3)
    from scipy.spatial.transform import Rotation

    way = np.tile(np.eye(4), (9, 1, 1))
    way[:, :3, :3] = Rotation.from_rotvec(0.3 * rng.normal(size=(9, 3))).as_matrix()
    way[:, :3, 3] = rng.normal(size=(9, 3))
    way = np.linalg.inv(way[0]) @ way
    for frames in (2, 3, 5):
        target = frames // 2
        poses = np.stack(
            [np.linalg.inv(way[i : i + frames]) @ way[i + target] for i in range(9 - frames + 1)]
        )
        np.testing.assert_allclose(
            pose.compose_poses(pose.consecutive_motions(poses)), way, atol=1e-9
        )


@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
def test_films_are_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "ffmpeg", lambda: FFMPEG)
    pictures = [brightness(v, (33, 47)) for v in (40, 120, 200)]
    path = outputs.write_animation(tmp_path, pictures, rate=5.0)
    frames = [frame.image for frame in inputs.open_frames(str(path), channels=3)]
    assert path.suffix == ".mp4" and len(frames) == 3 and frames[0].shape == (32, 46, 3)
    np.testing.assert_allclose([f.mean() for f in frames], [40, 120, 200], atol=4)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"video.mp4 cannot be decoded: \S+"):
        next(iter(inputs.open_frames(str(path), channels=3)))


def test_films_go_through_pipes(tmp_path, monkeypatch):
    """With a program in ffmpeg's place, which knows PPM only."""
    program = tmp_path / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\n"
        "import shutil, sys\n"
        "path = sys.argv[sys.argv.index('-i') + 1]\n"
        "if path == '-':\n"
        "    shutil.copyfileobj(sys.stdin.buffer, open(sys.argv[-1], 'wb'))\n"
        "elif b'P6' in open(path, 'rb').read(2):\n"
        "    shutil.copyfileobj(open(path, 'rb'), sys.stdout.buffer)\n"
        "else:\n"
        "    sys.exit('no film')\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(inputs, "ffmpeg", lambda: str(program))
    pictures = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3)).astype(np.uint8)
    path = outputs.write_animation(tmp_path, pictures, rate=5.0)
    sent = np.frombuffer(path.read_bytes(), np.uint8).reshape(3, 4, 6, 3)
    np.testing.assert_array_equal(sent, pictures[:, :4, :6])
    path = tmp_path / "film.avi"
    path.write_bytes(b"".join(b"P6\n7 5\n255\n" + picture.tobytes() for picture in pictures))
    frames = inputs.open_frames(str(path), channels=3)
    for _ in range(2):
        np.testing.assert_array_equal([frame.image for frame in frames], pictures)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"film\.avi cannot be decoded: no film"):
        next(iter(frames))


# Mistakes.


@pytest.fixture
def mistaken(tmp_path):
    """A folder of things to be mistaken about."""
    save_frames(tmp_path / "frames", [10, 60])
    save_frames(tmp_path / "outer" / "inner", [10])
    (tmp_path / "empty").mkdir()
    save_frames(tmp_path / "sizes", [10])
    Image.fromarray(brightness(9, (9, 9))).save(tmp_path / "sizes" / "f9.png")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    (tmp_path / "numbers.txt").write_text("1 2 3")
    (tmp_path / "fx.txt").write_text("40 40 10 8")
    (tmp_path / "film.mp4").write_bytes(b"")
    (tmp_path / "file").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "given", "options", "message"),
    [
        ("video", "nowhere", {}, r"--input=\S*nowhere does not exist"),
        ("video", "nowhere/a.png,frames/f9.png", {}, r"nowhere/a.png does not exist"),
        ("video", "empty", {}, r"empty has no images\. Images end in bmp"),
        ("video", "outer", {}, "outer has no images; inner in it has some"),
        ("video", "numbers.txt", {}, "numbers.txt is no image"),
        ("video", "broken", {}, "a.png cannot be read as an image"),
        ("video", "film.mp4", {}, r"pip install 'sslax\[video\]'.*ffmpeg -i"),
        ("video", "frames/f8.png", {"video": True}, "is one image: give a folder"),
        ("video", "sizes", {"video": True}, "f9 has 9 x 9 pixels and the image before it 24 x 16"),
        ("video", "frames", {"output": "file"}, r"--output=\S*file is a file; name a folder"),
        ("video", "frames", {"output": "maps.npz"}, "name one"),
        ("video", "frames", {"output": "frames"}, "has the images"),
        ("video", "frames", {"intrinsics": "nowhere.txt"}, r"--intrinsics=\S* does not exist"),
        ("video", "frames", {"intrinsics": "numbers.txt"}, "holds 3 numbers"),
        ("video", "frames", {"intrinsics": "fx.txt", "size": 1}, "center .* is outside"),
        ("video", "frames", {"baseline": 0.5}, "leave it out"),
        ("stereo", "frames", {"baseline": 0.5}, "give --intrinsics and --baseline"),
        ("stereo", "frames", {"intrinsics": "fx.txt"}, "give --intrinsics and --baseline"),
        ("stereo", "frames", {"intrinsics": "fx.txt", "baseline": 0.0}, "above 0"),
        ("pairs", "frames/f8.png", {}, "Flow takes two images"),
        ("pairs", "sizes", {}, "consecutive frames have one size"),
    ],
)
def test_mistakes_are_named(estimators, mistaken, monkeypatch, name, given, options, message):
    monkeypatch.chdir(mistaken)
    options = dict(options)
    if options.pop("size", None):  # a camera of larger images
        (mistaken / "fx.txt").write_text("400 400 100 80")
    output = mistaken / options.pop("output", "out")
    with pytest.raises(UserError, match=message) as error:
        predict.write_maps(estimators[name], given, output, **options)
    assert "\n" not in str(error.value)


def run_command(runs, name, *options):
    """The command line, in this process."""
    from absl import flags

    arguments = [f"--workdir={runs / name}", *options]
    saved = {n: (flags.FLAGS[n].value, flags.FLAGS[n].present) for n in flags.FLAGS}
    try:
        flags.FLAGS(["predict", *arguments])
        predict.main([])
    finally:
        for n, (value, present) in saved.items():
            flags.FLAGS[n].value, flags.FLAGS[n].present = value, present


def test_the_command_line(runs, tmp_path, capsys):
    folder = save_frames(tmp_path / "frames", [10, 60, 30])
    run_command(runs, "video", f"--input={folder}", f"--output={tmp_path / 'out'}", "--novideo")
    assert "depth of 3 images; of unknown scale" in capsys.readouterr().out
    with pytest.raises(UserError, match="--stages is for runs that predict features; this one pre"):
        run_command(runs, "video", f"--input={folder}", f"--output={tmp_path / 'out'}", "--stages")
    with pytest.raises(UserError, match="--baseline is for runs that predict depth; this one pred"):
        run_command(runs, "pairs", "--input=a", "--output=b", "--baseline=1.0")


def test_a_run_without_a_checkpoint(runs, tmp_path):
    for name in ("config.json", "data.json"):
        (tmp_path / name).write_text((runs / "video" / name).read_text())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        use.load(tmp_path)
