"""The figures of tiny steps, what is said of them, and the mistakes that are named."""

import importlib.util
from collections import Counter

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from sslax import data
from sslax.errors import UserError
from sslax.planning import advice, chips, measure, topologies
from sslax.planning.contents import Contents, contents_of
from sslax.planning.hlo import Collective, Loop
from sslax.planning.measure import Measurement, Memory
from sslax.planning.report import format_report, verdict
from sslax.planning.topologies import Topology
from sslax.training import sharding
from sslax.training.plan import describe, make_plan

GIB = chips.GIB


@pytest.fixture(scope="module")
def tiny(load_config):
    """The config and the measurement of SimCLR's tiny step on eight devices."""
    config = load_config("simclr", "tiny")
    return config, measure.measure(config, contents_of(config, "tiny"), topologies.find("cpu:8"))


def test_figures_of_a_tiny_step(tiny):
    config, found = tiny
    spec = describe(data.load(config.data))
    state = jax.jit(make_plan(config, **spec).initial_state)()
    leaves = jax.tree.leaves(state._replace(rng=jax.random.key_data(state.rng)))
    assert found.contents.spec == spec
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert found.memory.state == sum(leaf.nbytes for leaf in leaves)
    # The set lives on every device: images, labels, and the order of an epoch.
    assert found.memory.inputs == 8000 * (28 * 28 + 4 + 4)
    assert found.memory.waiting == 0
    assert found.memory.fits
    assert found.memory.peak >= found.memory.state + found.memory.inputs
    assert found.operations > 0 and found.moved > 0
    reduced = sum(c.runs * c.bytes for c in found.collectives if c.kind == "all-reduce")
    assert 4 * found.parameters <= reduced <= 8 * found.parameters
    assert found.estimate is None  # of a CPU


def test_the_measured_step_trains(tiny):
    _, found = tiny
    mesh = sharding.make_mesh(list(found.topology.devices))
    arrays = {
        name: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)
        for name, leaf in found.feed.shapes.items()
    }
    state, metrics = found.step(found.plan.state_on(mesh), arrays)
    assert state.step == 1
    assert np.isfinite(metrics["loss"])


def test_the_report_has_every_figure(tiny):
    config, found = tiny
    text = format_report(config, found, lines=3)
    assert "simclr: 8000 examples of 28x28x1" in text
    assert "cpu:8: 8 x CPU, 1 host(s); a batch of 16, 2 a device" in text
    kinds = {c.kind for c in found.collectives}
    places = {c.place for c in found.collectives}
    (table,) = (part for part in text.split("\n\n") if part.startswith("collectives"))
    assert len(table.splitlines()) == 1 + len(kinds) + 3
    assert sum(place in table for place in places) >= 1
    assert text.splitlines()[-1].startswith("fits: ")


def test_streamed_batches_wait_on_the_devices(load_config):
    config = load_config("simclr", "tiny")
    contents = Contents(
        {"examples": 2**20, "image_shape": [28, 28, 1], "classes": 10}, "a test", known=False
    )
    topology = topologies.find("cpu:8")
    feed = contents.feed(config, sharding.make_mesh(list(topology.devices)))
    memory = measure._with_feed(1e6, 0.0, {}, feed, topology)
    assert memory.inputs == 2 * (28 * 28 + 4 + 4)  # of 16 examples over 8 devices
    assert memory.waiting == 2 * memory.inputs
    assert memory.peak == 1e6 + memory.waiting


