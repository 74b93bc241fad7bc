"""A run that is killed, again and again, ends with the same bits as one that is not."""

import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import runs

from sslax.errors import UserError
from sslax.inference.run import open_run, read_state
from sslax.training import metrics, sharding
from sslax.training.fit import fit

OPTIONS = ("--config.duration=40 steps", "--config.evaluate.at_end=False")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    status, output = runs.finish(runs.start(runs.command(workdir, *OPTIONS), runs.environment()))
    assert status == 0, output
    return workdir


def final_state(workdir):
    state = read_state(open_run(workdir), sharding.make_mesh(jax.devices()[:1]))
    return state._replace(rng=jax.random.key_data(state.rng))


def assert_same_run(workdir, other):
    ours, theirs = final_state(workdir), final_state(other)
    for path, leaf in jax.tree.leaves_with_path(ours):
        expected = dict(jax.tree.leaves_with_path(theirs))[path]
        np.testing.assert_array_equal(leaf, expected, err_msg=jax.tree_util.keystr(path))
    curves = [
        [(line["step"], line["loss"], line["probe_accuracy"]) for line in lines]
        for lines in (metrics.read_jsonl(folder / "metrics.jsonl") for folder in (workdir, other))
    ]
    assert curves[0] == curves[1]


def lines(workdir):
    return len(metrics.read_jsonl(workdir / "metrics.jsonl"))


def saving(workdir):
    """Whether a checkpoint beyond the first is being written right now."""
    folder = workdir / "checkpoints"
    return folder.exists() and any(
        "tmp" in entry.name and not entry.name.startswith("4.") for entry in folder.iterdir()
    )


def test_killed_many_times(tmp_path, undisturbed):
    conditions = [
        lambda: (tmp_path / "config.json").exists(),  # before the first step
        lambda: lines(tmp_path) >= 3,  # after a checkpoint
        lambda: saving(tmp_path),  # during a save
        lambda: lines(tmp_path) >= 14,  # between checkpoints
    ]
    for condition in conditions:
        process = runs.start(runs.command(tmp_path, *OPTIONS), runs.environment())
        runs.interrupt_when(process, condition)
        assert runs.finish(process)[0] == -signal.SIGKILL
    status, output = runs.finish(runs.start(runs.command(tmp_path, *OPTIONS), runs.environment()))
    assert status == 0 and "Resuming from step" in output, output
    assert_same_run(tmp_path, undisturbed)


def test_ctrl_c_and_sigterm_save_and_the_run_goes_on_while_it_is_read(tmp_path, undisturbed):
    """A second trainer is refused meanwhile, without harm to the first."""
    stopped = 0
    for number, after in ((signal.SIGINT, 3), (signal.SIGTERM, 7)):
        process = runs.start(runs.command(tmp_path, *OPTIONS), runs.environment())
        runs.interrupt_when(process, lambda after=after: lines(tmp_path) >= after, number)
        status, output = runs.finish(process)
        assert status == 75 and "Traceback" not in output, output
        assert not stopped or f"Resuming from step {stopped}." in output, output
        assert ("Ctrl-C again ends at once." in output) == (number == signal.SIGINT)
        before, stopped = stopped, int(final_state(tmp_path).step)
        assert f"Stopped at step {stopped}; the same command resumes from there." in output
        assert max(before, 6) <= stopped < 40

    process, written = (
        runs.start(runs.command(tmp_path, *OPTIONS), runs.environment()),
        lines(tmp_path),
    )
    runs.interrupt_when(process, lambda: lines(tmp_path) > written, signal.SIGSTOP)
    curve = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match=f"is in use: process {process.pid} on"):
        fit(open_run(tmp_path).config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == curve
    process.send_signal(signal.SIGCONT)
    while process.poll() is None:
        final_state(tmp_path)
    status, output = runs.finish(process)
    assert status == 0 and f"Resuming from step {stopped}." in output, output
    state, expected = final_state(tmp_path), final_state(undisturbed)
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """Also where the main thread does not come back to Python, as while compiling."""
    code = (
        "import hashlib; from sslax.training.loop import StopRequest\n"
        "with StopRequest():\n"
        "    print('ready', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # minutes in C
    )
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=runs.environment(), **piped) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert "Ctrl-C again" in process.stderr.readline() + process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130


def test_another_config_is_refused_in_one_sentence(undisturbed):
    before = (undisturbed / "config.json").read_text()
    config = open_run(undisturbed).config
    rate, config.optimizer.learning_rate = config.optimizer.learning_rate, 0.7
    with pytest.raises(UserError, match=f"config.optimizer.learning_rate: was {rate}, now 0.7"):
        fit(config, undisturbed)
    assert (undisturbed / "config.json").read_text() == before
