"""Sources of single images, and every mistake that has a message."""

import hashlib
import io
import logging
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sslax import data
from sslax.data import records
from sslax.data.files import archives, headers, images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 9, 8, 3), dtype=np.uint8)


def config(**fields):
    result = data.defaults()
    result.update(fields)
    return result


def error(**fields):
    """The message with which `load` refuses a config."""
    with pytest.raises(data.DataError) as caught:
        data.load(config(**fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(root, classes, per_class=4):
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            (root / name / f"{i}.png").write_bytes(encoded(PIXELS[(per_class * c + i) % 12]))
    return root


def write_npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return str(path)


# Embedded


def test_embedded_images_are_unchanged():
    dataset = data.load(config())
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (8000, 2000, 10)
    assert dataset.class_names[9] == "Ankle boot"
    digest = hashlib.sha256(dataset.train.images.tobytes()).hexdigest()
    assert digest == "45a675c570889484ca9e6cdc5fdc3f43610a4bb462b569c966e61c6cb18e6245"
    digest = hashlib.sha256(dataset.test.images.tobytes()).hexdigest()
    assert digest == "d81b002394812acb5b6246462db32cbd701bec67a60cb6bed83200f91a5f54b8"
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), np.full(10, 800))
    record = dataset.test[17]
    assert record["image"].shape == (28, 28, 1) and record["image"].dtype == np.uint8
    assert record["label"] == 7 and record["label"].dtype == np.int32


def test_embedded_labels_match_the_images():
    # The nearest class mean beats chance by far only if the labels match.
    train, test, _ = data.load(config())
    means = np.stack([train.images[train.labels == c].mean(0).ravel() for c in range(10)])
    flat = test.images.reshape(len(test), -1).astype(np.float64)
    distance = (means**2).sum(1) - 2 * flat @ means.T
    assert (distance.argmin(1) == test.labels).mean() > 0.6


def test_conversion_reaches_sets_in_memory(tmp_path):
    path = write_npz(tmp_path / "x.npz", x_train=PIXELS, y_train=np.arange(12))
    record = data.load(config(source="npz", path=path, channels=1, device="stream")).train[0]
    assert record["image"].shape == (9, 8, 1)
    record = data.load(config(image_size=32, channels=3, device="stream")).test[0]
    assert record["image"].shape == (32, 32, 3)


def test_data_imports_no_reader():
    code = (
        "import sys, sslax.data; sslax.data.load(sslax.data.defaults()); "
        "sys.exit(' '.join({'grain', 'tensorflow_datasets', 'tensorflow'} & {*sys.modules}) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Images


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("1", (255, 255, 255)),
        ("L", (100, 100, 100)),
        ("P", (200, 100, 50)),
        ("LA", (178, 178, 178)),  # half of 100 over white
        ("RGBA", (228, 178, 152)),
        ("I;16", (100, 100, 100)),
        ("CMYK", (55, 155, 205)),
    ],
)
def test_modes_become_rgb(mode, expected):
    colors = {"1": 1, "L": 100, "LA": (100, 128), "RGBA": (200, 100, 50, 128)}
    if mode == "P":
        image = Image.new("RGB", (6, 6), (200, 100, 50)).quantize(4)
    elif mode == "I;16":
        image = Image.fromarray(np.full((6, 6), 100 * 257, np.uint16))
    else:
        image = Image.new(mode, (6, 6), colors.get(mode, (200, 100, 50, 0)))
    kind = "TIFF" if mode == "CMYK" else "PNG"
    pixels = images.decode(encoded(image, kind))
    assert pixels.shape == (6, 6, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[3, 3], expected, atol=1)
    assert images.decode(encoded(image, kind), channels=1).shape == (6, 6, 1)


def test_transparent_palette_shows_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 1)
    pixels = images.decode(encoded(image, "PNG", transparency=0))
    np.testing.assert_array_equal(pixels[1, 1], [255, 255, 255])
    np.testing.assert_array_equal(pixels[0, 0], [200, 100, 50])


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    pixels = images.decode(encoded(PIXELS[0], "PNG", exif=exif))
    np.testing.assert_array_equal(pixels, np.rot90(PIXELS[0], -1))


def wide(values, kind="TIFF"):
    return encoded(Image.fromarray(np.array([values])), kind)


