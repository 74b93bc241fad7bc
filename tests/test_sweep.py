"""The command `sslax.sweep`: which rows it runs, and how it ends."""

import pytest
from absl import flags
from absl.testing import flagsaver

from sslax import command, sweep
from sslax.errors import UserError
from sslax.tasks import sweeps


@pytest.fixture
def runs(monkeypatch, tmp_path, load_config):
    """`(run, names)`: runs the command with flags; the names of the runs it made."""
    names = []
    config = load_config("simclr", "tiny")
    monkeypatch.setattr(command, "read_config", lambda: (config, "simclr.py"))
    (tmp_path / "values.toml").write_text("batch_size = [4, 8]\n")

    def note(changed, workdir):
        names.append(str(workdir.relative_to(tmp_path / "out")))
        if changed.batch_size == 4 and changed.seed == 1:
            raise UserError("loss became NaN")
        return changed.batch_size != 8 or changed.seed != 2

    monkeypatch.setattr(sweeps, "run", note)

    def run(**given):
        given = {"values": tmp_path / "values.toml", "output": tmp_path / "out"} | given
        with flagsaver.flagsaver():
            flags.FLAGS(["sweep", *(f"--{name}={value}" for name, value in given.items())])
            sweep.main([])

    return run, names, config


def test_every_row_runs(runs, capsys):
    run, names, _ = runs
    run()
    assert names == ["batch_size=4", "batch_size=8"]
    assert "| batch_size | runs |" in capsys.readouterr().out


def test_an_index_runs_one_row_with_all_its_seeds(runs):
    run, names, _ = runs
    run(index=1, seeds=2)
    assert names == ["batch_size=8/seed_0", "batch_size=8/seed_1"]
    with pytest.raises(UserError, match=r"--index=2, but .*values\.toml has 2 row\(s\), 0 to 1"):
        run(index=2)


def test_a_failed_run_is_named_and_the_others_go_on(runs, capsys):
    run, names, _ = runs
    with pytest.raises(SystemExit, match="1 run\\(s\\) failed: batch_size=4/seed_1"):
        run(seeds=2)
    assert len(names) == 4
    assert capsys.readouterr().err == "error: loss became NaN\n"


def test_a_stopped_run_ends_the_sweep(runs):
    run, names, _ = runs
    with pytest.raises(SystemExit) as ended:
        run(index=1, seeds=4)
    assert ended.value.code == command.STOPPED and len(names) == 3


def test_results_are_what_a_sweep_is_for(runs):
    run, _, config = runs
    config.evaluate.at_end = False
    with pytest.raises(UserError, match=r"leave config\.evaluate\.at_end at True"):
        run()
