"""What a run is: which one goes on, which is refused, and files that were damaged since."""

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from sslax.errors import UserError
from sslax.training import checkpoint, description
from sslax.types import TrainState

PRINTS = {"train": "a", "test": "b"}


@pytest.fixture
def config():
    optimizer = {"learning_rate": 0.3, "betas": (0.9, 0.99)}
    return ConfigDict({"method": "m", "seed": 0, "data": {"path": "x"}, "optimizer": optimizer})


def _describe(config, **changes):
    data = {"examples": 10, "image_shape": [4, 4, 1], "classes": None, "fingerprint": PRINTS}
    return description.describe(config, data | changes)


@pytest.fixture
def workdir(tmp_path, config):
    """A run with one checkpoint."""
    about = _describe(config)
    description.write(tmp_path, about)
    state = TrainState(jnp.int32(1), {"a": jnp.ones(2)}, {}, {}, (), jax.random.key(0))
    with checkpoint.Checkpoints(tmp_path / "checkpoints", about) as checkpoints:
        checkpoints.save(1, state, score=0.0)
    return tmp_path


def test_a_changed_config_is_refused_with_its_difference(workdir, config):
    description.check(workdir, _describe(config))
    found, shapes = description.read(workdir)
    assert found.optimizer.learning_rate == 0.3
    assert shapes == {"examples": 10, "image_shape": [4, 4, 1], "classes": None}
    with pytest.raises(UserError, match=r"data.examples: was 10, now 11"):
        description.check(workdir, _describe(config, examples=11))
    config.optimizer.learning_rate = 0.1
    with pytest.raises(UserError, match=r"config.optimizer.learning_rate: was 0.3, now 0.1"):
        description.check(workdir, _describe(config))


def test_data_may_move_but_not_change(workdir, config):
    config.data.path = "y"
    description.check(workdir, _describe(config))
    changed = _describe(config, fingerprint=PRINTS | {"train": "c"})
    with pytest.raises(UserError, match="data: other images: their names, sizes or labels"):
        description.check(workdir, changed)


def test_where_the_state_lies_does_not_bind_a_run(workdir, config):
    config.data.path, config.sharding = "y", "fsdp"
    description.check(workdir, _describe(config))
    with pytest.raises(UserError, match=r"data.path: was 'x', now 'y'") as error:
        description.check(workdir, _describe(config, fingerprint=PRINTS | {"test": "c"}))
    assert "sharding" not in str(error.value)


def test_a_run_that_left_nothing_binds_to_nothing(tmp_path, config):
    description.write(tmp_path, _describe(config))
    config.seed = 1
    description.check(tmp_path, _describe(config))


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        description.read(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "data.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"1", b"[]", b"{}", b"\xff"])
def test_a_damaged_file_is_read_from_a_checkpoint(workdir, config, name, content):
    file = workdir / name
    file.unlink() if content is None else file.write_bytes(content)
    found = description.read(workdir)[0]
    assert (found.method, found.seed, found.data.path) == ("m", 0, "x")
    assert (found.optimizer.learning_rate, found.optimizer.betas) == (0.3, [0.9, 0.99])
    assert found.batch_size == 256  # which an earlier version did not write
    description.check(workdir, _describe(config))
    config.seed = 1
    with pytest.raises(UserError, match=r"config.seed: was 0, now 1"):
        description.check(workdir, _describe(config))


def test_a_file_that_is_damaged_for_good_is_named(workdir, config):
    (workdir / "data.json").unlink()
    (workdir / "checkpoints" / "1" / "manifest.json").unlink()
    for call in (lambda: description.read(workdir), lambda: description.check(workdir, {})):
        with pytest.raises(UserError, match=r"data.json is missing or damaged, and no checkpoint"):
            call()
