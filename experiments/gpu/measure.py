"""What steps take on the GPU that is here beside what `sslax.plan` says, and SimCLR on CIFAR-10.

    python experiments/gpu/measure.py --output=FOLDER [--cifar10=FILE.npz] [--minutes=10]
    python experiments/gpu/measure.py --output=FOLDER --table
    python experiments/gpu/measure.py --output=FOLDER --tiny     # any machine: does it run?

To carry there: this repository, and for `--cifar10` an archive of CIFAR-10, as pixels or as JPEG
files (docs/data.md). Nothing is downloaded. To install: `pip install -e '.[cuda]'`. Where there is
no network, PYTHONPATH=. in front of the command and JAX for the GPU, flax, optax, orbax-checkpoint,
ml_collections and safetensors are enough for the steps; `--cifar10` takes Pillow and tensorboardX
as well.

Each step is that of `fit`, compiled once for the plan's figures and for the time: the median of
steps that are waited for one by one, on random data that are on the device already. It is timed
from three quarters of the run on, when what begins later, such as SMURF's self-supervision, has
begun. Each has a process of its own, because the allocator's peak is that of a process. The plan's
peak is without the batches that wait on the device in a run, since none do here.

With the time that is left, `--cifar10` trains configs/simclr.py:cifar10, 200 epochs, in
FOLDER/cifar10, and measures it as lightly's benchmark does, whose .848 is the accuracy of k nearest
neighbors, k = 200, T = 0.1, of the same network, batch and number of epochs, and the best of all
epochs; ours is that of the last. When time runs out, the run saves a checkpoint.

The same command goes on where it was stopped, or killed: what is in FOLDER/rows.jsonl is skipped
(delete a line to measure it again), and the run continues from its latest checkpoint. A step that
needs more memory than there is has a line that says so; other failures have none. A step that time
ran out for is measured from its beginning in the next call. At the end, and with `--table`, the
tables are printed.
"""

import argparse
import importlib.util
import json
import os
import runpy
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from sslax import compilation_cache, paths
from sslax.errors import UserError
from sslax.inference.run import open_run
from sslax.measures import knn, linear
from sslax.planning.chips import GIB
from sslax.planning.contents import contents_of
from sslax.planning.measure import Measurement, measure
from sslax.planning.topologies import here
from sslax.tasks import evaluation
from sslax.training import sharding
from sslax.training.fit import fit
from sslax.training.metrics import read_jsonl

CONFIGS = Path(__file__).parents[2] / "configs"
CIFAR10 = "cifar10"
NO_DEVICE = 3  # exit status of a part
WARM_UP, LEAST, MOST, PATIENCE = 3, 5, 50, 20.0  # steps not counted, counted; seconds for them
LATE = 0.75  # of the run: everything has begun
SHORTEST = {CIFAR10: 120.0}  # seconds that a part is worth beginning for; others:
SHORT = 60.0
TO_SAVE = 45.0  # seconds that a run has for its last checkpoint, which may compile its score
LIGHTLY = 0.848  # SimCLR, ResNet-18, 200 epochs, batch 512
MODEST: dict[str, Any] = {  # of `--tiny --cifar10`
    "model.width": 0.125,
    "model.blocks": (1, 1),
    "batch_size": 64,
    "duration": "40 steps",
    "log_every": "2 steps",
    "checkpoint_every": "2 steps",
}


class Part(NamedTuple):
    """A step to be timed: a variant of a method's config, and what one card needs otherwise."""

    method: str
    variant: str
    changes: dict[str, Any]


PARTS = {  # in order of importance
    "SimCLR, ResNet-18": Part("simclr", "cifar10", {}),
    "SimCLR, ResNet-50": Part("simclr", "imagenet", {"batch_size": 256}),
    "MAE, ViT-B": Part("mae", "imagenet", {"batch_size": 256}),
    "Monodepth2": Part("monodepth2", "kitti", {}),
    "SMURF, RAFT": Part("smurf", "sintel", {"batch_size": 4}),
}


def load(method: str, variant: str, changes: dict[str, Any]) -> ConfigDict:
    """A variant of a method's config, changed."""
    config = runpy.run_path(str(CONFIGS / f"{method}.py"))["get_config"](variant)
    config.update_from_flattened_dict(changes)
    return config


