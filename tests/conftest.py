"""Eight CPU devices for every test, a compilation cache that lives as long as the tests, and the
marker `fast`.

`SSLAX_COMPILE=default` leaves the compiler's settings as users have them.
"""

import atexit
import gc
import importlib.util
import os
import shutil
import signal
import tempfile
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"

# `-m fast`, under two minutes on two cores: the pure functions, the configs, one method through
# the tests of all methods; without what compiles long, for eight devices or for second derivatives.
FAST = (
    *("tests/losses", "tests/ops", "tests/measures", "tests/test_checks.py"),
    "tests/test_published.py",
    *(f"tests/augment/test_{name}.py" for name in ("color", "crop", "erase", "masks")),
    *(f"tests/data/test_{name}.py" for name in ("fitting", "files")),
    *(f"tests/training/test_{name}.py" for name in ("configuration", "metrics", "optim")),
)
TABLE = "tests/methods/test_methods.py"  # each test for each method
FAST_METHOD = "[simclr]"
SLOW = (
    *("_eight", "sharded", "derivatives", "tests/losses/test_devices.py"),
    "tests/measures/test_representation.py",
)

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

# Compilation dominates: code is generated without LLVM's optimization (XLA's own passes stay),
# which takes 0.6 of the time, and XLA's older way of generating the code of fusions takes less than
# half as long as the one through MLIR; code in one piece is not copied to be compiled in parallel,
# and XLA does not verify what its passes leave; what one test compiled, another with the same
# program reads back. Programs started by tests have all of this as well. Later versions may not
# know the flags.
_COMPILE = os.environ.get("SSLAX_COMPILE", "quick")
if _COMPILE not in ("quick", "default"):
    raise pytest.UsageError(f"SSLAX_COMPILE={_COMPILE}; it is quick, if not set, or default.")
if _COMPILE == "quick":
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    if jax.__version_info__ < (0, 11):
        flags = os.environ.get("XLA_FLAGS", "")
        quick = (
            "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
            "--xla_disable_hlo_passes=hlo-verifier"
        )
        os.environ["XLA_FLAGS"] = f"{flags} {quick}"
_CACHE = tempfile.mkdtemp(prefix="compiled")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", _CACHE)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# Python's collector would walk through all that JAX traced, many times; see the teardown below.
gc.set_threshold(100_000, 50, 100)

# A shell starts background jobs with Ctrl-C ignored; programs that tests start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    for item in items:
        fast = item.nodeid.startswith(FAST) and not any(word in item.nodeid for word in SLOW)
        if fast or (item.nodeid.startswith(TABLE) and FAST_METHOD in item.nodeid):
            item.add_marker(pytest.mark.fast)


def _group(nodeid):
    """Tests that share what they compile, and run in one worker: those of a file; of the table of
    methods, which is as long as half of the other files together, those of a method."""
    file, _, test = nodeid.partition("::")
    return file + test.partition("[")[2] if file == TABLE else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return _group(nodeid)

    return Scheduler(config, log)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """What other tests traced and compiled slows JAX and Python's collector down by a third."""
    if nextitem is None or _group(item.nodeid) != _group(nextitem.nodeid):
        jax.clear_caches()
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def load_config():
    """`(name, variant) -> ConfigDict`: get_config(variant) of configs/<name>.py."""

    def load(name, variant):
        spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_config(variant)

    return load
