"""Which network, views and schedule should `configs/simclr.py` train by default?

    python experiments/search_default.py --output=search.jsonl [--only=NAME ...] [--seconds=150]

Trains each candidate below on the embedded data, evaluates it as `sslax.evaluate` does, and appends
a line to the output; candidates that are already in it are skipped, so the search can be broken off
and gone on with. Candidates differ from the default config in the overrides they name. With
`--seconds` every candidate's duration is cut so that its training takes about that long here,
measured on its own first steps: networks are then compared at equal cost.

The measured table, and what was concluded from it, is in experiments/README.md.
"""

import argparse
import json
import runpy
import tempfile
import time
from pathlib import Path

from sslax import train
from sslax.evaluate import run

CONFIG = Path(__file__).parents[1] / "configs" / "simclr.py"
CANDIDATES: dict[str, dict] = {
    "default": {},
}


def candidate_config(overrides: dict):
    config = runpy.run_path(str(CONFIG))["get_config"]()
    config.evaluate.figures = False
    config.update_from_flattened_dict(overrides)
    return config


def steps_per_second(overrides: dict) -> float:
    """Measured on a short run of the candidate, without its compilation."""
    config = candidate_config(overrides)
    config.update(duration="30 steps", log_every="10 steps", checkpoint_every="30 steps")
    config.optimizer.warmup = "1 steps"
    with tempfile.TemporaryDirectory() as workdir:
        train.fit(config, workdir)
        lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").open()]
    return lines[-1]["images_per_second"] / config.batch_size


def measure(name: str, seconds: float | None) -> dict:
    overrides = dict(CANDIDATES[name])
    if seconds:
        steps = round(steps_per_second(overrides) * seconds)
        overrides["duration"] = f"{steps} steps"
        overrides["optimizer.warmup"] = f"{steps // 10} steps"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as workdir:
        state = train.fit(candidate_config(overrides), workdir)
        trained = time.monotonic()
        results = run.evaluate_run(workdir)
    shown = ("knn", "knn20", "linear", "linear_10_labels", "knn_10_labels")
    return {
        "name": name,
        "steps": int(state.step),
        "train_seconds": round(trained - began, 1),
        **{key: round(results[key], 4) for key in shown},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=sorted(CANDIDATES))
    parser.add_argument("--seconds", type=float)
    arguments = parser.parse_args()
    done = set()
    if arguments.output.exists():
        done = {json.loads(line)["name"] for line in arguments.output.open()}
    for name in arguments.only or CANDIDATES:
        if name not in done:
            row = measure(name, arguments.seconds)
            print(row, flush=True)
            with arguments.output.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
