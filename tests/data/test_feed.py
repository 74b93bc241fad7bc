"""Order, resident and streamed feeds, resuming, sharding, evaluation batches."""

import threading

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sslax import data

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (45, 5, 4, 3), dtype=np.uint8)
LABELS = (np.arange(45) % 7).astype(np.int32)
SOURCE = data.ArraySource(IMAGES, LABELS)
BROKEN = int(data.epoch_order(3, 0, 45)[20])  # in the second step
BATCH = 16  # two steps an epoch, 13 left out
MESH = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


ORDER_0_0 = [0, 2, 1, 5, 4, 3, 6, 7]
ORDER_7_3 = [2, 5, 7, 3, 0, 6, 4, 1]


class Slow:
    """Records that are not in memory; optionally one that fails."""

    def __init__(self, broken=None):
        self.broken = broken

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, i):
        if i == self.broken:
            raise data.ImageError(f"image {i} is torn")
        return SOURCE[i]


def batches(source, steps, **options):
    feed = data.make_feed(source, batch_size=BATCH, seed=3, mesh=MESH, **options)
    step_fn = jax.jit(feed.batch)
    try:
        return [jax.device_get(step_fn(feed.arrays(step), step)) for step in steps]
    finally:
        feed.close()


@pytest.fixture(scope="module")
def resident():
    return batches(SOURCE, range(5), mode="resident")


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_epoch_order_golden():
    np.testing.assert_array_equal(data.epoch_order(0, 0, 8), ORDER_0_0)
    np.testing.assert_array_equal(data.epoch_order(7, 3, 8), ORDER_7_3)
    order = data.epoch_order(1, 2, 1000)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert (data.epoch_order(1, 3, 1000) != order).any()


