"""Each task's sections, from small fakes of what an evaluation hands over."""

import base64

import numpy as np
import pytest
from PIL import Image

from sslax.report import depth, flow, page, representation


def codes(text, *shape):
    return np.frombuffer(base64.b64decode(text), "<u2").reshape(shape)


def pictures_of(value):
    """All data URIs in a section."""
    if isinstance(value, str):
        return [value] if value.startswith("data:") else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [uri for part in parts for uri in pictures_of(part)]


@pytest.fixture(params=["features", "depths", "flows"])
def sections(request):
    make = {"features": representation, "depths": depth, "flows": flow}[request.param]
    return make.sections(request.getfixturevalue(request.param))


def test_sections_are_json_whose_pictures_decode(sections, tmp_path):
    page.write(tmp_path / "a.html", "a", sections)
    assert page.read(tmp_path / "a.html") == sections
    found = pictures_of(sections)
    assert found
    for i, uri in enumerate(found):
        (tmp_path / str(i)).write_bytes(base64.b64decode(uri.partition(",")[2]))
        with Image.open(tmp_path / str(i)) as picture:
            picture.load()


def test_neighbors_are_the_most_similar_others(features):
    (section,) = representation.sections(features)
    assert section["classes"][0] == {"name": "dark", "color": "#4477aa"}
    assert section["sheet"]["count"] == len(section["files"]) == len(section["points"]) == 12
    for entry in section["neighbors"]:
        x = features.features[entry["name"]]
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        similarity = x @ x.T - 9 * np.eye(12)
        expected = np.argsort(-similarity, axis=1, kind="stable")[:, : section["k"]]
        found = codes(entry["index"], 12, section["k"])
        np.testing.assert_array_equal(found, expected)
        same = np.mean(features.labels[found] == features.labels[:, None])
        assert entry["same_class"] == pytest.approx(same)


def test_collapsed_features_have_others_as_neighbors(features):
    shown = features._replace(features={"after training": np.ones((12, 3))}, labels=None)
    (section,) = representation.sections(shown)
    found = codes(section["neighbors"][0]["index"], 12, section["k"])
    assert not (found == np.arange(12)[:, None]).any()
    assert all(len({*row}) == section["k"] for row in found)
    assert section["labels"] is None and "classes" not in section


def test_a_single_image_has_no_neighbors(features):
    one = features._replace(
        images=features.images[:1], points=features.points[:1], files=["a"], labels=None
    )
    (section,) = representation.sections(one)
    assert section["neighbors"] == [] and section["sheet"]["count"] == 1


def test_depth_has_its_numbers_and_its_camera(depths):
    maps, film, trajectory = depth.sections(depths)
    assert [section["id"] for section in (maps, film, trajectory)] == ["maps", "film", "trajectory"]
    example = maps["examples"][0]
    kept = example["inverse_depth"]
    assert kept["shape"] == [100, 150]  # every other pixel
    value = codes(kept["data"], 100, 150)[50, 75]
    inverse = kept["low"] + (value - 1.0) / 65534 * (kept["high"] - kept["low"])
    assert 1 / inverse == pytest.approx(depths.depth[0, 100, 150], rel=1e-3)
    assert codes(kept["data"], 100, 150)[0, 0] == 0
    assert example["camera"] == [125, 120, 75, 50, 0] and maps["camera_known"]
    assert trajectory["paths"][1]["y"] == [0, 1, 2, 3, 4]
    assert len(film["images"]) == len(film["maps"]) == 2


def test_an_unknown_camera_sees_sixty_degrees(depths):
    shown = depths._replace(intrinsics=None, trajectories={}, film_images=np.zeros((0, 1, 1, 3)))
    (maps,) = depth.sections(shown)
    fx, fy, cx, cy, alpha = maps["examples"][0]["camera"]
    assert not maps["camera_known"] and fx == fy and alpha == 0
    assert 2 * np.degrees(np.arctan(75 / fx)) == pytest.approx(60)
    assert (cx, cy) == (149.5 / 2, 199 / 4)


def test_flow_has_its_numbers(flows):
    (maps,) = flow.sections(flows)
    example = maps["examples"][2]
    assert [layer["name"] for layer in example["layers"]] == ["image", "flow", "next image"]
    for axis, kept in enumerate(example["flow"]):
        found = codes(kept["data"], 20, 30)
        values = kept["low"] + (found - 1.0) / 65534 * (kept["high"] - kept["low"])
        np.testing.assert_allclose(values, flows.flow[2, ..., axis], atol=1e-3)
