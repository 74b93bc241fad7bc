"""A run's evaluation: on another set, fine-tuned, and the alignment of its views."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import sslax
from sslax import data, models
from sslax.errors import UserError
from sslax.inference.run import Run
from sslax.measures import representation as protocol_module
from sslax.methods.representation import common
from sslax.tasks import batches, evaluation, representation
from sslax.training import linear_probe
from sslax.training.fit import fit
from sslax.training.plan import make_plan

SIDE = 12


def write(path, *, shape, count=60, classes=2, **arrays):
    """An archive of dark and bright images, the last third of them for testing."""
    labels = np.arange(count) % classes
    images = (
        np.random.default_rng(0).integers(0, 100, (count, *shape))
        + 70 * labels[:, None, None, None]
    )
    x, first = images.astype(np.uint8), 2 * count // 3
    parts = {"x_train": x[:first], "y_train": labels[:first]}
    np.savez(path, **parts, x_test=x[first:], y_test=labels[first:], **arrays)
    return str(path)


@pytest.fixture(scope="module")
def workdir(load_config, tmp_path_factory):
    """A run of two steps on gray images, with numbers of its own."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = load_config("simclr", "tiny")
    config.data.update(source="npz", path=write(folder / "own.npz", shape=(SIDE, SIDE, 1)))
    config.model.blocks = (1,)
    config.duration = "2 steps"
    config.optimizer.warmup = "1 step"
    config.evaluate.update(figures=False, batch_size=16)
    fit(config, folder / "run")
    (folder / "run" / "results.json").write_text('{"knn": 0.5}\n')
    return folder / "run"


@pytest.fixture
def measured(monkeypatch):
    """What the protocol is given, call by call; its number is that of the call.

    The protocol itself is tested in tests/measures.
    """
    calls = []

    def evaluate_features(train, train_labels, test, test_labels, *, num_classes, **knobs):
        calls.append((train["features"], train_labels, test["features"], test_labels, num_classes))
        return {"knn": float(len(calls))}

    monkeypatch.setattr(representation.protocol, "evaluate_features", evaluate_features)
    return calls


def test_another_set_is_brought_to_the_encoder_and_written_elsewhere(workdir, measured, tmp_path):
    path = write(tmp_path / "bright birds.npz", shape=(20, 16, 3), count=90, classes=3)
    results = evaluation.evaluate_run(workdir, other={"source": "npz", "path": path})
    numbers = {
        name: value
        for name, value in results.items()
        if not name.startswith(("alignment", "lidar"))
    }
    assert numbers == {"knn": 1.0, "knn_untrained": 2.0, "knn_pixels": 3.0, "step": 2}
    archive = np.load(path)
    for _, labels, _, test_labels, classes in measured:
        np.testing.assert_array_equal(labels, archive["y_train"])
        np.testing.assert_array_equal(test_labels, archive["y_test"])
        assert classes == 3
    # The images as the encoder has to see them: 12 x 12 and gray; 20 x 16 and colored before.
    section = data.defaults()
    section.update(source="npz", path=path, image_size=SIDE, channels=1)
    dataset = data.load(section)
    trained, untrained, pixels = measured
    encoder = sslax.load(workdir)
    for part, source in ((0, dataset.train), (2, dataset.test)):
        images = np.stack([source[i]["image"] for i in range(len(source))])
        assert images.shape[1:] == (SIDE, SIDE, 1)
        np.testing.assert_allclose(trained[part], encoder(images), rtol=1e-3, atol=1e-5)
        assert np.abs(trained[part] - untrained[part]).max() > 1e-3
        expected = images.reshape(len(images), -1) / 255
        np.testing.assert_allclose(pixels[part], expected, rtol=1e-5, atol=1e-6)
    written = json.loads((workdir / "results-bright-birds.json").read_text())
    assert written == {name: pytest.approx(value) for name, value in results.items()}
    assert (workdir / "results.json").read_text() == '{"knn": 0.5}\n'


def test_lidar_is_that_of_ten_views(workdir, monkeypatch):
    """Views of one image differ from draw to draw, and the images keep their places."""
    seen = []
    monkeypatch.setattr(representation, "_lidar", lambda z: seen.append(z) or 2.0)
    subject = evaluation.open_subject(workdir)
    numbers = representation._measure_views(subject, subject.networks[""])
    (z,) = seen
    assert numbers["lidar"] == 2.0 and z.shape[:2] == (20, 10)
    pairs = np.abs(z[:, :, None] - z[:, None]).max(-1)[:, *np.triu_indices(10, 1)]
    assert (pairs > 0).all()  # no two views are alike
    within = z.var(1).mean()
    shuffled = np.stack([z[(np.arange(20) + v) % 20, v] for v in range(10)], axis=1)
    assert within < shuffled.var(1).mean()  # dark and bright images


