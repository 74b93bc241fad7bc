"""What an installation brings: the core needs jax and numpy alone, the rest names its extra."""

import ast
import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sslax
from sslax import config_files, errors

CORE = (
    "ops",
    "losses",
    "augment",
    "types.py",
    "checks.py",
    "ranges.py",
    "errors.py",
    "config_files.py",
)
ROOT = Path(__file__).parents[1]
PACKAGE = Path(sslax.__file__).parent

# As if no extra were installed: the import of what one brings fails.
WITHOUT_EXTRAS = f"import sys; sys.modules.update(dict.fromkeys({sum(errors.EXTRAS.values(), ())}))"


def run(code):
    """Runs the code with the sslax that is tested here, not with that of the working folder."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
    )


def imported(file):
    """What a module imports, also inside functions: `numpy`, `sslax.ops`, ..."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "sslax":
            yield from (f"sslax.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_core_imports_jax_and_numpy_alone():
    core = {f"sslax.{name.removesuffix('.py')}" for name in CORE}
    for name in CORE:
        for file in (PACKAGE / name).rglob("*.py") if "." not in name else [PACKAGE / name]:
            for module in imported(file):
                first, *rest = module.split(".")
                if first == "sslax":
                    assert f"{first}.{rest[0]}" in core, (file, module)
                else:
                    assert first in {"jax", "numpy"} | sys.stdlib_module_names, (file, module)


def test_the_core_computes_without_any_extra():
    code = f"""
{WITHOUT_EXTRAS}
import jax
import jax.numpy as jnp
import sslax.checks, sslax.errors, sslax.types
from sslax import augment, losses, ops

first, second = jax.random.normal(jax.random.key(0), (2, 4, 8))
loss = lambda first: losses.nt_xent(first, second, temperature=0.1).mean()
value, gradient = jax.jit(jax.value_and_grad(loss))(first)
assert value > 0 and jnp.abs(gradient).max() > 0

image = jnp.arange(32.0).reshape(1, 4, 4, 2) / 32
warped, valid = ops.warp_flow(image, jnp.zeros((1, 4, 4, 2)))
assert jnp.allclose(warped, image) and valid.all()

crop = augment.random_resized_crop(jax.random.key(1), jnp.ones((8, 8, 3)), size=4)
assert crop.shape == (4, 4, 3) and jnp.allclose(crop, 1)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


COMMANDS = ["main", "plan", "evaluate", "predict", "watch", "compare", "export", "publish", "sweep"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_the_missing_extra(command):
    done = run(f"{WITHOUT_EXTRAS}; import runpy; runpy.run_module('sslax.{command}')")
    assert done.returncode == 1
    assert done.stderr.startswith("error: absl, ") and done.stderr.count("\n") == 1
    assert done.stderr.rstrip().endswith("are not installed; run pip install 'sslax[train]'.")


def test_load_names_the_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    with pytest.raises(ImportError, match=r"flax.* not installed; run pip install 'sslax\[train\]"):
        sslax.load("runs/any")


def test_extras_are_those_of_the_project():
    pytest.importorskip("flax", reason="needs the extras")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = extras["optional-dependencies"]
    projects = importlib.metadata.packages_distributions()
    for extra, modules in errors.EXTRAS.items():
        text = " ".join(declared[extra]).lower().replace("_", "-")
        for module in modules:
            names = projects.get(module, [module])  # of what is not installed, those of the module
            assert any(name.lower().replace("_", "-") in text for name in names), module


def test_the_package_has_its_configs_and_its_types():
    assert (PACKAGE / "py.typed").exists()
    shipped = {file.name for file in (config_files.ROOT / "configs").glob("*.py")}
    assert shipped == {file.name for file in (ROOT / "configs").glob("*.py")}


@pytest.mark.skipif(PACKAGE.is_relative_to(ROOT), reason="run from the clone")
def test_the_version_is_the_installed_one():
    assert sslax.__version__ == importlib.metadata.version("sslax")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder outside any clone, and a package with the one config configs/a.py."""
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "package"
    (package / "configs").mkdir(parents=True)
    (package / "configs" / "a.py").touch()
    return package


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--config=configs/a.py"], ["--config={}/configs/a.py"]),
        (["--config=configs/a.py:tiny"], ["--config={}/configs/a.py:tiny"]),
        (["--config", "configs/a.py:tiny"], ["--config", "{}/configs/a.py:tiny"]),
        (["--config=configs/b.py:tiny"], ["--config=configs/b.py:tiny"]),
        (["--config.name=configs/a.py"], ["--config.name=configs/a.py"]),
        (["--workdir", "configs/a.py"], ["--workdir", "configs/a.py"]),
        (["--config"], ["--config"]),
    ],
)
def test_configs_of_the_package_are_found(elsewhere, given, expected):
    expected = [word.format(elsewhere) for word in expected]
    assert config_files.resolve(["main", *given], elsewhere) == ["main", *expected]


def test_an_existing_config_wins(elsewhere):
    own = elsewhere.parent / "configs"
    own.mkdir()
    (own / "a.py").touch()
    arguments = ["main", "--config=configs/a.py:tiny"]
    assert config_files.resolve(arguments, elsewhere) == arguments
