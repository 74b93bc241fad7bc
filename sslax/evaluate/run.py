"""The evaluation of a run: its encoder, the same one untrained, and raw pixels, side by side."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import data, figures, partition, train, use
from sslax.evaluate import representation
from sslax.types import Batch, TrainState

# Of each part of the data ('train', 'test') named arrays [N, ...].
Parts = dict[str, dict[str, np.ndarray]]

# Images of the training set that the pictures choose neighbours from, and test images shown.
_SHOWN_TRAIN, _SHOWN_TEST = 8000, 1000


def evaluate_run(workdir: str | Path, *, which: str = "latest") -> dict[str, float]:
    """Evaluates the run in `workdir`; every process of a run calls it, the first one writes.

    Writes `results.json` and `figures/` in the run's folder and prints the table.

    Args:
        workdir: the run's folder.
        which: `latest` or `best` checkpoint.

    Returns:
        Named numbers: those of `representation.evaluate_features` for the trained encoder, and
        with the suffixes `_untrained` and `_pixels` for its baselines.

    Raises:
        UserError: no run, or no checkpoint, there.
    """
    workdir = Path(workdir)
    config, plan = use.read_plan(workdir)
    mesh = partition.make_mesh()
    dataset = data.load(_section(config))
    trained = use.read_state(workdir, plan, mesh, which=which)
    untrained = jax.jit(plan.initial_state, out_shardings=partition.replicated(mesh))()

    sizes = {"batch_size": config.evaluate.batch_size, "workers": config.data.workers}
    of_trained, labels = _encode(plan, trained, dataset, mesh, sizes)
    of_untrained, _ = _encode(plan, untrained, dataset, mesh, sizes)
    if jax.process_index() != 0:
        return {}
    outputs = {"": of_trained, "_untrained": of_untrained, "_pixels": _pixels(dataset)}
    results = {}
    for suffix, found in outputs.items():
        numbers = representation.evaluate_features(
            found["train"],
            labels.get("train"),
            found.get("test", found["train"]),
            labels.get("test"),
            num_classes=dataset.num_classes,
        )
        results |= {name + suffix: value for name, value in numbers.items()}
    print(representation.results_table(results), flush=True)
    results["step"] = int(trained.step)
    representation.write_results(workdir / "results.json", results)
    if config.evaluate.figures:
        draw(workdir, plan, dataset, outputs, labels)
        print(f"Results in {workdir / 'results.json'}, pictures in {workdir / 'figures'}.")
    return results


def _section(config: ConfigDict) -> ConfigDict:
    """The `data` section, with what `evaluate.data` replaces in it: another set, other splits."""
    section = ConfigDict(config.data.to_dict())
    section.update(config.evaluate.data)
    return section


def _parts(dataset: data.Dataset) -> dict[str, data.Source]:
    return {"train": dataset.train} | ({"test": dataset.test} if dataset.test is not None else {})


def _encode(
    plan: train.Plan, state: TrainState, dataset: data.Dataset, mesh: Mesh, sizes: dict[str, int]
) -> tuple[Parts, dict[str, np.ndarray]]:
    """Of each part of the data: 'features' [N, D] with each stage's pooled activations; labels."""
    predict = use.Predictor(plan, state, mesh)
    found, labels = {}, {}
    for part, source in _parts(dataset).items():
        outputs = predict.over(_batches(source, mesh, **sizes))
        found[part] = {"features": outputs["features"], **outputs["stages"]}
        if "label" in outputs:
            labels[part] = outputs["label"]
    return found, labels


def _pixels(dataset: data.Dataset) -> Parts:
    """The same for raw pixels, of images shrunk where they are large."""
    found = {}
    for part, source in _parts(dataset).items():
        chunks = [
            range(start, min(start + 4096, len(source))) for start in range(0, len(source), 4096)
        ]
        rows = [representation.pixel_features(_stack(source, chunk)) for chunk in chunks]
        found[part] = {"features": np.concatenate(rows)}
    return found


def _batches(source: data.Source, mesh: Mesh, *, batch_size: int, workers: int) -> Iterator[Batch]:
    """Batches of at most the set's size, in whole multiples of the devices."""
    size = min(batch_size, len(source))
    size = -(-size // mesh.size) * mesh.size
    return data.evaluation_batches(source, batch_size=size, mesh=mesh, workers=workers)


def draw(
    workdir: Path,
    plan: train.Plan,
    dataset: data.Dataset,
    outputs: dict[str, Parts],
    labels: dict[str, np.ndarray],
) -> None:
    """The pictures of a run, in its `figures/`."""
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    if (workdir / "metrics.jsonl").exists():
        figures.curves(workdir / "metrics.jsonl", folder / "curves.png")

    batch = {"image": _stack(dataset.train, _some(dataset.train, 8))}
    batch["index"] = np.arange(len(batch["image"]), dtype=np.int32)
    views = jax.jit(plan.method.views)(jax.random.key(plan.seed), batch)["image"]
    figures.augmentation_grid(batch["image"], jax.device_get(views), folder / "views.png")

    def shown(part: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        rows = _some(_parts(dataset)[part], count)
        of_part = labels.get(part)
        return rows, _stack(_parts(dataset)[part], rows), None if of_part is None else of_part[rows]

    part = "train" if dataset.test is None else "test"
    rows, images, classes = shown(part, _SHOWN_TEST)
    features = outputs[""][part]["features"][rows]
    names = dataset.class_names
    figures.embedding_map(features, images, classes, names, folder / "embedding.png")
    if dataset.test is None:
        return
    train_rows, train_images, train_classes = shown("train", _SHOWN_TRAIN)

    def features_of(suffix: str) -> tuple[np.ndarray, np.ndarray]:
        found = outputs[suffix]
        return found["test"]["features"][rows], found["train"]["features"][train_rows]

    figures.neighbours(
        images,
        train_images,
        before=features_of("_untrained"),
        after=features_of(""),
        labels=classes,
        train_labels=train_classes,
        class_names=names,
        path=folder / "neighbours.png",
    )


def _some(source: data.Source, count: int) -> np.ndarray:
    """Places of `count` records drawn at random: folders are sorted by class."""
    return np.random.default_rng(0).permutation(len(source))[:count]


def _stack(source: data.Source, rows: Iterable[int]) -> np.ndarray:
    return np.stack([source[int(i)]["image"] for i in rows])
