"""The command `sslax.predict`, in this process: flags go to the task that the run learned."""

import formulas
import numpy as np
import pytest
from formulas import SIZE, save_frames

from sslax import predict
from sslax.data.files.flow_files import read_flow
from sslax.errors import UserError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with formulas.runs(tmp_path_factory.mktemp("runs")) as folder:
        yield folder


def run_command(workdir, *options):
    from absl import flags

    saved = {n: (flags.FLAGS[n].value, flags.FLAGS[n].present) for n in flags.FLAGS}
    try:
        flags.FLAGS(["predict", f"--workdir={workdir}", *options])
        predict.main([])
    finally:
        for n, (value, present) in saved.items():
            flags.FLAGS[n].value, flags.FLAGS[n].present = value, present


def test_flags_reach_the_task(runs, tmp_path, capsys):
    folder = save_frames(tmp_path / "frames", [10, 60, 30])
    run_command(runs / "video", f"--input={folder}", f"--output={tmp_path / 'out'}", "--novideo")
    assert "depth of 3 images; of unknown scale" in capsys.readouterr().out
    assert not (tmp_path / "out" / "trajectory.txt").exists()


def test_the_size_of_the_network(runs, tmp_path):
    height, width = SIZE
    folder = save_frames(tmp_path / "frames", [51, 255])  # of 16 x 24 pixels
    options = (f"--input={folder}", f"--output={tmp_path}")
    for size, scale in ((f"{height},{2 * width}", 1), (f"{height},{width}", 2)):
        run_command(runs / "pairs", *options, f"--size={size}")
        flow, _ = read_flow(tmp_path / "f8.flo")
        np.testing.assert_allclose(flow[..., 0], np.full((16, 24), 0.4 * scale), rtol=1e-6)
    for size in ("8", "8,x", "8,0"):
        with pytest.raises(UserError, match=f"--size={size} is not a height and a width"):
            run_command(runs / "pairs", *options, f"--size={size}")


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        (
            "video",
            "--stages",
            "--stages is for runs that predict features; this one predicts depth",
        ),
        (
            "pairs",
            "--baseline=1.0",
            "--baseline is for runs that predict depth; this one predicts ",
        ),
        ("pairs", "--novideo", "--video is for runs that predict depth; this one predicts flow"),
    ],
)
def test_flags_of_other_tasks_are_named(runs, name, option, message):
    with pytest.raises(UserError, match=message):
        run_command(runs / name, "--input=a", "--output=b", option)
