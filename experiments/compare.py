"""Compares the features of all representation methods, trained with the same budget.

    python experiments/compare.py --output=FOLDER [--cifar10=FILE.npz] [--only METHOD ...]

Trains each method of `METHODS` on two sets with the same network, batch size and number of epochs,
and evaluates its features by nearest neighbors, a linear probe, and the best linear probe over all
stages. The baselines are raw pixels and the network before training. The learning rate comes from
each method's config; nothing else is tuned.

Each run is a folder below the output, and each result a line of `results.jsonl` there. An
interrupted script resumes where it stopped; it ends with `table.md`, `chart.png`, `losses.png` and
`tasks.png`. Results and conclusions are in experiments/README.md.

`--cifar10` names an archive of images, with `x_train`, `y_train`, `x_test` and `y_test`, or of JPEG
files: `jpeg_train` (their bytes, concatenated), `off_train` (where each begins) and `y_train`, and
the same for `test`. A random subset of 8,000 and 2,000 images is used.
"""

import argparse
import io
import json
import runpy
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from sslax import data, figures
from sslax.figures import style
from sslax.figures.progress import read_series
from sslax.inference.predictor import visualize
from sslax.inference.run import open_run, read_state
from sslax.measures import knn, linear, representation
from sslax.tasks import evaluation
from sslax.tasks.base import Evaluated, Parts
from sslax.training import sharding
from sslax.training.fit import fit
from sslax.types import Features, Labels

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = (
    *("supervised", "sup_con", "simclr", "moco", "moco_v3", "barlow_twins", "vicreg", "byol"),
    *("simsiam", "nnclr", "tico", "swav", "deepcluster_v2", "dino", "ibot", "dinov2", "w_mse"),
    *("mmcr", "lejepa", "visreg", "emp_ssl", "msn", "mae", "simmim", "data2vec2", "ijepa"),
    *("rotation", "jigsaw", "context_prediction", "inpainting", "colorization"),
)
BUDGET = {
    "duration": "10 epochs",
    "optimizer.warmup": "1 epochs",
    "checkpoint_every": "5 epochs",
    "log_every": "31 steps",
    "evaluate.figures": False,
}
# What changes from the gray embedded images to small color images.
COLOR = {
    "model.mean": (0.49, 0.48, 0.45),
    "model.std": (0.25, 0.24, 0.26),
    "data.channels": 3,
    "data.labels": True,
    "data.image_size": 0,
}
COLOR_VIEWS = {"augment.crop_scale": (0.2, 1.0), "augment.grayscale": 0.2, "augment.erase": 0.0}
STANDARDIZED = ("jigsaw", "context_prediction", "colorization")  # their input is not a plain image
SIZES = {"jigsaw": 48, "context_prediction": 64}  # others at 32
TASKS = ("context_prediction", "jigsaw", "rotation", "inpainting", "colorization", "mae")
SHOWN = 4  # the first image in the picture of the tasks
SCORES = ("knn", "linear", "best_stage")


def config_of(method: str, dataset: str, archive: Path | None) -> ConfigDict:
    """The method's default config with the common budget, on 'embedded' or 'cifar10'."""
    config = runpy.run_path(str(CONFIGS / f"{method}.py"))["get_config"]()
    config.update_from_flattened_dict(BUDGET)
    if dataset == "embedded":
        return config
    changes = {**COLOR, "data.source": "npz", "data.path": str(archive)}
    if method in STANDARDIZED:
        changes = {k: v for k, v in changes.items() if not k.startswith("model.")}
    elif "erase" in config.augment:
        changes |= COLOR_VIEWS
    if "local" in config.augment:
        config.augment.local.crop_scale = (0.1, 0.4)
    config.update_from_flattened_dict(changes)
    config.augment.size = SIZES.get(method, 32)
    config.evaluate.data = {}
    return config


def subset_of_cifar10(source: Path, target: Path) -> None:
    """Writes a random 8,000 training and 2,000 test images in the format of `data.source=npz`."""
    if target.exists():
        return
    rng, arrays = np.random.default_rng(0), {}
    with np.load(source) as archive:
        for part, count in (("train", 8000), ("test", 2000)):
            labels = archive[f"y_{part}"]
            rows = np.sort(rng.permutation(len(labels))[:count])
            if f"x_{part}" in archive:
                images = archive[f"x_{part}"][rows]
            else:
                stream, offsets = archive[f"jpeg_{part}"], archive[f"off_{part}"]
                pieces = (stream[offsets[i] : offsets[i + 1]].tobytes() for i in rows)
                images = np.stack([np.asarray(Image.open(io.BytesIO(piece))) for piece in pieces])
            arrays |= {f"x_{part}": images, f"y_{part}": labels[rows].astype(np.int64)}
    np.savez(target, **arrays)


