"""Images and videos as frames."""

import sys

import numpy as np
import pytest
from formulas import constant_image
from PIL import Image

from sslax.errors import UserError
from sslax.inference import inputs, outputs

FFMPEG = inputs.ffmpeg()


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
    monkeypatch.setattr(inputs, "ffmpeg", lambda: str(program))
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
