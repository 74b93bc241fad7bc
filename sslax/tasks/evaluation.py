"""The evaluation of a run: the trained network, the same one untrained, and trivial baselines."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sslax import data, figures, models, paths
from sslax.data import records
from sslax.errors import UserError
from sslax.inference import run as runs
from sslax.inference.predictor import Predictor, concatenated, visualize
from sslax.measures import linear
from sslax.methods.common import Augmentation
from sslax.methods.representation import common
from sslax.report.page import Section
from sslax.tasks import reports, tables, task_of
from sslax.tasks.base import Evaluated, Parts, Subject
from sslax.tasks.batches import batches_of, parts_of, random_rows
from sslax.tasks.representation import encoder_of
from sslax.training import finetune, linear_probe, sharding
from sslax.types import Pictures, Variables


def evaluate_run(
    workdir: str | Path, *, which: str = "latest", other: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Evaluates the run in `workdir`; every process of a run calls it, the first one writes.

    One network after another: the predictions of others than the trained one are forgotten once
    they are measured, but for what is drawn.

    Writes `results.json`, `figures/` and the page `report.html` in the run's folder and prints the
    table; on another data set than the run's, `results-NAME.json`, `figures-NAME/` and
    `report-NAME.html`.

    Args:
        workdir: the run's folder.
        which: `latest` or `best` checkpoint.
        other: changes to the run's `data` section: another set, other splits. Its images are
            brought to the size and the channels that the network was trained with.

    Returns:
        The numbers of the run's task, by name: of the trained network without a suffix, of the
        untrained one with `_untrained`, and of baselines with theirs.

    Raises:
        UserError: no run, or no checkpoint, there; or the set cannot be read.
    """
    subject = open_subject(workdir, which, other)
    method, config = subject.run.plan.method, subject.run.config
    task = task_of(method)
    networks = dict(subject.networks)
    for name, variables in method.references(networks[""]).items():
        networks[f"_{name}"] = variables
    results: dict[str, float] = {}
    drawn: dict[str, Parts] = {}

    def measure(suffix: str, parts: Parts) -> None:
        numbers = task.measure(subject, networks.get(suffix), parts)
        results.update({name + suffix: value for name, value in numbers.items()})
        drawn[suffix] = task.drawn(subject, parts)

    predictor = predictor_of(subject)
    trained = predict_parts(subject, predictor)
    measure("", trained)
    for suffix, variables in networks.items():
        if suffix:
            measure(suffix, predict_parts(subject, predictor.using(variables)))
    for suffix, parts in task.baselines(subject, trained).items():
        measure(suffix, parts)
    if config.evaluate.figures:  # gathered by all processes, drawn by the first
        shown = sharding.to_host(networks[""])
    if jax.process_index() != 0:
        return results
    path = _write(subject, "", results, tables.table(results, [*drawn]))
    said, pictures = [f"Results in {path}"], lambda: []
    if config.evaluate.figures:
        folder = subject.run.workdir / f"figures{subject.suffix}"
        folder.mkdir(exist_ok=True)
        columns = _draw_training(subject, shown, folder)
        seen = task.draw(subject, drawn, folder)
        said.append(f"pictures in {folder}")

        def pictures() -> list[Section]:
            return [reports.task_section(columns), *task.report(seen)]

    if page := _report(subject, "", results, [*drawn], pictures):
        said.append(f"all on one page in {page}")
    print(", ".join(said) + ".")
    return results


def predictor_of(subject: Subject) -> Predictor:
    """Predicts with the trained network, and keeps what the task knows of the truth."""
    task = task_of(subject.run.plan.method)
    return Predictor(
        *(subject.run.plan, subject.networks[""], subject.mesh),
        keep=task.truth._fields,
        own_rows=task.spread,
    )


