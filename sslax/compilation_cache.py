"""Compiled programs, kept from one command to the next in the user's cache folder.

JAX finds a program by its code, the version of jaxlib, the compiler's flags and the kind of device.
Code for a CPU fits that CPU alone, and a home folder may be shared by different machines, so each
kind of CPU has a folder of its own.
"""

import contextlib
import hashlib
import platform
import sys
import tempfile
from pathlib import Path

import jax

from sslax import paths

LIMIT = 2**32  # bytes in all; programs are of 0.1 to 20 MB
# Lines of /proc/cpuinfo that decide which instructions a compiler uses.
_CPU_LINES = (
    "vendor_id",
    "cpu family",
    "model",
    "flags",
    "CPU implementer",
    "CPU part",
    "Features",
)


def enable(folder: str | None) -> None:
    """Keeps the programs that are compiled from now on, and finds those of earlier commands.

    A folder that cannot be written is a warning. The programs that were not used for longest are
    removed until the others take `LIMIT` bytes.

    Args:
        folder: where; "" for no cache. None for `default_folder()`, unless JAX was given a folder,
            by JAX_COMPILATION_CACHE_DIR: that cache is left as it is.
    """
    if folder == "":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder is None and jax.config.jax_compilation_cache_dir:
        return
    try:
        root = Path(folder) if folder else default_folder()
        own = root / cpu()
        own.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds code that will be run
        with tempfile.TemporaryFile(dir=own):
            pass
        trim(root, LIMIT)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        print(
            f"warning: compiled programs are not kept, because their folder cannot be written "
            f"({error}); --compilation_cache=FOLDER names another, --compilation_cache= none.",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(own))


def default_folder() -> Path:
    """`sslax/compiled` in the user's cache folder: XDG_CACHE_HOME, or ~/.cache."""
    return paths.cache_folder() / "compiled"


def cpu() -> str:
    """A name for this machine's kind of CPU, alike where compiled code can be exchanged."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        lines = [line for line in first.splitlines() if line.partition("\t")[0] in _CPU_LINES]
    except OSError:  # not Linux: no code is exchanged with other machines
        lines = [platform.processor(), platform.node()]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:12]}"


def trim(root: Path, limit: int) -> None:
    """Removes the files that were not used for longest until the others take `limit` bytes."""
    files = []
    for path in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another command may have removed it
            if path.is_file():
                stat = path.stat()
                files.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
