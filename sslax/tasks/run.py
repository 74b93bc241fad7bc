"""The evaluation of a run: its encoder, the same one untrained, and raw pixels, side by side."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import augment, data, figures, models
from sslax.data import records
from sslax.errors import UserError
from sslax.inference import use
from sslax.measures import collapse, linear, representation
from sslax.methods import common
from sslax.tasks import geometry
from sslax.training import sharding, train
from sslax.training.finetune import finetune
from sslax.types import Array, Batch, Model, PyTree, TrainState

# Of each part of the data ('train', 'test') named arrays [N, ...].
Parts = dict[str, dict[str, np.ndarray]]

# Images of the training set that the pictures choose neighbors from, and test images shown.
_SHOWN_TRAIN, _SHOWN_TEST = 8000, 1000
_ALIGNED = 512  # images whose views are compared


def evaluate_run(
    workdir: str | Path, *, which: str = "latest", other: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Evaluates the run in `workdir`; every process of a run calls it, the first one writes.

    Writes `results.json` and `figures/` in the run's folder and prints the table; of another set
    than the run's, `results-NAME.json` and `figures-NAME/`.

    Args:
        workdir: the run's folder.
        which: `latest` or `best` checkpoint.
        other: what differs from the run's `data` section: another set, other splits. Its images
            are brought to the size and the channels that the encoder was trained with.

    Returns:
        Named numbers: those of `representation.evaluate_features` and `alignment` for the trained
        encoder, and with the suffixes `_untrained` and `_pixels` for its baselines.

    Raises:
        UserError: no run, or no checkpoint, there; or the set cannot be read.
    """
    subject = _open(Path(workdir), which, other)
    config, plan, mesh, dataset = subject.config, subject.plan, subject.mesh, subject.dataset
    if geometry.geometric(plan.predictions()):
        return _evaluate_geometry(subject)
    sizes = {"batch_size": config.evaluate.batch_size, "workers": config.data.workers}
    outputs, aligned = {}, {}
    for suffix, state in subject.states.items():
        outputs[suffix], labels = encode(plan, state, dataset, mesh, sizes)
        aligned[suffix] = _alignment(config, plan, state, dataset, mesh, sizes)
    if jax.process_index() != 0:
        return {}
    outputs["_pixels"] = _pixels(dataset)
    results = {}
    for suffix, found in outputs.items():
        numbers = representation.evaluate_features(
            found["train"],
            labels.get("train"),
            found.get("test", found["train"]),
            labels.get("test"),
            num_classes=dataset.num_classes,
        )
        numbers |= aligned.get(suffix, {})
        results |= {name + suffix: value for name, value in numbers.items()}
    folder = subject.workdir / f"figures{subject.suffix}"
    path = _write(subject, "", results, representation.results_table(results))
    if config.evaluate.figures:
        draw(subject, folder, outputs, labels)
        print(f"Results in {path}, pictures in {folder}.")
    return results


def finetune_run(
    workdir: str | Path,
    *,
    which: str = "latest",
    other: Mapping[str, Any] | None = None,
    fractions: Sequence[float] = (1.0,),
    duration: str = "",
    learning_rate: float | None = None,
) -> dict[str, float]:
    """Fine-tunes the encoder of the run in `workdir`, and as a baseline the same one untrained.

    Writes `results-finetune.json` (of another set than the run's, `results-NAME-finetune.json`)
    and prints the table. Views are those of the recipe `supervised`, at the size, and with the
    crops and flips, that the run's `augment` section names. ResNets learn by SGD; vision
    transformers by AdamW with weight decay 0.05 and, where trained before, layer decay 0.75.

    Args:
        workdir: the run's folder.
        which: `latest` or `best` checkpoint.
        other: as in `evaluate_run`.
        fractions: of the labels, each in (0, 1], drawn by `linear.draw_fraction`.
        duration: as in `finetune`.
        learning_rate: at its peak, for 256 examples a step; None for 0.4 with SGD, 1e-3 with
            AdamW.

    Returns:
        `finetune`, for fractions below 1 `finetune_10_percent` and the like, and these of the
        untrained encoder with the suffix `_untrained`.

    Raises:
        UserError: no run, or no checkpoint, there; the set cannot be read, or lacks labels or a
            test part; a fraction that is none.
    """
    if wrong := [fraction for fraction in fractions if not 0 < fraction <= 1]:
        raise UserError(f"A fraction of the labels lies in (0, 1], such as 0.1; got {wrong[0]:g}.")
    subject = _open(Path(workdir), which, other)
    dataset, config = subject.dataset, subject.config
    if dataset.test is None or dataset.num_classes is None:
        raise UserError(
            "Fine-tuning needs labels and a test set: see --data.labels, and --data.test_path or "
            "--data.test_fraction."
        )
    labels = _labels(dataset.train, config.data.workers)
    crops = {
        name: config.augment[name]
        for name in ("size", "crop_scale", "crop_ratio", "flip")
        if name in config.augment
    }
    results = {}
    for fraction in fractions:
        part = records.subset(dataset.train, linear.draw_fraction(labels, fraction))
        name = "finetune" if fraction == 1 else f"finetune_{100 * fraction:g}_percent"
        for suffix, state in subject.states.items():
            if jax.process_index() == 0:
                print(f"{name}{suffix}: {len(part)} labeled images", flush=True)
            results[name + suffix] = finetune(
                _encoder(config, subject.plan),
                *subject.plan.method.encoder(state.params, state.model_state, state.extra),
                part,
                dataset.test,
                num_classes=dataset.num_classes,
                views=common.training_views(ConfigDict({"recipe": "supervised", **crops})),
                evaluation_view=common.evaluation_view(config.augment),
                duration=duration,
                **_rates(config.model.name, learning_rate, trained=not suffix),
                mesh=subject.mesh,
                workers=config.data.workers,
                progress=jax.process_index() == 0,
            ).accuracy
    if jax.process_index() == 0:
        table = representation.results_table(results)
        print(f"Results in {_write(subject, '-finetune', results, table)}.")
    return results