def step_row(name: str, tiny: bool) -> dict[str, Any]:
    """The plan's figures of a step, and the measured ones; or that memory is too small for it."""
    part = PARTS[name]
    variant, changes = ("tiny", {}) if tiny else (part.variant, part.changes)
    config = load(part.method, variant, changes)
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    found = measure(config, contents_of(config, variant), here())
    row = {"config": f"{part.method}:{variant}", **planned(found)}
    if found.step is None:
        return row | {"error": "out of memory"}
    try:
        return row | timed(found)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return row | {"error": "out of memory"}


def planned(found: Measurement) -> dict[str, Any]:
    """What the plan says of a step."""
    memory, estimate = found.memory, found.estimate
    traced, compiled = found.seconds
    return {
        "batch": found.batch_size,
        "operations": found.operations,
        "planned_seconds": estimate and estimate.seconds,
        "bound": estimate and estimate.bound,
        "basis": estimate and estimate.basis,
        "planned_peak": memory and memory.peak - memory.waiting,
        "limit": memory and memory.limit,
        "trace_seconds": traced,
        "compile_seconds": compiled,
    }


def timed(found: Measurement) -> dict[str, Any]:
    """The median time of steps, and the device's peak of memory before and after them."""
    state = found.plan.state_on(sharding.make_mesh(list(found.topology.devices)))
    late = np.int32(LATE * found.plan.steps)
    state = state._replace(step=jax.device_put(late, state.step.sharding))
    arrays = synthetic(found)
    before, seconds, began = peak(), [], time.monotonic()
    while len(seconds) < WARM_UP + LEAST or (
        len(seconds) < WARM_UP + MOST and time.monotonic() - began < PATIENCE
    ):
        start = time.perf_counter()
        state, metrics = found.step(state, arrays)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    counted = seconds[WARM_UP:]
    return {
        "steps": len(counted),
        "seconds": statistics.median(counted),
        "fastest_seconds": min(counted),
        "peak_before": before,
        "peak": peak(),
    }


def peak() -> int | None:
    """Bytes that the first device's allocator gave out at most; None where it does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def synthetic(found: Measurement) -> Any:
    """What the run's feed would give, of random values, on the devices."""
    source, shapes = found.contents.source, found.feed.shapes
    values = (
        {name: random_values(name, leaf, found.contents.spec) for name, leaf in shapes.items()}
        if source is None
        else source.arrays
    )
    return jax.tree.map(lambda x, leaf: jax.device_put(x, leaf.sharding), values, shapes)


def random_values(name: str, leaf: jax.ShapeDtypeStruct, spec: dict[str, Any]) -> np.ndarray:
    """Random images and labels; indices in order; a camera that sees 90 degrees; ones."""
    rng, shape = np.random.default_rng(0), leaf.shape
    if name == "image":
        return rng.integers(0, 256, shape, np.uint8)
    if name == "label":
        return rng.integers(0, spec["classes"], shape, np.int32)
    if name in ("order", "index"):
        return np.arange(shape[0], dtype=np.int32)
    if name == "intrinsics":
        height, width = spec["image_shape"][-3:-1]
        camera = [[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]]
        return np.broadcast_to(np.asarray(camera, np.float32), shape)
    return np.ones(shape, leaf.dtype)


def cifar10_row(archive: Path, output: Path, tiny: bool) -> dict[str, Any] | None:
    """Accuracies of the run in `output`, once it is complete; None where it was stopped."""
    compilation_cache.enable(str(output / "compiled"))
    workdir = workdir_of(output, tiny)
    changes = {"data.path": str(archive.absolute()), **(MODEST if tiny else {})}
    config = load("simclr", "cifar10", changes)
    if int(fit(config, workdir).step) < open_run(workdir).plan.steps:
        return None
    began = time.monotonic()
    row = {"config": "simclr:cifar10", "batch": config.batch_size, **scores(workdir)}
    return row | {"evaluation_seconds": time.monotonic() - began, **trained(workdir)}


