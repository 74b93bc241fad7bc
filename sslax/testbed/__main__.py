"""`python -m sslax.testbed --output=BED`: rendered scenes with exact truth, to test any program on.

`--corruptions=noise,blur`, or `all`, writes the images under corruptions too.
`--predictions=FOLDER --truth=BED` scores what a program predicted. See docs/testbed.md.
"""

from pathlib import Path

from sslax import command
from sslax.command import flags
from sslax.errors import UserError

_OUTPUT = command.output_flag()
_CORRUPTIONS = flags.DEFINE_list(
    "corruptions", [], "brightness, noise, blur, darkness, compression, or all: with --output."
)
_PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "Folder of a program's predictions, to be scored; needs --truth."
)
_TRUTH = flags.DEFINE_string("truth", None, "Folder of the test bed that was predicted.")


def main(_: list[str]) -> None:
    """Writes a test bed, or the scores of predictions for one, which it also prints."""
    if (_PREDICTIONS.value is None) != (_TRUTH.value is None):
        raise UserError("Scores take both: give --predictions=FOLDER and --truth=BED.")
    if (_OUTPUT.value is None) == (_PREDICTIONS.value is None):
        raise UserError(
            "Give --output=BED to write a test bed, or --predictions=FOLDER --truth=BED to score."
        )
    if _OUTPUT.value is None:
        if _CORRUPTIONS.value:
            raise UserError("--corruptions goes with --output=BED; leave it out.")
        _score(Path(_PREDICTIONS.value), Path(_TRUTH.value))
    else:
        _write(Path(_OUTPUT.value), _CORRUPTIONS.value)


def _write(folder: Path, corruptions: list[str]) -> None:
    from sslax.testbed import writing
    from sslax.testbed.corruptions import CORRUPTIONS

    writing.write(folder, [*CORRUPTIONS] if corruptions == ["all"] else corruptions)
    print(f"Wrote {folder}; its README.md says what a program reads and writes.")


def _score(predictions: Path, bed: Path) -> None:
    from sslax.testbed import scoring

    results = scoring.score(predictions, bed)
    scoring.write_scores(predictions / scoring.SCORES, results)
    print(scoring.table(results))
    print(f"\nWrote {predictions / scoring.SCORES}.")


if __name__ == "__main__":
    command.entry(main)
