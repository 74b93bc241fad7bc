"""Video and stereo from tiny files, and every mistake that has a message."""

import logging
import pickle
import sys

import numpy as np
import pytest
from geometric_config import checked, config, noise, write_images
from PIL import Image

from sslax.data import clips, fitting, rectification, scenes
from sslax.data.files import films
from sslax.data.files.cameras import write_intrinsics
from sslax.data.records import DataError
from sslax.data.sources import stereo, video

K = np.array([[30.0, 0, 9.0], [0, 28.0, 6.0], [0, 0, 1]])
IMAGES = [noise(i) for i in range(12)]
NAMES = [f"f{i}.png" for i in range(12)]  # f10 after f9


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "a", NAMES, IMAGES)
    write_intrinsics(tmp_path / "a" / "intrinsics.txt", K)
    return tmp_path / "a"


def ring(count, radius=2.0):
    """Camera-to-world poses on a circle, looking along it."""
    angle = 0.1 * np.arange(count)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(angle)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(angle), -np.sin(angle)
    poses[:, 0, 3], poses[:, 2, 3] = -radius * np.cos(angle), radius * np.sin(angle)
    return poses


def archive(path, **changes):
    arrays = {
        "image": np.stack(IMAGES),
        "intrinsics": K,
        "depth": np.random.default_rng(0).uniform(1, 9, (12, 12, 20)).astype(np.float32),
        "pose": ring(12)[:, :3],
    }
    arrays |= changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return str(path)


