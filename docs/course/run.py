"""Executes the chapters, all or those named, and writes their outputs into them.

python docs/course/run.py [01_pretext ...]
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def run(chapter: Path) -> None:
    """Executes a notebook where it is.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an error.
    """
    notebook = nbformat.read(chapter, as_version=4)
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata = {}  # when it was executed
    nbformat.write(notebook, chapter)


if __name__ == "__main__":
    chosen = [FOLDER / f"{name}.ipynb" for name in sys.argv[1:]]
    for chapter in chosen or sorted(FOLDER.glob("*.ipynb")):
        began = time.monotonic()
        run(chapter)
        print(f"{chapter.name}: {time.monotonic() - began:.0f} s", flush=True)
