"""Compares views, networks and durations for the default of `configs/simclr.py`.

    python experiments/search_default.py --output=search.jsonl [--only NAME ...]

Trains each candidate below on the embedded data, evaluates it as `sslax.evaluate` does, and appends
a line to the output. Candidates already in it are skipped, so an interrupted search resumes where
it stopped. A candidate is the default config with some values replaced. Results and conclusions are
in experiments/README.md.
"""

import argparse
import json
import runpy
import tempfile
import time
from pathlib import Path

from sslax.tasks.evaluation import evaluate_run
from sslax.training.fit import fit

CONFIG = Path(__file__).parents[1] / "configs" / "simclr.py"
SHORT = {"duration": "20 epochs"}
CANDIDATES: dict[str, dict] = {
    "default (30 epochs)": {},
    "20 epochs": SHORT,
    "temperature 0.2": {**SHORT, "simclr.temperature": 0.2},
    "nothing erased": {**SHORT, "augment.erase": 0.0},
    "crops from 0.3": {**SHORT, "augment.crop_scale": (0.3, 1.0)},
    "three stages": {**SHORT, "model.blocks": (1, 1, 1)},
    "7x7 stem and max-pool": {**SHORT, "model.patch_stem": 0},
}
SHOWN = ("knn", "knn20", "linear", "knn_10_labels", "linear_10_labels")


def measure(overrides: dict) -> dict:
    """Training time in seconds and accuracies of one candidate."""
    config = runpy.run_path(str(CONFIG))["get_config"]()
    config.evaluate.figures = False
    config.update_from_flattened_dict(overrides)
    with tempfile.TemporaryDirectory() as workdir:
        began = time.monotonic()
        fit(config, workdir)
        seconds = round(time.monotonic() - began)
        results = evaluate_run(workdir)
    return {"train_seconds": seconds, **{name: round(results[name], 4) for name in SHOWN}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=sorted(CANDIDATES))
    arguments = parser.parse_args()
    lines = arguments.output.read_text().splitlines() if arguments.output.exists() else []
    done = {json.loads(line)["name"] for line in lines}
    for name in arguments.only or CANDIDATES:
        if name not in done:
            row = {"name": name, **measure(CANDIDATES[name])}
            print(row, flush=True)
            with arguments.output.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
