"""Runs that are killed at random, and a run with hundreds of checkpoints: is anything lost or left?

    python experiments/durability.py --output=FOLDER [--kills=8] [--saves=500] [--only METHOD ...]

Each method's `tiny` config is trained once undisturbed, and once more with `--kills` kills
(SIGKILL) at moments drawn evenly over the time that the undisturbed run took, each followed by the
same command. The killed run must end with the same bits: parameters, optimizer, batch statistics,
queues, momentum copies and random key, its metrics and its exported encoder. Then one run saves
`--saves` checkpoints, and its file descriptors and threads are counted on the way. Prints a table
each.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sslax.inference.run import open_run, read_state
from sslax.training import checkpoint, metrics, sharding
from sslax.types import TrainState

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = ("simclr", "moco", "dino", "uflow", "monodepth2")


def command(method: str, workdir: Path, steps: int) -> list[str]:
    return [
        *(sys.executable, "-m", "sslax.main", f"--config={CONFIGS / method}.py:tiny"),
        *(f"--workdir={workdir}", f"--config.duration={steps} steps"),
        *("--config.log_every=1 step", "--config.checkpoint_every=3 steps"),
        "--config.evaluate.at_end=False",
    ]


def train(method: str, workdir: Path, steps: int, after: float | None = None) -> bool:
    """Whether the run came to its end; it is killed `after` seconds."""
    log = (workdir.parent / f"{workdir.name}.log").open("a")
    with log, subprocess.Popen(command(method, workdir, steps), stdout=log, stderr=log) as process:
        try:
            if process.wait(after):
                raise SystemExit(f"The run failed; see {log.name}.")
            return True
        except subprocess.TimeoutExpired:
            process.kill()
            return False


def content(workdir: Path) -> dict[str, np.ndarray]:
    """All that a finished run leaves, by name, but for times."""
    state = read_state(open_run(workdir), sharding.make_mesh(jax.devices()[:1]))
    state = state._replace(rng=jax.random.key_data(state.rng))
    found = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}
    for line in metrics.read_jsonl(workdir / "metrics.jsonl"):
        for name, value in line.items():
            if name not in ("images_per_second", "time"):
                found[f"{name} of step {line['step']}"] = value
    found["encoder"] = np.frombuffer((workdir / "encoder.safetensors").read_bytes(), np.uint8)
    return {name: np.asarray(value) for name, value in found.items()}


def kill(method: str, folder: Path, kills: int, steps: int, rng: random.Random) -> tuple[int, int]:
    """How many times runs were killed, and how many values differ where they ended."""
    train(method, folder / f"{method}-compiles", steps)  # fills the compilation cache
    began = time.monotonic()
    train(method, folder / method, steps)
    seconds = time.monotonic() - began
    expected, workdir = content(folder / method), folder / f"{method}-killed"
    done = differ = 0
    while done < kills:
        while not train(method, workdir, steps, rng.uniform(0, seconds) if done < kills else None):
            done += 1
        found = content(workdir)
        shutil.rmtree(workdir)
        same = [
            name
            for name, value in expected.items()
            if name in found and np.array_equal(found[name], value)
        ]
        differ += len(expected.keys() | found.keys()) - len(same)
    return done, differ


def save(folder: Path, saves: int) -> None:
    """Prints how many descriptors and threads are open after some of the saves."""
    leaf = jnp.zeros((256, 256))
    state = TrainState(jnp.int32(0), {"w": leaf}, {}, {}, {"m": leaf}, jax.random.key(0))
    print("\n| checkpoints saved | open descriptors | threads |\n|---|---|---|")
    with checkpoint.Checkpoints(folder / "saves") as checkpoints:
        for step in range(1, saves + 1):
            checkpoints.save(step, state._replace(step=jnp.int32(step)), score=0.0)
            if step in (1, 10, saves // 2, saves):
                checkpoints.wait()
                threads = len(os.listdir("/proc/self/task"))
                print(f"| {step} | {len(os.listdir('/proc/self/fd'))} | {threads} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--kills", type=int, default=8, help="of each method")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--saves", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=METHODS)
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"--output={arguments.output} exists: name a new folder")
    arguments.output.mkdir(parents=True)
    cache = arguments.output.absolute() / "compiled"
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    rng = random.Random(arguments.seed)
    print("| method | killed | values that differ |\n|---|---|---|")
    for method in arguments.only:
        done, lost = kill(method, arguments.output, arguments.kills, arguments.steps, rng)
        print(f"| {method} | {done} times | {lost} |", flush=True)
    save(arguments.output, arguments.saves)


if __name__ == "__main__":
    main()