def test_batches_follow_the_order(resident):
    for step, batch in enumerate(resident):
        start = step % 2 * BATCH
        index = data.epoch_order(3, step // 2, 45)[start : start + BATCH]
        np.testing.assert_array_equal(batch["index"], index)
        np.testing.assert_array_equal(batch["image"], IMAGES[index])
        np.testing.assert_array_equal(batch["label"], LABELS[index])
        assert batch["index"].dtype == batch["label"].dtype == np.int32
        assert batch["image"].dtype == np.uint8


def test_stream_equals_resident(resident):
    equal(batches(Slow(), range(5), mode="stream"), resident)
    equal(batches(SOURCE, range(2), mode="stream", workers=1), resident[:2])


def test_resume_in_mid_epoch(resident):
    for mode in ("resident", "stream"):
        equal(batches(Slow(), range(3, 5), mode=mode, start_step=3), resident[3:])


def test_auto_takes_the_budget(resident):
    def mode(**options):
        feed = data.make_feed(SOURCE, batch_size=BATCH, seed=3, mesh=MESH, **options)
        arrays = feed.arrays(0)
        feed.close()
        return "resident" if "order" in arrays else "stream"

    assert mode() == "resident"
    assert mode(resident_bytes=IMAGES.nbytes) == "resident"
    assert mode(resident_bytes=IMAGES.nbytes - 1) == "stream"


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_batches_are_sharded(mode):
    feed = data.make_feed(SOURCE, batch_size=BATCH, seed=0, mesh=MESH, mode=mode)
    batch = jax.jit(feed.batch)(feed.arrays(0), 0)
    feed.close()
    for value in batch.values():
        over_data = NamedSharding(MESH, PartitionSpec("data"))
        assert value.sharding.is_equivalent_to(over_data, value.ndim)
        assert value.addressable_shards[5].data.shape[0] == BATCH // 8


def test_one_trace_over_epochs():
    feed = data.make_feed(SOURCE, batch_size=BATCH, seed=0, mesh=MESH)
    traces = []

    @jax.jit
    def step_fn(arrays, step):
        traces.append(step)
        return feed.batch(arrays, step)

    for step in range(5):
        step_fn(feed.arrays(step), step)
    feed.close()
    assert len(traces) == 1


def test_unlabeled_batches():
    for mode in ("resident", "stream"):
        (batch,) = batches(data.ArraySource(IMAGES), range(1), mode=mode)
        assert set(batch) == {"image", "index"}


@pytest.mark.parametrize("source", [SOURCE, Slow()], ids=["memory", "slow"])
def test_evaluation_pads_and_masks(source):
    found = list(data.evaluation_batches(source, batch_size=24, mesh=MESH))
    assert len(found) == 2
    for batch in found:
        assert batch["mask"].sharding.spec == PartitionSpec("data")
        assert batch["image"].shape == (24, 5, 4, 3) and batch["mask"].dtype == bool
    joined = jax.tree.map(lambda *x: np.concatenate(x), *[jax.device_get(b) for b in found])
    np.testing.assert_array_equal(joined["mask"], np.arange(48) < 45)
    np.testing.assert_array_equal(joined["index"][:45], np.arange(45))
    np.testing.assert_array_equal(joined["image"][:45], IMAGES)
    np.testing.assert_array_equal(joined["label"][:45], LABELS)
    assert not joined["image"][45:].any()


@pytest.mark.parametrize(("asked", "given"), [(1, 8), (12, 16), (1000, 48)])
def test_evaluation_batches_fill_the_devices(asked, given):
    """Whatever was asked for; a batch is no larger than the set needs."""
    found = list(data.evaluation_batches(SOURCE, batch_size=asked, mesh=MESH))
    assert {batch["image"].shape[0] for batch in found} == {given}
    assert sum(int(batch["mask"].sum()) for batch in found) == 45


def test_evaluation_may_stop_early():
    found = data.evaluation_batches(Slow(), batch_size=8, mesh=MESH)
    np.testing.assert_array_equal(next(found)["index"], np.arange(8))
    found.close()


def test_the_set_is_read_while_something_else_is_done():
    done = threading.Event()

    class Waits(Slow):
        def __getitem__(self, i):
            if i == 44 and not done.wait(timeout=30):
                raise data.ImageError("nobody did anything else")
            return super().__getitem__(i)

    feed = data.make_feed(Waits(), batch_size=BATCH, seed=0, mesh=MESH, mode="resident")
    done.set()
    assert feed.arrays(0)["image"].shape == (45, 60)
    feed.close()


def test_errors_in_threads_surface():
    for mode in ("resident", "stream"):
        with pytest.raises(data.DataError, match=f"image {BROKEN} is torn"):
            batches(Slow(broken=BROKEN), range(6), mode=mode)
    with pytest.raises(data.DataError, match=f"image {BROKEN} is torn"):
        list(data.evaluation_batches(Slow(broken=BROKEN), batch_size=8, mesh=MESH))


@pytest.mark.parametrize(
    ("source", "mode"), [("memory", "resident"), ("memory", "stream"), ("generated", "auto")]
)
def test_shapes_are_known_before_anything_is_read(source, mode):
    halves = np.arange(45) * 0.5  # float64, which becomes float32 on the devices
    chosen = data.ArraySource(IMAGES, LABELS, half=halves) if source == "memory" else Numbered()
    feed = data.make_feed(chosen, batch_size=BATCH, seed=0, mesh=MESH, mode=mode)
    compiled = jax.jit(feed.batch).lower(feed.shapes, jax.ShapeDtypeStruct((), np.int32)).compile()
    arrays = feed.arrays(0)
    expected, found = (
        jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)
        for tree in (feed.shapes, arrays)
    )
    assert expected == found
    assert compiled(arrays, np.int32(0))["image"].shape[0] == BATCH
    feed.close()


def test_stream_wants_its_steps_in_order():
    feed = data.make_feed(SOURCE, batch_size=BATCH, seed=0, mesh=MESH, mode="stream")
    assert feed.arrays(0) is feed.arrays(0)
    with pytest.raises(ValueError, match="start_step=2"):
        feed.arrays(2)
    feed.close()
    with pytest.raises(RuntimeError, match="closed"):
        feed.arrays(1)


