"""Eight CPU devices for every test, and a compilation cache that lives as long as the tests."""

import atexit
import importlib.util
import shutil
import tempfile
from pathlib import Path

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

# Compilation dominates: what one test compiled, another with the same program takes from here.
_CACHE = tempfile.mkdtemp(prefix="compiled")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

CONFIGS = Path(__file__).parents[1] / "configs"


def pytest_collection_modifyitems(items):
    """One worker keeps what shares fixtures: the tests of a file, and of a method of the table."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        item.add_marker(pytest.mark.xdist_group(parameters.get("tiny", item.path.name)))


@pytest.fixture(scope="session")
def load_config():
    """`(name, variant) -> ConfigDict`: get_config(variant) of configs/<name>.py."""

    def load(name, variant):
        spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_config(variant)

    return load