def scores_of(parts: Parts, classes: int) -> dict[str, float]:
    """kNN (k = 20) and linear accuracy of the features, and the best stage's linear accuracy."""
    train, test = (_named(parts[part].prediction) for part in ("train", "test"))
    train_labels, test_labels = (parts[part].truth.label for part in ("train", "test"))

    def probe(name: str) -> float:
        return linear.logistic_regression(
            train[name],
            train_labels,
            test[name],
            test_labels,
            num_classes=classes,
            l2=1e-2,
            tolerance=1e-3,
        ).accuracy

    stages = {name: probe(name) for name in train}
    best = max(stages, key=stages.get)
    nearest = knn.knn_accuracy(
        train["features"],
        train_labels,
        test["features"],
        test_labels,
        num_classes=classes,
        k=20,
        temperature=0.07,
    )
    return {
        "knn": nearest,
        "linear": stages["features"],
        "best_stage": stages[best],
        "which_stage": best,
    }


def _named(features: Features) -> dict[str, np.ndarray]:
    return {"features": features.features, **features.stages}


def pixels_of(dataset: data.Dataset) -> Parts:
    """Raw pixels as features."""
    parts = {}
    for part in ("train", "test"):
        source = getattr(dataset, part)
        rows = [source[i] for i in range(len(source))]
        images = np.stack([row["image"] for row in rows])
        features = np.asarray(representation.pixel_features(images, max_side=32))
        labels = np.array([row["label"] for row in rows])
        parts[part] = Evaluated(Features(features, {}), Labels(labels))
    return parts


def measure(config: ConfigDict, folder: Path) -> dict:
    """Trains in `folder` and measures the trained encoder and the untrained one."""
    began = time.monotonic()
    fit(config, folder)
    seconds = round(time.monotonic() - began)
    subject = evaluation.open_subject(folder)
    predictor = evaluation.predictor_of(subject)
    trained, untrained = (
        scores_of(
            evaluation.predict_parts(subject, predictor.using(variables)),
            subject.dataset.num_classes,
        )
        for variables in subject.networks.values()
    )
    return {
        "train_seconds": seconds,
        **trained,
        **{f"{name}_untrained": untrained[name] for name in SCORES},
    }


