"""Traces of some steps."""

import gzip
import json

import jax
import pytest

from sslax.errors import UserError
from sslax.training import profile


@jax.jit
def double(x):
    return 2 * x


def test_the_steps_after_the_first_three_are_traced(tmp_path, capsys):
    with profile.traced(tmp_path / "new", double, steps=2, first=10, last=17) as step:
        assert [float(step(i)) for i in range(5)] == [0, 2, 4, 6, 8]
        printed = capsys.readouterr().out
        assert [float(step(i)) for i in range(2)] == [0, 2]
    (file,) = tmp_path.rglob("perfetto_trace.json.gz")
    assert f"Trace of 2 steps: {file} " in printed
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    traced = [event["args"]["step_num"] for event in events if event.get("name") == "train"]
    assert sorted(traced) == ["13", "14"]
    assert list(tmp_path.rglob("*.xplane.pb"))  # for TensorBoard


def test_a_run_that_stops_early_stops_its_trace(tmp_path):
    for name in ("one", "another"):  # the second could not start beside the first
        with profile.traced(tmp_path / name, double, steps=2, first=0, last=9) as step:
            for i in range(4):
                step(i)


def test_no_trace_and_too_few_steps(tmp_path):
    with profile.traced(tmp_path, double, steps=0, first=0, last=1) as step:
        assert step is double
    with (
        pytest.raises(UserError, match="--profile=2: the run has 4 more steps"),
        profile.traced(tmp_path, double, steps=2, first=6, last=10),
    ):
        pass
