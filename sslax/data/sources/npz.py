"""`.npz` archives of images: pixels, or concatenated JPEG bytes."""

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import bands, images
from sslax.data.files.archives import Arrays, read_archive
from sslax.data.records import (
    ArraySource,
    DataError,
    Dataset,
    ImageError,
    Record,
    Source,
    as_labels,
)


def load(config: ConfigDict) -> Dataset:
    """The images of `x_train, y_train, x_test, y_test`, or of JPEG bytes and their offsets.

    All but the training images may be missing; `classes`, an array of strings, names the labels.

    Raises:
        DataError: the file is not an archive, is pickled, or its arrays have other names, types or
            shapes.
    """
    if config.test_path:
        raise DataError(
            "data.source='npz' reads no data.test_path: put x_test and y_test into the archive"
        )
    arrays = read_archive(config.path)
    if "x_train" not in arrays and "jpeg_train" not in arrays:
        raise DataError(
            f"{config.path} has neither 'x_train' nor 'jpeg_train' but {sorted(arrays)}: save the "
            "images as x_train (and x_test, y_train, y_test)"
        )
    train = _part(arrays, "train", config)
    has_test = "x_test" in arrays or "jpeg_test" in arrays
    test = _part(arrays, "test", config) if has_test else None
    return Dataset(train, test, _class_names(arrays, config.path))


class EncodedSource:
    """Encoded images end to end in one array: image i is `data[offsets[i]:offsets[i + 1]]`."""

    def __init__(
        self,
        data: np.ndarray,
        offsets: np.ndarray,
        labels: np.ndarray | None,
        *,
        size: int,
        channels: int,
        value_range: images.ValueRange = (),
        name: str,
    ) -> None:
        self.data = data
        self.offsets = offsets
        self.labels = labels
        self.size = size
        self.channels = channels
        self.value_range = value_range
        self.name = name

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The bytes and where each image starts."""
        return {"data": self.data, "offsets": self.offsets}

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Record:
        encoded = self.data[self.offsets[i] : self.offsets[i + 1]].tobytes()
        try:
            image = images.decode(
                encoded, size=self.size, channels=self.channels, value_range=self.value_range
            )
        except ImageError as error:
            raise ImageError(f"image {i} of {self.name} cannot be read: {error}") from error
        return {"image": image} | ({} if self.labels is None else {"label": self.labels[i]})


def _part(arrays: Arrays, part: str, config: ConfigDict) -> Source:
    if f"x_{part}" in arrays:
        return _pixels(arrays, part, config)
    return _jpeg(arrays, part, config)


def _labels(arrays: Arrays, part: str, length: int) -> np.ndarray | None:
    key = f"y_{part}"
    return as_labels(arrays[key], key, length) if key in arrays else None


def _pixels(arrays: Arrays, part: str, config: ConfigDict) -> Source:
    key, x = f"x_{part}", arrays[f"x_{part}"]
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3, config.channels):
        raise DataError(
            f"{key} of {config.path} has the shape {list(x.shape)}; images must be [N, H, W], "
            "[N, H, W, 1] or [N, H, W, 3], channels last, or [N, H, W, data.channels]"
        )
    if config.value_range or x.dtype == np.uint16:
        x = _scaled(x, key, config)
    if x.dtype != np.uint8:
        raise DataError(
            f"{key} of {config.path} is {x.dtype}; images must be uint8 in 0..255 (for floats in "
            f"[0, 1]: (255 * {key}).round().astype(numpy.uint8))"
        )
    source = ArraySource(x, _labels(arrays, part, len(x)))
    return images.converted(source, size=config.image_size, channels=config.channels)


def _scaled(x: np.ndarray, key: str, config: ConfigDict) -> np.ndarray:
    try:
        return bands.to_eight_bits(x, images.value_range(config))
    except ImageError as error:
        raise DataError(f"{key} of {config.path}: {error}") from error


def _jpeg(arrays: Arrays, part: str, config: ConfigDict) -> Source:
    data, offsets = arrays[f"jpeg_{part}"], arrays.get(f"off_{part}")
    if offsets is None:
        raise DataError(f"{config.path} has jpeg_{part} but no off_{part}, where each image starts")
    if data.dtype != np.uint8 or data.ndim != 1:
        raise DataError(f"jpeg_{part} of {config.path} must be the bytes end to end, uint8 [bytes]")
    integer = np.issubdtype(offsets.dtype, np.integer) and offsets.ndim == 1 and len(offsets) > 1
    if not (integer and offsets[0] >= 0 and (np.diff(offsets.astype(np.int64)) > 0).all()):
        raise DataError(f"off_{part} of {config.path} must be increasing integers [N + 1]")
    if offsets[-1] > len(data):
        raise DataError(
            f"off_{part} of {config.path} ends at byte {offsets[-1]}, beyond the {len(data)} of "
            f"jpeg_{part}: write both again"
        )
    return EncodedSource(
        data,
        offsets,
        _labels(arrays, part, len(offsets) - 1),
        size=config.image_size,
        channels=config.channels,
        value_range=images.value_range(config),
        name=f"jpeg_{part} in {config.path}",
    )


def _class_names(arrays: Arrays, path: str) -> tuple[str, ...] | None:
    if "y_train" not in arrays:
        return None
    labels = [arrays[key] for key in ("y_train", "y_test") if key in arrays]
    count = 1 + max((int(values.max()) for values in labels if values.size), default=-1)
    images = sum(len(values) for values in labels)
    if "classes" not in arrays and count > images:
        raise DataError(
            f"{path} has labels up to {count - 1} for {images} images: number the classes from 0, "
            "or name all of them in 'classes'"
        )
    if "classes" not in arrays:
        return tuple(str(i) for i in range(count))
    names = tuple(str(name) for name in arrays["classes"])
    if len(names) < count:
        raise DataError(f"{path} names {len(names)} classes but has labels up to {count - 1}")
    return names
