"""Medical images: units of the device, inversion, sizes, and mistakes."""

import io

import numpy as np
import pytest
from PIL import Image

from sslax import data
from sslax.data.files import images
from sslax.data.records import ImageError

pydicom = pytest.importorskip("pydicom")
STORED = np.arange(12 * 20, dtype=np.uint16).reshape(12, 20) * 10  # 0 to 2390


def dataset(pixels, kind="MONOCHROME2", **fields):
    """A DICOM file of these pixels, as scanners write them."""
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["a"])
    made.SOPClassUID = pydicom.uid.CTImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID
    made.Rows, made.Columns = pixels.shape[-2:] if kind != "RGB" else pixels.shape[:2]
    made.SamplesPerPixel = 3 if kind == "RGB" else 1
    if kind == "RGB":
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = kind
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, 0
    for name, value in fields.items():
        setattr(made, name, value)
    made.PixelData = pixels.tobytes()
    return made


def encoded(*arguments, **fields):
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset(*arguments, **fields), enforce_file_format=True)
    return stream.getvalue()


def test_values_are_those_of_the_device():
    content = encoded(STORED, RescaleSlope=2, RescaleIntercept=-1024)
    units = 2.0 * STORED - 1024
    expected = np.rint(255 * np.clip((units + 160) / 400, 0, 1))
    pixels = images.decode(content, channels=1, value_range=(-160, 240))
    np.testing.assert_array_equal(pixels[..., 0], expected)
    three = images.decode(content, channels=3, value_range=(-160, 240))
    np.testing.assert_array_equal(three, np.repeat(pixels, 3, -1))
    assert images.decode(content, size=8, channels=1, value_range=(-160, 240)).shape == (8, 8, 1)


def test_low_values_may_be_white():
    plain, inverted = (
        images.decode(encoded(STORED, kind), channels=1, value_range=(0, 2390))
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    np.testing.assert_array_equal(inverted, 255 - plain)


def test_eight_bits_and_colors_are_as_they_are():
    gray = np.arange(240, dtype=np.uint8).reshape(12, 20)
    np.testing.assert_array_equal(images.decode(encoded(gray), channels=1)[..., 0], gray)
    rgb = np.random.default_rng(0).integers(0, 256, (12, 20, 3)).astype(np.uint8)
    np.testing.assert_array_equal(images.decode(encoded(rgb, "RGB"), channels=3), rgb)


def test_a_folder_of_them_is_a_data_set(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.dcm").write_bytes(encoded(STORED + np.uint16(i)))
    assert images.stored_size(tmp_path / "0.dcm") == (12, 20)
    config = data.defaults()
    config.update(
        {"source": "folder", "path": str(tmp_path), "channels": 1, "value_range": (0, 2390)}
        | {"labels": False}
    )
    config.image_size = 12
    loaded = data.load(config).train
    assert len(loaded) == 4 and loaded[0]["image"].shape == (12, 12, 1)
    square = np.rint(STORED[:, 4:16] * (255 / 2390))
    np.testing.assert_allclose(loaded[0]["image"][..., 0], square, atol=1)


def test_mistakes_are_named(tmp_path):
    cases = (
        (encoded(STORED), r"values are int32: set data\.value_range=\(\(23.9, 2366\)\)"),
        (encoded(STORED.reshape(2, 6, 20), NumberOfFrames=2), "has 2 frames: write each"),
        (encoded(STORED)[:200], "damaged DICOM|cannot be decoded"),
    )
    for i, (content, message) in enumerate(cases):
        (tmp_path / f"{i}.dcm").write_bytes(content)
        with pytest.raises(ImageError, match=message) as error:
            images.read_image(tmp_path / f"{i}.dcm", channels=1)
        assert f"{i}.dcm cannot be read as an image" in str(error.value)
    stream = io.BytesIO()
    Image.new("L", (4, 4)).save(stream, "png")
    (tmp_path / "png.dcm").write_bytes(stream.getvalue())
    with pytest.raises(ImageError, match="damaged DICOM"):
        images.read_image(tmp_path / "png.dcm", channels=1)