def table(rows: list[dict], dataset: str) -> str:
    """The results on one set as a Markdown table, in %."""
    lines = [
        "| method | kNN | linear | best stage | untrained: kNN | linear | best stage | training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["dataset"] != dataset:
            continue
        cells = [f"{100 * row[name]:.1f}" if name in row else "" for name in SCORES]
        if "which_stage" in row:
            cells[2] += f" ({row['which_stage']})"
            cells += [f"{100 * row[f'{name}_untrained']:.1f}" for name in SCORES]
            cells.append(f"{row['train_seconds']} s")
        else:
            cells += [""] * 4
        lines.append(f"| {row['method']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chart(rows: list[dict], path: Path) -> None:
    """Bars of the three scores for each method, a panel for each set, pixels as lines."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    names = {"knn": "kNN, k = 20", "linear": "linear", "best_stage": "linear, best stage"}
    with style.page(path, 10.5, 0.6 + 3.1 * len(datasets)) as figure:
        style.heading(
            figure,
            "What each method's features hold",
            f"test accuracy after {BUDGET['duration']}; black marks: the network before training",
        )
        grid = figure.subplots(len(datasets), 1, squeeze=False)[:, 0]
        for axes, dataset in zip(grid, datasets):
            of_set = [row for row in rows if row["dataset"] == dataset]
            methods = [row for row in of_set if "which_stage" in row]
            place = np.arange(len(methods))
            for i, (score, label) in enumerate(names.items()):
                x = place + 0.27 * (i - 1)
                bars = {"width": 0.25, "color": style.PALETTE[i], "label": label}
                axes.bar(x, [100 * row[score] for row in methods], **bars)
                before = [100 * row[f"{score}_untrained"] for row in methods]
                axes.plot(x, before, linestyle="", marker="_", markersize=7, color="black")
            for row in of_set:
                if row["method"] == "pixels":
                    for i, score in enumerate(("knn", "linear")):
                        line = {"color": style.PALETTE[i], "linestyle": "--", "linewidth": 1}
                        axes.axhline(100 * row[score], **line, label=f"pixels, {names[score]}")
            labels = [row["method"].replace("_", "\n") for row in methods]
            axes.set_xticks(place, labels, fontsize=7)
            axes.grid(False, axis="x")
            low = min(min(r[f"{s}_untrained"] for r in methods for s in SCORES), 1.0)
            axes.set_ylim(max(0, 100 * low - 12), None)
            axes.set_title(dataset)
            axes.set_ylabel("accuracy, %")
        grid[0].legend(loc="upper right", ncols=5, fontsize=7.5)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.55 / figure.get_figheight()))


def loss_curves(folder: Path, path: Path) -> None:
    """A panel for each method's run: the loss, its value at chance, and the online probe."""
    runs = [m for m in METHODS if (folder / m / "metrics.jsonl").exists()]
    columns = 4
    lines = -(-len(runs) // columns)
    with style.page(path, 10.5, 0.6 + 1.75 * lines) as figure:
        style.heading(
            figure,
            "Losses of real runs",
            "dashed: the loss at chance; green, from 0 to 1: accuracy of the online probe",
        )
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat[len(runs) :]:
            axes.set_visible(False)
        for axes, method in zip(grid.flat, runs):
            series = read_series(folder / method / "metrics.jsonl")
            axes.plot(*series["loss"], color=style.LINE)
            axes.plot(*series["loss_at_chance"], color=style.FAINT, linestyle="--", linewidth=1)
            axes.set_title(method)
            axes.set_xticks([])
            if "probe_accuracy" in series:
                probe = axes.twinx()
                probe.plot(*series["probe_accuracy"], color=style.RIGHT, linewidth=0.9)
                probe.set_ylim(0, 1)
                probe.set_yticks([])
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.55 / figure.get_figheight()))


def tasks(folder: Path, path: Path) -> None:
    """Inputs and predictions of the methods with a pretext task, on three images each."""
    pages = []
    for method in TASKS:
        run = open_run(folder / method)
        state = read_state(run, sharding.make_mesh())
        source = data.load(run.config.data).test
        images = np.stack([source[i]["image"] for i in range(SHOWN, SHOWN + 3)])
        batch = {"image": images, "index": np.arange(len(images), dtype=np.int32)}
        columns = visualize(run.plan.method, state.variables, batch, jax.random.key(0))
        page = path.with_name(f"task_{method}.png")
        figures.task_grid(columns, page, title=method)
        pages.append(Image.open(page).convert("RGB"))
    sides = (sum(page.width for page in pages[:3]), pages[0].height + 8)
    canvas = Image.new(
        "RGB", (max(sides[0], sum(p.width for p in pages[3:])), 2 * sides[1]), "white"
    )
    for row in range(2):
        left = 0
        for page in pages[3 * row : 3 * row + 3]:
            canvas.paste(page, (left, row * sides[1]))
            left += page.width
    canvas.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=METHODS)
    arguments = parser.parse_args()
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "cifar10_subset.npz"
    datasets = ["embedded"]
    if arguments.cifar10:
        subset_of_cifar10(arguments.cifar10, archive)
        datasets.append("cifar10")
    results = folder / "results.jsonl"
    rows = (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )

    def keep(row: dict) -> None:
        rows.append(row)
        print(row, flush=True)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")

    for method in ("pixels", *arguments.only):
        for dataset in datasets:
            if any((row["method"], row["dataset"]) == (method, dataset) for row in rows):
                continue
            name = {"method": method, "dataset": dataset}
            if method == "pixels":
                opened = data.load(config_of("simclr", dataset, archive).data)
                scores = scores_of(pixels_of(opened), opened.num_classes)
                keep({**name, "knn": scores["knn"], "linear": scores["linear"]})
            else:
                config = config_of(method, dataset, archive)
                keep({**name, **measure(config, folder / dataset / method)})
    order = {name: i for i, name in enumerate(("pixels", *METHODS))}
    rows.sort(key=lambda row: order[row["method"]])
    tables = [f"{dataset}\n\n{table(rows, dataset)}\n" for dataset in datasets]
    (folder / "table.md").write_text("\n".join(tables))
    chart(rows, folder / "chart.png")
    loss_curves(folder / "embedded", folder / "losses.png")
    if all((folder / datasets[-1] / method).exists() for method in TASKS):
        tasks(folder / datasets[-1], folder / "tasks.png")
    print("\n".join(tables))


if __name__ == "__main__":
    main()