def test_the_range_of_gray_values(caplog):
    images._warn_of_bits.cache_clear()
    twelve = np.array([0, 2048, 4095], np.uint16)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            images.decode(wide(twelve))
        images.decode(wide(16 * twelve))
    assert caplog.text.count("set data.value_range=(0, 4095)") == len(caplog.records) == 1

    def levels(values, *value_range):
        return images.decode(wide(values), channels=1, value_range=value_range)[0, :, 0].tolist()

    assert levels(twelve, 0, 4095) == [0, 128, 255]
    assert levels(np.array([-1024, 0, 1024, 5000], np.int32), -1024, 1024) == [0, 128, 255, 255]
    assert levels(np.array([-0.5, 0.2, 1.0], np.float32), 0, 1) == [0, 51, 255]
    for values, message in (
        (np.array([-3, 9], np.int32), "-3 to 9, are outside 16 bits: set data.value_range"),
        (np.array([0, 70000], np.int32), "0 to 70000, are outside"),
        (np.array([0.5], np.float32), "floating-point image: set data.value_range"),
    ):
        with pytest.raises(data.DataError, match=message):
            images.decode(wide(values))
    with pytest.raises(data.DataError, match="not finite"):
        images.decode(wide(np.array([np.nan], np.float32)), value_range=(0, 1))


def test_a_folder_of_12_bits(tmp_path):
    (tmp_path / "a.png").write_bytes(wide(np.array([0, 4095], np.uint16), "PNG"))
    fields = {"source": "folder", "path": str(tmp_path), "labels": False, "channels": 1}
    image = data.load(config(**fields, value_range=(0, 4095))).train[0]["image"]
    assert image.ravel().tolist() == [0, 255]
    assert "must be two numbers" in error(**fields, value_range=(4095, 0))


def test_too_many_pixels_and_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLAX_MAX_PIXELS", "71")
    with pytest.raises(data.DataError, match=r"8 x 9 pixels.*SSLAX_MAX_PIXELS=72"):
        images.decode(encoded(PIXELS[0]))
    monkeypatch.setenv("SSLAX_MAX_PIXELS", "72")
    assert images.decode(encoded(PIXELS[0])).shape == (9, 8, 3)
    monkeypatch.setenv("SSLAX_MAX_PIXELS", "many")
    with pytest.raises(data.DataError, match="is not a number of pixels"):
        images.decode(encoded(PIXELS[0]))
    monkeypatch.delenv("SSLAX_MAX_PIXELS")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(data.DataError, match="environment variable SSLAX_MAX_PIXELS"):
        monkeypatch.setattr(headers, "_MAX_PIXELS", 60)
        images.decode(encoded(PIXELS[0]))


def test_resize_is_shorter_side_then_center():
    wide = RNG.integers(0, 256, (20, 60, 3), dtype=np.uint8)
    whole = Image.fromarray(wide).resize((30, 10), Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[:, 10:20]
    np.testing.assert_array_equal(images.decode(encoded(wide), size=10), expected)
    tall = images.decode(encoded(wide.swapaxes(0, 1).copy()), size=10)
    np.testing.assert_allclose(tall, expected.swapaxes(0, 1), atol=1)  # the filter's pass order


def test_large_jpeg_keeps_its_content_at_reduced_scale():
    ramp = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[:, None], (640, 640))
    small = images.decode(encoded(ramp, "JPEG"), size=32, channels=1)[..., 0]
    np.testing.assert_allclose(small[:, 5], np.linspace(3.5, 251.5, 32), atol=2)


# Folders


def test_folder_with_classes(tmp_path):
    root = write_folder(tmp_path / "train", ["cat", "dog"])
    (root / "dog" / "notes.txt").write_text("not an image")
    test = write_folder(tmp_path / "test", ["dog"], per_class=2)
    dataset = data.load(config(source="folder", path=str(root), test_path=str(test)))
    assert dataset.class_names == ("cat", "dog")
    assert [int(dataset.train[i]["label"]) for i in range(8)] == [0] * 4 + [1] * 4
    assert [int(dataset.test[i]["label"]) for i in range(2)] == [1, 1]
    np.testing.assert_array_equal(dataset.train[5]["image"], PIXELS[5])


def test_folder_flat_and_unlabeled(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(PIXELS[0]))
    (tmp_path / "B.JPG").write_bytes(encoded(PIXELS[1][:, :, 0], "JPEG"))
    flat = {"source": "folder", "path": str(tmp_path), "image_size": 6}
    dataset = data.load(config(labels=False, **flat))
    assert len(dataset.train) == 2 and dataset.num_classes is None
    assert all(dataset.train[i]["image"].shape == (6, 6, 3) for i in range(2))
    assert "label" not in dataset.train[0]
    assert "data.labels=False" in error(**flat)


