"""Runs to export: untrained networks, filled with numbers that depend on names alone."""

import re
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from skimage import data

from sslax.models.weights import flatten
from sslax.training import checkpoint, description, sharding
from sslax.training.plan import make_plan

DOCS = Path(__file__).parents[1] / "docs" / "export.md"
SIZE = 32

# Changes to the `model` section of SimCLR's tiny config, by name.
_COLORS = {"mean": (0.45, 0.4, 0.4), "std": (0.2, 0.25, 0.2), "width": 1.0, "patch_stem": 0}
_VIT = {**_COLORS, "name": "vit_micro", "blocks": (2,), "patch": 8, "width": 0.25}
ENCODERS = {
    "resnet": {**_COLORS, "blocks": (1, 1, 1, 1)},
    "vit": {**_VIT, "position": "learned", "registers": 2, "layer_scale": 0.1},
    "vit_mean": {**_VIT, "class_token": False, "pool": "mean", "swiglu": True},
}


def fill(path, shape):
    """Kernels scaled by their inputs, scales and variances near 1, small shifts."""
    values = np.random.RandomState(zlib.crc32(path.encode())).standard_normal(shape)
    if len(shape) > 1:
        return values / np.sqrt(np.prod(shape[:-1]))
    return 1 + 0.2 * np.tanh(values) if path.endswith(("scale", "var")) else 0.2 * values


def write_run(folder, config, image_shape, others=None):
    """A run's folder, with a checkpoint at step 2; `others` as `make_plan` takes them."""
    spec = {"examples": 64, "image_shape": list(image_shape), "classes": None}
    spec |= {"others": others} if others else {}
    plan = make_plan(config, **spec)
    folder.mkdir(parents=True)
    description.write(folder, description.describe(config, spec))
    state = jax.tree.map(_zeros, plan.shapes)  # so that nothing is compiled
    owned = (state.params, state.model_state)
    leaves = [jnp.asarray(fill(p, leaf.shape), leaf.dtype) for p, leaf in flatten(owned).items()]
    params, model_state = jax.tree.unflatten(jax.tree.structure(owned), leaves)
    state = state._replace(params=params, model_state=model_state, step=jnp.int32(2))
    state = jax.device_put(state, sharding.replicated(sharding.make_mesh(jax.devices()[:1])))
    with checkpoint.Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(2, state, 0.0)
    return folder


def _zeros(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key(0) if is_key else jnp.zeros(leaf.shape, leaf.dtype)


def write_encoder_run(folder, load_config, name):
    """A run of SimCLR on photographs, with one of `ENCODERS`."""
    config = load_config("simclr", "tiny")
    config.augment.size = SIZE
    config.model.update(ENCODERS[name])
    return write_run(folder, config, (SIZE, SIZE, 3))


def photographs():
    """uint8 `[2, 32, 32, 3]`."""
    return np.stack([data.astronaut()[::16, ::16], data.coffee()[:384:12, :384:12]])


def loader(format):
    """The code of docs/export.md that loads a format: five lines at most, without sslax."""
    marked = rf"<!-- load {format} -->\n```python\n(.*?)```"
    code = re.search(marked, DOCS.read_text(), re.S)[1]
    assert "sslax" not in code and len(list(filter(None, code.splitlines()))) <= 5
    return code
