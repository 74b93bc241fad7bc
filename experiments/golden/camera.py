"""Golden values of tests/ops/test_camera.py, from Kornia and SciPy in float64.

    python experiments/golden/camera.py tests/ops/golden/camera.npz

Needs torch, kornia and scipy beside numpy.
"""

import sys

import numpy as np
import torch
from kornia.geometry.camera import project_points
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from kornia.geometry.depth import depth_to_3d_v2
from kornia.geometry.linalg import transform_points
from scipy.linalg import expm
from scipy.spatial.transform import Rotation


def twist_matrix(twist):
    (rx, ry, rz) = twist[3:]
    matrix = np.zeros((4, 4))
    matrix[:3, :3] = [[0, -rz, ry], [rz, 0, -rx], [-ry, rx, 0]]
    matrix[:3, 3] = twist[:3]
    return matrix


def main(path):
    rng = np.random.default_rng(0)
    height, width = 4, 6
    intrinsics = np.array([[5.0, 0.0, 2.3], [0.0, 4.5, 1.4], [0.0, 0.0, 1.0]])
    depth = rng.uniform(2.0, 6.0, (height, width))
    # Angles from tiny to beyond half a turn.
    twists = rng.standard_normal((8, 6)) * np.geomspace(1e-4, 2.5, 8)[:, None]
    angles = rng.uniform(-3, 3, (5, 3))
    pose = expm(twist_matrix([0.3, -0.2, 0.4, 0.05, -0.1, 0.08]))

    K = torch.tensor(intrinsics)
    points = depth_to_3d_v2(torch.tensor(depth)[None], K[None])[0]
    moved = transform_points(torch.tensor(pose)[None], points.reshape(1, -1, 3))
    coords = project_points(moved, K[None, None]).reshape(height, width, 2)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)

    np.savez_compressed(
        path,
        intrinsics=intrinsics,
        depth=depth,
        pose=pose,
        twists=twists,
        angles=angles,
        kornia_points=points.numpy(),
        kornia_coords=coords.numpy(),
        kornia_flow=coords.numpy() - grid,
        kornia_rotations=axis_angle_to_rotation_matrix(torch.tensor(twists[:, 3:])).numpy(),
        scipy_poses=np.stack([expm(twist_matrix(t)) for t in twists]),
        scipy_euler=Rotation.from_euler("XYZ", angles).as_matrix(),
    )


if __name__ == "__main__":
    main(sys.argv[1])
