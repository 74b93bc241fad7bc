"""Runs of depth and flow whose networks are formulas, so that nothing is trained, and images."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sslax import methods
from sslax.augment import to_float
from sslax.training import checkpoint, configuration, description, sharding
from sslax.training.plan import make_plan
from sslax.types import Depth, DepthMaps, Flow, FlowMaps, Method, Variables

SIZE = (8, 12)  # of the networks
METERS = 3.0  # the video network's depth of black


def formula_method(task, predict):
    """A method whose prediction is a formula of its one parameter and the images."""
    return Method(
        task=task,
        augment=lambda rng, batch: batch,
        init=lambda rng, batch: Variables(
            {"encoder": {"scale": jnp.float32(2.0)}}, {"encoder": {}}, {}
        ),
        loss=None,
        update=lambda variables, step: variables.extra,
        predict=lambda variables, batch: predict(
            variables.params["encoder"]["scale"], to_float(batch["image"]), batch
        ),
        visualize=None,
        encoder=lambda variables: (variables.params["encoder"], variables.model_state["encoder"]),
        preprocess=to_float,
    )


def video_network(scale, images, batch):
    """Depth 3 + 2 brightness; the camera of a frame is at x = the frame's mean brightness."""
    frames = images.shape[1]
    maps = DepthMaps(depth=METERS + scale * images[:, frames // 2, ..., 0])
    if frames < 3:
        return maps
    position = jnp.mean(images[:, :3], axis=(2, 3, 4))
    poses = jnp.tile(jnp.eye(4), (images.shape[0], 3, 1, 1))
    return maps._replace(pose=poses.at[..., 0, 3].set(position[:, 1:2] - position))


def stereo_network(scale, images, batch):
    """Disparity 1 + 2 red; where green differs from red, that difference counts more to the right.

    Depth where the camera is known.
    """
    red, green, _ = jnp.moveaxis(images[:, 0], -1, 0)
    disparity = 1 + scale * red + (green - red) * jnp.linspace(0, 0.5, images.shape[-2])
    if not {"intrinsics", "baseline"} <= batch.keys():
        return DepthMaps(disparity=disparity)
    product = batch["baseline"] * batch["intrinsics"][:, 0, 0]
    return DepthMaps(depth=product[:, None, None] / disparity, disparity=disparity)


def flow_network(scale, images, batch):
    """x: 2 brightness of the first frame; y: of the second; visible where the first is bright."""
    flow = scale * jnp.stack([images[:, 0, ..., 0], images[:, 1, ..., 0]], axis=-1)
    return FlowMaps(flow, backward=-flow, visible=images[:, 0, ..., 0])


METHODS = {
    "video": formula_method(Depth(frames=3), video_network),
    "speed": formula_method(Depth(frames=3, metric=True), video_network),
    "stereo": formula_method(Depth(metric=True), stereo_network),
    "pairs": formula_method(Flow(), flow_network),
}
_IMAGES = {"video": 3, "speed": 3, "stereo": 2, "pairs": 2}  # of an example
_DISTANCES = {"distance": ["float32", [3]]}
_CAMERA = {"intrinsics": ["float32", [3, 3]], "baseline": ["float32", []]}
_OTHERS = {"video": _DISTANCES, "speed": _DISTANCES, "stereo": _CAMERA, "pairs": {}}


@contextmanager
def runs(folder):
    """Writes a finished run of each method of `METHODS` into `folder`, where they can be opened."""
    with pytest.MonkeyPatch.context() as patch:
        for name, method in METHODS.items():
            patch.setitem(methods.METHODS, name, lambda *_, method=method: method)
            _write_run(folder / name, name)
        yield folder


def _write_run(folder, name):
    config = configuration.defaults()
    config.update(method=name, batch_size=2, duration="2 steps")
    spec = {"examples": 4, "image_shape": [_IMAGES[name], *SIZE, 3], "classes": None}
    spec |= {"others": _OTHERS[name]} if _OTHERS[name] else {}
    plan = make_plan(config, **spec)
    folder.mkdir()
    description.write(folder, description.describe(config, spec))
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = jax.jit(plan.initial_state, out_shardings=sharding.replicated(mesh))()
    with checkpoint.Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(2, state._replace(step=jnp.int32(2)), 0.0)


def constant_image(value, size=SIZE, channels=3):
    return np.full((*size, channels), value, np.uint8)


def save_frames(folder, values, size=(16, 24), suffix="png", noise=0):
    """Images of one brightness each, called f8, f9, f10 and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i, value in enumerate(values):
        image = constant_image(value, size).astype(int)
        image = np.clip(image + rng.integers(-noise, noise + 1, image.shape), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"f{i + 8}.{suffix}")
    return folder
