"""Point clouds: `.ply`."""

import os
from pathlib import Path

import numpy as np

from sslax import checks


def write_ply(
    path: str | os.PathLike, points: np.ndarray, colors: np.ndarray | None = None
) -> None:
    """Writes a point cloud, with or without colors.

    Binary, little-endian, float32. Points that are not finite are left out. The camera looks along
    +z with y down; viewers with y up show the scene upside down until it is turned.

    Args:
        path: the file to write.
        points: `[..., 3]`, such as `ops.backproject` returns.
        colors: `[..., 3]`, uint8 or float in [0, 1], or None.
    """
    points = np.asarray(points, np.float32)
    checks.assert_axis_dimension(points, -1, 3)
    finite = np.isfinite(points).all(-1)
    fields = [(name, "<f4") for name in "xyz"]
    columns = list(points[finite].T)
    if colors is not None:
        colors = np.asarray(colors)
        checks.assert_equal_shape([points, colors])
        if colors.dtype != np.uint8:
            colors = np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        columns += list(colors[finite].T)
    vertices = np.empty(int(finite.sum()), fields)
    for (name, _), column in zip(fields, columns):
        vertices[name] = column
    types = {"<f4": "float", "u1": "uchar"}
    properties = "".join(f"property {types[kind]} {name}\n" for name, kind in fields)
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        f"{properties}end_header\n"
    )
    Path(path).write_bytes(header.encode() + vertices.tobytes())
