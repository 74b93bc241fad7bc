"""Means over steps, the files, and the progress line."""

import io
import json

import jax.numpy as jnp
import pytest

from sslax.training import metrics, writers


def test_meter_means_and_forgets():
    meter = metrics.Meter()
    for step, loss in enumerate([1.0, 2.0, 6.0]):
        meter.add(step, {"loss": jnp.asarray(loss)})
    assert meter.summarize() == {"loss": 3.0}
    assert meter.summarize() == {}


def test_meter_names_the_first_bad_step_and_metric():
    meter = metrics.Meter()
    for step, loss in [(7, 1.0), (8, jnp.inf), (9, jnp.nan)]:
        meter.add(step, {"loss": jnp.asarray(loss), "accuracy": jnp.asarray(0.5)})
    with pytest.raises(metrics.NonFinite, match=r"^loss became NaN or infinite at step 8"):
        meter.summarize()


def test_writer_drops_lines_a_resume_repeats_and_a_line_cut_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0 * step}) for step in (10, 20, 30)]
    path.write_text("\n".join(lines) + '\n{"step": 40, "lo')
    writer = writers.Writers(("tensorboard",), writers.Place(tmp_path, 20, {}))
    writer.write(30, {"loss": -1.0})
    writer.close()
    assert [(line["step"], line["loss"]) for line in metrics.read_jsonl(path)] == [
        (10, 10.0),
        (20, 20.0),
        (30, -1.0),
    ]
    assert list((tmp_path / "tensorboard").glob("events*"))


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_live_on_a_terminal_and_linewise_elsewhere():
    live, quiet = _Terminal(), io.StringIO()
    for stream in (live, quiet):
        progress = metrics.Progress(3, 0, stream=stream, quiet_seconds=1e9)
        for step in (1, 2, 3):
            progress.show(step, {"loss": 1.0})
    assert live.getvalue().count("\r") == 3 and live.getvalue().count("\n") == 1
    # The first line, then only the last: the others came too soon.
    assert [line.split()[1] for line in quiet.getvalue().splitlines()] == ["1/3", "3/3"]


def test_progress_text_counts_time_left_from_where_the_run_went_on():
    text = metrics.progress_text(60, 100, {"accuracy": 0.5}, 3700.0, first=50)
    assert text == "step 60/100 (60%)  accuracy 0.500  1:01:40 elapsed, 4:06:40 left"


@pytest.mark.parametrize(
    "odd",
    [
        *(b"1", b"text", b"\xff\xfe\x00", b'{"step": 15, "lo', b"[]", b'{"loss": 1}', b"", b"null"),
        *(b'{"step": "15"}', b'{"step": 15, "loss": "x"}', b'{"step": true}'),
    ],
)
def test_a_damaged_line_costs_that_line_alone(tmp_path, odd):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0}).encode() for step in (10, 20)]
    path.write_bytes(b"\n".join([lines[0], odd, lines[1], b""]))
    assert [line["step"] for line in metrics.read_jsonl(path)] == [10, 20]
    writers.Lines(writers.Place(tmp_path, 20, {})).close()
    assert path.read_bytes().splitlines() == lines
