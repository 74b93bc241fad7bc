"""Variants for a paper's data set have its authors' settings, or their page says what differs."""

import importlib.util
from pathlib import Path

import pytest
from published import PUBLISHED, Row

from sslax import augment
from sslax.methods.common import plain
from sslax.training import configuration

ROOT = Path(__file__).parents[1]
DURATIONS = ("duration", "optimizer.warmup")
NEEDED = ("batch_size", "duration", "optimizer.learning_rate", "optimizer.weight_decay")


def variants():
    """`name:variant` of every config that is for a paper's data set."""
    found = {"emp_ssl:cifar10", "mmcr:cifar10"}  # the set of their papers
    found |= {"w_mse:cifar10", "w_mse:cifar10_4views", "w_mse:imagenet100"}
    for file in sorted((ROOT / "configs").glob("*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for variant in module.VARIANTS:
            if variant.split("_")[0] in ("imagenet", "chairs", "sintel", "kitti"):
                found.add(f"{file.stem}:{variant}")
    return found


def recipes(config):
    """The fields of the augmentation's recipes by the prefixes that `published` has for them."""
    knobs = plain(config.augment)
    name, local = knobs.pop("recipe"), knobs.pop("local", None)
    if name in augment.FLOW_RECIPES and "affine" in knobs:
        knobs = {key: value for key, value in knobs.items() if key != "size"}
        return {"pair": augment.get_flow_recipe(name, **knobs)}
    if name in augment.FRAME_RECIPES:
        return {"frames": augment.get_frame_recipe(name, **knobs)}
    found = {f"view{i}": view for i, view in enumerate(augment.get_view_recipes(name, **knobs))}
    if local and local["count"]:
        found["local"] = augment.get_local_recipes(name, **local)[0]
    return found


def setting(config, key):
    first, *rest = key.split(".")
    found = recipes(config).get(first)
    if key == "local.count":
        return config.augment.local.count
    if found is None:
        found, rest = config, [first, *rest]
    for name in rest:
        found = found[name] if hasattr(found, "keys") else getattr(found, name)
    return found


def comparable(value, key, config):
    """A number of steps for a duration, a tuple for a sequence."""
    if key in DURATIONS:
        sizes = {"batch_size": config.batch_size, "steps_per_epoch": 1000}
        total = configuration.steps_of(config.duration, **sizes)
        return configuration.steps_of(value, **sizes, total=total)
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-3)
    numbers = isinstance(value, (tuple, list)) and not any(isinstance(v, str) for v in value)
    return pytest.approx(tuple(value), rel=2e-4) if numbers else value


def page(name):
    return " ".join((ROOT / "docs" / name).read_text().split())


@pytest.mark.parametrize("variant", sorted(PUBLISHED))
def test_published_settings(variant, load_config):
    paper = PUBLISHED[variant]
    config = load_config(*variant.split(":"))
    assert bool(paper.declared) != bool(paper.rows)
    assert paper.declared in page(paper.page)
    for row in paper.rows:
        differs = row.ours is not None
        expected = comparable(row.ours if differs else row.value, row.key, config)
        found = comparable(setting(config, row.key), row.key, config)
        found = getattr(found, "expected", found)
        assert found == expected, f"{row.key}: {row.source}"
        assert differs == bool(row.declared), row.key
        if differs:
            assert row.value != row.ours and row.declared in page(paper.page), row.key
    keys = [row.key for row in paper.rows]
    assert not paper.rows or set(NEEDED) <= set(keys)


def test_every_variant_of_a_paper_has_its_rows():
    assert variants() == set(PUBLISHED)
    assert all(row.source and isinstance(row, Row) for p in PUBLISHED.values() for row in p.rows)
