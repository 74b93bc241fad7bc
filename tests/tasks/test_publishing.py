"""Published folders predict what the run does, and say what they are."""

import json

import jax
import numpy as np
import pytest

import sslax
from sslax import models
from sslax.errors import UserError
from sslax.tasks import publishing
from sslax.training import description, weights
from sslax.training.plan import make_plan

SECRET = "/home/somebody/frames"
CASES = {
    "uflow": {"examples": 64, "image_shape": [2, 32, 48, 3], "classes": None},
    "dino": {"examples": 64, "image_shape": [28, 28, 1], "classes": 10},
    # Its features are made of the expander, too.
    "emp_ssl": {"examples": 64, "image_shape": [28, 28, 1], "classes": 10},
}


@pytest.fixture(scope="module", params=CASES)
def run(request, load_config, tmp_path_factory):
    """The folder of a run that has its weights and no checkpoint; its method and its variables."""
    name, data = request.param, CASES[request.param]
    config = load_config(name, "tiny")
    config.data.path = SECRET
    plan = make_plan(config, **data)
    folder = tmp_path_factory.mktemp(name)
    description.write(folder, description.describe(config, {**data, "fingerprint": "f"}))
    state = jax.jit(plan.initial_state)()
    shape = data["image_shape"]
    written = {"image_shape": shape, "step": 7}
    weights.save_encoder(folder / weights.ENCODER, config, plan.method, state.variables, **written)
    weights.save_network(folder / weights.NETWORK, config, state.variables, step=7)
    (folder / "results.json").write_text(json.dumps({"epe": 0.5, "epe_trivial": 2.25}))
    return folder, plan, state.variables


def images_for(plan):
    shape = plan.batch["image"].shape[1:]
    return np.random.default_rng(0).integers(0, 255, (2, *shape), dtype=np.uint8)


def test_a_published_folder_predicts_what_the_run_does(run, tmp_path):
    folder, plan, variables = run
    output = tmp_path / "mine"
    files = {file.name for file in publishing.publish(folder, output, license="mit")}
    file = "encoder" if "dino" in folder.name else "network"
    assert files == {"README.md", "config.json", "data.json", "results.json", f"{file}.safetensors"}
    images = images_for(plan)
    index = np.arange(2, dtype=np.int32)
    expected = jax.jit(plan.method.predict)(variables, {"image": images, "index": index})
    found = sslax.load(output)(images)
    leaf = expected.features if hasattr(expected, "features") else expected.flow
    found = found if hasattr(expected, "features") else found.flow
    np.testing.assert_allclose(found, leaf, rtol=1e-5, atol=1e-5)
    for content in output.iterdir():
        assert SECRET.encode() not in content.read_bytes(), content


def test_the_card_says_what_it_is(run, tmp_path):
    folder = run[0]
    publishing.publish(folder, tmp_path / "mine", license="mit")
    text = (tmp_path / "mine" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert 'license: "mit"' in head and 'library_name: "sslax"' in head
    assert ("pipeline_tag" in head) == ("uflow" not in folder.name)
    assert "after step 7" in body and "2.250" in body and 'sslax.load("mine")' in body
    with pytest.raises(UserError, match="mine is not empty"):
        publishing.publish(folder, tmp_path / "mine")


def test_weights_of_another_network_are_refused(run, tmp_path):
    folder, output = run[0], tmp_path / "mine"
    publishing.publish(folder, output)
    file = next(output.glob("*.safetensors"))
    params, model_state, metadata = models.read_variables(file, file=file.name)
    some = next(iter(params))
    models.save_weights(file, {some: params[some]}, model_state, metadata)
    if len(params) > 1:
        with pytest.raises(UserError, match="lack"):
            sslax.load(output)


def test_networks_of_the_package_are_named():
    with pytest.raises(UserError, match=r"zoo/uflow does not exist: .*zoo/uflow_small"):
        sslax.load("zoo/uflow")
