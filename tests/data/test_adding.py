"""The source that docs/data.md adds, built from the page's own code and run on a tiny data set."""

import importlib.util
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from geometric_config import noise, write_images

from sslax import data
from sslax.data.files import maps

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
FOCAL, BASELINE = 24.0, 0.06


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """The page's three code blocks; the module is importable and in the table."""
    section = PAGE.read_text().split("## To add one")[1]
    module, row, keys, *_ = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    file = tmp_path / "eth3d.py"
    file.write_text(module)
    spec = importlib.util.spec_from_file_location("eth3d", file)
    eth3d = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "eth3d", eth3d)
    spec.loader.exec_module(eth3d)
    for name, source in eval(f"{{{row}}}", {"eth3d": eth3d}).items():
        monkeypatch.setitem(data.SOURCES, name, source)
    return keys


def write_scene(root, part, scene, disparity=None):
    folder = root / part / scene
    write_images(folder, ["im0.png", "im1.png"], [noise(1, channels=1), noise(2, channels=1)])
    camera = f"[{FOCAL} 0 9.5; 0 {FOCAL} 5.5; 0 0 1]"
    lines = [f"cam0={camera}", f"cam1={camera}", "doffs=0", f"baseline={1000 * BASELINE}"]
    (folder / "calib.txt").write_text("\n".join(lines))
    if disparity is not None:
        (root / f"{part}_gt" / scene).mkdir(parents=True)
        maps.write_pfm(root / f"{part}_gt" / scene / "disp0GT.pfm", disparity)


def test_the_walk_through_adding_a_source(steps, tmp_path):
    disparity = np.full((12, 20), 3.0, np.float32)
    disparity[:, :5] = np.inf
    write_scene(tmp_path / "eth3d", "two_view_test", "lakeside_1l")
    write_scene(tmp_path / "eth3d", "two_view_training", "forest_1s", disparity)
    config = data.defaults()
    assert config.eth3d.train_part == "two_view_test"
    exec(steps, {"config": SimpleNamespace(data=config)})
    config.update(path=str(tmp_path / "eth3d"), size=(12, 20), device="stream")

    train, test, names = data.load(config)
    assert (len(train), len(test), names) == (1, 1, None)
    assert set(train[0]) == {"image", "intrinsics", "baseline"}
    record = pickle.loads(pickle.dumps(test))[0]
    assert record["image"].shape == (2, 12, 20, 3)
    np.testing.assert_array_equal(record["image"][1, ..., :1], noise(2, channels=1))
    np.testing.assert_allclose(record["intrinsics"], [[24, 0, 9.5], [0, 24, 5.5], [0, 0, 1]])
    assert record["baseline"] == np.float32(BASELINE)
    np.testing.assert_array_equal(record["depth"][:, :5], 0)
    np.testing.assert_allclose(record["depth"][:, 5:], FOCAL * BASELINE / 3, rtol=1e-6)

    with pytest.raises(data.DataError, match="has no elsewhere/SCENE"):
        config.eth3d.train_part = "elsewhere"
        data.load(config)
    (tmp_path / "eth3d" / "two_view_test" / "lakeside_1l" / "calib.txt").unlink()
    with pytest.raises(data.DataError, match="is the calibration"):
        config.eth3d.train_part = "two_view_test"
        data.load(config)
