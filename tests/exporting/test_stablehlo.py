"""Programs that JAX loads without sslax equal what `sslax.load` returns."""

import json

import formulas
import jax
import numpy as np
import pytest
from exported import loader, write_run
from skimage import data

import sslax
from sslax.errors import MissingExtra, UserError
from sslax.exporting import export

pytest.importorskip("flatbuffers", reason="of the extra [export], which jax.export writes with")


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory, load_config):
    """The folder of a run of a tiny ResNet."""
    config = load_config("simclr", "tiny")
    return write_run(tmp_path_factory.mktemp("runs") / "simclr", config, (28, 28, 1))


@pytest.fixture(scope="module")
def map_runs(tmp_path_factory):
    with formulas.runs(tmp_path_factory.mktemp("maps")) as folder:
        yield folder


def exported(run, folder, **options):
    files = export(run, folder, format="stablehlo", **options)
    assert all(file.stat().st_size for file in files)
    about = json.loads((folder / "model.json").read_text())
    return jax.export.deserialize(bytearray((folder / about["file"]).read_bytes())), about


def check_outputs(outputs, about, count):
    """That `model.json` is right about the outputs."""
    assert outputs.keys() == about["outputs"].keys()
    for name, output in outputs.items():
        said = about["outputs"][name]
        assert ["b", *output.shape[1:]] == said["shape"] and len(output) == count
        assert output.dtype == said["dtype"] and said["meaning"]


def test_an_encoder_equals_the_loaded_one_for_any_batch(encoder_run, tmp_path):
    model, about = exported(encoder_run, tmp_path)
    assert model.platforms == ("cpu", "cuda", "tpu")
    assert about["input"]["shape"] == ["b", 28, 28, 1]
    assert "resize or crop to 12 x 12" in " ".join(about["inside"])
    encoder = sslax.load(encoder_run)
    cells = data.camera()[:112, :112].reshape(4, 28, 4, 28).swapaxes(1, 2)
    images = cells.reshape(16, 28, 28, 1)
    expected, stages = encoder(images), encoder.stages(images)
    assert expected.std() > 1e-3
    for count in (1, 16):
        outputs = model.call(images[:count])
        check_outputs(outputs, about, count)
        np.testing.assert_allclose(outputs["features"], expected[:count], rtol=1e-4, atol=1e-5)
        for name, stage in stages.items():
            ours = outputs[f"stages/{name}"]
            np.testing.assert_allclose(ours, stage[:count], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "frames", "options", "predicted"),
    [
        ("stereo", 0, {}, {"disparity"}),
        ("video", 0, {}, {"depth"}),
        ("video", 3, {"poses": True}, {"depth", "pose"}),
        ("pairs", 2, {"size": (8, 16)}, {"flow", "backward", "visible"}),
    ],
)
def test_maps_equal_the_loaded_ones(map_runs, tmp_path, name, frames, options, predicted):
    model, about = exported(map_runs / name, tmp_path, **options)
    assert about["outputs"].keys() == predicted
    size = options.get("size", formulas.SIZE)
    frames = [frames] if frames else []
    assert about["input"]["shape"] == ["b", *frames, *size, 3]
    estimator = sslax.load(map_runs / name, size=options.get("size"))
    images = np.random.default_rng(0).integers(0, 256, (3, *frames, *size, 3), np.uint8)
    outputs, expected = model.call(images), estimator(images)
    check_outputs(outputs, about, 3)
    for output, values in outputs.items():
        np.testing.assert_allclose(values, getattr(expected, output), rtol=1e-6, atol=1e-6)


def test_the_loader_of_the_docs_loads_it(encoder_run, tmp_path, monkeypatch, capsys):
    exported(encoder_run, tmp_path)
    code = loader("stablehlo")
    monkeypatch.chdir(tmp_path)
    exec(code, {"images": np.zeros((2, 28, 28, 1), np.uint8)})
    assert capsys.readouterr().out == "(2, 16)\n"


def test_what_cannot_be_exported_is_said(encoder_run, map_runs, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--poses is for runs that learned ego-motion; simclr did"):
        export(encoder_run, tmp_path / "out", format="stablehlo", poses=True)
    with pytest.raises(UserError, match='did you mean "stablehlo"'):
        export(encoder_run, tmp_path / "out", format="stable_hlo")
    with pytest.raises(UserError, match="is the run's own folder"):
        export(encoder_run, encoder_run, format="stablehlo")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"flatbuffers is not installed; .*sslax\[export\]"):
        export(map_runs / "video", tmp_path / "out", format="stablehlo")