class _Subject(NamedTuple):
    """A run on a set of images: what is evaluated."""

    workdir: Path
    config: ConfigDict
    plan: train.Plan
    mesh: Mesh
    dataset: data.Dataset
    states: dict[str, TrainState]  # by the suffix of their numbers: the trained one's is ''
    suffix: str  # of the files written: '' for the set that the run evaluates at its end


def _evaluate_geometry(subject: _Subject) -> dict[str, float]:
    """The evaluation of a run that predicts depth, poses or flow."""
    config, plan, dataset = subject.config, subject.plan, subject.dataset
    source = dataset.train if dataset.test is None else dataset.test
    sizes = {"batch_size": config.evaluate.batch_size, "workers": config.data.workers}
    knobs = dict(config.evaluate.depth)
    post_process = knobs.pop("post_process")
    outputs = {}
    for suffix, state in {**subject.states, **_taught_by(subject.states[""])}.items():
        predict = use.Predictor(plan, state, subject.mesh, keep=geometry.TRUTH)
        outputs[suffix] = predict.over(_batches(source, subject.mesh, **sizes))
        if post_process:
            mirrored = (geometry.mirrored(b) for b in _batches(source, subject.mesh, **sizes))
            outputs[suffix] = geometry.post_processed(outputs[suffix], predict.over(mirrored))
    if jax.process_index() != 0:
        return {}
    truths = [found.pop("truth") for found in outputs.values()]
    truth = truths[0]  # they are all the same
    outputs[geometry.TRIVIAL] = geometry.trivial(outputs[""], truth)
    results = {}
    for suffix, predicted in outputs.items():
        numbers = geometry.measure(predicted, truth, **knobs)
        results |= {name + suffix: value for name, value in numbers.items()}
    folder = subject.workdir / f"figures{subject.suffix}"
    table = "The test set has no ground truth: there are no numbers, only pictures."
    path = _write(subject, "", results, geometry.table(results, [*outputs]) if results else table)
    if config.evaluate.figures:
        _curves_and_task(subject, folder)
        geometry.draw(partial(_stack, source), outputs[""], truth, folder)
        print(f"Results in {path}, pictures in {folder}.")
    return results


def _taught_by(state: TrainState) -> dict[str, TrainState]:
    """The frozen network that a run learned from, if any, in the place of the trained one."""
    if "teacher" not in state.extra:
        return {}
    params, model_state = state.extra["teacher"]
    return {"_teacher": state._replace(params=params, model_state=model_state)}


def _open(workdir: Path, which: str, other: Mapping[str, Any] | None) -> _Subject:
    config, plan = use.read_plan(workdir)
    mesh = sharding.make_mesh()
    section = _section(config, other or {}, plan.batch["image"].shape[1:])
    dataset = data.load(section)
    trained = use.read_state(workdir, plan, mesh, which=which)
    untrained = jax.jit(plan.initial_state, out_shardings=sharding.replicated(mesh))()
    states = {"": trained, "_untrained": untrained}
    suffix = f"-{_name(section)}" if other else ""
    return _Subject(workdir, config, plan, mesh, dataset, states, suffix)


def _section(
    config: ConfigDict, other: Mapping[str, Any], image_shape: tuple[int, ...]
) -> ConfigDict:
    """The `data` section, with what `evaluate.data` and then `other` replace in it."""
    section = ConfigDict(config.data.to_dict())
    section.update(config.evaluate.data)
    if not other:
        return section
    *views, height, width, channels = image_shape
    if other.get("channels", channels) != channels:
        raise UserError(
            f"This encoder takes images of {channels} channels, and those of any set are brought "
            "to it: leave out --data.channels."
        )
    if other.keys() & {"source", "path", "name"}:  # another set: nothing of the old one fits it
        own, section = section, data.defaults()
        section.source = other.get("source", own.source)
        section.path = own.path if section.source == own.source else ""
    shape = {"size": (height, width)} if views else {"image_size": min(height, width)}
    section.update(shape, channels=channels)
    section.update(other)
    return section


