"""A run's page through its life: while it trains, evaluated again, beside others."""

import json

import numpy as np
import pytest
import run_folder

from sslax.report import page
from sslax.tasks import batches, reports

RESULTS = {"knn": 0.5, "knn_untrained": 0.25, "knn_pixels": 0.3, "rankme": 3.0, "step": 30.0}


@pytest.fixture
def workdir(load_config, tmp_path):
    """`(name, **values) -> folder` of a run."""
    metrics = '{"step": 10, "loss": 5.0}\n'

    def make(name, **values):
        return run_folder.write(tmp_path / name, load_config("simclr", ""), metrics, **values)

    return make


def ids(sections):
    return [section["id"] for section in sections]


def test_each_evaluation_replaces_its_own_part(workdir):
    folder = workdir("a")
    assert reports.write(folder, lambda: []) == folder / "report.html"
    assert ids(page.read(folder / "report.html")) == ["facts", "curves", "config"]
    table = reports.results_section(RESULTS, ("", "_untrained", "_pixels"))
    assert table["title"] == "Evaluation, step 30"
    assert table["blocks"][0]["columns"] == ["accuracy, %", "trained", "untrained", "pixels"]
    assert table["blocks"][0]["rows"] == [["knn", "50.0", "25.0", "30.0"]]
    reports.write(folder, lambda: [table, {"id": "maps", "n": 1}])
    (folder / "metrics.jsonl").write_text('{"step": 10, "loss": 5.0}\n{"step": 20, "loss": 4.0}\n')
    tuned = reports.results_section({"finetune": 0.5, "step": 30}, ("",), kind="-finetune")
    reports.write(folder, lambda: [tuned])
    sections = {section["id"]: section for section in page.read(folder / "report.html")}
    order = ["facts", "results", "results-finetune", "curves", "maps", "config"]
    assert [*sections] == order and sections["results"] == table
    assert sections["curves"]["runs"][0]["series"]["loss"]["step"] == [10, 20]
    assert reports.write(folder, lambda: [], suffix="-birds").name == "report-birds.html"


def test_what_goes_wrong_is_said_in_a_sentence(workdir, capsys):
    folder = workdir("a")

    def fail():
        raise ZeroDivisionError("of\nfeatures")

    assert reports.write(folder, fail) is None
    said = capsys.readouterr().out
    assert said.endswith("report.html was not written: ZeroDivisionError: of features\n")
    assert said.startswith("warning: ") and not (folder / "report.html").exists()
    assert reports.write(folder / "nowhere", lambda: []) is None
    assert "holds no run" in capsys.readouterr().out


def test_a_live_page_follows_the_run(workdir):
    folder = workdir("a")
    reports.write(folder, lambda: [{"id": "maps", "n": 1}])
    first = reports.news(folder)
    assert first["status"].endswith("ago.") and ids(first["sections"]) == ["facts", "curves"]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "loss": 4.0}\n')
    second = reports.news(folder)
    assert second["version"] == first["version"]
    assert second["sections"][1]["runs"][0]["series"]["loss"]["value"] == [5.0, 4.0]
    text = reports.render(folder, live=True)
    assert '"live":true' in text and '"id":"maps"' in text and "4.0" in text
    (folder / "report.html").unlink()
    assert reports.news(folder)["version"] != first["version"]


def test_runs_stand_side_by_side(workdir):
    one, two = workdir("one/run"), workdir("two/run", batch_size=64)
    (one / "results.json").write_text(json.dumps(RESULTS))
    (two / "results.json").write_text(json.dumps({"knn": 0.75, "linear": 0.5, "knn20": None}))
    facts, results, curves, config = reports.comparison([one, two])
    names = ["one/run", "two/run"]
    assert facts["blocks"][0]["columns"] == ["", *names]
    assert config["blocks"][0]["rows"] == [["batch_size", "128", "64"]]
    accuracy, collapse = results["blocks"]
    assert accuracy["groups"] == [["one/run", 3], ["two/run", 1]]
    assert accuracy["columns"] == ["accuracy, %", "trained", "untrained", "pixels", "trained"]
    assert accuracy["rows"] == [
        ["knn", "50.0", "25.0", "30.0", "75.0"],
        ["linear", "-", "-", "-", "50.0"],
    ]
    assert collapse["groups"] == [["one/run", 3]]  # the other run has none
    assert collapse["rows"] == [["rankme", "3", "-", "-"]]
    assert [run["name"] for run in curves["runs"]] == names
    for block in (accuracy, collapse):
        assert {len(row) for row in block["rows"]} == {len(block["columns"])}
        assert 1 + sum(span for _, span in block["groups"]) == len(block["columns"])


def frames(*numbers):
    return [{"image": np.full((len(n), 2, 3, 1), np.reshape(n, (-1, 1, 1, 1)))} for n in numbers]


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        (frames((0, 1), (1, 2), (2, 3), (7, 8)), [0, 1, 2]),
        (frames((9, 8), (0, 1), (1, 2), (2, 3)), [1, 2, 3]),
        (frames((0, 2), (1, 3), (2, 4), (3, 5), (4, 6)), [0, 1, 2, 3, 4]),  # every other frame
        (frames((0, 1, 2), (1, 2, 3), (2, 3, 4)), [0, 1, 2]),
        (frames((0, 1), (1, 2), (5, 6)), []),  # two are no film
        (frames((0, 1), (2, 3), (4, 5)), []),
        (frames((0,), (0,), (0,)), []),
        ([{"image": np.zeros((2, 3, 1))}] * 4, []),
        ([], []),
    ],
)
def test_the_film_is_of_records_that_follow_each_other(source, rows):
    assert batches.video_rows(source).tolist() == rows
