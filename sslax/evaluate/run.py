"""The evaluation of a run: its encoder, the same one untrained, and raw pixels, side by side."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from sslax import data, figures, partition, train, use
from sslax.evaluate import representation
from sslax.types import Batch, TrainState

# Of each part of the data ('train', 'test') named arrays [N, ...].
Parts = dict[str, dict[str, np.ndarray]]

# Raw pixels are compared at this side at most: more of them say no more and take long.
_PIXEL_SIDE = 32
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
    results["step"] = int(trained.step)
    representation.write_results(workdir / "results.json", results)
    print(representation.results_table(results), flush=True)
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
    """The same for raw pixels, of images shrunk to `_PIXEL_SIDE` where they are larger."""
    found = {}
    for part, source in _parts(dataset).items():
        rows = [_shrunk(source[i]["image"]).reshape(-1) for i in range(len(source))]
        found[part] = {"features": np.stack(rows).astype(np.float32) / 255.0}
    return found


def _shrunk(image: np.ndarray) -> np.ndarray:
    if max(image.shape[:2]) <= _PIXEL_SIDE:
        return image
    size = (_PIXEL_SIDE, _PIXEL_SIDE)
    planes = [Image.fromarray(plane).resize(size, Image.BOX) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


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

    batch = {"image": _stack(dataset.train, 8), "index": np.arange(min(8, len(dataset.train)))}
    views = jax.device_get(jax.jit(plan.method.views)(jax.random.key(plan.seed), batch)["image"])
    figures.augmentation_grid(batch["image"], views, folder / "views.png")

    part = "train" if dataset.test is None else "test"
    shown = _parts(dataset)[part]
    images = _stack(shown, _SHOWN_TEST)
    figures.embedding_map(
        outputs[""][part]["features"][: len(images)],
        images,
        _first(labels.get(part), len(images)),
        dataset.class_names,
        folder / "embedding.png",
    )
    if dataset.test is None:
        return
    neighbours = _stack(dataset.train, _SHOWN_TRAIN)
    figures.neighbours(
        images,
        neighbours,
        before=_head(outputs["_untrained"], len(images), len(neighbours)),
        after=_head(outputs[""], len(images), len(neighbours)),
        labels=_first(labels.get("test"), len(images)),
        train_labels=_first(labels.get("train"), len(neighbours)),
        class_names=dataset.class_names,
        path=folder / "neighbours.png",
    )


def _head(found: dict, test: int, train_: int) -> tuple[np.ndarray, np.ndarray]:
    return found["test"]["features"][:test], found["train"]["features"][:train_]


def _first(labels: np.ndarray | None, count: int) -> np.ndarray | None:
    return None if labels is None else labels[:count]


def _stack(source: data.Source, count: int) -> np.ndarray:
    """The first images of a set, those of the first one's shape."""
    images = [source[i]["image"] for i in range(min(count, len(source)))]
    return np.stack([image for image in images if image.shape == images[0].shape])