def scores(workdir: Path) -> dict[str, float]:
    """Accuracies of the features by neighbors, as lightly has it, and by logistic regression."""
    subject = evaluation.open_subject(workdir)
    parts = evaluation.predict_parts(subject, evaluation.predictor_of(subject))
    sets = [
        array
        for part in ("train", "test")
        for array in (parts[part].prediction.features, parts[part].truth.label)
    ]
    classes = subject.dataset.num_classes
    k = min(200, len(sets[0]))
    return {
        "knn": float(knn.knn_accuracy(*sets, num_classes=classes, k=k, temperature=0.1)),
        "linear": linear.logistic_regression(*sets, num_classes=classes).accuracy,
    }


def trained(workdir: Path) -> dict[str, float]:
    """Epochs of a run so far, minutes spent in its steps, images a second, and the online probe."""
    lines = [line for line in read_jsonl(workdir / "metrics.jsonl") if "epoch" in line]
    if not lines:
        return {}
    rates = [line["images_per_second"] for line in lines]
    steps = np.diff([0, *(line["step"] for line in lines)])
    batch = open_run(workdir).config.batch_size
    return {
        "epochs": lines[-1]["epoch"],
        "minutes": float(np.sum(batch * steps / rates)) / 60,
        "images_per_second": statistics.median(rates),
        "probe": lines[-1]["probe_accuracy"],
    }