def test_alignment_is_the_mean_squared_distance_of_two_views(workdir):
    """Against NumPy, from the run's own views of the same images."""
    subject = evaluation.open_subject(workdir)
    plan, variables, test = subject.run.plan, subject.networks[""], subject.dataset.test
    numbers = representation._measure_views(subject, variables)
    images = test.images[batches.random_rows(test, 512)]
    batch = {"image": images, "index": np.arange(len(images), dtype=np.int32)}
    views = jax.jit(plan.method.augment)(jax.random.key(plan.seed), batch)["views"]
    encoder = models.build_encoder(subject.run.config.model)
    weights = plan.method.encoder(variables)
    encode = jax.jit(lambda view: encoder.apply(*weights, view, False)[0].features)
    x, y = (np.asarray(encode(view), np.float64) for view in np.moveaxis(views, 1, 0))
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    expected = np.mean(np.sum((u - v) ** 2, axis=1))
    assert numbers.keys() == {"alignment", "lidar"}
    assert numbers["alignment"] == pytest.approx(expected, rel=1e-3)
    assert expected > 1e-4
    single = subject.run.config.copy_and_resolve_references()
    single.augment.recipe = "supervised"
    subject = subject._replace(run=subject.run._replace(config=single))
    assert representation._measure_views(subject, variables) == {}


@pytest.mark.parametrize("method", ["colorization", "jigsaw"])
def test_encoders_that_see_no_images_are_given_what_predict_gives_them(method, load_config):
    config = load_config(method, "tiny")
    shape = data.load(config.data).train[0]["image"].shape
    plan = make_plan(config, examples=64, image_shape=shape, classes=None)
    variables = jax.jit(plan.initial_state)().variables
    images = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.uint8)
    expected = jax.jit(plan.method.predict)(variables, {"image": images}).features
    view = jax.jit(common.build_evaluation_view(config.augment))(images)
    encoder = representation.encoder_of(Run(None, config, plan))
    encode = jax.jit(partial(encoder.apply, train=False))
    encoding, _ = encode(*plan.method.encoder(variables), view)
    np.testing.assert_allclose(encoding.features, expected, rtol=1e-3, atol=1e-5)


def test_fine_tuning_has_its_baseline(workdir):
    results = evaluation.finetune_run(workdir, fractions=[1.0, 0.5], duration="6 steps")
    names = {"finetune", "finetune_untrained"}
    names |= {"finetune_50_percent", "finetune_50_percent_untrained"}
    assert set(results) == {*names, "step"}
    assert all(0 <= results[name] <= 1 for name in names)
    assert json.loads((workdir / "results-finetune.json").read_text()) == results
    assert (workdir / "results.json").read_text() == '{"knn": 0.5}\n'


def test_a_linear_probe_has_its_baseline(workdir):
    protocol = linear_probe.Protocol(duration="4 steps", batch_size=16, learning_rates=(0.3, 0.1))
    results = evaluation.linear_probe_run(workdir, protocol=protocol)
    assert set(results) == {"linear_probe", "linear_probe_untrained", "step"}
    assert json.loads((workdir / "results-linear-probe.json").read_text()) == results
    assert protocol_module.stage_of("linear_probe") is None  # nor a stage of that name


def test_the_section_of_another_set():
    config = ConfigDict({"data": data.defaults(), "evaluate": {"data": {}}})
    config.data.update(source="folder", path="/own/train", test_path="/own/test", image_size=40)

    def section(other):
        return evaluation._section(config, other, (40, 48, 3))

    assert section({}) == config.data
    moved = section({"path": "/other/train"})  # the old test images are none of the new set
    assert (moved.source, moved.path, moved.test_path) == ("folder", "/other/train", "")
    assert (moved.image_size, moved.channels) == (40, 3)
    assert data.name_of(moved) == "other-train"
    split = section({"test_fraction": 0.5, "test_path": ""})
    assert (split.path, split.test_fraction) == ("/own/train", 0.5)
    named = section({"source": "tfds", "tfds.name": "oxford_flowers102", "image_size": 64})
    assert (named.path, named.image_size) == ("", 64)
    assert data.name_of(named) == "oxford_flowers102"
    with pytest.raises(UserError, match="takes images of 3 channels"):
        section({"channels": 1})


def test_mistakes_are_named(workdir, tmp_path):
    with pytest.raises(UserError, match=r"lies in \(0, 1\]"):
        evaluation.finetune_run(workdir, fractions=[10.0])
    path = tmp_path / "plain.npz"
    np.savez(path, x_train=np.zeros((20, SIDE, SIDE), np.uint8))
    other = {"source": "npz", "path": str(path), "labels": False}
    with pytest.raises(UserError, match="needs labels and a test set"):
        evaluation.finetune_run(workdir, other=other)


def test_vision_transformers_have_rates_of_their_own():
    resnet = evaluation._recipe("resnet18", "", None, trained=True)
    assert (resnet.optimizer, resnet.learning_rate, resnet.layer_decay) == ("sgd", 0.4, 1.0)
    trained, scratch = (evaluation._recipe("vit_tiny", "", 2e-3, trained=t) for t in (True, False))
    assert trained.optimizer == "adamw" and trained.learning_rate == 2e-3
    assert trained.layer_decay < scratch.layer_decay == 1.0
