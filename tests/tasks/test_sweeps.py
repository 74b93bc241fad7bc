"""Sweeps: rows of values, their folders, what is skipped, and the table."""

import csv
import json

import numpy as np
import pytest

from sslax.errors import UserError
from sslax.tasks import sweeps
from sslax.training import description


@pytest.fixture
def config(load_config):
    return load_config("simclr", "tiny")


def values(tmp_path, text, suffix="toml"):
    file = tmp_path / f"values.{suffix}"
    file.write_text(text)
    return file


GRID = """
"optimizer.learning_rate" = [0.1, 0.2]
batch_size = [16, 32]
[augment]
crop_scale = [[0.2, 1.0], [0.5, 1.0]]
"""


def test_a_grid_has_all_combinations(tmp_path, config):
    rows = sweeps.read_rows(values(tmp_path, GRID))
    assert len(rows) == 8
    assert rows[1].values == {
        "optimizer.learning_rate": 0.1,
        "batch_size": 16,
        "augment.crop_scale": [0.5, 1.0],
    }
    (made,) = sweeps.configs_of(config, rows[1], 1).values()
    assert made.augment.crop_scale == (0.5, 1.0) and made.optimizer.learning_rate == 0.1
    assert config.batch_size == 16 and config.optimizer.learning_rate != 0.1  # as it was
    assert len({row.name for row in rows}) == 8


def test_rows_are_the_same_in_both_formats(tmp_path):
    text = '[[rows]]\nseed = 1\n[[rows]]\nmodel.width = 0.5\nduration = "2 epochs"\n'
    listed = [{"seed": 1}, {"model": {"width": 0.5}, "duration": "2 epochs"}]
    rows = sweeps.read_rows(values(tmp_path, text))
    assert rows == sweeps.read_rows(values(tmp_path, json.dumps(listed), "json"))
    assert [row.name for row in rows] == ["seed=1", "model.width=0.5,duration=2_epochs"]


def test_long_and_odd_values_have_folders_of_their_own():
    names = [sweeps._name({"data.path": f"/a/{'x' * 200}/{i}"}) for i in (1, 2)]
    names += [sweeps._name({"data.path": path}) for path in ("a/b", "a:b")]
    assert len(set(names)) == 4
    assert all("/" not in name and len(name) < 120 for name in names)


def test_seeds_are_runs_of_their_own(config):
    config.seed = 7
    made = sweeps.configs_of(config, sweeps.Row("batch_size=8", {"batch_size": 8}), 3)
    assert [c.seed for c in made.values()] == [7, 8, 9]
    assert list(made) == [f"batch_size=8/seed_{seed}" for seed in (7, 8, 9)]
    with pytest.raises(UserError, match="leave seed out"):
        sweeps.configs_of(config, sweeps.Row("seed=1", {"seed": 1}), 2)


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        ("yaml", "", "neither a .toml nor a .json file"),
        ("json", "{", "is no JSON"),
        ("toml", "a = ", "is no TOML"),
        ("toml", "batch_size = 16", r"batch_size = 16 is not a list .*batch_size = \[16\]"),
        ("toml", "batch_size = []", "is not a list of values"),
        ("json", "[]", "has no values"),
        ("json", "[1, 2]", "has no values"),
        ("toml", "", "has no values"),
        ("json", '[{"seed": 1}, {"seed": 1}]', "has the row seed=1 twice"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path, suffix, text, message):
    with pytest.raises(UserError, match=message):
        sweeps.read_rows(values(tmp_path, text, suffix))


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no\.toml does not exist"):
        sweeps.read_rows(tmp_path / "no.toml")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"optimizer.learning_rat": 0.1},
            'no key optimizer.learning_rat: did you mean "optimizer.l',
        ),
        ({"bach_size": 8}, 'no key bach_size: did you mean "batch_size"'),
        ({"batch_size": "many"}, "batch_size = 'many': "),
        ({"batch_size": 0}, "config.batch_size"),
        ({"writers": ["tensorbord"]}, "config.writers"),
    ],
)
def test_values_that_the_config_does_not_take_are_named(config, row, message):
    with pytest.raises(UserError, match=message):
        sweeps.configs_of(config, sweeps.Row("row", row), 1)


