"""Programs that ONNX Runtime runs equal what `sslax.load` returns."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported import ENCODERS, loader, photographs, write_encoder_run, write_run

import sslax
from sslax.errors import MissingExtra, UserError
from sslax.exporting import Program, export

INTRINSICS = {"intrinsics": ["float32", [3, 3]]}
CAMERA = {**INTRINSICS, "baseline": ["float32", []]}


@pytest.fixture(scope="module")
def onnxruntime():
    pytest.importorskip("onnx", reason="of the extra [export]")
    return pytest.importorskip("onnxruntime", reason="in no extra: it runs what is exported")


def outputs_of(onnxruntime, file, images):
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": images})))


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_equal_the_loaded_ones(onnxruntime, tmp_path, load_config, name):
    run = write_encoder_run(tmp_path / "run", load_config, name)
    file, described = export(run, tmp_path / "out", format="onnx")
    about = json.loads(described.read_text())
    encoder = sslax.load(run)
    features, stages = encoder(photographs()), encoder.stages(photographs())
    assert features.std() > 1e-2
    for count in (1, 2):
        outputs = outputs_of(onnxruntime, file, photographs()[:count])
        assert outputs.keys() == about["outputs"].keys()
        np.testing.assert_allclose(outputs["features"], features[:count], rtol=1e-4, atol=1e-5)
        for stage, values in stages.items():
            ours = outputs[f"stages/{stage}"]
            np.testing.assert_allclose(ours, values[:count], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "views", "others", "scale"),
    [("monodepth", 2, CAMERA, 10.0), ("sfm_learner", 3, INTRINSICS, 0.1), ("uflow", 2, {}, 1.0)],
)
def test_maps_equal_the_loaded_ones(onnxruntime, tmp_path, load_config, name, views, others, scale):
    config = load_config(name, "tiny")
    run = write_run(tmp_path / "run", config, (views, 32, 48, 3), others)
    file, _ = export(run, tmp_path / "out", format="onnx")
    images = np.stack([photographs(), photographs()[::-1]], axis=1)  # pairs
    images = np.concatenate([images, images[:, :, ::-1]], axis=3)[:, :, :, :48]
    images = images if name == "uflow" else images[:, 0]
    expected = sslax.load(run)(images)
    for count in (1, 2):
        outputs = outputs_of(onnxruntime, file, images[:count])
        assert outputs.keys() == {n for n, v in expected._asdict().items() if v is not None}
        for output, values in outputs.items():
            wanted = getattr(expected, output)[:count]
            assert wanted.std() > 1e-4 * scale, output
            np.testing.assert_allclose(values, wanted, rtol=1e-3, atol=1e-4, err_msg=output)


def test_the_loader_of_the_docs_loads_it(onnxruntime, tmp_path, load_config, monkeypatch, capsys):
    run = write_encoder_run(tmp_path / "run", load_config, "vit")
    export(run, tmp_path / "out", format="onnx")
    code = loader("onnx")
    monkeypatch.chdir(tmp_path / "out")
    exec(code, {"images": photographs()})
    assert capsys.readouterr().out == "(2, 32)\n"


def program(function):
    return Program(lambda images: {"y": function(images.astype(jnp.float32))}, (4, 6, 1), {}, {})


def loop(x):
    carry, rows = jax.lax.scan(lambda c, k: (c + k * x, c.sum((1, 2, 3))), x, jnp.arange(3.0))
    return carry + rows.sum(0)[:, None, None, None]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 3), (0, 0)), mode="reflect"),
        lambda x: jax.lax.pad(x, 1.0, ((0, 0, 0), (-1, 2, 0), (3, -2, 0), (0, 0, 0))),
        lambda x: jnp.einsum("bhwc,bvwc->bhv", x, x[:, ::-1]),
        lambda x: jnp.where(
            x > x.mean((1, 2, 3), keepdims=True), jnp.log1p(x), jax.lax.integer_pow(x, 3)
        ),
        lambda x: jnp.cbrt(x - 100) + jnp.expm1(-x),
        lambda x: jnp.clip(x, 9, 100) + (x != 0).all((1, 2, 3))[:, None, None, None],
        lambda x: x[:, ::2] + jax.lax.broadcasted_iota(jnp.float32, (x.shape[0], 2, 6, 1), 0),
        loop,
    ],
)
def test_operations_that_few_networks_have(onnxruntime, function):
    from sslax.exporting.onnx import to_onnx

    example = program(function)
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 1), np.uint8)
    expected = example.function(images)["y"]
    model = to_onnx(example._replace(outputs={"y": expected.shape[1:]}))
    (made,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": images})
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.sort(x, 1), 'the operation "sort", which sslax does not translate'),
        (lambda x: jax.lax.slice_in_dim(x, 0, 1), "a part of the batch"),
        (lambda x: jnp.zeros((x.shape[0] + 1, 1, 1, 1)) + x[0], r"an array whose size is b \+ 1"),
        (lambda x: x / x.shape[0], 'the operation "dim_as_value"'),
    ],
)
def test_what_has_no_translation_is_named(onnxruntime, function, message):
    from sslax.exporting.onnx import to_onnx

    with pytest.raises(UserError, match=message):
        to_onnx(program(function)._replace(outputs={"y": (4, 6, 1)}))


def test_without_onnx_the_extra_is_named(tmp_path, load_config, monkeypatch):
    run = write_encoder_run(tmp_path / "run", load_config, "vit")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"onnx is not installed; .*sslax\[export\]"):
        export(run, tmp_path / "out", format="onnx")
