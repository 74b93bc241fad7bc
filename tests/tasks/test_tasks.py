"""The table of tasks: records are complete, and a new one needs nothing but its row."""

import json
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sslax
from sslax import methods, predict, types
from sslax.augment import to_float
from sslax.inference.encoder import Trained
from sslax.tasks import TASKS, evaluation, task_of
from sslax.tasks.base import PARTS, Evaluated, Task, predict_as_is
from sslax.training import checkpoint, configuration, description, sharding
from sslax.training.plan import describe, make_plan
from sslax.types import Method, Variables


def test_every_task_has_a_complete_record():
    assert set(TASKS) == set(get_args(types.Task))
    assert len({task.name for task in TASKS.values()}) == len(TASKS)
    for task in TASKS.values():
        assert all(value is not None for value in task), task.name
        assert set(task.parts) <= set(PARTS) and task.parts
        assert task.prediction._fields and task.truth._fields


def test_every_flag_of_predict_belongs_to_a_task():
    assert set().union(*(task.options for task in TASKS.values())) == set(predict._OPTIONS)


# A task of its own, whose fields have the names of other tasks' fields.


class Darkness(NamedTuple):
    """The task of predicting how dark an image is."""


class DarknessMap(NamedTuple):
    """`flow` is the mean darkness `[B]`; there is no `features`."""

    flow: jax.Array
    features: jax.Array | None = None


class DarknessTruth(NamedTuple):
    """The truth is in `label`; `depth` is never known."""

    label: jax.Array | None = None
    depth: jax.Array | None = None


def darkness_method(config, steps):
    """`scale * (1 - brightness)`: trained networks have scale 1, untrained ones 0, a teacher 2."""
    return Method(
        task=Darkness(),
        augment=lambda rng, batch: batch,
        init=lambda rng, batch: Variables({"scale": jnp.zeros(())}, {}, {}),
        loss=None,
        update=lambda variables, step: variables.extra,
        predict=lambda variables, batch: DarknessMap(
            flow=variables.params["scale"] * (1 - jnp.mean(to_float(batch["image"]), (1, 2, 3)))
        ),
        visualize=None,
        encoder=lambda variables: (variables.params, variables.model_state),
        preprocess=to_float,
        references=lambda variables: {
            "teacher": variables._replace(params=jax.tree.map(lambda p: 2 * p, variables.params))
        },
    )


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A run of one step on 30 training and 13 test images, each of one brightness."""
    brightness = np.random.default_rng(0).integers(0, 256, 43)
    images = np.broadcast_to(brightness[:, None, None, None], (43, 4, 4, 1)).astype(np.uint8)
    labels = 255 - brightness
    np.savez(
        tmp_path / "set.npz",
        x_train=images[:30],
        y_train=labels[:30],
        x_test=images[30:],
        y_test=labels[30:],
        classes=np.arange(256).astype(str),
    )
    config = configuration.defaults()
    config.update(method="darkness", batch_size=8, duration="1 step", online_probe=False)
    config.data.update(source="npz", path=str(tmp_path / "set.npz"))
    config.evaluate.update(figures=False, batch_size=8)
    monkeypatch.setitem(methods.METHODS, "darkness", darkness_method)
    spec = describe(sslax.data.load(config.data))
    plan = make_plan(config, **spec)
    folder = tmp_path / "run"
    folder.mkdir()
    description.write(folder, description.describe(config, spec))
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = jax.jit(plan.initial_state, out_shardings=sharding.replicated(mesh))()
    with checkpoint.Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(1, state._replace(step=jnp.int32(1), params={"scale": jnp.ones(())}), 0.0)
    return folder


@pytest.fixture
def darkness(monkeypatch):
    """The record of the task, and what its functions were called with."""
    calls = []

    def measure(subject, variables, parts):
        calls.append((variables, parts))
        prediction, truth = parts["test"]
        return {"error": float(np.mean(np.abs(255 * prediction.flow - truth.label)))}

    def baselines(subject, parts):
        mean = np.full_like(parts["test"].prediction.flow, 0.5)
        return {"_gray": {"test": Evaluated(DarknessMap(mean), parts["test"].truth)}}

    task = Task(
        name="darkness",
        prediction=DarknessMap,
        truth=DarknessTruth,
        parts=("test",),
        predict=predict_as_is,
        measure=measure,
        baselines=baselines,
        draw=None,
        load=Trained,
        resizable=True,
        options=frozenset(),
        write=None,
    )
    monkeypatch.setitem(TASKS, Darkness, task)
    return task, calls


def test_a_new_task_needs_one_row(workdir, darkness, capsys):
    """Evaluation and loading go by the record alone, whatever the predictions are called."""
    task, calls = darkness
    results = evaluation.evaluate_run(workdir)
    parts = calls[0][1]["test"]
    assert type(parts.prediction) is DarknessMap and type(parts.truth) is DarknessTruth
    assert parts.prediction.flow.shape == (13,)  # batches of 8: the rows that pad are gone
    assert parts.prediction.features is None and parts.truth.depth is None
    labels = parts.truth.label
    expected = {"error": 0.0, "error_untrained": labels.mean(), "error_teacher": labels.mean()}
    expected |= {"error_gray": np.abs(127.5 - labels).mean(), "step": 1}
    assert results == {n: pytest.approx(v, rel=1e-5, abs=1e-4) for n, v in expected.items()}
    assert json.loads((workdir / "results.json").read_text()) == results
    header = capsys.readouterr().out.splitlines()[0].split()
    assert header == ["trained", "untrained", "teacher", "gray"]
    networks = [variables for variables, _ in calls]
    assert [float(v.params["scale"]) for v in networks[:-1]] == [1.0, 0.0, 2.0]
    assert networks[-1] is None  # a baseline

    trained = sslax.load(workdir, size=(8, 8))
    assert type(trained) is Trained and task_of(trained.method) is task
    assert trained.image_shape == (8, 8, 1)
    assert float(trained.params["scale"]) == 1.0
