"""The networks that come with the package: listed, described, and good for something."""

import functools
from pathlib import Path

import numpy as np
import pytest
from skimage import data as photographs

import sslax
from sslax import data, paths
from sslax.data import scenes
from sslax.measures.depth import evaluate_depths

PAGE = Path(__file__).parents[1] / "docs" / "publish.md"
NETWORKS = sorted(entry.name for entry in paths.ZOO.iterdir() if entry.is_dir())


@pytest.mark.parametrize("name", NETWORKS)
def test_each_has_its_card_its_numbers_and_its_row(name):
    folder = paths.ZOO / name
    assert (folder / "results.json").exists()
    assert 'license: "apache-2.0"' in (folder / "README.md").read_text()
    assert f"| `zoo/{name}` |" in PAGE.read_text()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4e6


def test_the_flow_of_a_photograph_that_moves():
    photograph, truth = photographs.astronaut(), np.array([-3.0, -2.0])
    pair = np.stack([photograph[y : y + 128, x : x + 192] for y, x in ((60, 100), (62, 103))])
    flow = sslax.load("zoo/uflow_small")(pair).flow
    assert np.linalg.norm(flow - truth, axis=-1).mean() < 0.25 * np.linalg.norm(truth)


@pytest.mark.parametrize(("name", "margin"), [("simclr_fashion", 0.02), ("vit_fashion", 0.0)])
def test_features_of_clothes_are_better_than_their_pixels(name, margin):
    dataset = data.load(data.defaults())
    gallery, queries = dataset.train, dataset.test
    images = gallery.images[:2000], queries.images[:1000]
    encoder = sslax.load(f"zoo/{name}")

    def accuracy(features):
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(features, images)]
        nearest = (unit[1] @ unit[0].T).argmax(1)
        return (gallery.labels[:2000][nearest] == queries.labels[:1000]).mean()

    pixels = accuracy(lambda x: x.reshape(len(x), -1) / np.float32(255))
    assert accuracy(encoder) > pixels + margin


def test_depth_of_rooms_is_better_than_a_constant():
    knobs = {"size": (64, 128), "frames": 1, "boxes": 4, "drive": True}
    textures = scenes.textures("test", count=12, side=64)
    sample = functools.partial(scenes.video, **knobs)
    records = scenes.sampler(sample, textures, seed=2)(np.arange(8))
    truth = np.asarray(records["depth"][:, 0])
    images = np.rint(255 * np.asarray(records["image"][:, 0])).astype(np.uint8)
    found = sslax.load("zoo/monodepth2_small")(images).depth

    def error(depth):
        pairs = list(zip(depth, truth))
        return evaluate_depths(pairs, scaling="median")["abs_rel"]

    assert error(found) < 0.9 * error(np.ones_like(truth))
