"""Images and videos as frames."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from formulas import constant_image
from PIL import Image

from sslax.data.files import films
from sslax.errors import UserError
from sslax.inference import inputs, outputs

FFMPEG = films.ffmpeg()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_animations_are_videos(tmp_path, suffix):
    first, *rest = [Image.fromarray(constant_image(v, (16, 24))) for v in (0, 85, 170, 255)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"clip.{suffix}"
    first.save(path, save_all=True, append_images=rest, **options)
    frames = [*inputs.open_frames(str(path), channels=1)]
    assert [frame.name for frame in frames] == [f"clip_{i:06d}" for i in range(4)]
    assert [frame.image.mean() for frame in frames] == [0, 85, 170, 255]


@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
def test_films_are_written_and_read(tmp_path):
    images = [constant_image(v, (33, 47)) for v in (40, 120, 200)]
    path = outputs.write_animation(tmp_path, images, rate=5.0)
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
    monkeypatch.setattr(films, "ffmpeg", lambda: str(program))
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3)).astype(np.uint8)
    path = outputs.write_animation(tmp_path, images, rate=5.0)
    sent = np.frombuffer(path.read_bytes(), np.uint8).reshape(3, 4, 6, 3)
    np.testing.assert_array_equal(sent, images[:, :4, :6])
    path = tmp_path / "film.avi"
    path.write_bytes(b"".join(b"P6\n7 5\n255\n" + image.tobytes() for image in images))
    frames = inputs.open_frames(str(path), channels=3)
    for _ in range(2):
        np.testing.assert_array_equal([frame.image for frame in frames], images)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"film\.avi cannot be decoded: no film"):
        next(iter(frames))


def test_animations_are_decoded_as_files_are(tmp_path):
    wide = [Image.fromarray(np.full((4, 6), 257 * v, np.uint16)) for v in (0, 100, 255)]
    wide[0].save(tmp_path / "a.tif", save_all=True, append_images=wide[1:])
    frames = inputs.open_frames(str(tmp_path / "a.tif"), channels=1)
    assert [frame.image[0, 0, 0] for frame in frames] == [0, 100, 255]
    twelve = {"channels": 1, "value_range": (0, 257 * 100)}
    frames = inputs.open_frames(str(tmp_path / "a.tif"), **twelve)
    assert [frame.image[0, 0, 0] for frame in frames] == [0, 255, 255]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_turned_photographs_are_of_two_sizes(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, given in zip(paths, ({}, {"exif": exif})):
        Image.new("RGB", (6, 4)).save(path, kind, **given)
    files = inputs.Files(paths, channels=3)
    assert [frame.image.shape[:2] for frame in files] == [(4, 6), (6, 4)]
    assert not files.of_one_size() and inputs.Files(paths[1:], channels=3).of_one_size()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.png", "a.jpg"], ["a.png", "a.jpg"]),
        (["/x/a.png", "/y/a.png"], ["x_a.png", "y_a.png"]),
        (["a.png", "a.png"], ["a_000000", "a_000001"]),
        (["s.png", "s_color.png"], ["s.png", "s_color.png"]),
        (["trajectory.png"], ["trajectory.png"]),
    ],
)
def test_no_output_replaces_another(paths, names):
    assert inputs.Files([pathlib.Path(path) for path in paths], channels=3).names == names


def test_gaps_between_frames(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in (1, 2, 3, 50, 51)]
    assert inputs.Files(paths, channels=3).gap() == ("3.png", "50.png")
    assert inputs.Files(paths[:3], channels=3).gap() is None


@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
def test_films_of_variable_frame_rate_have_each_frame_once(tmp_path):
    seconds = [0.04, 0.04, 0.2, 0.01, 0.01, 0.1]
    lines = []
    for i, duration in enumerate(seconds):
        Image.fromarray(constant_image(30 * i + 20, (32, 48))).save(tmp_path / f"{i}.png")
        lines.append(f"file {i}.png\nduration {duration}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    film = tmp_path / "film.mkv"
    timed = [*films.options(FFMPEG), "-enc_time_base", "1:1000", "-c:v", "ffv1"]
    given = ["-loglevel", "error", "-f", "concat", "-i", str(tmp_path / "list.txt")]
    subprocess.run([FFMPEG, *given, *timed, str(film)], check=True)
    frames = inputs.open_frames(str(film), channels=1)
    found = [frame.image.mean() for frame in frames]
    np.testing.assert_allclose(found, 30 * np.arange(6) + 20, atol=2)
    command = films.extraction("film.mkv", "drive", "png").replace("ffmpeg", FFMPEG)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert len([*(tmp_path / "drive").iterdir()]) == 6