def test_every_paper_config_knows_its_images(load_config):
    """The shapes of published sets, for every variant that has one."""
    shapes = {
        ("simclr", "cifar10"): ([32, 32, 3], 10),
        ("simclr", "stl10"): ([96, 96, 3], None),
        ("dino", "imagenet100"): ([256, 256, 3], 100),
        ("dino", "imagenet_resnet50"): ([256, 256, 3], 1000),
        ("lejepa", "imagenet_minimal"): ([160, 160, 3], 10),
        ("monodepth2", "kitti"): ([3, 192, 640, 3], None),
        ("monodepth2", "kitti_mono_stereo"): ([4, 192, 640, 3], None),
        ("monodepth2", "kitti_stereo"): ([2, 192, 640, 3], None),
        ("uflow", "chairs"): ([2, 384, 512, 3], None),
        ("uflow", "sintel"): ([2, 448, 1024, 3], None),
        ("smurf_multi_frame", "kitti"): ([3, 370, 1224, 3], None),
        ("simclr", "folder"): ([72, 72, 3], None),
    }
    for (name, variant), (shape, classes) in shapes.items():
        spec = contents_of(load_config(name, variant), variant).spec
        assert (spec["image_shape"], spec["classes"]) == (shape, classes), (name, variant)
    stereo = contents_of(load_config("monodepth2", "kitti_stereo"), "kitti_stereo").spec
    assert stereo["others"] == {"intrinsics": ["float32", [3, 3]], "baseline": ["float32", []]}


def test_the_user_knows_better(load_config):
    config = load_config("simclr", "imagenet")
    given = contents_of(config, "imagenet", image=(64, 64, 3), examples=5000, classes=7)
    assert given.spec == {"examples": 5000, "image_shape": [64, 64, 3], "classes": 7}


def test_a_set_that_is_here_is_opened(load_config, tmp_path):
    images = np.zeros((40, 9, 9, 3), np.uint8)
    np.savez(tmp_path / "set.npz", x_train=images, y_train=np.arange(40) % 4)
    config = load_config("simclr", "cifar10")
    config.data.path = str(tmp_path / "set.npz")
    spec = contents_of(config, "cifar10").spec
    assert spec == {"examples": 40, "image_shape": [9, 9, 3], "classes": 4}


def test_unknown_contents_are_asked_for(load_config):
    config = load_config("monodepth2", "video")
    config.data.size = ()
    with pytest.raises(UserError, match=r"shape of the images is not known: say it by --image="):
        contents_of(config, "video")
    config = load_config("simclr", "folder")
    config.data.labels = True
    with pytest.raises(UserError, match="number of classes is not known: say it by --classes=N"):
        contents_of(config, "folder")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "--topology=v9:2x2 is of no known chip: .*Known: a100, cpu, h100"),
        ("v5e", "--topology=v5e is not of a form such as v5e:8x16"),
        ("v5e:2y4", "is not of a form such as"),
        ("h100:2x4", "is not of a form such as"),
        ("cpu:0", "is not of a form such as"),
        ("cpu:9", "JAX has begun with 8 CPU devices; set JAX_NUM_CPU_DEVICES=9"),
    ],
)
def test_unknown_topologies_are_named(name, message):
    jax.devices()  # JAX begins, with eight
    with pytest.raises(UserError, match=message) as error:
        topologies.find(name)
    assert "\n" not in str(error.value)


