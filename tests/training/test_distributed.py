"""Two processes of four devices each, on loopback, end like one process of eight, and of one."""

import socket

import jax
import numpy as np
import runs

from sslax.inference.run import open_run, read_state
from sslax.training import sharding

OPTIONS = ("--config.duration=6 steps", "--config.evaluate.at_end=False")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _params(workdir):
    return read_state(open_run(workdir), sharding.make_mesh(jax.devices()[:1])).params


def _assert_close(ours, theirs):
    # Sums over devices round differently; six steps of training magnify that a little.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=1e-3), ours, theirs)


def test_two_processes_get_the_result_of_one(tmp_path):
    single = tmp_path / "single"
    status, output = runs.finish(runs.start(runs.command(single, *OPTIONS), runs.environment()))
    assert status == 0, output

    together = tmp_path / "together"
    port = _free_port()
    processes = [
        runs.start(
            runs.command(
                together,
                *OPTIONS,
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
    _assert_close(_params(together), _params(single))
