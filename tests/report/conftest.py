"""Small fakes of what an evaluation hands over, and the folder of a run."""

import numpy as np
import pytest
import run_folder

from sslax.report import depth, flow, representation
from sslax.types import FlowField, InverseDepth

RNG = np.random.default_rng(0)
HOSTILE = "</script><img src=x onerror=alert(1)>&'\""


@pytest.fixture
def features():
    """Twelve images in two classes whose features point to two corners."""
    labels = np.arange(12) % 2
    images = (RNG.integers(0, 80, (12, 10, 14, 1)) + 150 * labels[:, None, None, None]).astype("u1")
    trained = np.eye(3)[labels] + 0.01 * RNG.normal(size=(12, 3))
    return representation.Shown(
        images=images,
        points=RNG.random((12, 2)),
        features={"after training": trained, "before training": RNG.normal(size=(12, 3))},
        labels=labels,
        class_names=("dark", HOSTILE),
        files=[f"{HOSTILE}/{i}.png" for i in range(12)],
    )


@pytest.fixture
def depths():
    """Two slanted planes of 200 x 300 pixels, a corner of which is unknown."""
    meters = np.broadcast_to(np.linspace(2.0, 8.0, 300), (2, 200, 300)).copy()
    meters[:, :10, :10] = np.nan
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3], poses[:, 2, 3] = np.linspace(0, 1, 5), np.arange(5)
    images = RNG.random((2, 200, 300, 3))
    return depth.Shown(
        columns={"image": images, "inverse depth": InverseDepth(1 / meters)},
        depth=meters,
        unit="m",
        intrinsics=np.tile(np.float32([[250, 0, 150], [0, 240, 100], [0, 0, 1]]), (2, 1, 1)),
        trajectories={"ground truth": poses, "predicted": poses},
        film_images=images,
        film_colors=images,
    )


@pytest.fixture
def flows():
    """Three fields of 20 x 30 pixels."""
    field = RNG.normal(0, 3, (3, 20, 30, 2)).astype(np.float32)
    images = RNG.random((3, 20, 30, 3))
    return flow.Shown(
        columns={"image": images, "flow": FlowField(field), "next image": images},
        flow=field,
        film_images=images[:0],
        film_colors=images[:0],
    )


@pytest.fixture
def workdir(load_config, tmp_path):
    """`(name, **values) -> folder` of a run that trained for three lines and was killed."""
    metrics = """{"step": 10, "loss": 5.0, "images_per_second": 640.0}
{"step": 20, "loss": 4.0, "images_per_second": 1280.0}
{"step": 30, "loss": 3.0, "images_per_second": 1280.0}
{"step": 15, "online_knn": 0.5}
{"step": 4"""

    def make(name, **values):
        return run_folder.write(tmp_path / name, load_config("simclr", ""), metrics, **values)

    return make