def test_folder_streams_lazily_and_pickles(tmp_path):
    root = write_folder(tmp_path, ["cat", "dog"])
    dataset = data.load(config(source="folder", path=str(root), device="stream", channels=1))
    copy = pickle.loads(pickle.dumps(dataset.train))
    np.testing.assert_array_equal(copy[3]["image"], dataset.train[3]["image"])
    assert copy[3]["image"].shape == (9, 8, 1)


def test_split_is_stratified_and_repeatable(tmp_path):
    root = str(write_folder(tmp_path, ["cat", "dog", "owl"]))
    first, again = (
        data.load(config(source="folder", path=root, test_fraction=0.25)) for _ in range(2)
    )
    assert sorted(first.test.labels) == [0, 1, 2] and len(first.train) == 9
    np.testing.assert_array_equal(first.test.images, again.test.images)
    everything = np.concatenate([first.train.images, first.test.images])
    np.testing.assert_array_equal(np.sort(everything, 0), np.sort(PIXELS, 0))
    assert "empty part" in error(source="folder", path=root, test_fraction=0.01)
    assert "there is a test set" in error(
        source="folder", path=root, test_path=root, test_fraction=0.25
    )


def test_bad_images(tmp_path, caplog):
    root = write_folder(tmp_path, ["cat", "dog"])
    whole = (root / "cat" / "1.png").read_bytes()
    (root / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "2.png").write_text("hello")
    fields = {"source": "folder", "path": str(root)}
    assert "cat/1.png cannot be read as an image" in error(**fields)
    with caplog.at_level(logging.WARNING):
        dataset = data.load(config(bad_images="skip", **fields))
    assert len(dataset.train) == 6 and "skipped 2 of 8" in caplog.text
    assert "cat/1.png" in caplog.text
    np.testing.assert_array_equal(dataset.train[1]["image"], PIXELS[2])
    for path in root.rglob("*.png"):
        path.write_text("hello")
    assert "none of the 8" in error(bad_images="skip", **fields)


