"""Trackers: the calls that they get, what survives their failures, and the real ones offline."""

import importlib
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from sslax import ranges
from sslax.errors import MissingExtra, UserError
from sslax.training import configuration, metrics, writers

CONFIG = {"seed": 0, "optimizer.learning_rate": 0.4, "augment.crop_scale": [0.5, 1.0]}
TRACKERS = tuple(writers.GUESTS)


class Recorder:
    """Notes every call on it, and on what its calls return."""

    def __init__(self, calls, name, **returned):
        self._calls, self._name, self._returned = calls, name, returned

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self._calls.append((f"{self._name}.{name}", args, kwargs))
            return self._returned.get(name)

        return call


def fake(tracker, calls):
    """A module with the functions of a tracker that are used, noting their calls."""
    module = ModuleType(tracker)
    if tracker != "mlflow":
        run = Recorder(calls, "run")
        module.init = Recorder(calls, tracker, init=run).init
        return {tracker: module}
    run = SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    client = Recorder(calls, "client", create_run=run, create_experiment="7")
    module.MlflowClient = lambda: client
    module.entities = ModuleType("mlflow.entities")
    module.entities.Metric = lambda *fields: fields
    module.entities.Param = lambda *fields: fields
    return {"mlflow": module, "mlflow.entities": module.entities}


@pytest.fixture
def calls(monkeypatch):
    """Calls on fake trackers, which stand in for those that may be installed."""
    noted = []
    for tracker in TRACKERS:
        for name, module in fake(tracker, noted).items():
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(writers.errors, "require", lambda extra: None)
    for variable in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    return noted


def run(workdir, names, steps, start=0):
    place = writers.Place(workdir, start, CONFIG)
    opened = writers.Writers(names, place)
    for step in steps:
        opened.write(step, {"loss": 1.0 / step})
    opened.close()


def test_every_tracker_gets_the_config_the_values_and_its_end(calls, tmp_path):
    workdir = tmp_path / "simclr"
    workdir.mkdir()
    run(workdir, TRACKERS, [10, 20])
    ids = json.loads((workdir / "trackers.json").read_text())
    assert calls[0] == (
        "wandb.init",
        (),
        {
            "project": "sslax",
            "name": "simclr",
            "id": ids["wandb"],
            "resume": "allow",
            "dir": workdir,
            "config": CONFIG,
        },
    )
    by_name = {}
    for name, args, kwargs in calls:
        by_name.setdefault(name, []).append((args, kwargs))
    assert by_name["client.get_experiment_by_name"] == [(("sslax",), {})]
    assert by_name["client.create_run"] == [(("7",), {"run_name": "simclr"})]
    parameters, *points = by_name["client.log_batch"]
    assert parameters == (("r1",), {"params": [(n, str(v)) for n, v in CONFIG.items()]})
    logged = [(args[0], [(m[0], m[1], m[3]) for m in kw["metrics"]]) for args, kw in points]
    assert logged == [("r1", [("loss", 0.1, 10)]), ("r1", [("loss", 0.05, 20)])]
    assert by_name["client.set_terminated"] == [(("r1",), {})]
    ((_, knobs),) = by_name["trackio.init"]
    assert knobs["name"] == ids["trackio"] and knobs["name"].startswith("simclr-")
    expected = [(({"loss": 1.0 / step},), {"step": step}) for step in (10, 10, 20, 20)]
    assert by_name["run.log"] == expected  # of W&B and of Trackio
    assert len(by_name["run.finish"]) == 2


def test_a_resumed_run_goes_on_in_the_same_runs(calls, tmp_path):
    run(tmp_path, TRACKERS, [10])
    first = [kwargs for name, _, kwargs in calls if name.endswith(".init")]
    del calls[:]
    run(tmp_path, TRACKERS, [20], start=10)
    assert [kwargs for name, _, kwargs in calls if name.endswith(".init")] == first
    names = [name for name, *_ in calls]
    assert "client.create_run" not in names and "client.update_run" in names
    steps = [line["step"] for line in metrics.read_jsonl(tmp_path / "metrics.jsonl")]
    assert steps == [10, 20]


