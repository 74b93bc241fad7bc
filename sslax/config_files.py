"""Finds the configs that come with the package, so that commands work outside a clone as well."""

from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parent
# An installed wheel has configs/ inside the package, a clone beside it.
ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent


def resolve(arguments: Sequence[str], root: Path = ROOT) -> list[str]:
    """Points `--config=configs/NAME.py[:VARIANT]` to the package's file; an existing file wins.

    Args:
        arguments: the command line.
        root: the folder that has `configs/`.

    Returns:
        The command line, with the file's full path where only the package has it.

    Example:
        >>> *_, found = resolve(["main", "--config", "configs/simclr.py:tiny"], Path("/nowhere"))
        >>> found
        'configs/simclr.py:tiny'
    """
    resolved = list(arguments)
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config") and equals:
            resolved[i] = f"{flag}={_locate(value, root)}"
        elif flag in ("--config", "-config") and i + 1 < len(arguments):
            resolved[i + 1] = _locate(arguments[i + 1], root)
    return resolved


def _locate(value: str, root: Path) -> str:
    file, colon, variant = value.partition(":")
    if Path(file).is_file() or not (root / file).is_file():
        return value
    return f"{root / file}{colon}{variant}"
