"""The task of learning a representation: features, measured by neighbors and linear probes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sslax import augment, data, figures, models, paths
from sslax.data import records
from sslax.data.files import images as image_files
from sslax.errors import UserError
from sslax.inference.encoder import Encoder
from sslax.inference.predictor import Predictor
from sslax.inference.run import Run
from sslax.measures import collapse, rows
from sslax.measures import representation as protocol
from sslax.methods.common import merge_views, split_views
from sslax.report import representation as report
from sslax.tasks.base import Evaluated, Parts, Subject, Task
from sslax.tasks.batches import batches_of, names_of, parts_of, random_rows, stack_images
from sslax.training import sharding
from sslax.types import Array, Batch, Features, Labels, Model, PyTree, Variables

# Training images that neighbors are drawn from, and test images that are drawn.
_DRAWN_TRAIN, _DRAWN_TEST = 8000, 1000
_ALIGNED = 512  # images of which two views are compared
_LIDAR, _LIDAR_VIEWS = 1000, 10  # images, and views of each

_alignment, _lidar = jax.jit(collapse.alignment), jax.jit(collapse.lidar)


def predict(
    subject: Subject, predictor: Predictor, batch: Batch
) -> tuple[Features, dict[str, np.ndarray]]:
    """Features, and the stages where logistic regression on them fits, for which alone they are."""
    prediction, kept = predictor(batch)
    dataset, limit = subject.dataset, _linear_bytes(subject)
    widths = [stage.shape[1] for stage in prediction.stages.values()]
    if protocol.stages_fit(len(dataset.train), widths, dataset.num_classes, limit):
        return prediction, kept
    return prediction._replace(stages={}), kept


def measure(subject: Subject, variables: Variables | None, parts: Parts) -> dict[str, float]:
    """`measures.representation.evaluate_features` of a network, and the measures of its views."""
    train = parts["train"]
    test = parts.get("test", Evaluated(train.prediction, Labels()))
    numbers = protocol.evaluate_features(
        _named(train.prediction),
        train.truth.label,
        _named(test.prediction),
        test.truth.label,
        num_classes=subject.dataset.num_classes,
        mesh=subject.mesh,
        linear_bytes=_linear_bytes(subject),
    )
    return numbers if variables is None else numbers | _measure_views(subject, variables)


def _linear_bytes(subject: Subject) -> int:
    """Memory that a logistic regression may take; runs of earlier versions do not say."""
    return subject.run.config.evaluate.get("linear_bytes", protocol.LINEAR_BYTES)


def _named(features: Features) -> dict[str, np.ndarray]:
    return {protocol.FEATURES: features.features, **features.stages}


def encoder_of(run: Run) -> Model:
    """A run's encoder as a model of images in [0, 1]."""
    model, preprocess = models.build_encoder(run.config.model), run.plan.method.preprocess

    def apply(params: PyTree, model_state: PyTree, x: Array, train: bool) -> tuple[Any, PyTree]:
        return model.apply(params, model_state, preprocess(x), train)

    return model._replace(apply=apply)