@pytest.mark.parametrize("when", ["init", "log", "finish"])
def test_a_failure_is_said_once_and_loses_nothing(calls, tmp_path, monkeypatch, capsys, when):
    def fail(*_, **__):
        raise ConnectionError("no route to host\nand more")

    broken = SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    setattr(broken, when, fail)
    start = fail if when == "init" else lambda **_: broken
    monkeypatch.setattr(sys.modules["wandb"], "init", start)
    run(tmp_path, ("wandb", "trackio"), [10, 20, 30])
    said = "wandb failed and is left out; metrics.jsonl has everything: no route to host.\n"
    assert capsys.readouterr().err == f"\n{said}"
    assert len(metrics.read_jsonl(tmp_path / "metrics.jsonl")) == 3
    assert sum(name == "run.log" for name, *_ in calls) == 3  # Trackio's


def test_a_tracker_that_cannot_send_the_rest_is_not_waited_for(
    calls, tmp_path, monkeypatch, capsys
):
    import threading

    sent = threading.Event()
    hanging = SimpleNamespace(log=lambda *_, **__: None, finish=sent.wait)
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **_: hanging)
    monkeypatch.setattr(writers, "_PATIENCE", 0.05)
    run(tmp_path, ("wandb",), [10])
    sent.set()
    assert "wandb still sends after 0.05 s and is not waited for." in capsys.readouterr().err


@pytest.mark.parametrize("tracker", TRACKERS)
def test_what_is_not_installed_is_named_before_anything_starts(tmp_path, monkeypatch, tracker):
    from sslax.training.fit import fit

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = configuration.defaults()
    config.writers = ("tensorboard", tracker)
    message = rf"{tracker} is not installed; run pip install 'sslax\[{tracker}\]'"
    with pytest.raises(MissingExtra, match=message):
        fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_names_of_writers_are_checked():
    kind = configuration.Section.__annotations__["writers"]
    ranges.check("config.writers", ("tensorboard", *TRACKERS), kind)
    ranges.check("config.writers", (), kind)
    with pytest.raises(UserError, match=r"config\.writers.*wandb"):
        ranges.check("config.writers", ("wanb",), kind)


# The real ones, offline.


def installed(tracker, monkeypatch):
    reason = f"of the extra [{tracker}]"
    return pytest.importorskip(tracker, reason=reason)


@pytest.mark.filterwarnings("ignore")  # their own
def test_wandb_keeps_its_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    installed("wandb", monkeypatch)
    for start in (0, 10):
        run(tmp_path, ("wandb",), [start + 10], start=start)
    ids = json.loads((tmp_path / "trackers.json").read_text())
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and {file.stem for file in files} == {f"run-{ids['wandb']}"}
    assert all(b"learning_rate" in file.read_bytes() for file in files)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_its_run(tmp_path, monkeypatch):
    mlflow = installed("mlflow", monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    for start in (0, 10):
        run(tmp_path, ("mlflow",), [start + 10], start=start)
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("sslax").experiment_id])
    assert found.info.run_name == tmp_path.name and found.info.status == "FINISHED"
    assert found.data.params["augment.crop_scale"] == "[0.5, 1.0]"
    points = client.get_metric_history(found.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(10, 0.1), (20, 0.05)]


@pytest.mark.filterwarnings("ignore")
def test_trackio_keeps_its_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    installed("trackio", monkeypatch)
    for start in (0, 10):
        run(tmp_path, ("trackio",), [start + 10], start=start)
    api = importlib.import_module("trackio").Api()
    (found,) = list(api.runs("sslax"))
    assert found.name == json.loads((tmp_path / "trackers.json").read_text())["trackio"]