def error(source, **fields):
    with pytest.raises(DataError) as caught:
        source.load(checked(**fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Video


@pytest.mark.parametrize(("frames", "interval"), [(3, 1), (3, 2), (2, 1), (4, 1), (5, 2)])
def test_frames_in_time_order_around_the_target(folder, frames, interval):
    train, test, names = video.load(config(path=str(folder), frames=frames, interval=interval))
    assert test is None and names is None
    span = (frames - 1) * interval
    assert len(train) == 12 - span
    for i in (0, len(train) - 1):
        record = pickle.loads(pickle.dumps(train))[i]
        assert set(record) == {"image", "intrinsics"}
        expected = np.stack(IMAGES[i : i + span + 1 : interval])
        np.testing.assert_array_equal(record["image"], expected)
        np.testing.assert_array_equal(record["intrinsics"], K.astype(np.float32))
        assert train.targets[i, 1] == i + frames // 2 * interval


def test_the_target_of_flow_is_the_first(folder):
    (folder / "intrinsics.txt").unlink()  # flow needs none
    train = video.load(config(path=str(folder), frames=2, target_frame="first")).train
    assert train.targets[:, 1].tolist() == list(range(11)) and set(train[0]) == {"image"}


def test_the_target_of_flow_with_a_past_is_the_second(folder):
    (folder / "intrinsics.txt").unlink()
    train = video.load(config(path=str(folder), frames=3, target_frame="second")).train
    assert train.targets[:, 1].tolist() == list(range(1, 11)) and set(train[0]) == {"image"}
    np.testing.assert_array_equal(train[3]["image"], IMAGES[3:6])
    with pytest.raises(DataError, match="second of three to the third"):
        video.load(config(path=str(folder), frames=2, target_frame="second"))


def test_sequences_in_directories_do_not_mix(folder, tmp_path, caplog):
    write_images(tmp_path / "b", NAMES[:4], IMAGES[4:8])
    write_images(tmp_path / "c", NAMES[:2], IMAGES[:2])
    (tmp_path / ".hidden").mkdir()
    other = K + np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    write_intrinsics(tmp_path / "intrinsics.txt", other)  # where a folder has none
    with caplog.at_level(logging.WARNING):
        train = video.load(config(path=str(tmp_path), frames=3)).train
    assert "1 of 3 sequences have fewer than the 3 frames" in caplog.text
    assert train.targets.tolist() == [*([0, i] for i in range(1, 11)), [1, 1], [1, 2]]
    np.testing.assert_array_equal(train[11]["image"], np.stack(IMAGES[5:8]))
    assert [train[i]["intrinsics"][0, 0] for i in (0, 11)] == [30, 31]


def test_size_and_cut(folder):
    camera = {"cut_bottom": 0.25}
    train = video.load(config(path=str(folder), frames=3, size=(6, 8), camera=camera)).train
    record = train[0]
    fit = fitting.fit((12, 20), (6, 8), cut_bottom=0.25)  # 9 rows, of them 12 columns
    assert fit.box == (4, 0, 16, 9)
    np.testing.assert_array_equal(record["image"][1], fitting.fit_image(IMAGES[1], fit))
    expected = [[20, 0, (9 + 0.5 - 4) * 2 / 3 - 0.5], [0, 28 * 2 / 3, 6.5 * 2 / 3 - 0.5], [0, 0, 1]]
    np.testing.assert_allclose(record["intrinsics"], expected, rtol=1e-6)


def test_gray_becomes_rgb_and_rgb_gray(tmp_path):
    write_images(tmp_path, NAMES[:3], [noise(i, channels=1) for i in range(3)])
    write_intrinsics(tmp_path / "intrinsics.txt", K)
    fields = {"path": str(tmp_path), "frames": 3}
    image = video.load(config(**fields)).train[0]["image"]
    assert image.shape == (3, 12, 20, 3) and (image == image[..., :1]).all()
    assert video.load(config(**fields, channels=1)).train[0]["image"].shape[-1] == 1
    path = archive(tmp_path / "v.npz", image=np.stack([noise(i)[..., 0] for i in range(12)]))
    for channels, expected in ((0, 1), (1, 1), (3, 3)):
        train = video.load(config(path=path, frames=3, channels=channels)).train
        assert train[0]["image"].shape == (3, 12, 20, expected)


def test_archive_ground_truth(tmp_path):
    path = archive(tmp_path / "v.npz")
    found = dict(np.load(path))
    train, test, _ = video.load(config(path=path, frames=3, test_fraction=0.5, distances=True))
    assert set(train[0]) == {"image", "intrinsics", "distance"}
    assert train.targets[:, 1].tolist() == [1, 2, 3, 4]  # frames 0 to 5
    assert test.targets[:, 1].tolist() == [7, 8, 9, 10]  # frames 6 to 11
    record = test[1]
    assert set(record) == {"image", "intrinsics", "distance", "depth", "pose", "sequence"}
    assert len({int(test[i]["sequence"]) for i in range(4)}) == 1
    np.testing.assert_array_equal(record["depth"], found["depth"][8])
    np.testing.assert_allclose(record["pose"][1], np.eye(4), atol=1e-6)
    # A point in the target's camera, transformed through the world to each frame's.
    world = ring(12)
    point = np.array([0.3, -0.2, 4.0, 1.0])
    for k, frame in enumerate((7, 8, 9)):
        expected = np.linalg.solve(world[frame], world[8] @ point)
        np.testing.assert_allclose(record["pose"][k] @ point, expected, atol=1e-5)
    chord = 2 * 2.0 * np.sin(0.05)
    np.testing.assert_allclose(record["distance"], [chord, 0, chord], rtol=1e-5)


def test_archive_resized_and_with_unknown_depth(tmp_path):
    depth = np.full((12, 12, 20), 5.0)
    depth[:, :6, :10] = np.nan
    depth[:, 6:, :10] = -1
    path = archive(tmp_path / "v.npz", depth=depth, intrinsics=np.stack([K] * 12))
    record = video.load(config(path=path, test_path=path, frames=3, size=(6, 10))).test[0]
    np.testing.assert_array_equal(record["depth"][:, :5], 0)
    np.testing.assert_array_equal(record["depth"][:, 5:], 5)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_animations(tmp_path, kind):
    shades = [np.full((8, 10, 3), 40 * i, np.uint8) for i in range(5)]
    first, *rest = [Image.fromarray(pixels) for pixels in shades]
    path = tmp_path / f"film.{kind.lower()}"
    lossless = {"lossless": True} if kind == "WEBP" else {}
    first.save(path, kind, save_all=True, append_images=rest, **lossless)
    write_intrinsics(tmp_path / "intrinsics.txt", K / [[2], [2], [1]])
    train = video.load(config(path=str(path), frames=3)).train
    assert len(train) == 3 and train[0]["image"].shape == (3, 8, 10, 3)
    np.testing.assert_allclose(train[2]["image"].mean((1, 2, 3)), [80, 120, 160], atol=3)


def test_animations_are_decoded_as_files_are(tmp_path):
    write_intrinsics(tmp_path / "intrinsics.txt", K / [[2], [2], [1]])
    wide = [Image.fromarray(np.full((8, 10), 257 * v, np.uint16)) for v in (0, 100, 255)]
    wide[0].save(tmp_path / "wide.tif", save_all=True, append_images=wide[1:])
    clear = [Image.new("RGBA", (10, 8), (200, 100, 50, alpha)) for alpha in (255, 0, 128)]
    clear[0].save(tmp_path / "clear.png", save_all=True, append_images=clear[1:])
    for name, gray in (("wide.tif", [0, 100, 255]), ("clear.png", [200, 255, 227])):
        image = video.load(config(path=str(tmp_path / name), frames=3)).train[0]["image"]
        np.testing.assert_array_equal(image[:, 4, 5, 0], gray)
    floats = [Image.fromarray(np.full((8, 10), v, np.float32)) for v in (0, 0.2, 1)]
    floats[0].save(tmp_path / "floats.tif", save_all=True, append_images=floats[1:])
    fields = {"path": str(tmp_path / "floats.tif"), "frames": 3}
    assert "floating-point image: set data.value_range" in error(video, **fields)
    image = video.load(config(**fields, value_range=(0.0, 1.0))).train[0]["image"]
    np.testing.assert_array_equal(image[:, 4, 5, 0], [0, 51, 255])


def test_no_sample_spans_missing_frames(tmp_path, caplog):
    numbers = [1, 2, 3, 4, 50, 51, 52]
    write_images(tmp_path, [f"f{i}.png" for i in numbers], IMAGES)
    write_intrinsics(tmp_path / "intrinsics.txt", K)
    with caplog.at_level(logging.WARNING):
        train = video.load(config(path=str(tmp_path), frames=3)).train
    assert train.targets[:, 1].tolist() == [1, 2, 5]
    assert "left out 2 of 5 samples, in which frames are missing" in caplog.text
    assert len(video.load(config(path=str(tmp_path), frames=2, interval=2)).train) == 3


def test_frames_numbered_in_steps_are_pointed_out(tmp_path, caplog):
    """Two frames alone, 3 and 50, may be neighbors or not."""
    write_images(tmp_path / "a", ["3.png", "50.png"], IMAGES[:2])
    write_images(tmp_path / "b", ["7.png", "8.png"], IMAGES[:2])
    with caplog.at_level(logging.WARNING):
        video.load(config(path=str(tmp_path), frames=2, target_frame="first"))
    assert "1 of 2 directories are numbered in steps" in caplog.text
    assert f"in {tmp_path / 'a'} of 47" in caplog.text


def test_one_calibration_is_for_one_size(tmp_path):
    write_images(tmp_path / "a", NAMES[:4], IMAGES)
    write_images(tmp_path / "b", NAMES[:4], [noise(i, 12, 18) for i in range(4)])
    write_intrinsics(tmp_path / "intrinsics.txt", K)
    fields = {"path": str(tmp_path), "frames": 3}
    assert "a has images of 20 x 12 pixels and" in error(video, **fields)
    assert len(video.load(config(**fields, camera={"check_intrinsics": False})).train) == 4
    fields = {"path": str(tmp_path / "a"), "test_path": str(tmp_path / "b"), "frames": 3}
    assert "both have the same intrinsics" in error(video, **fields)
    write_images(tmp_path / "a", NAMES[4:8], [noise(i, 12, 18) for i in range(4)])
    train = video.load(config(path=str(tmp_path / "a"), frames=3)).train
    with pytest.raises(DataError, match="18 x 12 pixels, and its first of 20 x 12"):
        train[len(train) - 1]


def test_static_frames_are_left_out(tmp_path, caplog):
    order = [0, 1, 2, 2, 2, 2, 3, 4]
    write_images(tmp_path, NAMES, [IMAGES[i] for i in order])
    write_intrinsics(tmp_path / "intrinsics.txt", K)
    fields = {"path": str(tmp_path), "frames": 3}
    assert len(video.load(config(**fields)).train) == 6
    with caplog.at_level(logging.WARNING):
        train = video.load(config(**fields, camera={"min_motion": 1.0})).train
    # Frames 2 to 4 and 3 to 5 are equal; one moving step out of two is enough to keep a sample.
    assert train.targets[:, 1].tolist() == [1, 2, 5, 6]
    assert "left out 2 of 6 training samples" in caplog.text
    assert f"frame 3 of {tmp_path}" in caplog.text
    assert "in all 6 training samples" in error(video, **fields, camera={"min_motion": 200.0})
    test = video.load(config(**fields, camera={"min_motion": 1.0}, test_path=str(tmp_path))).test
    assert len(test) == 6  # the test keeps static samples


def test_mistakes_of_video(folder, tmp_path):
    fields = {"path": str(folder), "frames": 3}
    assert "needs data.path" in error(video, frames=3)
    assert "gives a sample a single image" in error(video, path=str(folder))
    assert "size=(height, width)" in error(video, **fields, image_size=32)
    assert "must be a height and a width" in error(video, **fields, size=(32,))
    assert "Known: first, middle, second" in error(video, **fields, target_frame="last")
    assert "set data.frames=2 and" in error(video, **fields, target_frame="first")
    assert "data.interval must be a positive whole number" in error(video, **fields, interval=0)
    assert "camera.cut_bottom must be" in error(video, **fields, camera={"cut_bottom": 1.0})
    assert "data.source='stereo'" in error(video, **fields, stereo=True)
    assert "set it to 0.0" in error(video, **fields, test_path=str(folder), test_fraction=0.2)
    assert "span 13 frames, and the longest sequence has 12" in error(video, **fields, interval=6)
    assert "test_fraction=0.9" in error(video, **fields, test_fraction=0.9)
    assert "no camera poses or speeds" in error(video, **fields, distances=True)
    assert "does not exist" in error(video, path="x/film.MP4", frames=3)
    assert "does not exist" in error(video, path=str(tmp_path / "none"), frames=3)
    assert "is a file" in error(video, path=str(folder / "intrinsics.txt"), frames=3)
    assert "is one image" in error(video, path=str(folder / "f0.png"), frames=3)
    assert "does not exist" in error(video, **fields, camera={"intrinsics": "none.txt"})
    write_images(tmp_path, ["loose.png"], IMAGES[:1])
    assert "beside directories of images" in error(video, path=str(tmp_path), frames=3)
    (tmp_path / "empty").mkdir()
    assert "has no images" in error(video, path=str(tmp_path / "empty"), frames=3)
    write_intrinsics(
        folder / "intrinsics.txt", K * [[2], [2], [1]] + [[0, 0, 2], [0, 0, 0], [0, 0, 0]]
    )
    assert "outside the images of 20 x 12" in error(video, **fields)
    (folder / "intrinsics.txt").unlink()
    assert "intrinsics" not in video.load(config(**fields)).train[0]  # a method may learn them
    write_images(tmp_path / "both" / "x", NAMES, IMAGES)
    write_images(tmp_path / "both" / "y", NAMES, IMAGES)
    write_intrinsics(tmp_path / "both" / "y" / "intrinsics.txt", K)
    said = error(video, path=str(tmp_path / "both"), frames=3)
    assert "both/x has no intrinsics, but " in said and "give all of them intrinsics.txt" in said


def test_mistakes_in_the_frames(folder):
    (folder / "f3.png").write_bytes((folder / "f3.png").read_bytes()[:100])
    train = video.load(config(path=str(folder), frames=3)).train
    with pytest.raises(DataError, match=r"f3\.png cannot be read"):
        train[2]
    fields = {"path": str(folder), "frames": 3, "camera": {"min_motion": 1.0}}
    with pytest.raises(DataError, match=r"f3\.png cannot be read"):
        video.load(config(**fields))
    assert len(video.load(config(**fields, bad_images="skip")).train) == 10
    write_images(folder, ["f3.png"], [noise(0, 10, 20)])
    train = video.load(config(path=str(folder), frames=3)).train
    with pytest.raises(DataError, match="20 x 10 and 20 x 12 pixels in one sample"):
        train[2]


def test_mistakes_of_archives(tmp_path):
    def wrong(**changes):
        return error(video, path=archive(tmp_path / "v.npz", **changes), frames=3)

    assert "has no 'image' but" in wrong(image=None)
    assert "images are uint8" in wrong(image=np.zeros((12, 12, 20, 3)))
    assert "'intrinsics' of" in wrong(intrinsics=np.zeros((5, 3, 3)))
    assert "fx and fy" in wrong(intrinsics=np.zeros((3, 3)))
    assert "depth / 1000.0" in wrong(depth=np.zeros((12, 12, 20), np.uint16))
    assert "with these images it is [12, 12, 20]" in wrong(depth=np.zeros((12, 6, 10)))
    assert "one for each" in wrong(pose=ring(11))
    assert "poses are [N, 4, 4]" in wrong(pose=np.zeros((12, 7)))
    assert "not rigid motions" in wrong(pose=2 * ring(12))
    (tmp_path / "text.npz").write_text("x")
    assert "is not an .npz archive" in error(video, path=str(tmp_path / "text.npz"), frames=3)


# Stereo


def pair_files(root, left, right, names=("left", "right")):
    count = range(len(left))
    for side, pixels in zip(names, (left, right)):
        write_images(root / side, [f"{i}.png" for i in count], pixels)
    write_intrinsics(root / "intrinsics.txt", np.array([[99.0, 0, 48], [0, 99, 24], [0, 0, 1]]))


@pytest.fixture(scope="module")
def motorcycle():
    return scenes.motorcycle((48, 96))


@pytest.mark.parametrize("names", stereo.SIDES)
def test_pairs_of_directories(tmp_path, motorcycle, names):
    left, right = motorcycle["image"]
    pair_files(tmp_path, [left] * 3, [right] * 3, names)
    fields = {"path": str(tmp_path), "stereo": True, "camera": {"baseline": 0.25}}
    train = stereo.load(config(**fields)).train
    assert len(train) == 3
    np.testing.assert_array_equal(train[0]["image"], motorcycle["image"])
    assert train[0]["baseline"] == np.float32(0.25) and train[0]["baseline"].shape == ()
    assert train[0]["intrinsics"][0, 0] == 99
    video_too = stereo.load(config(**fields, frames=3)).train
    assert len(video_too) == 1 and video_too[0]["image"].shape == (4, 48, 96, 3)
    np.testing.assert_array_equal(video_too[0]["image"][3], right)
    (tmp_path / "intrinsics.txt").unlink()
    bare = stereo.load(config(path=str(tmp_path), stereo=True)).train[0]
    assert set(bare) == {"image"}  # disparity needs no calibration
    assert "no baseline" not in error(stereo, **fields)


@pytest.mark.parametrize("truth", ["depth", "disparity"])
def test_pairs_of_an_archive(tmp_path, motorcycle, truth):
    values = np.where(motorcycle["known"], motorcycle[truth], 0)[None]
    left, right = motorcycle["image"][:, None]
    path = str(tmp_path / "s.npz")
    calibration = {name: motorcycle[name] for name in ("intrinsics", "baseline")}
    np.savez(path, left=left, right=right, **calibration, **{truth: values})
    train, test, _ = stereo.load(config(path=path, test_path=path, stereo=True))
    assert set(train[0]) == {"image", "intrinsics", "baseline"}
    np.testing.assert_allclose(test[0]["depth"], motorcycle["depth"], rtol=1e-5)
    np.testing.assert_array_equal(test[0]["depth"] == 0, ~motorcycle["known"])


def test_swapped_and_unrectified_pairs_are_refused(tmp_path, motorcycle):
    left, right = motorcycle["image"]
    fields = {"path": str(tmp_path), "stereo": True, "camera": {"baseline": 0.2}}
    pair_files(tmp_path, [right, right], [left, left])
    assert "seem swapped" in error(stereo, **fields)
    trusted = {**fields, "camera": {"baseline": 0.2, "check_pairs": False}}
    assert len(stereo.load(config(**trusted)).train) == 2
    fields["camera"] = {"baseline": -0.2}  # the partner's camera is to the left
    assert stereo.load(config(**fields)).train[0]["baseline"] < 0
    pair_files(tmp_path, [left[:-2], left[:-2]], [right[2:], right[2:]])
    assert "not rectified: patches match better about 2 pixels" in error(stereo, **fields)


def test_pairs_of_two_sizes(tmp_path, motorcycle):
    left, right = motorcycle["image"]
    pair_files(tmp_path, [left, left], [right, right[:40]])
    fields = {"path": str(tmp_path), "stereo": True, "camera": {"baseline": 0.2}}
    assert "96 x 40 and 96 x 48 pixels in one sample" in error(stereo, **fields)


def test_the_end_of_some_short_sequences_is_held_out(tmp_path, motorcycle):
    left, right = motorcycle["image"]
    for i in range(5):
        pair_files(tmp_path / str(i), [left] * 2, [right] * 2)
    fields = {"path": str(tmp_path), "stereo": True, "test_fraction": 0.2}
    train, test, _ = stereo.load(config(**fields, camera={"baseline": 0.2}))
    assert len(train) == 8 and test.targets[:, 1].tolist() == [1, 1]


def test_equal_and_flat_images_pass(motorcycle):
    left = motorcycle["image"][0]
    same = clips.Clip("same", clips.PixelFrames(left[None]), partner=clips.PixelFrames(left[None]))
    rectification.check_pairs([same])
    flat = clips.PixelFrames(np.zeros((2, 40, 60, 1), np.uint8))
    rectification.check_pairs([clips.Clip("flat", flat, partner=flat)])


def test_a_darker_partner_passes(motorcycle):
    left, right = motorcycle["image"]
    darker = (0.6 * right).astype(np.uint8)
    leftwards, rightwards = rectification.pair_errors(left, darker)
    same_row = rectification.ROWS
    assert leftwards.argmin() == same_row and rightwards[same_row] > 1.5 * leftwards.min()


def test_mistakes_of_stereo(tmp_path, motorcycle):
    left, right = motorcycle["image"]
    assert "set data.stereo=True" in error(stereo, path=str(tmp_path), frames=3)
    assert "has no directories left and right" in error(stereo, path=str(tmp_path), stereo=True)
    pair_files(tmp_path, [left, left], [right])
    fields = {"path": str(tmp_path), "stereo": True}
    assert "left/1.png has no partner" in error(stereo, **fields, camera={"baseline": 0.2})
    pair_files(tmp_path, [left, left], [right, right])
    assert "has no baseline: set data.camera.baseline" in error(stereo, **fields)
    (tmp_path / "intrinsics.txt").unlink()
    assert "has no intrinsics" in error(stereo, **fields, camera={"baseline": 0.2})
    pairs = stereo.load(config(**fields, frames=2, camera={"baseline": 0.2})).train
    assert "intrinsics" not in pairs[0] and pairs[0]["baseline"] == np.float32(0.2)
    assert "has no baseline" in error(stereo, **fields, frames=2)
    path = str(tmp_path / "s.npz")
    np.savez(path, left=left[None], right=right[None, :-1])
    assert "must have one shape" in error(stereo, path=path, stereo=True)


# Films.


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A program in ffmpeg's place, whose films are the numbers of gray frames; its calls."""
    program, calls = tmp_path / "ffmpeg", tmp_path / "calls"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "from PIL import Image\n"
        f"open({str(calls)!r}, 'a').write('x')\n"
        "text = open(sys.argv[sys.argv.index('-i') + 1]).read() if '-i' in sys.argv else ''\n"
        "if 'broken' in text:\n"
        "    sys.exit('no film')\n"
        "for i in range(int(text or 0)):\n"
        "    Image.new('RGB', (20, 12), (8 * i,) * 3).save(sys.argv[-1] % (i + 1))\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(films, "ffmpeg", lambda: str(program))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return calls


def test_films_are_extracted_once_and_read_like_frames(tmp_path, ffmpeg, capsys):
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    for name, count in (("a.mp4", 12), ("b.MOV", 9)):
        (recorded / name).write_text(str(count))
    write_intrinsics(recorded / "intrinsics.txt", K)
    fields = {"path": str(recorded), "frames": 3}
    dataset = video.load(checked(**fields))
    assert len(dataset.train) == 10 + 7  # no sample has frames of both
    record = dataset.train[3]
    np.testing.assert_allclose(record["image"].mean((1, 2, 3)), [24, 32, 40], atol=1.5)
    assert record["intrinsics"].shape == (3, 3)
    assert capsys.readouterr().err.count("Extracting the frames of") == 2
    calls = len(ffmpeg.read_text())
    assert len(video.load(checked(**fields | {"path": str(recorded / "a.mp4")})).train) == 10
    assert len(ffmpeg.read_text()) == calls and not capsys.readouterr().err
    (recorded / "a.mp4").write_text("5")  # another film
    assert len(video.load(checked(**fields | {"path": str(recorded / "a.mp4")})).train) == 3

    (recorded / "broken.avi").write_text("broken")
    assert "broken.avi cannot be decoded: no film" in error(video, **fields)
    write_images(recorded, NAMES[:1], IMAGES[:1])
    assert "has films, such as a.mp4, beside images, such as f0.png" in error(video, **fields)


def test_without_ffmpeg_the_remedies_are_named(tmp_path, ffmpeg, monkeypatch):
    monkeypatch.setattr(films, "ffmpeg", lambda: None)
    (tmp_path / "a b.mp4").write_text("3")
    said = error(video, path=str(tmp_path / "a b.mp4"), frames=3)
    assert "pip install 'sslax[video]'" in said and "mkdir 'a b' && ffmpeg -i 'a b.mp4'" in said
