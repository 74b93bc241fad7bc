"""Two processes of four devices each, on loopback, with a sharded state, end like one device."""

import json
import socket
from functools import partial

import jax
import numpy as np
import pytest
import runs

from sslax import models
from sslax.inference.run import open_run, read_state
from sslax.tasks import evaluation
from sslax.training import sharding

OPTIONS = (
    "--config.data.source=npz",
    "--config.duration=6 steps",
    "--config.batch_size=32",
    "--config.model.blocks=(1,)",
    "--config.simclr.projector.hidden=512",
    "--config.simclr.projector.outputs=128",  # a kernel that is large enough to be sharded
    "--config.evaluate.figures=False",
    "--config.evaluate.batch_size=64",
)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _params(workdir):
    return read_state(open_run(workdir), sharding.make_mesh(jax.devices()[:1])).params


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """85 training and 51 test images divide neither by the processes nor by the devices."""
    path = tmp_path_factory.mktemp("data") / "set.npz"
    labels = np.arange(136) % 2
    noise = np.random.default_rng(0).integers(0, 150, (136, 12, 12, 1))
    x, y = (noise + 50 * labels[:, None, None, None]).astype(np.uint8), labels
    np.savez(path, x_train=x[:85], y_train=y[:85], x_test=x[85:], y_test=y[85:])
    return f"--config.data.path={path}"


@pytest.fixture(scope="module")
def together(data, tmp_path_factory):
    """The folder of a run of two processes, trained and evaluated."""
    workdir, port = tmp_path_factory.mktemp("together"), _free_port()
    options = "--config.sharding=fsdp", "--distributed", f"--coordinator=127.0.0.1:{port}"
    processes = [
        runs.start(
            runs.command(
                workdir, *OPTIONS, data, *options, f"--process_id={i}", "--num_processes=2"
            ),
            runs.environment(devices=4),
        )
        for i in range(2)
    ]
    for process in processes:
        status, output = runs.finish(process)
        assert status == 0, output
    return workdir


def test_two_processes_get_the_result_of_one(together, data, tmp_path):
    command = runs.command(tmp_path, *OPTIONS, data, "--config.evaluate.at_end=False")
    status, output = runs.finish(runs.start(command, runs.environment()))
    assert status == 0, output
    params = _params(together)
    # Sums over devices round differently; six steps of training magnify that a little.
    close = partial(np.testing.assert_allclose, rtol=5e-3, atol=1e-3)
    jax.tree.map(close, params, _params(tmp_path))
    # Each process gathered the weights; the first one wrote them.
    exported, _, _ = models.read_variables(together)
    jax.tree.map(np.testing.assert_array_equal, exported, jax.device_get(params))
    plan = open_run(together).plan
    assert sharding.of(plan.abstract_state(sharding.make_mesh())) is not None


def test_two_processes_measure_what_one_does(together):
    found = json.loads((together / "results.json").read_text())
    expected = evaluation.evaluate_run(together)
    assert found.keys() == expected.keys() and "alignment" in found
    for name, value in expected.items():
        # Sums are rounded differently, which may turn one of the 51.
        tolerance = 1.01 / 51 if name.startswith(("knn", "linear")) else 0.0
        assert found[name] == pytest.approx(value, rel=1e-3, abs=tolerance), name
