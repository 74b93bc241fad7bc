"""Image sets of TensorFlow Datasets, prepared once as array_record, read without TensorFlow."""

import difflib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import images
from sslax.data.records import DataError, Dataset, ImageError, Record


class Section(NamedTuple):
    """The section `data.tfds`."""

    name: str = ""  # of the set; '': data.path is the directory of a prepared one
    train_split: str = "train"
    test_split: str = "test"  # '' for none


def load(config: ConfigDict) -> Dataset:
    """The set `config.tfds.name`, prepared below `config.path` (default: TFDS's own directory).

    Without a name, `config.path` is the directory of one prepared set, with its dataset_info.json.

    Raises:
        DataError: there is no such set or split, it is not prepared as array_record, or its records
            have no image.
    """
    if config.test_path or config.test_fraction:
        raise DataError(
            "data.source='tfds' takes its parts from data.tfds.train_split and "
            "data.tfds.test_split, such as 'train[:90%]' and 'train[90%:]': leave data.test_path "
            "and data.test_fraction unset"
        )
    builder = _builder(config.tfds.name, config.path)
    train, names = _source(builder, "train_split", config)
    test = _source(builder, "test_split", config)[0] if config.tfds.test_split else None
    return Dataset(train, test, names)


class TfdsSource:
    """Records of a data source of TFDS that yields encoded images."""

    def __init__(
        self,
        records: Any,
        image_key: str,
        label_key: str | None,
        *,
        size: int,
        channels: int,
        value_range: images.ValueRange = (),
        name: str,
    ) -> None:
        self.records = records
        self.image_key = image_key
        self.label_key = label_key
        self.size = size
        self.channels = channels
        self.value_range = value_range
        self.name = name

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Record:
        record = self.records[i]
        try:
            image = images.decode(
                record[self.image_key],
                size=self.size,
                channels=self.channels,
                value_range=self.value_range,
            )
        except ImageError as error:
            raise ImageError(f"image {i} of {self.name} cannot be read: {error}") from error
        if self.label_key is None:
            return {"image": image}
        return {"image": image, "label": np.asarray(record[self.label_key], np.int32)}


def _builder(name: str, path: str | None) -> Any:
    import tensorflow_datasets as library

    path = path or None
    if not name:
        if path is None or not (Path(path) / "dataset_info.json").exists():
            raise DataError(
                "data.source='tfds' needs data.tfds.name, or as data.path a directory with a "
                "dataset_info.json"
            )
        return library.builder_from_directory(path)
    try:
        builder = library.builder(name, data_dir=path)
    except ValueError as error:  # not found, or not a name
        known = library.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name, known, n=3)
        raise DataError(
            f"TensorFlow Datasets has no set {name!r} and none is prepared in "
            f"{path or 'its directory'}; the nearest names: {', '.join(close) or 'none'}"
        ) from error
    if not Path(builder.data_path).exists():
        raise DataError(
            f"{name} is not prepared in {builder.data_path}: run, where TensorFlow is "
            f"installed, tfds build {name} --file_format=array_record "
            f"--data_dir={path or '~/tensorflow_datasets'}"
        )
    return builder


def _source(
    builder: Any, key: str, config: ConfigDict
) -> tuple[TfdsSource, tuple[str, ...] | None]:
    """The records of a split, 'train_split' or 'test_split', and the names of the classes."""
    import tensorflow_datasets as library

    split, features = config.tfds[key], dict(builder.info.features.items())
    image_key = _image_key(builder.name, features)
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
            f"data.tfds.{key}={split!r} is not a split of {builder.name}; it has "
            f"{sorted(builder.info.splits)}"
        ) from error
    if label_key and int(records[0][label_key]) < 0:  # STL-10 labels its unlabeled images -1
        label_key = None
    source = TfdsSource(
        records,
        image_key,
        label_key,
        size=config.image_size,
        channels=config.channels or int(features[image_key].shape[-1]),
        value_range=images.value_range(config),
        name=f"{builder.name} {split}",
    )
    return source, tuple(label.names) if label_key else None


def _image_key(name: str, features: dict[str, Any]) -> str:
    """The feature 'image', or else the first image among the features."""
    import tensorflow_datasets as library

    found = [key for key in features if isinstance(features[key], library.features.Image)]
    if not found:
        raise DataError(f"{name} has no image among its features {sorted(features)}")
    return "image" if "image" in found else found[0]
