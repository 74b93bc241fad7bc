"""Trained networks as files that other programs load, without sslax; see docs/export.md."""

from pathlib import Path

from sslax import paths
from sslax.errors import UserError, check_choice
from sslax.exporting import onnx, stablehlo, torch
from sslax.exporting.program import Program, program_of
from sslax.ranges import Size
from sslax.tasks import loading

__all__ = ["FORMATS", "Program", "export", "program_of"]

FORMATS = {"onnx": onnx.write, "stablehlo": stablehlo.write, "torch": torch.write}
"""`(trained, folder, poses) -> files`, by name."""


def export(
    workdir: str | Path,
    output: str | Path,
    *,
    format: str,
    which: str = "latest",
    size: Size | None = None,
    poses: bool = False,
) -> list[Path]:
    """Writes what a run trained as files for programs that know nothing of sslax.

    Args:
        workdir: the run's folder.
        output: the folder to write.
        format: a key of `FORMATS`.
        which: `latest` or `best` checkpoint.
        size: height and width that a network of maps works at, as `sslax.load` takes it.
        poses: of a run that learned ego-motion: the input is consecutive frames rather than a
            single image, and their poses are predicted as well.

    Returns:
        The files.

    Raises:
        UserError: there is no such run or format, the folder cannot be written, or the network
            does not exist in that format.
    """
    check_choice("--format", format, FORMATS)
    output = paths.expand(output, "--output")
    paths.check_output(output, "--output", folder=True)
    if paths.expand(workdir, "--workdir").resolve() == output.resolve():
        raise UserError(f"--output={output} is the run's own folder; name another.")
    trained = loading.load(workdir, which=which, size=size)
    output.mkdir(parents=True, exist_ok=True)
    return FORMATS[format](trained, output, poses)
