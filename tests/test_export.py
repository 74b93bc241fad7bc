"""The command `sslax.export`: its flags, in this process."""

import pytest

from sslax import export, exporting


def test_formats_are_those_that_can_be_written():
    assert set(export.FORMATS) == set(exporting.FORMATS)


def test_flags_reach_the_function(monkeypatch, tmp_path, capsys):
    from absl import flags

    file = tmp_path / "model.bin"
    file.write_bytes(bytes(20_000))
    calls = []
    monkeypatch.setattr(exporting, "export", lambda *a, **k: calls.append((a, k)) or [file])
    names = ("workdir", "output", "format", "checkpoint", "size", "poses")
    saved = {n: (flags.FLAGS[n].value, flags.FLAGS[n].present) for n in names}
    try:
        given = ["--workdir=run", "--output=out", "--format=stablehlo", "--size=8,12", "--poses"]
        flags.FLAGS(["export", *given, "--checkpoint=best"])
        export.main([])
    finally:
        for n, (value, present) in saved.items():
            flags.FLAGS[n].value, flags.FLAGS[n].present = value, present
    expected = {"format": "stablehlo", "which": "best", "size": (8, 12), "poses": True}
    assert calls == [(("run", "out"), expected)]
    assert capsys.readouterr().out == f"{file}: 0.02 MB\n"


def test_a_format_that_does_not_exist_is_refused():
    from absl import flags

    with pytest.raises(flags.IllegalFlagValueError, match="value should be one of"):
        flags.FLAGS(["export", "--format=pickle"])
