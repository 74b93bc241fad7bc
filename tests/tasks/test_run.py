"""A run's evaluation: on another set, fine-tuned, and the alignment of its views."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from sslax import data, models
from sslax.errors import UserError
from sslax.methods import common
from sslax.tasks import run
from sslax.training import train

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
    train.fit(config, folder / "run")
    (folder / "run" / "results.json").write_text('{"knn": 0.5}\n')
    return folder / "run"


@pytest.fixture
def measured(monkeypatch):
    """What the protocol was given; the protocol itself is tested elsewhere."""
    calls = []

    def evaluate_features(train, train_labels, test, test_labels, *, num_classes):
        calls.append((train["features"], train_labels, test["features"], test_labels, num_classes))
        return {"knn": 0.25}

    monkeypatch.setattr(run.representation, "evaluate_features", evaluate_features)
    return calls


def test_another_set_is_brought_to_the_encoder_and_written_elsewhere(workdir, measured, tmp_path):
    path = write(tmp_path / "bright birds.npz", shape=(20, 16, 3), count=90, classes=3)
    results = run.evaluate_run(workdir, other={"source": "npz", "path": path})
    assert results["knn"] == results["knn_untrained"] == results["knn_pixels"] == 0.25
    trained, untrained, pixels = measured
    for features, labels, test_features, test_labels, classes in measured:
        assert (len(features), len(labels), len(test_features), len(test_labels)) == (
            60,
            60,
            30,
            30,
        )
        assert classes == 3
    assert pixels[0].shape[1] == SIDE * SIDE  # 20 x 16 in color before
    assert np.any(np.asarray(trained[0]) != np.asarray(untrained[0]))
    written = json.loads((workdir / "results-bright-birds.json").read_text())
    assert written == {name: pytest.approx(value) for name, value in results.items()}
    assert written["step"] == 2
    assert (workdir / "results.json").read_text() == '{"knn": 0.5}\n'


def test_alignment_is_the_mean_squared_distance_of_two_views(workdir):
    """Against NumPy, from the run's own views of the same images."""
    subject = run._open(workdir, "latest", None)
    plan, state, test = subject.plan, subject.states[""], subject.dataset.test
    sizes = {"batch_size": 16, "workers": 1}
    found = run._alignment(subject.config, plan, state, subject.dataset, subject.mesh, sizes)
    images = test.images[run._some(test, 512)]
    batch = {"image": images, "index": np.arange(len(images), dtype=np.int32)}
    views = plan.method.views(jax.random.key(plan.seed), batch)["image"]
    encoder = models.build_encoder(subject.config.model)
    variables = plan.method.encoder(state.params, state.model_state, state.extra)
    x, y = (
        np.asarray(encoder.apply(*variables, views[:, i], False)[0].features, np.float64)
        for i in (0, 1)
    )
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    expected = np.mean(np.sum((u - v) ** 2, axis=1))
    assert found == {"alignment": pytest.approx(expected, rel=1e-3)}
    assert expected > 1e-4
    single = subject.config.copy_and_resolve_references()
    single.augment.recipe = "supervised"
    assert run._alignment(single, plan, state, subject.dataset, subject.mesh, sizes) == {}


@pytest.mark.parametrize("method", ["colorization", "jigsaw"])
def test_encoders_that_see_no_images_are_given_what_predict_gives_them(method, load_config):
    config = load_config(method, "tiny")
    shape = data.load(config.data).train[0]["image"].shape
    plan = train.make_plan(config, examples=64, image_shape=shape, classes=None)
    state = jax.jit(plan.initial_state)()
    images = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.uint8)
    variables = (state.params, state.model_state, state.extra)
    expected = jax.jit(plan.method.predict)(*variables, {"image": images})["features"]
    view = common.evaluation_view(config.augment)(images)
    encoding, _ = run._encoder(config, plan).apply(*plan.method.encoder(*variables), view, False)
    np.testing.assert_allclose(encoding.features, expected, rtol=1e-3, atol=1e-5)


def test_fine_tuning_stands_beside_its_baseline(workdir):
    results = run.finetune_run(workdir, fractions=[1.0, 0.5], duration="6 steps")
    names = {"finetune", "finetune_untrained"}
    names |= {"finetune_50_percent", "finetune_50_percent_untrained"}
    assert set(results) == {*names, "step"}
    assert all(0 <= results[name] <= 1 for name in names)
    assert json.loads((workdir / "results-finetune.json").read_text()) == results
    assert (workdir / "results.json").read_text() == '{"knn": 0.5}\n'


def test_the_section_of_another_set():
    config = ConfigDict({"data": data.defaults(), "evaluate": {"data": {}}})
    config.data.update(source="folder", path="/own/train", test_path="/own/test", image_size=40)

    def section(other):
        return run._section(config, other, (40, 48, 3))

    assert section({}) == config.data
    moved = section({"path": "/other/train"})  # the old test images are none of the new set
    assert (moved.source, moved.path, moved.test_path) == ("folder", "/other/train", "")
    assert (moved.image_size, moved.channels) == (40, 3)
    assert run._name(moved) == "other-train"
    split = section({"test_fraction": 0.5, "test_path": ""})
    assert (split.path, split.test_fraction) == ("/own/train", 0.5)
    named = section({"source": "tfds", "tfds.name": "oxford_flowers102", "image_size": 64})
    assert (named.path, named.image_size) == ("", 64)
    assert run._name(named) == "oxford_flowers102"
    with pytest.raises(UserError, match="takes images of 3 channels"):
        section({"channels": 1})


def test_mistakes_are_named(workdir, tmp_path):
    with pytest.raises(UserError, match=r"lies in \(0, 1\]"):
        run.finetune_run(workdir, fractions=[10.0])
    path = tmp_path / "plain.npz"
    np.savez(path, x_train=np.zeros((20, SIDE, SIDE), np.uint8))
    other = {"source": "npz", "path": str(path), "labels": False}
    with pytest.raises(UserError, match="needs labels and a test set"):
        run.finetune_run(workdir, other=other)


def test_vision_transformers_have_rates_of_their_own():
    assert run._rates("resnet18", None, trained=True) == {"optimizer": "sgd", "learning_rate": 0.4}
    trained, scratch = (run._rates("vit_tiny", 2e-3, trained=t) for t in (True, False))
    assert trained["optimizer"] == "adamw" and trained["learning_rate"] == 2e-3
    assert trained["layer_decay"] < scratch["layer_decay"] == 1.0
