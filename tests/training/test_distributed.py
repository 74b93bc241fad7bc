"""Two processes of four devices each, on loopback, with a sharded state, end like one device."""

import json
import socket

import jax
import numpy as np
import pytest
import runs

from sslax import models
from sslax.inference.run import open_run, read_state
from sslax.tasks import evaluation
from sslax.training import sharding

OPTIONS = (
    "--config.duration=6 steps",
    "--config.evaluate.at_end=False",
    "--config.simclr.projector.hidden=512",
    "--config.simclr.projector.outputs=128",  # a kernel that is large enough to be sharded
)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _params(workdir):
    return read_state(open_run(workdir), sharding.make_mesh(jax.devices()[:1])).params


def _assert_close(ours, theirs):
    # Sums over devices round differently; six steps of training magnify that a little.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=1e-3), ours, theirs)


def _run_two_processes(workdir, *options):
    port = _free_port()
    processes = [
        runs.start(
            runs.command(
                workdir,
                *options,
                "--distributed",
                f"--coordinator=127.0.0.1:{port}",
                f"--process_id={i}",
                "--num_processes=2",
            ),
            runs.environment(devices=4),
        )
        for i in range(2)
    ]
    for process in processes:
        status, output = runs.finish(process)
        assert status == 0, output


def test_two_processes_get_the_result_of_one(tmp_path):
    single = tmp_path / "single"
    status, output = runs.finish(runs.start(runs.command(single, *OPTIONS), runs.environment()))
    assert status == 0, output
    together = tmp_path / "together"
    _run_two_processes(together, *OPTIONS, "--config.sharding=fsdp")
    _assert_close(_params(together), _params(single))
    # Each process gathered the weights; the first one wrote them.
    exported, _, _ = models.read_variables(together)
    jax.tree.map(np.testing.assert_array_equal, exported, jax.device_get(_params(together)))
    plan = open_run(together).plan
    assert sharding.of(plan.abstract_state(sharding.make_mesh())) is not None


def test_two_processes_measure_what_one_does(tmp_path):
    """85 training and 51 test images divide neither by the processes nor by the devices."""
    labels = np.arange(136) % 2
    noise = np.random.default_rng(0).integers(0, 150, (136, 12, 12, 1))
    x, y = (noise + 50 * labels[:, None, None, None]).astype(np.uint8), labels
    np.savez(tmp_path / "set.npz", x_train=x[:85], y_train=y[:85], x_test=x[85:], y_test=y[85:])
    data = "--config.data.source=npz", f"--config.data.path={tmp_path / 'set.npz'}"
    options = "--config.duration=2 steps", "--config.batch_size=32", "--config.model.blocks=(1,)"
    evaluate = "--config.evaluate.figures=False", "--config.evaluate.batch_size=64"
    _run_two_processes(tmp_path / "run", *data, *options, *evaluate)
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    expected = evaluation.evaluate_run(tmp_path / "run")
    assert found.keys() == expected.keys() and "alignment" in found
    for name, value in expected.items():
        # Sums are rounded differently, which may turn one of the 51.
        tolerance = 1.01 / 51 if name.startswith(("knn", "linear")) else 0.0
        assert found[name] == pytest.approx(value, rel=1e-3, abs=tolerance), name
