"""Image sets of TensorFlow Datasets, prepared once as array_record and read without TensorFlow."""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import images
from sslax.data.records import DataError, Dataset, ImageError, Record


class TfdsSource:
    """Wraps a data source that yields the encoded image; decoding is the project's own."""

    def __init__(
        self,
        records: Any,
        image_key: str,
        label_key: str | None,
        *,
        size: int,
        channels: int,
        name: str,
    ) -> None:
        self.records = records
        self.image_key = image_key
        self.label_key = label_key
        self.size = size
        self.channels = channels
        self.name = name

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Record:
        record = self.records[i]
        try:
            image = images.decode(record[self.image_key], size=self.size, channels=self.channels)
        except ImageError as error:
            raise ImageError(f"image {i} of {self.name} cannot be read: {error}") from error
        if self.label_key is None:
            return {"image": image}
        return {"image": image, "label": np.asarray(record[self.label_key], np.int32)}


def tfds(config: ConfigDict) -> Dataset:
    """A set of TensorFlow Datasets by its `name`, prepared below `path` (default: TFDS's own).

    Without a `name`, `path` is the directory of one prepared set, where dataset_info.json is.

    Raises:
        DataError: if there is no such set or split, it is not prepared as array_record, or its
            records hold no image.
    """
    if config.test_path or config.test_fraction:
        raise DataError(
            "data.source='tfds' takes its parts from data.train_split and data.test_split, such as "
            "'train[:90%]' and 'train[90%:]': leave data.test_path and data.test_fraction unset"
        )
    builder = _builder(config)
    train, names = _source(builder, config.train_split, "data.train_split", config)
    if not config.test_split:
        return Dataset(train, None, names)
    return Dataset(train, _source(builder, config.test_split, "data.test_split", config)[0], names)


def _builder(config: ConfigDict) -> Any:
    import tensorflow_datasets as library

    path = str(Path(config.path).expanduser()) if config.path else None
    if not config.name:
        if path is None or not (Path(path) / "dataset_info.json").exists():
            raise DataError(
                "data.source='tfds' needs data.name, or data.path of a directory with a "
                "dataset_info.json"
            )
        return library.builder_from_directory(path)
    try:
        builder = library.builder(config.name, data_dir=path)
    except ValueError as error:  # not found, or not a name
        close = difflib.get_close_matches(
            config.name, library.list_builders(with_community_datasets=False), n=3
        )
        raise DataError(
            f"TensorFlow Datasets has no set {config.name!r} and none is prepared in "
            f"{path or 'its directory'}; the nearest names: {', '.join(close) or 'none'}"
        ) from error
    if not Path(builder.data_path).exists():
        raise DataError(
            f"{config.name} is not prepared in {builder.data_path}: run, where TensorFlow is "
            f"installed, tfds build {config.name} --file_format=array_record "
            f"--data_dir={path or '~/tensorflow_datasets'}"
        )
    return builder


def _source(
    builder: Any, split: str, what: str, config: ConfigDict
) -> tuple[TfdsSource, tuple[str, ...] | None]:
    import tensorflow_datasets as library

    features = dict(builder.info.features.items())
    found = [key for key in features if isinstance(features[key], library.features.Image)]
    if not found:
        raise DataError(f"{builder.name} has no image among its features {sorted(features)}")
    image_key = "image" if "image" in found else found[0]
    label = features.get("label")
    label_key = "label" if isinstance(label, library.features.ClassLabel) else None
    try:
        records = builder.as_data_source(split, decoders={image_key: library.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise DataError(
            f"{builder.name} in {builder.data_path} is not prepared as array_record: prepare it "
            "again in another data.path with --file_format=array_record"
        ) from error
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{what}={split!r} is no split of {builder.name}; it has {sorted(builder.info.splits)}"
        ) from error
    if label_key and int(records[0][label_key]) < 0:  # STL-10 marks its unlabeled images by -1
        label_key = None
    source = TfdsSource(
        records,
        image_key,
        label_key,
        size=config.image_size,
        channels=config.channels or int(features[image_key].shape[-1]),
        name=f"{builder.name} {split}",
    )
    return source, tuple(label.names) if label_key else None
