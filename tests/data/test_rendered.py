"""Rendered scenes as an endless training set, and the motorcycle as a data set."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometric_config import checked, config
from jax.sharding import AxisType

from sslax import data, losses, ops
from sslax.data import scenes
from sslax.data.records import DataError
from sslax.data.sources import motorcycle, rendered

rigid_flow = jax.jit(ops.rigid_flow)
SIZE = (16, 32)
SMALL = {"textures": 6, "boxes": 2, "layers": 2, "test": 3, "length": 50}
KINDS = {
    "stereo": {"stereo": True},
    "video": {"frames": 3, "stereo": True, "distances": True},
    "flow": {"frames": 2, "target_frame": "first"},
    "layered": {"frames": 2, "target_frame": "first", "scenes": {"kind": "layered"}},
}


def opened(kind, **more):
    fields = {**KINDS[kind], **more}
    knobs = {**SMALL, **fields.pop("scenes", {})}
    return rendered.load(config(source="scenes", size=SIZE, scenes=knobs, **fields))


def error(module, **fields):
    with pytest.raises(DataError) as caught:
        module.load(checked(**fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_are_records(kind):
    fields = KINDS[kind]
    train, test, names = opened(kind, scenes={**fields.get("scenes", {}), "test": 0})
    assert (len(train), test, names) == (50, None, None)
    test = rendered.SceneSource(
        kind,
        "test",
        length=3,
        size=SIZE,
        knobs=train.knobs,
        textures=6,
        distances=train.distances,
    )
    record, tested = data.shapes(train), data.shapes(test)
    views = {"stereo": 2, "video": 4, "flow": 2, "layered": 2}[kind]
    assert record["image"].shape == (views, *SIZE, 3) and record["image"].dtype == np.uint8
    given = {
        "stereo": {"intrinsics", "baseline"},
        "video": {"intrinsics", "baseline", "distance"},
        "flow": {"intrinsics"},
        "layered": set(),
    }[kind]
    truth = {
        "stereo": {"depth"},
        "video": {"depth", "pose", "moving", "occluded"},
        "flow": {"depth", "pose", "flow", "known", "visible"},
        "layered": {"flow", "known", "visible"},
    }[kind]
    assert set(record) == {"image"} | given
    assert set(tested) == {"image"} | given | truth
    assert all(record[name].dtype == np.float32 for name in given)
    assert all(tested[name] == record[name] for name in record)


def test_flow_from_the_second_of_three_frames_to_the_third():
    train, test, _ = opened("video", frames=3, target_frame="second", stereo=False, distances=False)
    record = test[1]
    assert set(train[0]) == {"image", "intrinsics"}
    expected = {"depth", "pose", "moving", "occluded", "flow", "known", "visible"}
    assert set(record) == {"image", "intrinsics"} | expected
    assert record["flow"].shape == (*SIZE, 2) and record["known"].all()
    expected, _ = rigid_flow(record["depth"], record["pose"][2], record["intrinsics"])
    np.testing.assert_allclose(record["flow"], expected, atol=2e-3)
    assert 0.3 < np.mean([record["visible"] for record in test]) < 1.0


def test_record_is_a_function_of_its_index():
    source, test, _ = opened("stereo")
    batch = source.take(np.array([3, 9, 40]))
    np.testing.assert_array_equal(source.take(np.array([1, 0, 9]))["image"][2], batch["image"][1])
    for name, value in source[9].items():  # another program, which may round differently
        np.testing.assert_allclose(batch[name][1], value, atol=1)
    again = pickle.loads(pickle.dumps(source)).take(np.array([3, 9, 40]))
    np.testing.assert_array_equal(again["image"], batch["image"])
    other = opened("stereo", scenes={"seed": 1, "test": 0}).train.take(np.array([3, 9, 40]))
    images = [*batch["image"], *other["image"], *test.images]
    for i, first in enumerate(images):
        for second in images[:i]:
            assert np.abs(first.astype(int) - second).mean() > 5
    with pytest.raises(IndexError):
        source[50]


def test_scenes_reach_the_compiled_step():
    source = opened("stereo", scenes={"test": 0}).train
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    feed = data.make_feed(source, batch_size=8, seed=0, mesh=mesh)
    batch = jax.jit(feed.batch)(feed.arrays(2), 2)
    assert batch["index"].tolist() == list(range(16, 24))
    expected = source.take(np.arange(16, 19))
    difference = np.abs(np.asarray(batch["image"])[:3].astype(int) - expected["image"])
    assert difference.max() <= 1  # another program may round differently
    feed.close()


def test_equal_configs_share_what_is_compiled():
    knobs = {"test": 0}
    assert opened("flow", scenes=knobs).train is opened("flow", scenes=knobs).train
    assert opened("stereo").test is opened("stereo").test
    faster = opened("flow", scenes={"speed": 1.5, **knobs}).train
    assert faster is not opened("flow", scenes=knobs).train


def test_ground_truth_of_video_belongs_to_the_target():
    """Warped by depth and pose, each view matches the target better than by any other pose."""
    record = opened("video").test.arrays
    images = record["image"] / np.float32(255)
    still = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    np.testing.assert_allclose(record["pose"][:, 1], still, atol=1e-6)
    aside = still.copy()
    aside[:, 0, 3] = -record["baseline"]

    @jax.jit
    def error(source, pose):
        flow, seen = ops.rigid_flow(record["depth"], pose, record["intrinsics"])
        warped, inside = ops.warp_flow(source, flow)
        return losses.masked_mean(jnp.abs(warped - images[:, 1]).mean(-1), seen & inside)

    for view, pose in ((0, record["pose"][:, 0]), (2, record["pose"][:, 2]), (3, aside)):
        source, others = images[:, view], (still, jax.jit(ops.se3_inverse)(pose))
        assert error(source, pose) < 0.8 * min(float(error(source, x)) for x in others), view
    expected = np.linalg.norm(record["pose"][:, :, :3, 3], axis=-1)
    np.testing.assert_allclose(record["distance"], expected, rtol=1e-5)


def test_ground_truth_of_flow_belongs_to_the_first():
    record = opened("flow", scenes={"moving": 0.0}).test.arrays
    np.testing.assert_allclose(record["pose"][:, 0], np.tile(np.eye(4), (3, 1, 1)))
    flow, _ = rigid_flow(record["depth"], record["pose"][:, 1], record["intrinsics"])
    np.testing.assert_allclose(flow, record["flow"], atol=1e-3)
    assert record["known"].all() and 0.5 < record["visible"].mean() < 1


def test_mistakes_of_scenes():
    def wrong(**fields):
        return error(rendered, **{"source": "scenes", "frames": 3, **fields})

    assert "reads no path" in wrong(path="x")
    assert "Known: layered, rooms" in wrong(scenes={"kind": "forest"})
    assert "has flow and no depth" in wrong(scenes={"kind": "layered"})
    assert "data.scenes.speed" in wrong(interval=2)
    assert "channels=3" in wrong(channels=1)
    pair = {"frames": 1, "stereo": True}
    assert "no effect on scenes of kind 'stereo'" in wrong(**pair, scenes={"moving": 0.5})
    assert "data.scenes.turn=2.0 has no effect" in wrong(**pair, scenes={"turn": 2.0})
    assert "set it to (0.6, 1.0)" in wrong(**pair, scenes={"focal": (0.5, 0.5)})
    assert "focal must be a range (low, high)" in wrong(scenes={"focal": (1.0, 0.5)})
    assert "have no moving camera" in wrong(**pair, distances=True)
    assert "are for videos" in wrong(camera={"min_motion": 1.0})
    assert "positive whole number" in wrong(scenes={"length": 0})


# The motorcycle


def test_motorcycle_as_stereo():
    pair = scenes.motorcycle((40, 56))
    train, test, _ = motorcycle.load(config(size=(40, 56), stereo=True))
    assert len(train) == len(test) == 1
    assert set(train[0]) == {"image", "intrinsics", "baseline"}
    for name in ("image", "intrinsics", "baseline", "depth"):
        np.testing.assert_array_equal(test[0][name], pair[name])


@pytest.mark.parametrize("target", ["middle", "first"])
def test_motorcycle_as_video_and_flow(target):
    """Depth and pose belong to the target view, whatever the order."""
    fields = {"size": (40, 56), "frames": 2, "target_frame": target, "distances": True}
    train, test, _ = motorcycle.load(config(**fields))
    record = test[0]
    at = 1 if target == "middle" else 0
    pair = scenes.motorcycle((40, 56))
    np.testing.assert_array_equal(record["image"][at], pair["image"][0])
    np.testing.assert_array_equal(record["pose"][at], np.eye(4))
    np.testing.assert_array_equal(record["distance"][at], 0)
    assert record["distance"][1 - at] == pair["baseline"]
    flow, seen = jax.device_get(
        rigid_flow(record["depth"], record["pose"][1 - at], record["intrinsics"])
    )
    assert not (seen & ~pair["known"]).any() and seen.mean() > 0.8
    np.testing.assert_allclose(flow[seen], pair["flow"][seen], atol=1e-4)
    assert ("flow" in record) == (target == "first") and "flow" not in train[0]
    if target == "first":
        np.testing.assert_array_equal(record["known"], pair["known"])
        assert np.isfinite(record["flow"]).all()


def test_mistakes_of_the_motorcycle():
    assert "is one pair" in error(motorcycle, frames=3)
    assert "is one pair" in error(motorcycle, frames=2, stereo=True)
    assert "reads no path" in error(motorcycle, frames=2, path="x", source="motorcycle")
