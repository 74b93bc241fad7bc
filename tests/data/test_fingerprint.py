"""Fingerprints: what changes them, and what does not."""

import importlib
import shutil

import numpy as np
import pytest
from PIL import Image

from sslax import data

fingerprint = importlib.import_module("sslax.data.fingerprint")
RNG = np.random.default_rng(0)


def _image(path, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def _print(root, **fields):
    config = data.defaults()
    config.update(path=str(root), **fields)
    return data.fingerprint(data.load(config).train)


def _classes(root):
    for name in ("cat", "dog"):
        for i in range(3):
            _image(root / name / f"{i}.png", (8, 8 + i))
    return root


def _move(root, old, new):
    (root / new).parent.mkdir(exist_ok=True)
    (root / old).rename(root / new)


FOLDER = {"source": "folder", "image_size": 8}


@pytest.mark.parametrize("device", ["resident", "stream"])
def test_a_folder_may_move_and_be_touched(tmp_path, device):
    root = _classes(tmp_path / "here")
    before = _print(root, device=device, **FOLDER)
    shutil.copytree(root, tmp_path / "there" / "below")
    (tmp_path / "there" / "below" / "notes.txt").write_text("not an image")
    assert _print(tmp_path / "there" / "below", device=device, **FOLDER) == before


@pytest.mark.parametrize("device", ["resident", "stream"])
@pytest.mark.parametrize(
    "change",
    [
        lambda root: _image(root / "cat" / "0.png", (9, 9)),  # replaced
        lambda root: _move(root, "cat/0.png", "dog/3.png"),  # of another class
        lambda root: _move(root, "cat/0.png", "cat/0a.png"),  # renamed
        lambda root: (root / "cat" / "0.png").unlink(),
        lambda root: _image(root / "cat" / "9.png"),
        lambda root: [_move(root, *m) for m in (("cat", "x"), ("dog", "cat"), ("x", "dog"))],
    ],
    ids=["replaced", "moved", "renamed", "removed", "added", "classes swapped"],
)
def test_a_changed_folder_is_another(tmp_path, change, device):
    root = _classes(tmp_path)
    before = _print(root, device=device, **FOLDER)
    change(root)
    assert _print(root, device=device, **FOLDER) != before


@pytest.mark.parametrize("kind", ["pixels", "jpeg"])
@pytest.mark.parametrize("changed", ["images", "labels"])
def test_a_changed_archive_is_another(tmp_path, kind, changed):
    images, labels = RNG.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), np.arange(4)

    def written():
        path, parts = tmp_path / "set.npz", []
        for image in images:
            _image(tmp_path / "one.jpg")
            Image.fromarray(image).save(tmp_path / "one.jpg")
            parts.append(np.frombuffer((tmp_path / "one.jpg").read_bytes(), np.uint8))
        jpeg = {
            "jpeg_train": np.concatenate(parts),
            "off_train": np.cumsum([0, *map(len, parts)]),
        }
        np.savez(path, y_train=labels, **(jpeg if kind == "jpeg" else {"x_train": images}))
        return _print(path, source="npz")

    before = written()
    assert written() == before
    if changed == "images":
        images[0] = 255 - images[0]
    else:
        labels = labels[::-1]
    assert written() != before


def test_a_changed_video_is_another(tmp_path):
    for i in range(4):
        _image(tmp_path / "frames" / f"{i}.png", (8, 8))
    (tmp_path / "frames" / "intrinsics.txt").write_text("8 8 4 4")
    fields = {"source": "video", "frames": 3, "labels": False, "device": "stream"}
    before = _print(tmp_path / "frames", **fields)
    shutil.copytree(tmp_path / "frames", tmp_path / "moved")
    assert _print(tmp_path / "moved", **fields) == before
    (tmp_path / "moved" / "intrinsics.txt").write_text("9 9 4 4")
    assert _print(tmp_path / "moved", **fields) != before
    _move(tmp_path / "frames", "3.png", "4.png")
    assert _print(tmp_path / "frames", **fields) != before


def test_of_large_sets_names_and_sizes_count(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "CONTENT_BYTES", 100)
    root = _classes(tmp_path)
    before = _print(root, **FOLDER)
    size = (root / "cat" / "0.png").stat().st_size
    _image(root / "cat" / "0.png")
    assert (root / "cat" / "0.png").stat().st_size == size
    assert _print(root, device="stream", **FOLDER) == before
    _image(root / "cat" / "0.png", (9, 9))
    assert _print(root, device="stream", **FOLDER) != before
