"""What a run's folder says of its training."""

import json

import numpy as np
import pytest

from sslax.errors import UserError
from sslax.report import run


def test_facts_of_a_run_that_still_trains(workdir):
    folder = workdir("a", data__path="/secret/birds/train", data__source="folder")
    facts = run.facts(folder)
    assert facts == {
        "Method": "simclr",
        "Model": "resnet18",
        "Data": "birds-train: 8,000 images of 28x28x1, 10 classes",
        "Steps": "1,860, each of 128 examples (30 epochs)",
        "So far": "30 steps, 1 %",
        "Training time": "4 s",  # 1280 images at 640 a second, then 2560 at 1280
    }
    machine = {"device": "TPU v6e", "devices": 8, "processes": 2, "parameters": 12345}
    (folder / "machine.json").write_text(json.dumps(machine | {"sslax": "0.2", "jax": "0.10"}))
    facts = run.facts(folder)
    assert facts["Devices"] == "8 x TPU v6e of 2 processes" and facts["Parameters"] == "12,345"


def test_changes_are_those_from_the_default(workdir):
    assert run.changes(workdir("a"))["blocks"] == []
    changed = run.changes(workdir("b", simclr__temperature=0.3, duration="2 epochs"))
    (block,) = changed["blocks"]
    assert block["columns"] == ["", "configs/simclr.py", "this run"]
    assert [row[0] for row in block["rows"]] == ["duration", "simclr.temperature"]
    assert block["rows"][0][1:] == ['"30 epochs"', '"2 epochs"'] and block["rows"][1][2] == "0.3"


def test_a_method_without_a_config_says_so(workdir):
    folder = workdir("a")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"method": "mine"}))
    assert run.changes(folder)["notes"] == ["There is no configs/mine.py to compare with."]


def test_curves_have_steps_and_seconds(workdir):
    (found,) = run.curves({"a": workdir("a")})["runs"]
    loss = found["series"]["loss"]
    assert loss["step"] == [10, 20, 30] and loss["value"] == [5.0, 4.0, 3.0]
    np.testing.assert_allclose(loss["seconds"], [2.0, 3.0, 4.0])
    knn = found["series"]["online_knn"]  # between the lines that say how fast it goes
    assert knn["step"] == [15] and knn["seconds"] == [2.5]


def test_long_curves_are_thinned_out():
    steps = np.arange(1, 100_001)
    line = run._line(steps, steps / 10, np.sqrt(steps))
    assert len(line["step"]) <= 1500 and line["step"][-1] == 100_000
    assert len({*np.diff(line["step"])}) == 1
    assert line["value"][-1] == pytest.approx(316.23)


def test_a_run_without_lines_has_a_page(workdir):
    folder = workdir("a")
    (folder / "metrics.jsonl").unlink()
    assert run.curves({"a": folder})["runs"] == [{"name": "a", "series": {}}]
    assert "Training time" not in run.facts(folder)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        run.facts(tmp_path)