def test_feed_mistakes():
    def mistake(source=SOURCE, batch_size=BATCH, **options):
        with pytest.raises(data.DataError) as caught:
            data.make_feed(source, batch_size=batch_size, seed=0, mesh=MESH, **options)
        return str(caught.value)

    assert "from a set of 45 images" in mistake(batch_size=48)
    assert "from a set of 45 images" in mistake(batch_size=0)
    assert "choose config.batch_size=8 or 16" in mistake(batch_size=12)
    assert "'resident'" in mistake(mode="gpu")
    assert "float64" in mistake(source=data.ArraySource(IMAGES / 255))


def numbered(index):
    """Frames whose pixels equal the record's index, and an array that is half of it."""
    image = np.zeros((*np.shape(index), 2, 5, 4, 3), np.uint8) + index[..., None, None, None, None]
    return {"image": image.astype(np.uint8), "baseline": index * np.float32(0.5)}


class Numbered:
    """A source that generates its records on the device."""

    def __init__(self):
        self.arrays = {"offset": np.int32(7)}

    def __len__(self):
        return 40

    def generate(self, arrays, index):
        return numbered(index + arrays["offset"])

    def __getitem__(self, i):
        records = self.generate(self.arrays, np.array([i]))
        return {name: np.asarray(x)[0] for name, x in records.items()}


@pytest.mark.parametrize("mode", ["resident", "stream"])
def test_records_of_several_images_keep_their_arrays(mode):
    index = np.arange(45)
    source = data.ArraySource(numbered(index)["image"], baseline=index * 0.5)
    for batch in batches(source, range(2), mode=mode):
        assert batch["image"].shape == (BATCH, 2, 5, 4, 3)
        np.testing.assert_array_equal(batch["image"][:, 1, 2, 3, 0], batch["index"])
        np.testing.assert_array_equal(batch["baseline"], 0.5 * batch["index"])


def test_generated_records_do_not_end_and_are_sharded():
    feed = data.make_feed(Numbered(), batch_size=BATCH, seed=3, mesh=MESH)
    assert feed.steps_per_epoch == 2
    batch = jax.jit(feed.batch)(feed.arrays(5), 5)
    np.testing.assert_array_equal(batch["index"], np.arange(80, 96))
    np.testing.assert_array_equal(batch["baseline"], 0.5 * (np.arange(80, 96) + 7))
    over_data = NamedSharding(MESH, PartitionSpec("data"))
    assert all(x.sharding.is_equivalent_to(over_data, x.ndim) for x in batch.values())
    assert data.shapes(Numbered())["image"].shape == (2, 5, 4, 3)


@pytest.mark.parametrize("mode", ["resident", "stream", "auto"])
@pytest.mark.parametrize("resident_bytes", [0, 2**20])
def test_an_abstract_feed_is_the_feed_without_data(mode, resident_bytes):
    options = {"batch_size": BATCH, "mesh": MESH, "mode": mode, "resident_bytes": resident_bytes}
    feed = data.make_feed(Slow(), seed=3, **options)
    abstract = data.abstract_feed(data.shapes(SOURCE), length=len(SOURCE), **options)
    arrays = feed.arrays(0)
    feed.close()
    assert abstract.resident == ("order" in arrays)
    assert described(abstract.shapes) == described(feed.shapes) == described(arrays)
    ours, theirs = (str(jax.make_jaxpr(f.batch)(arrays, 1)) for f in (abstract, feed))
    assert ours == theirs


def test_an_abstract_feed_generates_too():
    config = data.defaults()
    config.update(source="scenes", size=(16, 24), frames=2, target_frame="first", labels=False)
    config.scenes.test, config.scenes.textures = 0, 2
    source = data.load(config).train
    options = {"batch_size": 8, "mesh": MESH}
    feed = data.make_feed(source, seed=3, **options)
    abstract = data.abstract_feed(source, length=len(source), **options)
    assert abstract.resident
    assert described(abstract.shapes) == described(feed.arrays(0))
    with pytest.raises(data.DataError, match="a batch of 12 does not divide over 8 devices"):
        data.abstract_feed(source, length=len(source), batch_size=12, mesh=MESH)


def described(arrays):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), arrays)
