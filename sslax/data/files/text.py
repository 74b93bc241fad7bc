"""Files that are whole or not there."""

import os
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Writes a file in one move, so that a kill leaves the old one or the new one."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)
