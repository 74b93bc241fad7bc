"""The loop on a small set of its own: what it writes, refuses, and does when a loss breaks."""

import json
import shutil
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from PIL import Image

import sslax
from sslax import models
from sslax.errors import UserError
from sslax.inference.predictor import Predictor
from sslax.inference.run import open_run, read_state
from sslax.methods import METHODS
from sslax.report import page
from sslax.tasks import evaluation
from sslax.training import loop, metrics, sharding
from sslax.training.fit import fit


@pytest.fixture(scope="module")
def images():
    """80 + 40 images of 12x12 in two classes: dark and bright, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    noise = rng.integers(0, 100, (120, 12, 12, 1))
    return (noise + 120 * labels[:, None, None, None]).astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="module")
def config(load_config, images, tmp_path_factory):
    """The tiny config on those images."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    x, y = images
    np.savez(path, x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    config = load_config("simclr", "tiny")
    config.data.update(source="npz", path=str(path))
    return config


def changed(config, **overrides):
    """The config with some values replaced; nested keys are joined by double underscores."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in overrides.items()}
    )
    return copy


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """A finished and evaluated run."""
    workdir = tmp_path_factory.mktemp("run")
    state = fit(config, workdir)
    assert int(state.step) == 12
    evaluation.evaluate_run(workdir)
    return workdir


def test_the_run_is_written_down(workdir):
    lines = metrics.read_jsonl(workdir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    names = {"loss", "loss_at_chance", "accuracy", "probe_accuracy", "embedding_std"}
    assert names | {"effective_rank", "learning_rate", "epoch"} <= lines[-1].keys()
    assert lines[-1]["loss_at_chance"] == pytest.approx(np.log(31))
    assert lines[-1]["epoch"] == pytest.approx(12 / 5)
    assert json.loads((workdir / "config.json").read_text())["method"] == "simclr"


def test_the_evaluation_names_its_baselines(workdir):
    results = json.loads((workdir / "results.json").read_text())
    for name in ("knn", "knn20", "linear", "linear_10_labels"):
        for suffix in ("", "_untrained", "_pixels"):
            assert 0.0 <= results[name + suffix] <= 1.0
    assert results["linear_pixels"] == 1.0  # dark and bright: anybody can tell
    assert results["step"] == 12
    pictures = {path.name for path in (workdir / "figures").iterdir()}
    assert pictures == {"curves.png", "task.png", "neighbors.png", "embedding.png"}
    sections = [section["id"] for section in page.read(workdir / "report.html")]
    assert sections == ["facts", "results", "curves", "task", "embedding", "config"]


def test_load_encodes_images_of_any_kind(workdir, images):
    encoder = sslax.load(workdir)
    x = images[0][:5]
    features = encoder(x)
    assert features.shape == (5, 16) and features.dtype == np.float32 and encoder.step == 12
    np.testing.assert_allclose(encoder(x / np.float32(255)), features, atol=1e-5)
    np.testing.assert_allclose(encoder(x[0]), features[0], atol=1e-5)
    np.testing.assert_allclose(encoder(x, batch_size=2), features, atol=1e-5)
    patches = encoder.patches(x, batch_size=3)
    assert patches.ndim == 4 and patches.dtype == np.float32
    np.testing.assert_allclose(patches.mean((1, 2)), encoder(x), atol=1e-4)  # as a ResNet pools
    np.testing.assert_allclose(encoder.patches(x[0]), patches[0], atol=1e-5)
    assert {name: stage.shape for name, stage in encoder.stages(x).items()} == {
        "stage1": (5, 8),
        "stage2": (5, 16),
    }
    assert sslax.load(workdir, which="best").step in (4, 8, 12)


def test_an_encoder_leaves_as_safetensors_and_comes_back(workdir, config, images, tmp_path):
    encoder = sslax.load(workdir)
    encoder.save(tmp_path / "encoder.safetensors")
    for source in (tmp_path / "encoder.safetensors", workdir):
        module, variables, description = sslax.load_encoder(source)
        encoding = module.apply(variables, images[0][:3])
        np.testing.assert_allclose(encoding.features, encoder(images[0][:3]), atol=1e-5)
        assert (description.method, description.task) == ("simclr", "representation")
        assert (description.size, description.channels, description.step) == ((12, 12), 1, 12)
        assert description.mean == tuple(config.model.mean)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 12, 12), np.uint8), r"takes images \[N, H, W, 1\]"),
        (np.zeros((2, 12, 12, 3), np.uint8), r"takes images \[N, H, W, 1\]"),
        (np.full((2, 12, 12, 1), 200.0), r"lie in \[0, 1\]; these reach from 200 to 200"),
        (np.zeros((2, 12, 12, 1), np.int32), "uint8, or float"),
        (np.zeros((0, 12, 12, 1), np.uint8), "There is no image"),
    ],
)
def test_images_that_are_none_are_named(workdir, wrong, message):
    encoder = sslax.load(workdir)
    with pytest.raises(UserError, match=message):
        encoder(wrong)


def test_predict_writes_features_of_a_folder(workdir, images, tmp_path):
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for i, name in enumerate(["a.png", "below/b.png", "c.png"]):
        Image.fromarray(images[0][i, :, :, 0]).save(folder / name)
    output = tmp_path / "out" / "features.npz"
    command = [sys.executable, "-m", "sslax.predict", f"--workdir={workdir}", "--stages"]
    environment = runs.environment()
    subprocess.run(
        [*command, f"--input={folder}", f"--output={output}"], check=True, env=environment
    )
    written = np.load(output)
    assert written["files"].tolist() == ["a.png", "below/b.png", "c.png"]
    expected = sslax.load(workdir)(images[0][:3])
    np.testing.assert_allclose(written["features"], expected, atol=1e-4)
    assert written["stage2"].shape == (3, 16)

    missing = subprocess.run(
        [*command, "--input=/nowhere/at/all", f"--output={output}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert missing.returncode == 1 and "Traceback" not in missing.stderr
    assert "--input /nowhere/at/all does not exist" in missing.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method": "simclear"}, 'did you mean "simclr"'),
        ({"batch_size": 81}, "larger than the training set of 80 images: --config.batch_size=64"),
        ({"duration": "5 parsecs"}, "is not a duration"),
        ({"optimizer__warmup": "12 steps"}, "warm-up takes 12 of 12 steps"),
        ({"model__name": "resnet19"}, 'did you mean "resnet18"'),
        ({"augment__crop_scale": (0.5,)}, "config.augment.crop_scale must be a range"),
        ({"augment__recipe": "simcl"}, 'did you mean "simclr"'),
        ({"batch_size": 12}, "does not divide over 8 devices .* choose config.batch_size=8 or 16"),
        ({"accumulate": 4}, "micro-batches of 4 examples, which do not divide over 8 devices"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(config, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message) as error:
        fit(changed(config, **overrides), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_last_checkpoint(config, tmp_path):
    def build(config, steps):
        method = METHODS["simclr"](config, steps)

        def loss(variables, batch, rng, step):
            value, output = method.loss(variables, batch, rng, step)
            return jnp.where(step == 6, jnp.nan, value), output

        return method._replace(loss=loss)

    with pytest.raises(metrics.NonFinite, match=r"loss became NaN or infinite at step 6\."):
        fit(config, tmp_path, methods={"simclr": build})
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = read_state(open_run(tmp_path), mesh)
    assert int(state.step) == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_mistyped_path_of_weights_does_not_lock_the_folder(config, tmp_path, workdir):
    short = changed(config, duration="2 steps")
    mistyped = changed(short, model__encoder_from=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="There is no file or folder"):
        fit(mistyped, tmp_path / "run")
    corrected = changed(short, model__encoder_from=str(workdir))
    assert int(fit(corrected, tmp_path / "run").step) == 2


@pytest.mark.parametrize("kept", [0.5, None], ids=["damaged", "missing"])
def test_files_that_a_finished_run_lacks_are_written_again(kept, config, workdir, tmp_path):
    """Missing as if it had been killed before it wrote them; the run itself is not repeated."""
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    names = ["encoder.safetensors", "network.safetensors"]
    names += ["config.json", "data.json"] if kept else []
    for name in names:
        content = (copy / name).read_bytes()
        (copy / name).unlink()
        if kept:
            (copy / name).write_bytes(content[: int(kept * len(content))])
    assert int(fit(config, copy).step) == 12
    for name in (*names, "metrics.jsonl"):
        assert (copy / name).read_bytes() == (workdir / name).read_bytes(), name


def test_moved_data_goes_on_and_changed_data_is_refused(config, workdir, images, tmp_path):
    copy, moved = tmp_path / "run", tmp_path / "moved.npz"
    shutil.copytree(workdir, copy)
    shutil.copy(config.data.path, moved)
    assert int(fit(changed(config, data__path=str(moved)), copy).step) == 12
    assert open_run(copy).config.data.path == str(moved)
    x, y = images
    np.savez(moved, x_train=x[:80], y_train=1 - y[:80], x_test=x[80:], y_test=y[80:])
    with pytest.raises(UserError, match="other images: their names, sizes or labels changed"):
        fit(changed(config, data__path=str(moved)), copy)


def test_unlabeled_images_train_and_report_collapse_only(config, tmp_path):
    unlabeled = changed(config, data__labels=False, evaluate__figures=False)
    unlabeled.duration = "4 steps"
    fit(unlabeled, tmp_path)
    lines = metrics.read_jsonl(tmp_path / "metrics.jsonl")
    assert "probe_accuracy" not in lines[-1] and "effective_rank" in lines[-1]
    results = evaluation.evaluate_run(tmp_path)
    assert "knn" not in results and results["rankme"] >= 1.0


def test_a_run_of_one_device_goes_on_sharded_over_eight_and_is_read(
    config, images, tmp_path, monkeypatch
):
    """fit() takes all devices there are; a mesh of one is what a smaller machine would have."""
    half = changed(config, duration="12 steps", evaluate__figures=False, online_knn=True)
    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda devices=None: make_mesh(jax.devices()[:1]))
    whole = fit(half, tmp_path / "one")

    monkeypatch.setattr(loop, "StopRequest", _stop_after(6))
    assert int(fit(half, tmp_path / "both").step) == 6
    monkeypatch.undo()
    everything = partial(sharding.shardings_of, smallest=1)
    monkeypatch.setattr(sharding, "shardings_of", everything)
    resumed = fit(changed(half, sharding="fsdp"), tmp_path / "both")
    assert int(resumed.step) == 12 and sharding.of(resumed) is not None
    for ours, theirs in zip(jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params)):
        np.testing.assert_allclose(ours, theirs, rtol=5e-3, atol=5e-4)
    # Of the same test images at each checkpoint, also the one at which the run was stopped.
    found, expected = (
        {line["step"]: line["online_knn"] for line in lines if "online_knn" in line}
        for lines in (
            metrics.read_jsonl(tmp_path / folder / "metrics.jsonl") for folder in ("both", "one")
        )
    )
    assert [*expected] == [4, 8, 12] and [*found] == [4, 6, 8, 12]
    assert found[12] == pytest.approx(expected[12], abs=1.01 / 40)
    assert expected[12] > 0.9  # dark and bright

    # Whatever reads the run, on one device or sharded over eight, finds the same.
    params, _, _ = models.read_variables(tmp_path / "both")
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(resumed.params))
    run, mesh = open_run(tmp_path / "both"), sharding.make_mesh()
    state = read_state(run, mesh)
    assert sharding.of(state) == sharding.of(resumed)
    batch = {"image": images[0][:8], "mask": np.ones(8, bool)}
    prediction, _ = Predictor(run.plan, state.variables, mesh)(batch)
    features = sslax.load(tmp_path / "both")(images[0][:8])
    np.testing.assert_allclose(prediction.features, features, rtol=1e-4, atol=1e-5)
    again = fit(half, tmp_path / "both")  # reads the last checkpoint
    assert int(again.step) == 12 and sharding.of(again) is None
    jax.tree.map(np.testing.assert_array_equal, again.params, jax.device_get(resumed.params))


def _stop_after(steps):
    class StopAfter:
        def __enter__(self):
            return lambda step: step == steps

        def __exit__(self, *_):
            return None

    return StopAfter


def test_importing_sslax_imports_nothing_heavy():
    code = (
        "import sys, jax; before = set(sys.modules); import sslax; "
        "heavy = {'flax', 'orbax', 'grain', 'absl', 'ml_collections', 'optax', 'PIL'};"
        "print(sorted(heavy & {name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=runs.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_a_run_of_an_earlier_version_is_read_and_goes_on(config, workdir, images, tmp_path):
    """Keys that its config lacks have their defaults."""
    shutil.copytree(workdir, tmp_path / "run")
    for folder in (tmp_path / "run", *(tmp_path / "run" / "checkpoints").iterdir()):
        if (folder / "config.json").exists():
            early = json.loads((folder / "config.json").read_text())
            del early["model"]["registers"], early["data"]["webdataset"], early["accumulate"]
            del early["simclr"]["temperature"]
            (folder / "config.json").write_text(json.dumps(early))
    run = open_run(tmp_path / "run")
    assert run.config.model.registers == 0 and run.config.accumulate == 1
    x = images[0][:3]
    np.testing.assert_array_equal(sslax.load(tmp_path / "run")(x), sslax.load(workdir)(x))
    assert int(fit(config, tmp_path / "run").step) == 12  # it is not another run