def test_what_is_no_image_of_a_folder(tmp_path, caplog):
    """Hidden folders, links in circles, and what the library wrote add nothing."""
    root = write_folder(tmp_path / "set", ["cat", "dog"])
    for stray in (".ipynb_checkpoints/cat", "cat/.ipynb_checkpoints", "dog/__MACOSX"):
        write_folder(root / stray, ["a"])
    links = {
        "cat/up": "..",
        "cat/out": "../..",
        "cat/self": "self",
        "dog/all": root,
        "cat/d": "../dog",
    }
    for link, target in links.items():
        (root / link).symlink_to(target)
    (root / "dog" / "again.png").symlink_to("../cat/0.png")
    for folder in (root, root / "runs" / "first"):
        write_folder(folder / "figures", ["a"])
        for name in ("config.json", "data.json"):
            (folder / name).write_text("{}")
    write_folder(root / "maps", ["a"])
    (root / "maps" / "predictions.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        dataset = data.load(config(source="folder", path=str(root)))
    assert dataset.class_names == ("cat", "dog")
    assert np.bincount(dataset.train.labels).tolist() == [4, 4]
    assert "links to images that are read already" in caplog.text
    assert "pictures of this library" in caplog.text
    assert len(data.load(config(source="folder", path=str(root), labels=False)).train) == 8


def test_links_to_other_places_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", ["c", "d"])
    root = tmp_path / "set"
    root.mkdir()
    for name, target in (("cat", "c"), ("dog", "d")):
        (root / name).symlink_to(f"../elsewhere/{target}")
    dataset = data.load(config(source="folder", path=str(root)))
    np.testing.assert_array_equal(dataset.train.images, PIXELS[:8])
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4


def test_files_that_are_left_out_are_counted(tmp_path, caplog):
    root = write_folder(tmp_path, ["cat"])
    for name in ("a.heic", "b.HEIC", "c.psd", "d"):
        (root / "cat" / name).write_text("")
    (root / "cat" / "e.jfif").write_bytes(encoded(PIXELS[4], "JPEG"))
    with caplog.at_level(logging.WARNING):
        assert len(data.load(config(source="folder", path=str(root))).train) == 5
    assert "left out 4 files" in caplog.text
    assert "2 .heic, 1 .psd, 1 without a suffix" in caplog.text


def test_folder_mistakes(tmp_path):
    assert "needs data.path" in error(source="folder")
    assert "does not exist" in error(source="folder", path=str(tmp_path / "nowhere"))
    assert "no images, nothing" in error(source="folder", path=str(tmp_path))
    root = write_folder(tmp_path / "train", ["cat", "dog"])
    other = write_folder(tmp_path / "test", ["cat", "horse"])
    assert "'horse'" in error(source="folder", path=str(root), test_path=str(other))
    assert "the parts 'test', 'train'" in error(source="folder", path=str(tmp_path))
    (root / "owl").mkdir()
    assert "owl has no images" in error(source="folder", path=str(root))
    (root / "loose.png").write_bytes(encoded(PIXELS[0]))
    assert "loose.png" in error(source="folder", path=str(root))
    archive = write_npz(tmp_path / "x.npz", x_train=PIXELS)
    assert "data.source='npz'" in error(source="folder", path=archive)
    small = tmp_path / "sizes" / "a"
    small.mkdir(parents=True)
    for i in range(2):
        (small / f"{i}.png").write_bytes(encoded(PIXELS[0][: 5 + i]))
    assert "data.image_size" in error(source="folder", path=str(small.parent))


# Archives


def test_npz_pixels(tmp_path):
    labels = np.arange(12) % 3
    path = write_npz(
        tmp_path / "x.npz", x_train=PIXELS, y_train=labels, x_test=PIXELS[:4], y_test=labels[:4]
    )
    dataset = data.load(config(source="npz", path=path))
    assert dataset.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(dataset.test.images, PIXELS[:4])
    assert dataset.train[4]["label"] == 1
    gray = write_npz(tmp_path / "gray.npz", x_train=PIXELS[..., 0])
    dataset = data.load(config(source="npz", path=gray, labels=False))
    assert dataset.train[0]["image"].shape == (9, 8, 1) and dataset.test is None
    dataset = data.load(config(source="npz", path=gray, labels=False, image_size=5, channels=3))
    assert dataset.train.images.shape == (12, 5, 5, 3)


def test_npz_jpeg(tmp_path):
    files = [encoded(x, "JPEG", quality=95) for x in PIXELS]
    arrays = {
        "jpeg_train": np.frombuffer(b"".join(files), np.uint8),
        "off_train": np.cumsum([0] + [len(file) for file in files]),
        "y_train": (np.arange(12) % 2).astype(np.uint8),
        "classes": np.array(["even", "odd"]),
    }
    dataset = data.load(config(source="npz", path=write_npz(tmp_path / "j.npz", **arrays)))
    assert dataset.class_names == ("even", "odd") and len(dataset.train) == 12
    expected = np.asarray(Image.open(io.BytesIO(files[7])))
    np.testing.assert_array_equal(dataset.train[7]["image"], expected)

    def mistake(**changes):
        changed = {key: value for key, value in {**arrays, **changes}.items() if value is not None}
        return error(source="npz", path=write_npz(tmp_path / "bad.npz", **changed))

    assert "no off_train" in mistake(off_train=None)
    assert "increasing" in mistake(off_train=arrays["off_train"][::-1])
    assert "beyond" in mistake(off_train=arrays["off_train"] + 10)
    assert "names 1 classes" in mistake(classes=np.array(["even"]))
    broken = arrays["jpeg_train"].copy()
    broken[arrays["off_train"][3] :][:20] = 0
    assert "image 3 of jpeg_train" in mistake(jpeg_train=broken)


@pytest.mark.parametrize("largest", [12, 2_000_000_000, 2**40])
def test_labels_beyond_the_images_are_refused(tmp_path, largest):
    labels = np.r_[np.arange(11), largest]
    path = write_npz(tmp_path / "x.npz", x_train=PIXELS, y_train=labels)
    assert "number the classes from 0" in error(source="npz", path=path)


def test_npz_mistakes(tmp_path):
    def mistake(**arrays):
        return error(source="npz", path=write_npz(tmp_path / "x.npz", **arrays))

    assert "['images', 'labels']" in mistake(images=PIXELS, labels=np.arange(12))
    assert "is float32" in mistake(x_train=PIXELS.astype(np.float32))
    assert "channels last" in mistake(x_train=PIXELS.transpose(0, 3, 1, 2))
    assert "labels must be integers [12]" in mistake(x_train=PIXELS, y_train=np.arange(5))
    assert "count from 0" in mistake(x_train=PIXELS, y_train=np.arange(12) - 1)
    assert "pickled" in mistake(x_train=np.array([{"a": 1}], dtype=object))
    assert "data.labels=False" in mistake(x_train=PIXELS)
    assert "is empty" in mistake(x_train=PIXELS[:0])
    assert "does not exist" in error(source="npz", path=str(tmp_path / "nowhere.npz"))
    assert "directory" in error(source="npz", path=str(tmp_path))
    (tmp_path / "pickled.npz").write_bytes(pickle.dumps([1]))
    assert "not an .npz archive" in error(source="npz", path=str(tmp_path / "pickled.npz"))


def test_an_archive_larger_than_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, image=np.zeros((100, 100, 100), np.uint8))
    assert path.stat().st_size < 5000
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 900_000}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    with pytest.raises(data.DataError, match=r"unpacks to 0\.0 GiB, and this machine has 0\.0 GiB"):
        archives.read_archive(str(path))


