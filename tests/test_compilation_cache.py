"""The cache of compiled programs: where it is, how large, and when it is left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sslax import compilation_cache

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys
import jax
from sslax import compilation_cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
compilation_cache.enable(None if sys.argv[1] == "default" else sys.argv[1])
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
assert jax.jit(lambda x: x * 2 + 1)(3.0) == 7
print(sum(event.endswith("cache_hits") for event in found))
"""


def hits(argument, **variables):
    """How many programs a new process found in its cache, and what it wrote to standard error."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout), done.stderr


def test_programs_are_found_again_in_the_users_cache_folder(tmp_path):
    assert hits("default", XDG_CACHE_HOME=str(tmp_path)) == (0, "")
    count, _ = hits("default", XDG_CACHE_HOME=str(tmp_path))
    assert count > 0
    folder = tmp_path / "sslax" / "compiled" / compilation_cache.cpu()
    assert len(list(folder.iterdir())) >= count


def test_off_and_a_folder_that_jax_was_given(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    variables = {"XDG_CACHE_HOME": str(ours), "JAX_COMPILATION_CACHE_DIR": str(theirs)}
    hits("", **variables)
    assert not ours.exists() and not theirs.exists()
    hits("default", **variables)
    assert not ours.exists() and list(theirs.glob("*-cache"))


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").touch()
    _, errors = hits(str(tmp_path / "file"))
    assert errors.startswith("warning: compiled programs are not kept") and errors.count("\n") == 1


def test_another_cpu_has_another_folder(monkeypatch):
    ours = compilation_cache.cpu()
    assert compilation_cache.cpu() == ours
    monkeypatch.setattr(Path, "read_text", lambda path: "flags\t\t: sse2\n\n")
    assert compilation_cache.cpu() != ours


@pytest.mark.parametrize(("limit", "left"), [(30, "abc"), (25, "bc"), (10, "c"), (0, "")])
def test_what_was_not_used_for_longest_is_removed(tmp_path, limit, left):
    for age, name in enumerate("cba"):
        path = tmp_path / "cpu" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10))
        os.utime(path, (1000 - age, 500))
    compilation_cache.trim(tmp_path, limit)
    assert sorted(path.name for path in (tmp_path / "cpu").iterdir()) == sorted(left)
