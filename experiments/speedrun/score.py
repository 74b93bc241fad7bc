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

RIDGES = tuple(10.0 ** (i / 2) for i in range(2, 9))


def score(train: np.ndarray, test: np.ndarray, archive: Path) -> dict[str, float]:
    """Accuracies of ridge regression and of neighbors."""
    truth = cifar.labels(archive, "train"), cifar.labels(archive, "test")
    sets = train, truth[0], test, truth[1]
    return {
        "linear": ridge_regression(*sets),
        "knn20": float(knn.knn_accuracy(*sets, num_classes=10, k=20, temperature=0.07)),
        "knn200": float(knn.knn_accuracy(*sets, num_classes=10, k=200, temperature=0.1)),
    }


def ridge_regression(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray
) -> float:
    """Accuracy of the linear map that fits one-hot labels best, on standardized features.

    `(X^T X + r I) W = X^T Y`; r is the one of `RIDGES` that classifies a fifth of the training
    images best when fitted to the others.
    """
    mean, deviation = train.mean(0), np.maximum(train.std(0), 1e-6)
    x, z = ((part - mean) / deviation for part in (train, test))
    held_out = linear.held_out_mask(labels)
    targets = np.eye(labels.max() + 1, dtype=x.dtype)[labels] - np.float32(0.1)
    products = {
        is_held_out: (x[rows].T @ x[rows], x[rows].T @ targets[rows])
        for is_held_out, rows in ((False, ~held_out), (True, held_out))
    }

    def weights(gram: np.ndarray, sums: np.ndarray, ridge: float) -> np.ndarray:
        return np.linalg.solve(gram + np.float32(ridge) * np.eye(len(gram), dtype=x.dtype), sums)

    def accuracy(weights: np.ndarray, features: np.ndarray, wanted: np.ndarray) -> float:
        return float(((features @ weights).argmax(1) == wanted).mean())

    best = max(
        RIDGES,
        key=lambda r: accuracy(weights(*products[False], r), x[held_out], labels[held_out]),
    )
    gram, sums = (kept + left for kept, left in zip(products[False], products[True]))
    return accuracy(weights(gram, sums, best), z, truth)


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