@pytest.fixture
def trained(monkeypatch):
    """Stands in for training: results that follow from the config. Notes which runs there were."""
    runs = []

    def fit(config, workdir):
        runs.append(workdir.name)
        if config.optimizer.learning_rate == 9:
            raise UserError("loss became NaN")
        about = description.describe(config, {"examples": 1, "image_shape": [], "classes": None})
        workdir.mkdir(parents=True)
        description.write(workdir, about)
        (workdir / "encoder.safetensors").touch()
        knn = config.optimizer.learning_rate + 0.01 * config.seed
        results = {"knn": 1 - knn, "knn20": knn, "knn20_untrained": 0.1, "nothing": None}
        (workdir / "results.json").write_text(json.dumps(results))
        return type("State", (), {"step": np.int32(12)})

    plan = type("Run", (), {"plan": type("Plan", (), {"steps": 12})})
    monkeypatch.setattr(sweeps, "fit", fit)
    monkeypatch.setattr(sweeps, "open_run", lambda workdir: plan)
    monkeypatch.setattr(sweeps.evaluation, "evaluate_run", lambda workdir: None)
    return runs


def complete(config, rows, output, seeds):
    for row in rows:
        for name, changed in sweeps.configs_of(config, row, seeds).items():
            assert sweeps.run(changed, output / name)
    return sweeps.outcomes_of(config, rows, output, seeds)


def test_finished_runs_are_skipped_and_those_of_another_config_are_refused(
    config, tmp_path, trained
):
    rows = sweeps.read_rows(values(tmp_path, "optimizer.learning_rate = [0.1, 0.3]"))
    complete(config, rows, tmp_path, 2)
    assert len(trained) == 4
    complete(config, rows, tmp_path, 3)
    assert len(trained) == 6 and trained[4:] == ["seed_2", "seed_2"]
    config.batch_size = 8
    with pytest.raises(UserError, match=r"config\.batch_size: was 16, now 8"):
        complete(config, rows, tmp_path, 3)


def test_the_table_has_means_and_deviations_best_first(config, tmp_path, trained):
    rows = sweeps.read_rows(values(tmp_path, "optimizer.learning_rate = [0.1, 0.3, 0.2]"))
    outcomes = complete(config, rows, tmp_path, 3)
    outcomes.append(sweeps.Outcome(sweeps.Row("x", {"batch_size": 4}), []))
    table = sweeps.write_tables(outcomes, tmp_path)
    assert table == (tmp_path / "sweep.md").read_text()
    assert table.splitlines() == [
        "| optimizer.learning_rate | batch_size | runs | knn20 |",
        "| --- | --- | --- | --- |",
        "| 0.3 |  | 3 | 0.31 ± 0.01 |",
        "| 0.2 |  | 3 | 0.21 ± 0.01 |",
        "| 0.1 |  | 3 | 0.11 ± 0.01 |",
        "|  | 4 | 0 | - |",
    ]
    with (tmp_path / "sweep.csv").open() as file:
        best, *_, missing = csv.DictReader(file)
    assert float(best["knn20_untrained"]) == pytest.approx(0.1)
    assert float(best["knn20 (deviation)"]) == pytest.approx(np.std([0.30, 0.31, 0.32], ddof=1))
    assert missing["knn20"] == missing["nothing"] == ""
    shown = sweeps.write_tables(outcomes, tmp_path, ["knn", "knn20"]).splitlines()
    assert shown[2].startswith("| 0.1 |") and "| 0.89 ± 0.01 | 0.11 ± 0.01 |" in shown[2]
    with pytest.raises(UserError, match="has 'kn20', which no run measured: did you mean"):
        sweeps.write_tables(outcomes, tmp_path, ["kn20"])


def test_lower_errors_are_better():
    outcomes = [sweeps.Outcome(sweeps.Row(n, {}), [{"epe": v}]) for n, v in [("a", 2), ("b", 1)]]
    assert [outcome.row.name for outcome in sweeps._sorted(outcomes, "epe")] == ["b", "a"]


def test_before_anything_is_finished_there_is_a_table_without_results(tmp_path):
    outcomes = [sweeps.Outcome(sweeps.Row("a", {"seed": 1}), [])]
    assert sweeps.write_tables(outcomes, tmp_path, ["knn"]).splitlines()[2] == "| 1 | 0 | - |"