def _name(section: ConfigDict) -> str:
    """A name for the set that a `data` section describes, to be part of a file's name.

    Example:
        >>> _name(data.defaults())
        'embedded'
    """
    name = section.source
    if section.source == "tfds" and section.name:
        name = section.name
    elif section.source == "npz":
        name = Path(section.path).stem
    elif section.path:  # '.../flowers/train' and '.../birds/train' are two sets
        name = "-".join(Path(section.path).expanduser().resolve().parts[-2:])
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def _write(subject: _Subject, kind: str, results: dict[str, float], table: str) -> Path:
    """Prints the table and writes the numbers, with the step they are of; returns the file."""
    print(table, flush=True)
    results["step"] = int(subject.states[""].step)
    path = subject.workdir / f"results{subject.suffix}{kind}.json"
    representation.write_results(path, results)
    return path


def _labels(source: data.Source, workers: int) -> np.ndarray:
    """All labels int32 `[N]`, read with the images where the source does not know them."""
    known = records.labels_of(source)
    if known is not None:
        return known
    with ThreadPoolExecutor(records.threads(workers)) as pool:
        return np.array([*pool.map(lambda i: source[i]["label"], range(len(source)))], np.int32)


def _rates(name: str, learning_rate: float | None, *, trained: bool) -> dict[str, Any]:
    """How the encoder of that name is fine-tuned."""
    knobs = {"optimizer": "sgd", "learning_rate": 0.4}
    if models.is_vit(name):
        knobs = {
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "layer_decay": 0.75 if trained else 1.0,
        }
    return knobs if learning_rate is None else knobs | {"learning_rate": learning_rate}


def _parts(dataset: data.Dataset) -> dict[str, data.Source]:
    return {"train": dataset.train} | ({"test": dataset.test} if dataset.test is not None else {})


def encode(
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


def _encoder(config: ConfigDict, plan: train.Plan) -> Model:
    """The run's encoder as a model of images, whatever it is given of them."""
    model, prepare = models.build_encoder(config.model), plan.method.prepare

    def apply(params: PyTree, model_state: PyTree, x: Array, train: bool) -> tuple[Any, PyTree]:
        return model.apply(params, model_state, prepare(x), train)

    return model._replace(apply=apply)


def _alignment(
    config: ConfigDict,
    plan: train.Plan,
    state: TrainState,
    dataset: data.Dataset,
    mesh: Mesh,
    sizes: dict[str, int],
) -> dict[str, float]:
    """`alignment` of the first two views of some images, where the method's views are images.

    Nothing where the recipe makes one view only: what pretext tasks make of it are pieces.
    """
    if len(augment.VIEW_RECIPES[config.augment.recipe]) < 2:
        return {}
    source = dataset.train if dataset.test is None else dataset.test
    source = records.subset(source, _some(source, _ALIGNED))
    encoder = _encoder(config, plan)

    def embed(variables: tuple, batch: Batch) -> tuple[Array, Array]:
        views = plan.method.views(jax.random.key(plan.seed), batch)["image"][:, :2]
        images = common.merge_views(views)
        encoding, _ = encoder.apply(*plan.method.encoder(*variables), images, False)
        return common.split_views(encoding.features, 2), batch["mask"]

    embed = jax.jit(embed, out_shardings=sharding.replicated(mesh))
    variables = (state.params, state.model_state, state.extra)
    found = [jax.device_get(embed(variables, b)) for b in _batches(source, mesh, **sizes)]
    features = np.concatenate([rows[mask] for rows, mask in found])
    return {representation.ALIGNMENT: float(collapse.alignment(features[:, 0], features[:, 1]))}


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
    subject: _Subject, folder: Path, outputs: dict[str, Parts], labels: dict[str, np.ndarray]
) -> None:
    """The pictures of a run, in `folder`."""
    dataset = subject.dataset
    _curves_and_task(subject, folder)

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

    figures.neighbors(
        images,
        train_images,
        before=features_of("_untrained"),
        after=features_of(""),
        labels=classes,
        train_labels=train_classes,
        class_names=names,
        path=folder / "neighbors.png",
    )


def _curves_and_task(subject: _Subject, folder: Path) -> None:
    plan, source = subject.plan, subject.dataset.train
    folder.mkdir(exist_ok=True)
    if (subject.workdir / "metrics.jsonl").exists():
        figures.curves(subject.workdir / "metrics.jsonl", folder / "curves.png")
    batch = records.stack([source[int(i)] for i in _some(source, 8)])
    batch["index"] = np.arange(len(batch["image"]), dtype=np.int32)
    columns = use.pictures(plan, subject.states[""], batch, jax.random.key(plan.seed))
    figures.task_grid(columns, folder / "task.png")


def _some(source: data.Source, count: int) -> np.ndarray:
    """Places of `count` records drawn at random: folders are sorted by class."""
    return np.random.default_rng(0).permutation(len(source))[:count]


def _stack(source: data.Source, rows: Iterable[int]) -> np.ndarray:
    return np.stack([source[int(i)]["image"] for i in rows])