def _measure_views(subject: Subject, variables: Variables) -> dict[str, float]:
    """`alignment` of the first two views of some images, and `lidar` of ten views.

    Empty where the recipe has one view only, as those of pretext tasks.
    """
    run = subject.run
    section = run.config.augment
    if section.get("count", len(augment.VIEW_RECIPES[section.recipe])) < 2:
        return {}
    source = subject.dataset.train if subject.dataset.test is None else subject.dataset.test
    source = records.subset(source, random_rows(source, _LIDAR))
    encoder, method = encoder_of(run), run.plan.method

    def embed(variables: Variables, batch: Batch, rng: Array) -> tuple[Array, Array]:
        views = method.augment(rng, batch)["views"][:, :2]
        whole = method.encoder(sharding.gather(variables, subject.mesh))
        encoding, _ = encoder.apply(*whole, merge_views(views), False)
        return split_views(encoding.features, 2), batch["mask"]

    embed = jax.jit(embed, out_shardings=sharding.replicated(subject.mesh))
    rngs = [jax.random.key(run.plan.seed)]
    rngs += [jax.random.fold_in(rngs[0], i) for i in range(1, _LIDAR_VIEWS // 2)]
    pairs = []
    for batch in batches_of(subject, source):
        outputs = [jax.device_get(embed(variables, batch, rng)) for rng in rngs]
        pairs.append(np.concatenate([embedded[mask] for embedded, mask in outputs], axis=1))
    features = np.concatenate(pairs)  # [n, views, D]
    x, y = features[:_ALIGNED, 0], features[:_ALIGNED, 1]
    numbers = {protocol.ALIGNMENT: float(_alignment(x, y))}
    if len(features) > 1:
        numbers[protocol.LIDAR] = float(_lidar(features))
    return numbers


def baselines(subject: Subject, parts: Parts) -> dict[str, Parts]:
    """Raw pixels as features, of images that are shrunk where they are large."""
    pixels = {}
    for part, source in parts_of(subject.dataset).items():
        batches = batches_of(subject, source, by_process=True)
        shrunk = [protocol.pixel_features(_images_of(batch)) for batch in batches]
        pixels[part] = Evaluated(Features(np.concatenate(shrunk), {}), parts[part].truth)
    return {"_pixels": pixels}


def _images_of(batch: Batch) -> np.ndarray:
    """This process's images of a batch."""
    return rows.own(batch["image"])[rows.own(batch["mask"])]


def drawn(subject: Subject, parts: Parts) -> Parts:
    """Features and labels of the images that are drawn."""
    kept = {}
    for part, source in parts_of(subject.dataset).items():
        index = _drawn_rows(part, source)
        prediction, truth = parts[part]
        label = None if truth.label is None else rows.take(truth.label, index, subject.mesh)
        features = rows.take(prediction.features, index, subject.mesh)
        kept[part] = Evaluated(Features(features, {}), Labels(label))
    return kept


def _drawn_rows(part: str, source: data.Source) -> np.ndarray:
    return random_rows(source, _DRAWN_TRAIN if part == "train" else _DRAWN_TEST)


def draw(subject: Subject, predicted: dict[str, Parts], folder: Path) -> report.Shown:
    """`embedding.png`, a map of the test images, and `neighbors.png`, before and after training."""
    dataset = subject.dataset
    part = "train" if dataset.test is None else "test"
    index = random_rows(parts_of(dataset)[part], _DRAWN_TEST)  # the first of those that are kept
    images, names = stack_images(parts_of(dataset)[part], index), dataset.class_names
    features, label = _first(predicted[""][part], len(index))
    points = figures.project(features)
    path = folder / "embedding.png"
    figures.embedding_map(features, images, label, names, path, points=points)
    before, _ = _first(predicted["_untrained"][part], len(index))
    shown = report.Shown(
        images=images,
        points=points,
        features={"after training": features, "before training": before},
        labels=label,
        class_names=names,
        files=names_of(parts_of(dataset)[part], index, part),
    )
    if dataset.test is None:
        return shown

    def features_of(suffix: str) -> tuple[np.ndarray, np.ndarray]:
        test, train = (predicted[suffix][p].prediction.features for p in ("test", "train"))
        return test, train

    figures.neighbors(
        images,
        stack_images(dataset.train, _drawn_rows("train", dataset.train)),
        before=features_of("_untrained"),
        after=features_of(""),
        labels=label,
        train_labels=predicted[""]["train"].truth.label,
        class_names=names,
        path=folder / "neighbors.png",
    )
    return shown


def _first(evaluated: Evaluated, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    label = evaluated.truth.label
    return evaluated.prediction.features[:count], None if label is None else label[:count]


def write(encoder: Encoder, given: str, output: Path, options: Mapping[str, Any]) -> None:
    """Writes an .npz of `features` [N, D] and `files` [N] (relative to the input).

    Args:
        encoder: of the run.
        given: an image, or a folder of images.
        output: of the .npz.
        options: `stages`, whether to add the pooled activations `stage_*`.

    Raises:
        UserError: no such input, or another kind of output.
    """
    if output.suffix != ".npz":
        raise UserError(f"--output={output} must end in .npz.")
    paths.check_output(output, "--output", folder=False)
    source, files = _images(Path(given), encoder)
    size = encoder.config.evaluate.batch_size
    batches = data.evaluation_batches(source, batch_size=size, mesh=encoder.predictor.mesh)
    features, _ = encoder.predictor.over(batches)
    stages = features.stages if options.get("stages") else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    with paths.replacing(output) as unfinished, unfinished.open("wb") as file:
        np.savez(file, features=features.features, files=np.asarray(files), **stages)
    print(f"Wrote {output}: features {list(features.features.shape)} of {len(source)} images.")


def _images(path: Path, encoder: Encoder) -> tuple[data.Source, list[str]]:
    """The images at `path`, at the size and with the channels of the encoder's training."""
    from sslax.data.sources import folder

    height, width, channels = encoder.image_shape
    value_range = image_files.value_range(encoder.config.data)
    shape = {"size": min(height, width), "channels": channels, "value_range": value_range}
    if path.is_file():
        return folder.FolderSource([str(path)], None, **shape), [path.name]
    section, trained = data.defaults(), encoder.config.data
    section.update(path=str(path), labels=False, channels=channels, image_size=shape["size"])
    section.value_range = value_range
    try:
        images = folder.load(section).train
    except data.DataError as error:
        raise UserError(str(error).replace("data.path", "--input")) from error
    kept, failures = images, []
    if trained.bad_images == "skip":
        kept, failures = records.skip_unreadable(images, workers=trained.workers)
    for failure in failures:
        print(f"skipped: {failure}")
    indices = kept.indices if failures else range(len(images))
    return kept, [str(Path(images.paths[i]).relative_to(path)) for i in indices]


TASK = Task(
    name="features",
    prediction=Features,
    truth=Labels,
    parts=("train", "test"),
    predict=predict,
    measure=measure,
    baselines=baselines,
    draw=draw,
    load=Encoder,
    resizable=False,
    options=frozenset({"stages"}),
    write=write,
    spread=True,
    drawn=drawn,
    report=report.sections,
)