def run_part(arguments: argparse.Namespace) -> None:
    """Measures one part in this process, and appends its line."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    device, name = jax.devices()[0], arguments.part
    if device.platform == "cpu" and not arguments.tiny:
        print(
            "error: there is no GPU here, or JAX has no plugin for it (pip install 'jax[cuda13]'); "
            "--tiny tries the script on a CPU.",
            file=sys.stderr,
        )
        sys.exit(NO_DEVICE)
    if name == CIFAR10:
        row = cifar10_row(arguments.cifar10, arguments.output, arguments.tiny)
    else:
        row = step_row(name, arguments.tiny)
    if row:
        about = {"name": name, "tiny": arguments.tiny, "jax": jax.__version__}
        about |= {"device": device.device_kind, "devices": jax.device_count()}
        with rows_file(arguments.output).open("a") as file:
            file.write(json.dumps(about | row) + "\n")


def end_with_parent() -> None:
    """Ends this process when the one that began it is gone, even by a kill: its pipe closes."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def begin_part(arguments: argparse.Namespace, name: str, deadline: float) -> int | None:
    """Runs a part in a process of its own; its exit status, or None where its time ran out.

    This process never asks for a device: it would hold memory of it.
    """
    command = [sys.executable, *sys.argv, f"--part={name}"]
    spare = TO_SAVE if name == CIFAR10 else 0.0
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            return process.wait(max(deadline - spare - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.terminate()  # a run saves a checkpoint
        try:
            process.wait(spare)
        except subprocess.TimeoutExpired:
            process.kill()
    return None


def run_all(arguments: argparse.Namespace) -> bool:
    """Begins the parts that have no line yet while there is time; whether none failed."""
    deadline, good = time.monotonic() + 60 * arguments.minutes, True
    prepare(arguments)
    done = {(row["name"], row["tiny"]) for row in read_rows(arguments.output)}
    for name in (*PARTS, *([CIFAR10] if arguments.cifar10 else [])):
        left = deadline - time.monotonic()
        if (name, arguments.tiny) in done:
            print(f"== {name}: measured before", flush=True)
        elif left < SHORTEST.get(name, SHORT):
            print(f"== {name}: {max(left, 0):.0f} s are left; the same command goes on", flush=True)
        else:
            print(f"== {name}: begins with {left:.0f} s left", flush=True)
            status = begin_part(arguments, name, deadline)
            if status == NO_DEVICE:
                sys.exit(1)
            if status is None:
                print(f"== {name}: out of time; the same command goes on", flush=True)
            elif status:
                good = False
                print(f"== {name}: ended with status {status}, see above", flush=True)
    return good


def rows_file(output: Path) -> Path:
    return output / "rows.jsonl"


def workdir_of(output: Path, tiny: bool) -> Path:
    return output / (f"{CIFAR10}-tiny" if tiny else CIFAR10)


def read_rows(output: Path) -> list[dict[str, Any]]:
    """The lines of all calls."""
    file = rows_file(output)
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def tables(output: Path, tiny: bool) -> str:
    """Markdown: the steps, and the run on CIFAR-10."""
    rows = {row["name"]: row for row in read_rows(output) if row["tiny"] == tiny}
    parts = [step_table([rows[name] for name in PARTS if name in rows])]
    run = rows.get(CIFAR10) or trained(workdir_of(output, tiny))
    return "\n\n".join([*parts, cifar10_table(run)] if run else parts)


def step_table(rows: list[dict[str, Any]]) -> str:
    """The plan's figures and the measured ones."""
    devices = sorted({f"{r['devices']} x {r['device']}, jax {r['jax']}" for r in rows})
    head = (
        *("step", "config", "batch", "plan, ms", "measured, ms", "measured / plan", "images/s"),
        *("plan, GiB", "measured, GiB", "measured / plan", "compiling, s"),
    )
    lines = [f"{', '.join(devices) or 'no step measured yet'}", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        seconds, before = row.get("seconds"), row.get("peak_before")
        # A peak that was there before the first step says only that steps need no more.
        at_most = "≤ " if before and before == row["peak"] else ""
        cells = [
            *(row["name"], row["config"], f"{row['batch']}"),
            number(row["planned_seconds"], 1e-3, "≥ " if row["bound"] else ""),
            row.get("error") or number(seconds, 1e-3),
            quotient(seconds, row["planned_seconds"]),
            f"{row['batch'] / seconds:,.0f}" if seconds else "",
            number(row["planned_peak"], GIB),
            number(row.get("peak"), GIB, at_most),
            quotient(row.get("peak"), row["planned_peak"]),
            f"{row['compile_seconds']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cifar10_table(run: dict[str, Any]) -> str:
    """The run on CIFAR-10 beside lightly's; as far as it is."""
    head = ("SimCLR on CIFAR-10", "epochs", "kNN, k = 200", "linear", "online probe", "images/s")
    cells = [
        *("sslax, last epoch", f"{run['epochs']:.3g}"),
        *(f"{run[name]:.3f}" if name in run else "" for name in ("knn", "linear", "probe")),
        *(f"{run['images_per_second']:,.0f}", f"{run['minutes']:.1f}"),
    ]
    lightly = ["lightly, best epoch", "200", f"{LIGHTLY}", "", "", "", "87.1 (A6000)"]
    lines = ["| " + " | ".join([*head, "minutes"]) + " |", "|---" * 7 + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in (cells, lightly))])


def number(value: float | None, unit: float, sign: str = "") -> str:
    """A number of units, with three digits at least; nothing where it is not known."""
    if value is None:
        return ""
    value /= unit
    return f"{sign}{value:,.0f}" if value >= 100 else f"{sign}{value:.3g}"


def quotient(measured: float | None, plan: float | None) -> str:
    return f"{measured / plan:.2f}" if measured and plan else ""


def prepare(arguments: argparse.Namespace) -> None:
    """Makes the output's folder.

    Raises:
        UserError: something that is needed is missing.
    """
    archive, output = arguments.cifar10, arguments.output
    if archive and not archive.is_file():
        raise UserError(f"--cifar10={archive}: there is no such file.")
    missing = [name for name in ("PIL", "tensorboardX") if not importlib.util.find_spec(name)]
    if archive and missing:
        raise UserError(
            f"--cifar10 needs what is not installed, {', '.join(missing)}: pip install pillow "
            "tensorboardX, or carry their wheels."
        )
    paths.check_output(output, "--output", folder=True)
    output.mkdir(parents=True, exist_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="a folder for each machine")
    parser.add_argument("--cifar10", type=Path, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of it")
    parser.add_argument(
        "--tiny", action="store_true", help="the tests' small configs, on any device"
    )
    parser.add_argument("--table", action="store_true", help="print the tables and end")
    parser.add_argument("--part", choices=[*PARTS, CIFAR10], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        if arguments.part:
            run_part(arguments)
            return
        good = arguments.table or run_all(arguments)
        print(tables(arguments.output, arguments.tiny))
        sys.exit(0 if good else 1)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on.")


if __name__ == "__main__":
    main()
