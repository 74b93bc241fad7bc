"""The table of results, and the file."""

import json

import numpy as np

from sslax.tasks import tables


def test_table_of_an_encoder():
    accuracies = {"knn": 0.8, "linear": 0.85, "linear_stage0": 0.7, "linear_stage1": 0.9}
    results = accuracies | {"linear_best_stage": 0.9, "linear_10_labels": 0.9}
    results |= {"knn_10_labels": 0.6, "knn_10_labels_std": 0.021, "rankme": 12.5, "step": 2000}
    results |= {"knn_untrained": 0.123456, "rankme_untrained": 2.5}
    results |= {"knn_pixels": 1.0, "linear_10_labels_pixels": 0.5}
    results |= {"finetune": 0.91, "finetune_untrained": 0.875, "alignment": 0.25}
    lines = [line for line in tables.table(results).splitlines() if line]
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["accuracy,", "%", "trained", "untrained", "pixels"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["knn"] == ["80.0", "12.3", "100.0"]
    assert rows["knn_10_labels"] == ["60.0", "±", "2.1", "-", "-"]
    assert "knn_10_labels_std" not in rows
    assert rows["linear_best_stage"] == ["90.0", "(stage1)", "-", "-"]
    assert rows["finetune"] == ["91.0", "87.5", "-"]
    assert rows["rankme"] == ["12.50", "2.50", "-"] and rows["alignment"] == ["0.2500", "-", "-"]
    assert rows["step"] == ["2000", "-", "-"]
    order = [line.split()[0] for line in lines]
    assert order.index("finetune") < order.index("collapse") < order.index("alignment")


def test_table_of_maps():
    results = {"abs_rel": 0.1234, "epe": 1.0, "abs_rel_untrained": 0.5, "abs_rel_teacher": 0.25}
    results |= {"epe_trivial": 2.5}
    table = tables.table(results, ["", "_untrained", "_teacher", "_trivial"])
    assert [line.split() for line in table.splitlines()] == [
        ["trained", "untrained", "teacher", "trivial"],
        ["abs_rel", "0.123", "0.500", "0.250", "-"],
        ["epe", "1.000", "-", "-", "2.500"],
    ]


def test_sentences_where_numbers_are_missing():
    assert tables.table({}) == tables.NO_RESULTS
    assert tables.table({"rankme": 2.5}).endswith(tables.UNLABELED)
    assert not tables.table({"epe": 2.5}).endswith(tables.UNLABELED)


def test_results_file(tmp_path):
    path = tmp_path / "run" / "results.json"
    tables.write_results(path, {"b": np.float32(0.25), "a": np.nan, "step": 3})
    assert path.read_text() == '{\n  "a": null,\n  "b": 0.25,\n  "step": 3.0\n}\n'
    tables.write_results(path, {"b": 1})
    assert json.loads(path.read_text()) == {"b": 1.0}
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_a_logistic_regression_that_was_left_out_is_explained():
    streamed = {"knn": 0.5, "linear_sgd": 0.6, "linear_sgd_pixels": 0.3}
    assert tables.TOO_LARGE in tables.table(streamed)
    assert tables.TOO_LARGE in tables.table(streamed | {"linear_pixels": 0.3})  # fewer pixels
    complete = streamed | {"linear": 0.6, "linear_pixels": 0.3}
    assert tables.TOO_LARGE not in tables.table(complete)
    assert tables.TOO_LARGE not in tables.table({"finetune": 0.9})