def test_config_mistakes():
    assert 'did you mean "folder"?' in error(source="fodler")
    assert "resident, stream" in error(device="gpu")
    assert "1 channels, which cannot become data.channels=2" in error(channels=2)
    assert "reads no path" in error(path="/somewhere")


# TensorFlow Datasets


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small set prepared as array_record, which needs no TensorFlow for encoded images."""
    library = pytest.importorskip("tensorflow_datasets")

    class Tiny(library.core.GeneratorBasedBuilder):
        """Six labeled images, four for tests, three without labels."""

        VERSION = library.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": library.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": library.features.ClassLabel(names=["cat", "dog"]),
            }
            features = library.features.FeaturesDict(features)
            return library.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            sizes = {"train": 6, "test": 4, "unlabelled": 3}
            return {name: self._generate_examples(name, n) for name, n in sizes.items()}

        def _generate_examples(self, name, n):
            for i in range(n):
                label = -1 if name == "unlabelled" else i % 2
                yield i, {"image": io.BytesIO(encoded(PIXELS[i])), "label": label}

    root = tmp_path_factory.mktemp("tfds")
    Tiny(data_dir=root, file_format="array_record").download_and_prepare()
    return str(root)


def test_tfds_without_tensorflow(prepared):
    dataset = data.load(config(source="tfds", tfds={"name": "tiny"}, path=prepared))
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    assert dataset.class_names == ("cat", "dog")
    known = {PIXELS[i].tobytes(): i % 2 for i in range(6)}  # preparing shuffles
    for i in range(6):
        record = dataset.train[i]
        assert known.pop(record["image"].tobytes()) == record["label"]
    assert "tensorflow" not in sys.modules


def test_tfds_parts_and_directory(prepared):
    path = f"{prepared}/tiny/1.0.0"
    parts = {"train_split": "train[:50%]", "test_split": ""}
    fields = {"source": "tfds", "path": path, "tfds": parts}
    dataset = data.load(config(**fields, device="stream", image_size=4))
    assert len(dataset.train) == 3 and dataset.test is None
    copy = pickle.loads(pickle.dumps(dataset.train))
    assert copy[2]["image"].shape == (4, 4, 3)
    fields = {"source": "tfds", "path": path, "tfds": {"train_split": "unlabelled"}}
    dataset = data.load(config(labels=False, **fields))
    assert len(dataset.train) == 3 and dataset.num_classes is None
    assert "data.labels=False" in error(**fields)


def test_tfds_mistakes(prepared, tmp_path):
    assert "needs data.tfds.name" in error(source="tfds")
    assert "cifar10" in error(source="tfds", tfds={"name": "cifar-10"}, path=str(tmp_path))
    message = error(source="tfds", tfds={"name": "cifar10"}, path=str(tmp_path))
    assert "tfds build cifar10 --file_format=array_record" in message
    fields = {"source": "tfds", "path": prepared}
    missing = {"name": "tiny", "test_split": "validation"}
    assert "test_split='validation' is not a split of tiny" in error(tfds=missing, **fields)
    assert "data.tfds.train_split" in error(test_fraction=0.5, tfds={"name": "tiny"}, **fields)


# Records


def test_labels_of_unstratified_holdout():
    train, test = records.hold_out(data.ArraySource(PIXELS), 0.25)
    assert (len(train), len(test)) == (9, 3)


@pytest.mark.parametrize(
    ("sizes", "fraction"),
    [([4] * 30, 0.1), ([1] + [4] * 3, 0.6), ([7, 7, 7], 0.1), ([100, 10, 3, 1], 0.25)],
)
def test_each_class_is_held_out_in_part(sizes, fraction):
    sizes = np.array(sizes)
    labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    source = data.ArraySource(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)
    train, test = records.hold_out(source, fraction)
    held = np.bincount(test.labels, minlength=len(sizes))
    assert held.sum() == round(fraction * len(labels)) and len(train) + len(test) == len(labels)
    assert (np.bincount(train.labels, minlength=len(sizes)) > 0).all()
    assert (np.abs(held - fraction * sizes) < 1).all()
