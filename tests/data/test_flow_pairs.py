"""Flow sets in tiny copies of their published layouts."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from geometric_config import checked, config, noise, write_images
from PIL import Image

from sslax.data.files.flow_files import write_flow
from sslax.data.records import DataError
from sslax.data.sources import flying_chairs, kitti_flow, sintel

FLOW = np.random.default_rng(0).uniform(-9, 9, (12, 20, 2)).astype(np.float32)
PAIR = {"frames": 2, "target_frame": "first"}
TRIPLET = {"frames": 3, "target_frame": "second"}


def error(source, **fields):
    with pytest.raises(DataError) as caught:
        source.load(checked(**{**PAIR, **fields}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_chairs(root, count=5):
    for i in range(count):
        names = [f"{i + 1:05d}_img{k}.ppm" for k in (1, 2)]
        write_images(root / "data", names, [noise(2 * i), noise(2 * i + 1)])
        write_flow(root / "data" / f"{i + 1:05d}_flow.flo", FLOW + i)
    return root


def test_chairs(tmp_path):
    write_chairs(tmp_path)
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n1\n2\n1\n2\n")
    train, test, names = flying_chairs.load(config(path=str(tmp_path), **PAIR))
    assert (len(train), len(test), names) == (3, 2, None)
    assert set(train[0]) == {"image"}
    record = pickle.loads(pickle.dumps(test))[0]
    assert set(record) == {"image", "flow", "known"}
    np.testing.assert_array_equal(record["image"], [noise(4), noise(5)])
    np.testing.assert_array_equal(record["flow"], FLOW + 2)
    assert record["known"].all() and record["known"].dtype == bool


def test_flow_of_another_size(tmp_path):
    """At half the size, one pixel of each 2 x 2 is kept, and its flow is halved."""
    write_chairs(tmp_path)
    fields = {"path": str(tmp_path), "test_fraction": 0.4, **PAIR}
    train, test, _ = flying_chairs.load(config(**fields, size=(6, 10)))
    assert (len(train), len(test)) == (3, 2)
    assert test[0]["image"].shape == (2, 6, 10, 3)
    np.testing.assert_allclose(test[0]["flow"], (FLOW + 3)[1::2, 1::2] / 2, rtol=1e-6)
    cut = flying_chairs.load(config(**fields, size=(12, 12))).test[0]
    np.testing.assert_array_equal(cut["flow"], (FLOW + 3)[:, 4:16])
    wide = flying_chairs.load(config(**fields, size=(6, 20), fitting="stretch")).test[0]
    np.testing.assert_allclose(wide["flow"], (FLOW + 3)[1::2] * [1.0, 0.5], rtol=1e-6)
    assert wide["pixel"].tolist() == [1.0, 2.0] and "pixel" not in cut


def test_mistakes_of_chairs(tmp_path):
    assert "has no data/00001_img1.ppm" in error(flying_chairs, path=str(tmp_path))
    write_chairs(tmp_path)
    fields = {"path": str(tmp_path)}
    assert "target_frame='first'" in error(flying_chairs, **fields, frames=3, target_frame="middle")
    assert "min_motion=0.0" in error(flying_chairs, **fields, camera={"min_motion": 1.0})
    assert "leaves an empty part" in error(flying_chairs, **fields, test_fraction=0.05)
    own = {"split_file": "none.txt"}
    assert "does not exist" in error(flying_chairs, **fields, flying_chairs=own)
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n2\n")
    assert "each of the 5 pairs; it has 2" in error(flying_chairs, **fields)
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n2\n1\n2\n1\n")
    assert "set it to 0.0" in error(flying_chairs, **fields, test_fraction=0.5)
    write_flow(tmp_path / "data" / "00002_flow.flo", FLOW[:6])
    with pytest.raises(DataError, match=r"flow\.flo has 20 x 6 pixels, but its image 20 x 12"):
        flying_chairs.load(config(**fields, **PAIR)).test[0]
    (tmp_path / "data" / "00002_flow.flo").unlink()
    assert "00002_flow.flo is missing" in error(flying_chairs, **fields)


def write_sintel(root, parts=("training", "test")):
    for part in parts:
        for s, scene in enumerate(("alley_1", "bandage_1")):
            names = [f"frame_{i:04d}.png" for i in range(1, 4)]
            for k, rendering in enumerate(("clean", "final")):
                pixels = [noise(100 * k + 10 * s + i) for i in range(3)]
                write_images(root / part / rendering / scene, names, pixels)
            if part == "training":
                for folder in ("flow", "occlusions"):
                    (root / part / folder / scene).mkdir(parents=True)
                for i in (1, 2):
                    write_flow(root / part / "flow" / scene / f"frame_{i:04d}.flo", FLOW)
                    occluded = np.zeros((12, 20), np.uint8)
                    occluded[:i] = 255
                    Image.fromarray(occluded).save(
                        root / part / "occlusions" / scene / f"frame_{i:04d}.png"
                    )
    return root


def test_sintel(tmp_path):
    write_sintel(tmp_path)
    train, test, _ = sintel.load(config(path=str(tmp_path), sintel={"rendering": "final"}, **PAIR))
    assert len(train) == len(test) == 4  # no pair spans two scenes
    assert set(train[0]) == {"image"} and "/test/final/" in train.pairs[0].first
    record = test[3]
    assert set(record) == {"image", "flow", "known", "visible"}
    np.testing.assert_array_equal(record["image"], [noise(111), noise(112)])
    np.testing.assert_array_equal(record["visible"], np.arange(12)[:, None] >= np.full(20, 2))


def test_sintel_without_its_test(tmp_path):
    write_sintel(tmp_path, parts=("training",))
    fields = {"path": str(tmp_path), **PAIR}
    assert sintel.load(config(**fields)).test is None
    train, test, _ = sintel.load(config(**fields, test_fraction=0.5))
    assert "alley_1" in train.pairs[-1].first and "bandage_1" in test.pairs[0].first
    wrong = {"rendering": "albedo"}
    assert "Known: clean, final" in error(sintel, path=str(tmp_path), sintel=wrong)
    (tmp_path / "training" / "flow" / "alley_1" / "frame_0002.flo").unlink()
    assert "frame_0002.flo is missing" in error(sintel, path=str(tmp_path))


def write_kitti(root, images="image_2", multiview=()):
    for part in ("training", "testing"):
        frames = [10, 11, *multiview]
        names = [f"{scene:06d}_{i:02d}.png" for scene in range(2) for i in frames]
        write_images(root / part / images, names, [noise(i) for i in range(len(names))])
    known = np.zeros((12, 20), bool)
    known[:, 5:] = True
    for folder, mask in (("flow_occ", known), ("flow_noc", known & (np.arange(20) < 15))):
        (root / "training" / folder).mkdir()
        for scene in range(2):
            rounded = np.round(FLOW * 64) / 64
            write_flow(root / "training" / folder / f"{scene:06d}_10.png", rounded, mask)
    return rounded


def test_sintel_with_the_frame_before(tmp_path):
    write_sintel(tmp_path)
    fields = {"path": str(tmp_path), "sintel": {"rendering": "final"}, **TRIPLET}
    train, test, _ = sintel.load(config(**fields))
    assert len(train) == 2 and len(test) == 4  # all pairs are tested, even those without a past
    np.testing.assert_array_equal(train[1]["image"], [noise(110), noise(111), noise(112)])
    np.testing.assert_array_equal(test[3]["image"], train[1]["image"])
    np.testing.assert_array_equal(test[2]["image"], [noise(110), noise(110), noise(111)])
    np.testing.assert_array_equal(test[2]["flow"], FLOW)
    np.testing.assert_array_equal(test[2]["visible"], np.arange(12)[:, None] >= np.full(20, 1))


def test_kitti_with_the_frame_before(tmp_path):
    rounded = write_kitti(tmp_path, multiview=(9, 12))
    fields = {"path": str(tmp_path), **TRIPLET}
    train, test, _ = kitti_flow.load(config(**fields))
    names = [[Path(file).stem for file in (p.before, p.first, p.second)] for p in train.pairs]
    scene = [["000000_09", "000000_10", "000000_11"], ["000000_10", "000000_11", "000000_12"]]
    assert names[:2] == scene and len(names) == 4
    assert Path(test.pairs[1].before).stem == "000001_09" and len(test) == 2
    assert test[1]["image"].shape == (3, 12, 20, 3)
    np.testing.assert_array_equal(test[1]["flow"][:, 5:], rounded[:, 5:])


def test_sets_without_a_frame_before(tmp_path):
    write_chairs(tmp_path / "chairs")
    assert "nothing before" in error(flying_chairs, path=str(tmp_path / "chairs"), **TRIPLET)
    write_kitti(tmp_path)
    assert "multi-view" in error(kitti_flow, path=str(tmp_path), **TRIPLET)
    assert "frames=3" in error(kitti_flow, path=str(tmp_path), target_frame="second")


@pytest.mark.parametrize("images", ["image_2", "colored_0"])
def test_kitti_flow(tmp_path, images):
    rounded = write_kitti(tmp_path, images)
    train, test, _ = kitti_flow.load(config(path=str(tmp_path), **PAIR))
    assert len(train) == len(test) == 2
    record = test[1]
    np.testing.assert_array_equal(record["image"], [noise(2), noise(3)])
    np.testing.assert_array_equal(record["known"][0], np.arange(20) >= 5)
    np.testing.assert_array_equal(record["visible"][0], (np.arange(20) >= 5) & (np.arange(20) < 15))
    np.testing.assert_array_equal(record["flow"][:, 5:], rounded[:, 5:])
    np.testing.assert_array_equal(record["flow"][:, :5], 0)


def test_kitti_multiview(tmp_path):
    write_kitti(tmp_path, multiview=(7, 8, 12))
    train, test, _ = kitti_flow.load(config(path=str(tmp_path), **PAIR))
    names = [(pair.first[-13:-4], pair.second[-13:-4]) for pair in train.pairs[:3]]
    assert names == [
        ("000000_07", "000000_08"),
        ("000000_10", "000000_11"),
        ("000000_11", "000000_12"),
    ]
    assert len(train) == 6 and len(test) == 2
    assert "has no training/image_2" in error(kitti_flow, path=str(tmp_path / "testing"))