def predict_parts(subject: Subject, predictor: Predictor) -> Parts:
    """A network's predictions, and the ground truth, on the parts that the task evaluates."""
    task, sources = task_of(subject.run.plan.method), parts_of(subject.dataset)
    if "train" not in task.parts:  # without a test set, there are pictures of the training set
        sources.setdefault("test", subject.dataset.train)
    parts = {}
    for part in task.parts:
        if part in sources:
            batches = batches_of(subject, sources[part], by_process=task.spread)
            outputs = (task.predict(subject, predictor, batch) for batch in batches)
            prediction, kept = concatenated(outputs)
            truth = {name: kept[name] for name in task.truth._fields if name in kept}
            parts[part] = Evaluated(prediction, task.truth(**truth))
    return parts


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

    Writes `results-finetune.json` (on another data set than the run's,
    `results-NAME-finetune.json`) and prints the table. The augmentation is the recipe `supervised`,
    at the size, and with the crops and flips, of the run's `augment` section. ResNets learn by SGD;
    vision transformers by AdamW with weight decay 0.05 and, where trained before, layer decay 0.75.

    Args:
        workdir: the run's folder.
        which: `latest` or `best` checkpoint.
        other: as in `evaluate_run`.
        fractions: of the labels, each in (0, 1], drawn by `linear.draw_fraction`.
        duration: as in `finetune.Recipe`.
        learning_rate: at its peak, for 256 examples a step; None for 0.4 with SGD, 1e-3 with
            AdamW.

    Returns:
        `finetune`, for fractions below 1 `finetune_10_percent` and the like, and these of the
        untrained encoder with the suffix `_untrained`.

    Raises:
        UserError: no run, or no checkpoint, there; the set cannot be read, or lacks labels or a
            test part; a fraction outside of (0, 1].
    """
    if wrong := [fraction for fraction in fractions if not 0 < fraction <= 1]:
        raise UserError(f"A fraction of the labels lies in (0, 1], such as 0.1; got {wrong[0]:g}.")
    subject = open_subject(workdir, which, other)
    dataset, config = _labeled(subject, "Fine-tuning"), subject.run.config
    labels = _labels(dataset.train, config.data.workers)
    chief = jax.process_index() == 0
    results = {}
    for fraction in fractions:
        part = records.subset(dataset.train, linear.draw_fraction(labels, fraction))
        name = "finetune" if fraction == 1 else f"finetune_{100 * fraction:g}_percent"
        for suffix, variables in subject.networks.items():
            if chief:
                print(f"{name}{suffix}: {len(part)} labeled images", flush=True)
            results[name + suffix] = finetune.finetune(
                encoder_of(subject.run),
                *subject.run.plan.method.encoder(variables),
                part,
                dataset.test,
                num_classes=dataset.num_classes,
                augmentation=_crops_and_flips(config, "crop_scale", "crop_ratio", "flip"),
                evaluation_view=subject.run.plan.method.evaluation_view,
                recipe=_recipe(config.model.name, duration, learning_rate, trained=not suffix),
                mesh=subject.mesh,
                workers=config.data.workers,
                progress=chief,
            ).accuracy
    if chief:
        path = _write(subject, "-finetune", results, tables.table(results))
        _report(subject, "-finetune", results, tables.SUFFIXES)
        print(f"Results in {path}.")
    return results


def linear_probe_run(
    workdir: str | Path,
    *,
    which: str = "latest",
    other: Mapping[str, Any] | None = None,
    protocol: linear_probe.Protocol = linear_probe.PROTOCOLS["simclr"],
) -> dict[str, float]:
    """Trains a linear classifier on the frozen encoder of the run in `workdir`, and on the same one
    untrained, by a protocol of papers.

    Writes `results-linear-probe.json` (on another data set than the run's,
    `results-NAME-linear-probe.json`) and prints the table. Images are cropped and flipped by the
    recipe `supervised`, at the size of the run's `augment` section.

    Args:
        workdir: the run's folder.
        which: `latest` or `best` checkpoint.
        other: as in `evaluate_run`.
        protocol: optimizer, rates and duration.

    Returns:
        `linear_probe` and `linear_probe_untrained`.

    Raises:
        UserError: no run, or no checkpoint, there; the set cannot be read, or lacks labels or a
            test part.
    """
    subject = open_subject(workdir, which, other)
    dataset, config = _labeled(subject, "A linear probe"), subject.run.config
    chief = jax.process_index() == 0
    results = {}
    for suffix, variables in subject.networks.items():
        result = linear_probe.train_linear_probe(
            encoder_of(subject.run),
            *subject.run.plan.method.encoder(variables),
            dataset.train,
            dataset.test,
            labels=_labels(dataset.train, config.data.workers),
            num_classes=dataset.num_classes,
            augmentation=_crops_and_flips(config),
            evaluation_view=subject.run.plan.method.evaluation_view,
            protocol=protocol,
            mesh=subject.mesh,
            workers=config.data.workers,
            progress=chief,
        )
        results["linear_probe" + suffix] = result.accuracy
        if chief and result.held_out_accuracy:
            print(f"linear_probe{suffix}: rate {result.chosen:g} of {result.held_out_accuracy}")
    if chief:
        path = _write(subject, "-linear-probe", results, tables.table(results))
        _report(subject, "-linear-probe", results, tables.SUFFIXES)
        print(f"Results in {path}.")
    return results


def _labeled(subject: Subject, what: str) -> data.Dataset:
    """The data set, which has labels and a test part."""
    dataset = subject.dataset
    if dataset.test is None or dataset.num_classes is None:
        raise UserError(
            f"{what} needs labels and a test set: see --data.labels, and --data.test_path or "
            "--data.test_fraction."
        )
    return dataset


def _crops_and_flips(config: ConfigDict, *names: str) -> Augmentation:
    """The recipe `supervised`, with the size, and the entries of these names, that a run has."""
    own = {name: config.augment[name] for name in ("size", *names) if name in config.augment}
    return common.build_augmentation(ConfigDict({"recipe": "supervised", **own}))


def _recipe(
    name: str, duration: str, learning_rate: float | None, *, trained: bool
) -> finetune.Recipe:
    """How the encoder of that name is fine-tuned."""
    recipe = finetune.Recipe(duration=duration, optimizer="sgd", learning_rate=0.4)
    if models.is_vit(name):
        recipe = finetune.Recipe(
            duration=duration,
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=0.05,
            layer_decay=0.75 if trained else 1.0,
        )
    return recipe if learning_rate is None else recipe._replace(learning_rate=learning_rate)


def open_subject(
    workdir: str | Path, which: str = "latest", other: Mapping[str, Any] | None = None
) -> Subject:
    """A run with its data, or other data, trained and untrained; arguments as `evaluate_run`."""
    run = runs.open_run(workdir)
    mesh = sharding.make_mesh()
    section = _section(run.config, other or {}, run.plan.batch["image"].shape[1:])
    suffix = f"-{data.name_of(section)}" if other else ""
    paths.check_output(run.workdir / f"figures{suffix}", "The output", folder=True)
    paths.check_output(run.workdir / f"results{suffix}.json", "The output", folder=False)
    dataset = data.load(section)
    trained = runs.read_state(run, mesh, which=which)
    untrained = run.plan.state_on(mesh)
    networks = {"": trained.variables, "_untrained": untrained.variables}
    return Subject(run, mesh, dataset, networks, int(trained.step), suffix)


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
    if other.keys() & {"source", "path", "tfds.name"}:  # another set: start from the defaults
        own, section = section, data.defaults()
        section.source = other.get("source", own.source)
        section.path = own.path if section.source == own.source else ""
    shape = {"size": (height, width)} if views else {"image_size": min(height, width)}
    section.update(shape, channels=channels)
    section.update_from_flattened_dict(other)
    return paths.expand_config(section)


def _write(subject: Subject, kind: str, results: dict[str, float], table: str) -> Path:
    """Prints the table and writes the numbers, with the step they belong to; returns the file."""
    print(table, flush=True)
    path = subject.run.workdir / f"results{subject.suffix}{kind}.json"
    results["step"] = subject.step
    tables.write_results(path, results)
    return path


def _report(
    subject: Subject,
    kind: str,
    results: dict[str, float],
    suffixes: Sequence[str],
    pictures: Callable[[], list[Section]] = lambda: [],
) -> Path | None:
    """Writes the run's page with the table of an evaluation; returns the file, or None."""
    on = subject.suffix.removeprefix("-")

    def make() -> list[Section]:
        return [reports.results_section(results, suffixes, kind=kind, on=on), *pictures()]

    return reports.write(subject.run.workdir, make, suffix=subject.suffix)


def _labels(source: data.Source, workers: int) -> np.ndarray:
    """All labels int32 `[N]`, read with the images where the source does not know them."""
    known = records.labels_of(source)
    if known is not None:
        return known
    with ThreadPoolExecutor(records.threads(workers)) as pool:
        return np.array([*pool.map(lambda i: source[i]["label"], range(len(source)))], np.int32)


def _draw_training(subject: Subject, variables: Variables, folder: Path) -> Pictures:
    """`curves.png` and `task.png`: how the training went, and what its task looks like."""
    run, source = subject.run, subject.dataset.train
    if (run.workdir / "metrics.jsonl").exists():
        figures.curves(run.workdir / "metrics.jsonl", folder / "curves.png")
    batch = records.stack([source[int(i)] for i in random_rows(source, 8)])
    batch["index"] = np.arange(len(batch["image"]), dtype=np.int32)
    rng = jax.random.key(run.plan.seed)
    columns = visualize(run.plan.method, variables, batch, rng)
    figures.task_grid(columns, folder / "task.png")
    return columns
