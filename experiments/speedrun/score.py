"""Scores features of CIFAR-10, ours or a peer's, and adds a line to the scoreboard's file.

    python experiments/speedrun/score.py FEATURES.npz --cifar10=FILE.npz --output=scores.jsonl

The archive has the features `train` and `test`, `[N, D]`, of all images in the order of the data,
and `about`, a JSON text that is copied to the line.
"""

import argparse
import json
from pathlib import Path

import cifar
import numpy as np

from sslax.measures import knn, linear


def score(train: np.ndarray, test: np.ndarray, archive: Path) -> dict[str, float]:
    """kNN, and logistic regression whose strength is chosen on a fifth of the training images."""
    truth = cifar.labels(archive, "train"), cifar.labels(archive, "test")
    sets = train, truth[0], test, truth[1]
    return {
        "knn20": float(knn.knn_accuracy(*sets, num_classes=10, k=20, temperature=0.07)),
        "knn200": float(knn.knn_accuracy(*sets, num_classes=10, k=200, temperature=0.1)),
        "linear": linear.logistic_regression(*sets, num_classes=10).accuracy,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=cifar.existing)
    parser.add_argument("--cifar10", type=cifar.existing, required=True)
    parser.add_argument("--output", type=cifar.writable, required=True)
    arguments = parser.parse_args()
    with np.load(arguments.features) as arrays:
        line = json.loads(str(arrays["about"])) | {"width": arrays["train"].shape[1]}
        line |= score(arrays["train"], arrays["test"], arguments.cifar10)
    print(line)
    with arguments.output.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
