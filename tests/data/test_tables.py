"""Images beside a table of labels, in tar files, and in tables of Hugging Face."""

import io
import json
import logging
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from sslax import data
from sslax.data.sources.webdataset import shard_files

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 8, 3), dtype=np.uint8)


def config(source, **fields):
    result = data.defaults()
    result.source = source
    result.update_from_flattened_dict(fields)
    return result


def error(source, **fields):
    """The message with which `load` refuses a config."""
    with pytest.raises(data.DataError) as caught:
        data.load(config(source, **fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def png(i):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[i]).save(buffer, "PNG")
    return buffer.getvalue()


# A folder and a table of labels


@pytest.fixture
def photos(tmp_path):
    """Six images, in a folder and one below it."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for i in range(6):
        (folder / ("deep" if i % 2 else "") / f"{i}.png").write_bytes(png(i))
    return folder


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("file,label\n0.png,dog\ndeep/1.png,cat\n2,dog\ndeep/3,cat\n4.png,dog\n5.png,cat", {}),
        ("0.png, dog\n1.png, cat\n2.png, dog\n3.png, cat\n4.png, dog\n5.png, cat", {}),
        (
            "split;kind,id\n".replace(";", ",")
            + "a,dog,0\na,cat,1\na,dog,2\na,cat,3\na,dog,4\nb,cat,5",
            {"folder.file_column": "id", "folder.label_column": "kind"},
        ),
    ],
)
def test_a_folder_with_a_table_of_labels(photos, tmp_path, table, keys):
    (tmp_path / "labels.csv").write_text(table)
    keys = {"path": str(photos), "folder.labels_file": str(tmp_path / "labels.csv"), **keys}
    train, test, names = data.load(config("folder", **keys))
    assert names == ("cat", "dog") and test is None
    order = [0, 2, 4, 1, 3, 5]  # by path
    np.testing.assert_array_equal(train.labels, [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(train.images, PIXELS[order])
    held = data.load(config("folder", **keys, test_fraction=0.34))
    assert (len(held.train), len(held.test)) == (4, 2)


def test_a_table_of_labels_for_two_folders(photos, tmp_path):
    (tmp_path / "labels.csv").write_text(
        "".join(f"{i}.png,{'dog' if i else 'cat'}\n" for i in range(6))
    )
    keys = {"path": str(photos), "folder.labels_file": str(tmp_path / "labels.csv")}
    train, test, names = data.load(config("folder", **keys, test_path=str(photos / "deep")))
    assert names == ("cat", "dog")  # those of the training set
    np.testing.assert_array_equal(train.labels, [0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(test.labels, [1, 1, 1])


def test_tables_of_labels_that_do_not_fit(photos, tmp_path, caplog):
    table = tmp_path / "labels.csv"
    keys = {"path": str(photos), "folder.labels_file": str(table)}

    def refused(text, **more):
        table.write_text(text)
        return error("folder", **keys, **more)

    assert "must be a table of file names and labels" in refused("0.png")
    assert "names none of the images" in refused("a.png,dog")
    assert "there is 0.png; write paths below" in refused("a.png,dog")
    assert "two labels of 0.png, 'dog' and 'cat'" in refused("0.png,dog\n0.png,cat")
    assert "the row '1.png' has no label" in refused("0.png,dog\n1.png")
    assert "no column data.folder.label_column='kind' but 'file'" in refused(
        "file,label\n0.png,dog", **{"folder.label_column": "kind"}
    )
    assert "labels up to 9 for 1 images" in refused("0.png,9")
    table.write_text("0.png,dog")
    with caplog.at_level(logging.WARNING):
        assert len(data.load(config("folder", **keys)).train) == 1
    assert "left out 5 images" in caplog.text and "photos/2.png" in caplog.text


# Tar files


def write_shards(folder, label=None, suffix="png", count=6, per_shard=3):
    """Tar files of three samples each; `label(i)` gives the files of a sample besides its image."""
    folder.mkdir(exist_ok=True)
    for first in range(0, count, per_shard):
        with tarfile.open(folder / f"part-{first // per_shard:03d}.tar", "w") as shard:
            for i in range(first, first + per_shard):
                others = label(i) if label else {}
                for kind, content in {**others, suffix: png(i)}.items():
                    entry = tarfile.TarInfo(f"images/{i:04d}.{kind}")
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))
    return str(folder)


def number(i):
    return {"cls": f"{i % 3}\n".encode()}


def test_tar_files(tmp_path):
    folder = write_shards(tmp_path / "a", number)
    dataset = data.load(config("webdataset", path=folder, device="stream"))
    assert dataset.class_names == ("0", "1", "2") and dataset.test is None
    source = pickle.loads(pickle.dumps(dataset.train))
    np.testing.assert_array_equal([source[i]["image"] for i in range(6)], PIXELS[:6])
    np.testing.assert_array_equal([source[i]["label"] for i in range(6)], [0, 1, 2, 0, 1, 2])
    fingerprint = data.fingerprint(source)
    assert fingerprint == data.fingerprint(dataset.train)
    moved = (tmp_path / "a").rename(tmp_path / "b")
    again = data.load(config("webdataset", path=f"{moved}/part-{{000..001}}.tar", device="stream"))
    assert data.fingerprint(again.train) == fingerprint
    one = data.load(config("webdataset", path=f"{moved}/part-*1.tar", labels=False))
    np.testing.assert_array_equal(one.train.images, PIXELS[3:6])
    both = data.load(config("webdataset", path=str(moved), test_path=f"{moved}/part-000.tar"))
    np.testing.assert_array_equal(both.test.labels, [0, 1, 2])
    small = data.load(config("webdataset", path=str(moved), image_size=4, channels=1))
    assert small.train.images.shape == (6, 4, 4, 1)


def test_labels_in_tar_files(tmp_path):
    def described(i):
        return {"json": json.dumps({"kind": "dog" if i % 2 else "cat", "n": i}).encode()}

    folder = write_shards(tmp_path / "a", described)
    keys = {"path": folder, "webdataset.label": "json:kind"}
    dataset = data.load(config("webdataset", **keys))
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal(dataset.train.labels, [0, 1, 0, 1, 0, 1])
    assert "has no entry 'king'" in error("webdataset", **{**keys, "webdataset.label": "json:king"})
    assert "has no label, a file ending in .cls, but .json, .png" in error(
        "webdataset", path=folder
    )


def test_mistakes_about_tar_files(tmp_path, caplog):
    folder = write_shards(tmp_path / "a", number)
    assert "needs data.path: tar files" in error("webdataset")
    assert "part-002.tar does not exist, nor do 1 others" in error(
        "webdataset", path=f"{folder}/part-{{000..003}}.tar"
    )
    assert "no file matches" in error("webdataset", path=f"{folder}/x*.tar")
    (tmp_path / "empty").mkdir()
    assert "no files ending in .tar" in error("webdataset", path=str(tmp_path / "empty"))
    assert "no file ending in .jpg, but .cls, .png" in error(
        "webdataset", path=folder, **{"webdataset.image": "jpg"}
    )
    packed = tmp_path / "packed.tar"
    with tarfile.open(packed, "w:gz") as shard:
        shard.add(folder, "a")
    assert "compressed or damaged" in error("webdataset", path=str(packed))
    whole = (tmp_path / "a" / "part-000.tar").read_bytes()
    packed.write_bytes(whole[:1600])
    assert "compressed or damaged" in error("webdataset", path=str(packed))
    unknown = write_shards(tmp_path / "b", number, suffix="heic")
    assert "has no images in its tar files" in error("webdataset", path=unknown)
    write_shards(tmp_path / "b", number, count=3)
    with caplog.at_level(logging.WARNING):
        assert len(data.load(config("webdataset", path=unknown)).train) == 3
    assert "left out 3 samples" in caplog.text and "images/0003" in caplog.text


def test_patterns_of_tar_files(tmp_path):
    names = [f"{a}-{b:02d}.tar" for a in (8, 9, 10) for b in (0, 1)]
    for name in names:
        (tmp_path / name).touch()
    found = shard_files(f"{tmp_path}/{{8..10}}-{{00..01}}.tar", "data.path")
    assert found == [str(tmp_path / name) for name in names]


# Hugging Face


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("datasets", reason="datasets is not installed")


def table_of(library, rows, classes=("cat", "dog")):
    columns = {
        "picture": [{"bytes": png(i), "path": None} for i in rows],
        "kind": [i % 2 for i in rows],
        "name": [("cat", "dog")[i % 2] for i in rows],
    }
    features = {
        "picture": library.Image(),
        "kind": library.ClassLabel(names=list(classes)),
        "name": library.Value("string"),
    }
    return library.Dataset.from_dict(columns, features=library.Features(features))


@pytest.fixture
def saved(library, tmp_path, monkeypatch):
    """The directory of all splits as `save_to_disk` writes it, and one of parquet files."""
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    splits = {"train": table_of(library, range(8)), "test": table_of(library, range(8, 12))}
    library.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    (tmp_path / "parquet").mkdir()
    for name, table in splits.items():
        table.to_parquet(tmp_path / "parquet" / f"{name}-00000-of-00001.parquet")
    return tmp_path


@pytest.mark.parametrize("folder", ["saved", "parquet"])
def test_tables_of_hugging_face(saved, folder):
    dataset = data.load(config("hf", path=str(saved / folder), device="stream"))
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal([dataset.test[i]["image"] for i in range(4)], PIXELS[8:])
    np.testing.assert_array_equal(dataset.train.labels, [0, 1] * 4)
    assert pickle.loads(pickle.dumps(dataset.train))[3]["label"] == 1
    assert len(data.fingerprint(dataset.train)) == 32
    by_name = {"hf.label": "name", "hf.image": "picture", "hf.test_split": ""}
    named = data.load(config("hf", path=str(saved / folder), **by_name))
    assert named.class_names == ("cat", "dog") and named.test is None
    np.testing.assert_array_equal(named.train.labels, [0, 1] * 4)


def test_mistakes_about_hugging_face(saved, library):
    path = str(saved / "saved")
    assert "needs data.hf.name" in error("hf")
    assert "is none" in error("hf", path=str(saved / "nowhere"))
    assert "no data.hf.test_split='dev' but ['test', 'train']" in error(
        "hf", path=path, **{"hf.test_split": "dev"}
    )
    assert "no column data.hf.label='class' but ['kind'" in error(
        "hf", path=path, **{"hf.label": "class"}
    )
    assert "leave data.test_path and data.test_fraction unset" in error(
        "hf", path=path, test_fraction=0.1
    )
    table_of(library, range(3)).save_to_disk(saved / "one")
    assert "one table rather than splits" in error("hf", path=str(saved / "one"))
    plain = library.DatasetDict({"train": table_of(library, range(3)).remove_columns("picture")})
    plain.save_to_disk(saved / "plain")
    assert "no column holds images" in error("hf", path=str(saved / "plain"))
    assert "cannot be opened with data.hf.train_split='dev'" in error(
        "hf", path=str(saved / "parquet"), **{"hf.train_split": "dev"}
    )
