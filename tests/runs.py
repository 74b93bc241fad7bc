"""Real runs in processes of their own: the tiny config, killed, resumed, distributed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def command(workdir, *options, variant="tiny"):
    """The command line of a run of the SimCLR config."""
    config = ROOT / "configs" / "simclr.py"
    return [
        *(sys.executable, "-m", "sslax.main", f"--config={config}:{variant}"),
        f"--workdir={workdir}",
        *options,
    ]


def environment(devices=1):
    """One or more CPU devices, and the compilation cache of the tests."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }


def start(arguments, env):
    """The run, going on in the background, its output piped."""
    return subprocess.Popen(
        arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process, timeout=180):
    """(exit status, output) of a run that ends by itself."""
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def interrupt_when(process, condition, number=signal.SIGKILL, timeout=120):
    """Sends the signal as soon as `condition()` holds; fails if the run ended before."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            raise AssertionError(
                f"the run ended before it was interrupted:\n{process.stdout.read()}"
            )
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError("the run never got to where it was to be interrupted")
        time.sleep(0.002)
    process.send_signal(number)