def test_missing_compilers_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs .* libtpu; run pip install 'sslax\[tpu\]'\."):
        topologies.find("v5e:2x4")
    with pytest.raises(UserError, match=r"run pip install 'sslax\[cuda\]'"):
        topologies.find("h100:8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(UserError, match="needs --target_config=FILE"):
        topologies.find("h100:8")
    with pytest.raises(UserError, match=r"--target_config=nowhere\.txtpb: there is no such file"):
        topologies.find("h100:8", target_config="nowhere.txtpb")


def test_a_batch_that_does_not_divide_is_refused(load_config):
    config = load_config("simclr", "tiny")
    config.batch_size = 12
    with pytest.raises(
        UserError, match=r"a batch of 12 does not divide over 8 devices .*batch_size=8 or 16"
    ):
        measure.measure(config, contents_of(config, "tiny"), topologies.find("cpu:8"))


class FakeDevice:
    platform = "tpu"
    process_index = 0


def imagined(**fields):
    """A measurement of four TPUs, with 8 GiB of state and 24 of a batch of 64 on a chip of 16."""
    memory = Memory(8 * GIB, 1 * GIB, 21 * GIB, 2 * GIB, 32 * GIB, 16 * GIB)
    collective = Collective("all-reduce", 2, 18e9, 4, (), "sslax/a.py:1", "")
    measurement = Measurement(
        topology=Topology("v5e:2x2", [FakeDevice()] * 4, chips.TPUS["v5e"]),
        contents=Contents({"examples": 100, "image_shape": [8, 8, 3], "classes": None}, "a test"),
        plan=None,
        batch_size=64,
        parameters=10,
        memory=memory,
        operations=197e12,
        moved=819e9 / 2,
        collectives=[collective],
        cycles=Counter({"sslax/a.py:1": 3_000_000_000, "sslax/b.py:2": 1_500_000_000}),
        loops=[Loop(5000, "sslax/a.py:1"), Loop(3, "sslax/b.py:2"), Loop(None, "sslax/b.py:2")],
        seconds=(1.0, 2.0),
        feed=None,
        step=None,
    )
    return measurement._replace(**fields)


def test_the_estimate_and_what_it_rests_on():
    found = imagined()
    talk = 2 * (2 * 3 / 4) * 18e9 / 180e9
    assert found.estimate.seconds == pytest.approx(4.5 / 1.5 + talk)
    assert not found.estimate.bound
    bound = found._replace(cycles=Counter()).estimate
    assert bound.bound
    assert bound.seconds == pytest.approx(1.0)
    assert bound.basis.startswith("operations at 197 T/s, the slowest of")
    assert imagined(operations=None).estimate is None


def test_the_report_of_a_step_on_tpus():
    text = format_report(ConfigDict({"method": "imagined", "batch_size": 64}), imagined())
    assert "2000.000 ms   66.7%  sslax/a.py:1" in text
    assert "5,000 trips  sslax/a.py:1" in text
    assert "3 trips" not in text
    assert "about 19 images/s, 3300.0 ms a step" in text
    assert "does not fit: 16.00 GiB too much on each device" in text


def test_advice_names_keys_that_there_are():
    found = imagined()
    config = ConfigDict({"batch_size": 64, "model": {"width": 1.0}, "data": {"device": "auto"}})
    said = advice.advise(config, found)
    # 8 GiB are left of 24 that 16 images a chip take: 5 images.
    assert said[0] == "--config.batch_size=20: fewer images a device"
    assert len(said) == 2
    config.accumulate, config.sharding, config.model.remat = 1, "replicated", False
    said = advice.advise(config, found)
    assert "--config.accumulate=4: the same batch, a part at a time" in said
    assert "--config.model.remat=True: activations computed twice" in said
    assert "--config.sharding=fsdp: the training state split over the devices" in said
    config.sharding, config.model.remat = "fsdp", True
    said = advice.advise(config, found)
    assert not any("remat" in line or "sharding" in line for line in said)
    assert verdict(config, found).splitlines()[1:] == [f"  {line}" for line in said]


def test_what_the_compiler_refuses_is_read():
    feed = data.AbstractFeed({}, lambda arrays, step: arrays, False)
    topology = imagined().topology
    for message, peak in [
        ("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.", 20.5 * GIB),
        ("required for HLO temporaries (96.00G) exceeds available HBM (15.75G).", 96 * GIB),
    ]:
        assert measure._refused_memory(message, {}, feed, topology).peak == peak
    assert measure._refused_memory("out of luck", {}, feed, topology) is None
    lost = imagined(memory=None, operations=None, collectives=[], cycles=Counter(), loops=[])
    config = ConfigDict({"method": "imagined", "batch_size": 64})
    text = format_report(config, lost)
    assert "does not fit: the compiler ran out of memory. Try" in text
    assert "--config.batch_size=32" in text


def test_the_state_of_a_mesh_is_counted_once_a_device():
    mesh = sharding.make_mesh(jax.devices()[:8])
    tree = {
        "whole": jax.ShapeDtypeStruct((16, 3), np.float32, sharding=sharding.replicated(mesh)),
        "split": jax.ShapeDtypeStruct((16, 3), np.int8, sharding=sharding.batch_sharding(mesh)),
        "key": jax.eval_shape(lambda: jax.random.key(0)),
    }
    assert measure._bytes_on_a_device(tree) == 16 * 3 * 4 + 2 * 3 + 8
