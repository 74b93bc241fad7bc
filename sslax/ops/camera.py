"""Cameras: intrinsics, projection, rigid motion, depth and disparity.

The camera looks along +z with x to the right and y down; depth is z. Intrinsics are
`[[fx, skew, cx], [0, fy, cy], [0, 0, 1]]` in pixels. A pinhole camera is its intrinsics; one with a
wide lens is a `UnifiedCamera`, which stands wherever a `Camera` is asked for. A pose is a `[4, 4]`
matrix that takes points from the target camera to the source camera.

Small matrix products are written out: the default matrix product of an accelerator keeps 8 to 11
bits of the mantissa, which is pixels of error in a projection.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax.numpy as jnp

from sslax import checks
from sslax.ops.dtypes import accumulated, at_least_float32
from sslax.ops.warp import pixel_grid
from sslax.types import Array


class UnifiedCamera(NamedTuple):
    """A camera with a wide lens, by the unified camera model.

    ```
    (x, y, 1) = K (X / D, Y / D, 1),   D = α |P| + (1 - α) Z
    ```
    for a point `P = (X, Y, Z)`; α = 0 is a pinhole camera, and larger α bring what is far from the
    axis closer to the center of the image. In the normalized coordinates `m = K⁻¹ (x, y, 1)`, a
    ray of depth 1 is `(q m_x, q m_y, 1)` with

    ```
    q = (1 - α + α √(1 + (1 - 2 α) |m|²)) / (1 - α² |m|²)
    ```
    Depth is along the optical axis, as everywhere in `sslax`, so only what is in front of the
    camera can have one: pixels with `α |m| >= 1` see more than 90 degrees off the axis, and are not
    valid. Radial, without the tangential terms of calibration tools.

    Attributes:
        intrinsics: `[..., 3, 3]`, in pixels, where 1 - α is not part of the focal lengths.
        alpha: `[...]` in [0, 1).

    Geyer and Daniilidis, "A Unifying Theory for Central Panoramic Systems", ECCV 2000; α as in
    Usenko et al., "The Double Sphere Camera Model", 3DV 2018, whose `fx` is this one.
    """

    intrinsics: Array
    alpha: Array


Camera = Array | UnifiedCamera
C = TypeVar("C", Array, UnifiedCamera)


def backproject(depth: Array, intrinsics: Camera) -> Array:
    """The 3D point of every pixel: `P(p) = depth(p) K⁻¹ (x, y, 1)`.

    Args:
        depth: `[..., H, W]`, along the optical axis.
        intrinsics: `[..., 3, 3]`, in pixels at the resolution of the depth; or a `UnifiedCamera`.

    Returns:
        Points `[..., H, W, 3]` in the camera's frame, in the unit of the depth. Pixels of a
        `UnifiedCamera` that see what is not in front of it get a point on the axis.

    Example:
        >>> intrinsics = jnp.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        >>> backproject(jnp.full((1, 2), 4.0), intrinsics)[0].tolist()
        [[-2.0, 0.0, 4.0], [0.0, 0.0, 4.0]]
    """
    depth, camera = _accumulated(depth, intrinsics)
    height, width = depth.shape[-2:]
    return depth[..., None] * _rays(height, width, camera)[0]


def project(points: Array, intrinsics: Camera, *, min_depth: float = 1e-3) -> tuple[Array, Array]:
    """Projects points into the image: `(x, y, 1) z = K P`.

    Args:
        points: `[..., 3]`, in the camera's frame.
        intrinsics: `[..., 3, 3]`, in pixels; its leading axes match the first axes of the points,
            so points `[B, H, W, 3]` go with intrinsics `[B, 3, 3]`. Or a `UnifiedCamera`, likewise.
        min_depth: smallest z that counts as in front of the camera, in the unit of the points.

    Returns:
        Coordinates `[..., 2]`, `(x, y)` in pixels, and `in_front` `[...]` (bool): z is at least
        `min_depth` and the point is finite. All other points get the coordinates of the principal
        point, with zero gradient.

    Example:
        >>> intrinsics = jnp.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        >>> coords, in_front = project(jnp.array([[2.0, 0.0, 4.0], [2.0, 0.0, -4.0]]), intrinsics)
        >>> coords[0].tolist(), in_front.tolist()
        ([2.0, 0.0], [True, False])
    """
    checks.assert_axis_dimension(points, -1, 3)
    points, camera = _accumulated(points, intrinsics)
    points, in_front = _in_front(points, min_depth)
    matrix, alpha = _expand_camera(camera, points.ndim - 1)
    divisor = _divisor(points, alpha)
    x, y = points[..., 0] / divisor, points[..., 1] / divisor
    return _scale(x, y, matrix) + matrix[..., :2, 2], in_front


def viewing_rays(coords: Array, intrinsics: Camera) -> tuple[Array, Array]:
    """The rays of points of the image, scaled to a depth of 1: `project(rays) = coords`.

    Args:
        coords: `[..., 2]`, `(x, y)` in pixels, integer or not.
        intrinsics: `[..., 3, 3]`, in pixels; its leading axes match the first axes of the
            coordinates. Or a `UnifiedCamera`, likewise.

    Returns:
        Rays `[..., 3]` in the camera's frame, and `in_front` `[...]` (bool): the ray leads to what
        is in front of the camera, as all of a pinhole's do. Others get the axis, `(0, 0, 1)`.

    Example:
        >>> camera = UnifiedCamera(jnp.diag(jnp.array([2.0, 2.0, 1.0])), jnp.array(0.5))
        >>> rays, in_front = viewing_rays(jnp.array([[2.0, 0.0], [4.0, 0.0]]), camera)
        >>> print(jnp.rint(3 * rays), in_front)
        [[4. 0. 3.]
         [0. 0. 3.]] [ True False]
    """
    checks.assert_axis_dimension(coords, -1, 2)
    coords, camera = _accumulated(coords, intrinsics)
    rays, in_front = _viewing_rays(coords, *_expand_camera(camera, coords.ndim - 1))
    return rays, jnp.broadcast_to(in_front, rays.shape[:-1])


def rigid_flow(
    depth: Array,
    pose: Array,
    intrinsics: Camera,
    *,
    source_intrinsics: Camera | None = None,
    min_depth: float = 1e-3,
) -> tuple[Array, Array]:
    """Optical flow of a static scene under camera motion: `flow(p) = π(K' (R P(p) + t)) - p`.

    Exactly zero for the identity pose, where the difference of two projections would leave rounding
    errors, and correct for infinite depth.

    Args:
        depth: `[..., H, W]` of the target view; zero or negative where unknown.
        pose: `[..., 4, 4]`, from the target camera to the source camera.
        intrinsics: `[..., 3, 3]` of the target camera, in pixels; or a `UnifiedCamera`.
        source_intrinsics: of the source camera, if they differ.
        min_depth: smallest depth that counts as in front of either camera.

    Returns:
        Flow `[..., H, W, 2]`, `(x, y)` in pixels, and `valid` `[..., H, W]` (bool): the depth is
        known, and the point is in front of the source camera and projects within its outermost
        pixel centers. Points behind the camera and unknown depths have zero flow and gradient, as
        have pixels that see nothing in front of a `UnifiedCamera`.

    Example:
        >>> intrinsics = jnp.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        >>> pose = rigid_transform(jnp.eye(3), jnp.array([1.0, 0.0, 0.0]))
        >>> flow, valid = rigid_flow(jnp.full((1, 4), 2.0), pose, intrinsics)
        >>> flow[0, :, 0].tolist(), valid[0].tolist()
        ([1.0, 1.0, 1.0, 1.0], [True, True, True, False])

    Zhou et al., "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017.
    """
    _check_matrix(pose, 4)
    depth, camera, pose = _accumulated(depth, intrinsics, pose)
    height, width = depth.shape[-2:]
    rays, seen = _rays(height, width, camera)
    matrix, alpha = _expand_camera(camera, depth.ndim)
    # Everything is divided by the target's depth, so infinite depth leaves a pure rotation, and
    # only the change due to the motion is computed, so the identity has no rounding error.
    known = (depth >= min_depth) & seen
    inverse_depth = jnp.where(known, _reciprocal(jnp.where(known, depth, 1.0)), 0.0)
    translation = _expand(pose[..., :3, 3], depth.ndim, matrix=False)
    rotation_change = pose[..., :3, :3] - jnp.eye(3, dtype=pose.dtype)
    change = _rotate(rotation_change, rays, depth.ndim) + inverse_depth[..., None] * translation
    moved, in_front = _in_front(rays + change, jnp.maximum(min_depth * inverse_depth, 1e-6))
    visible = known & in_front
    change = jnp.where(visible[..., None], change, 0.0)

    # With the divisor D of the projection, X' / D' - X / D = (ΔX - X / D ΔD) / D'.
    before, after = _divisor(rays, alpha), _divisor(moved, alpha)
    growth = _divisor_change(rays, moved, change, alpha)
    shift = (change[..., :2] - rays[..., :2] * (growth / before)[..., None]) / after[..., None]
    flow = _scale(shift[..., 0], shift[..., 1], matrix)
    if source_intrinsics is not None:
        _, source = _accumulated(depth, source_intrinsics)
        flow += _change_of_camera(moved, (matrix, alpha), _expand_camera(source, depth.ndim))
    flow = jnp.where(visible[..., None], flow, 0.0)
    coords = pixel_grid(height, width).astype(flow.dtype) + flow
    last = jnp.array([width - 1, height - 1], coords.dtype)
    return flow, visible & jnp.all((coords >= 0) & (coords <= last), axis=-1)


def transform_points(pose: Array, points: Array) -> Array:
    """Applies a rigid motion to points: `R P + t`.

    Args:
        pose: `[..., 4, 4]`; its leading axes match the first axes of the points.
        points: `[..., 3]`.

    Returns:
        `[..., 3]`.

    Example:
        >>> pose = rigid_transform(jnp.eye(3), jnp.array([1.0, 2.0, 3.0]))
        >>> transform_points(pose, jnp.zeros((5, 3)))[4].tolist()
        [1.0, 2.0, 3.0]
    """
    _check_matrix(pose, 4)
    checks.assert_axis_dimension(points, -1, 3)
    pose, points = accumulated(pose, points)
    rank = points.ndim - 1
    return _rotate(pose[..., :3, :3], points, rank) + _expand(pose[..., :3, 3], rank, matrix=False)


def so3_exp(axis_angle: Array) -> Array:
    """Rotation matrix of an axis-angle vector (Rodrigues' formula).

    `R = cos θ I + (sin θ / θ) [ω]ₓ + ((1 - cos θ) / θ²) ω ωᵀ`, `θ = |ω|`

    Smooth everywhere; at zero its derivative is `[·]ₓ`.

    Args:
        axis_angle: `[..., 3]`, in radians.

    Returns:
        `[..., 3, 3]`.

    Example:
        >>> so3_exp(jnp.array([0.0, 0.0, jnp.pi / 2])).round(3).tolist()
        [[-0.0, -1.0, 0.0], [1.0, -0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    axis_angle = at_least_float32(axis_angle)
    checks.assert_axis_dimension(axis_angle, -1, 3)
    sine, cosine, _ = _exponential_series(axis_angle)
    x, y, z = jnp.moveaxis(sine[..., None] * axis_angle, -1, 0)
    zero = jnp.zeros_like(x)
    skew = _matrix([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
    outer = axis_angle[..., :, None] * axis_angle[..., None, :]
    diagonal = 1 - cosine * jnp.sum(axis_angle**2, axis=-1)
    eye = jnp.eye(3, dtype=axis_angle.dtype)
    return diagonal[..., None, None] * eye + skew + cosine[..., None, None] * outer


def se3_exp(twist: Array) -> Array:
    """Rigid motion of a twist, the exponential map of SE(3).

    `[R | t] = [exp ω | V ρ]`, `V = I + ((1 - cos θ) / θ²) [ω]ₓ + ((θ - sin θ) / θ³) [ω]ₓ²`

    Pose networks usually predict the translation itself; for them use
    `rigid_transform(so3_exp(rotation), translation)`. To first order the two agree.

    Args:
        twist: `[..., 6]`: the translational part ρ, then the axis-angle vector ω in radians.

    Returns:
        `[..., 4, 4]`.

    Example:
        >>> se3_exp(jnp.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]))[:3, 3].tolist()
        [1.0, 2.0, 3.0]
    """
    twist = at_least_float32(twist)
    checks.assert_axis_dimension(twist, -1, 6)
    rho, omega = twist[..., :3], twist[..., 3:]
    _, first, second = _exponential_series(omega)
    once = jnp.cross(omega, rho)
    twice = jnp.cross(omega, once)
    return rigid_transform(
        so3_exp(omega), rho + first[..., None] * once + second[..., None] * twice
    )


def se3_inverse(pose: Array) -> Array:
    """Inverse of a rigid motion: `[Rᵀ | -Rᵀ t]`.

    Args:
        pose: `[..., 4, 4]`.

    Returns:
        `[..., 4, 4]`.

    Example:
        >>> pose = rigid_transform(jnp.eye(3), jnp.array([1.0, 2.0, 3.0]))
        >>> se3_inverse(pose)[:3, 3].tolist()
        [-1.0, -2.0, -3.0]
    """
    _check_matrix(pose, 4)
    pose = at_least_float32(pose)
    rotation = jnp.swapaxes(pose[..., :3, :3], -1, -2)
    return rigid_transform(rotation, -jnp.sum(rotation * pose[..., None, :3, 3], axis=-1))


def rigid_transform(rotation: Array, translation: Array) -> Array:
    """Pose matrix of a rotation and a translation: `[[R, t], [0, 1]]`.

    Args:
        rotation: `[..., 3, 3]`.
        translation: `[..., 3]`.

    Returns:
        `[..., 4, 4]`.

    Example:
        >>> rigid_transform(jnp.eye(3), jnp.ones(3))[0].tolist()
        [1.0, 0.0, 0.0, 1.0]
    """
    _check_matrix(rotation, 3)
    checks.assert_axis_dimension(translation, -1, 3)
    rotation, translation = accumulated(rotation, translation)
    upper = jnp.concatenate([rotation, translation[..., None]], axis=-1)
    last = jnp.broadcast_to(jnp.array([0, 0, 0, 1], upper.dtype), (*upper.shape[:-2], 1, 4))
    return jnp.concatenate([upper, last], axis=-2)


def euler_to_matrix(angles: Array) -> Array:
    """Rotation matrix `Rx Ry Rz` of Euler angles, the parametrization of SfMLearner.

    Args:
        angles: `[..., 3]`, about x, y and z, in radians.

    Returns:
        `[..., 3, 3]`.

    Example:
        >>> euler_to_matrix(jnp.array([0.0, 0.0, jnp.pi / 2])).round(3)[0].tolist()
        [-0.0, -1.0, 0.0]
    """
    checks.assert_axis_dimension(angles, -1, 3)
    angles = at_least_float32(angles)
    (cx, cy, cz), (sx, sy, sz) = (jnp.moveaxis(f(angles), -1, 0) for f in (jnp.cos, jnp.sin))
    return _matrix(
        [
            [cy * cz, -cy * sz, sy],
            [cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy],
            [sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy],
        ]
    )


def intrinsics_matrix(focal: Array, center: Array) -> Array:
    """Intrinsics of focal lengths and a principal point: `[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]`.

    Args:
        focal: `[..., 2]`, (fx, fy) in pixels.
        center: `[..., 2]`, (cx, cy) in pixels.

    Returns:
        `[..., 3, 3]`.

    Example:
        >>> intrinsics_matrix(jnp.array([4.0, 5.0]), jnp.array([1.0, 2.0])).tolist()
        [[4.0, 0.0, 1.0], [0.0, 5.0, 2.0], [0.0, 0.0, 1.0]]
    """
    checks.assert_axis_dimension(focal, -1, 2)
    checks.assert_axis_dimension(center, -1, 2)
    focal, center = accumulated(focal, center)
    (fx, fy), (cx, cy) = (jnp.moveaxis(pair, -1, 0) for pair in jnp.broadcast_arrays(focal, center))
    zero, one = jnp.zeros_like(fx), jnp.ones_like(fx)
    return _matrix([[fx, zero, cx], [zero, fy, cy], [zero, zero, one]])


def flip_intrinsics(intrinsics: C, width: int) -> C:
    """Intrinsics after a horizontal flip of the image: `cx → width - 1 - cx`.

    Args:
        intrinsics: `[..., 3, 3]`, in pixels; or a `UnifiedCamera`.
        width: image width in pixels.

    Returns:
        The camera.

    Example:
        >>> flip_intrinsics(jnp.array([[2.0, 0, 1], [0, 2, 0], [0, 0, 1]]), 4)[0, 2].item()
        2.0
    """
    if isinstance(intrinsics, UnifiedCamera):
        return intrinsics._replace(intrinsics=flip_intrinsics(intrinsics.intrinsics, width))
    intrinsics = at_least_float32(intrinsics)
    _check_matrix(intrinsics, 3)
    flipped = intrinsics.at[..., 0, 1].multiply(-1)  # the skew, if any
    return flipped.at[..., 0, 2].set(width - 1 - intrinsics[..., 0, 2])


def resize_intrinsics(intrinsics: C, scale: float | Array | Sequence[float]) -> C:
    """Intrinsics after resizing the image: `f → s f`, `c → (c + 0.5) s - 0.5`.

    Args:
        intrinsics: `[..., 3, 3]`, in pixels; or a `UnifiedCamera`.
        scale: new size / old size, one number or `(x, y)`.

    Returns:
        The camera.

    Example:
        >>> resize_intrinsics(jnp.array([[2.0, 0, 1], [0, 2, 0], [0, 0, 1]]), 0.5)[:2].tolist()
        [[1.0, 0.0, 0.25], [0.0, 1.0, -0.25]]
    """
    if isinstance(intrinsics, UnifiedCamera):
        return intrinsics._replace(intrinsics=resize_intrinsics(intrinsics.intrinsics, scale))
    intrinsics = at_least_float32(intrinsics)
    _check_matrix(intrinsics, 3)
    scale = jnp.broadcast_to(jnp.asarray(scale, intrinsics.dtype), (2,))
    # The fixed point is the edge of the image, half a pixel before the first center.
    half = jnp.zeros_like(intrinsics).at[..., :2, 2].set(0.5)
    factors = jnp.append(scale, jnp.ones_like(scale[:1]))[:, None]
    return (intrinsics + half) * factors - half


def crop_intrinsics(intrinsics: C, left: float | Array, top: float | Array) -> C:
    """Intrinsics after cropping the image: `cx → cx - left`, `cy → cy - top`.

    Args:
        intrinsics: `[..., 3, 3]`, in pixels; or a `UnifiedCamera`.
        left: column of the crop's first pixel; a scalar, or an array over the leading axes.
        top: row of the crop's first pixel.

    Returns:
        The camera.

    Example:
        >>> crop_intrinsics(jnp.array([[2.0, 0, 1], [0, 2, 5], [0, 0, 1]]), 1, 2)[:2, 2].tolist()
        [0.0, 3.0]
    """
    if isinstance(intrinsics, UnifiedCamera):
        return intrinsics._replace(intrinsics=crop_intrinsics(intrinsics.intrinsics, left, top))
    intrinsics = at_least_float32(intrinsics)
    _check_matrix(intrinsics, 3)
    left, top = (jnp.asarray(first, intrinsics.dtype) for first in (left, top))
    return intrinsics.at[..., 0, 2].add(-left).at[..., 1, 2].add(-top)


def disparity_to_depth(
    disparity: Array,
    focal: float | Array,
    baseline: float | Array,
    *,
    doffs: float | Array = 0.0,
) -> Array:
    """Depth of a rectified stereo pair: `z = b f / (d + doffs)`.

    Args:
        disparity: `[...]`, in pixels.
        focal: focal length in pixels at the same resolution; broadcasts against the disparity.
        baseline: distance between the cameras; the depth has its unit.
        doffs: cx of the right camera minus cx of the left, in pixels; 0 if they are equal.

    Returns:
        `[...]`: infinite at disparity 0, and 0 (unknown) for an unknown disparity (infinite or
        NaN), with zero gradient at both.

    Example:
        >>> disparity_to_depth(jnp.array([10.0, 0.0, jnp.inf]), 500.0, 0.2).tolist()
        [10.0, inf, 0.0]
    """
    disparity = at_least_float32(disparity)
    focal, baseline, doffs = (jnp.asarray(x, disparity.dtype) for x in (focal, baseline, doffs))
    return baseline * focal * _reciprocal(disparity + doffs)


def depth_to_disparity(
    depth: Array,
    focal: float | Array,
    baseline: float | Array,
    *,
    doffs: float | Array = 0.0,
) -> Array:
    """Disparity of a rectified stereo pair: `d = b f / z - doffs`.

    Args:
        depth: `[...]`, in the unit of the baseline.
        focal: focal length in pixels at the resolution of the disparity; broadcasts against the
            depth.
        baseline: distance between the cameras.
        doffs: cx of the right camera minus cx of the left, in pixels; 0 if they are equal.

    Returns:
        `[...]`, in pixels: infinite (unknown) at depth 0, `-doffs` at infinite depth, with zero
        gradient at both.

    Example:
        >>> depth_to_disparity(jnp.array([10.0, jnp.inf, 0.0]), 500.0, 0.2).tolist()
        [10.0, 0.0, inf]
    """
    depth = at_least_float32(depth)
    focal, baseline, doffs = (jnp.asarray(x, depth.dtype) for x in (focal, baseline, doffs))
    return baseline * focal * _reciprocal(depth) - doffs


def sigmoid_to_depth(
    activation: Array, *, min_depth: float = 0.1, max_depth: float = 100.0
) -> tuple[Array, Array]:
    """Inverse depth and depth from a network's sigmoid output (Monodepth2's `disp_to_depth`).

    `d = 1/max + (1/min - 1/max) σ`, `z = 1 / d`

    Args:
        activation: `[...]`, in [0, 1].
        min_depth: depth at activation 1.
        max_depth: depth at activation 0.

    Returns:
        The inverse depth `[...]`, for the smoothness loss, and the depth `[...]`.

    Raises:
        ValueError: unless 0 < min_depth < max_depth.

    Example:
        >>> sigmoid_to_depth(jnp.array([0.0, 1.0]), max_depth=10.0)[1].round(3)
        Array([10. ,  0.1], dtype=float32)

    Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation", ICCV 2019.
    """
    if not 0 < min_depth < max_depth:
        raise checks.value_error(
            f"0 < min_depth < max_depth must hold; got {min_depth} and {max_depth}."
        )
    activation = at_least_float32(activation)
    inverse_depth = 1 / max_depth + (1 / min_depth - 1 / max_depth) * activation
    return inverse_depth, 1 / inverse_depth


def _reciprocal(x: Array) -> Array:
    """`1 / x` with 1 / 0 = inf and 1 / inf = 1 / NaN = 0, all three with zero gradient."""
    usable = jnp.isfinite(x) & (x != 0)
    return jnp.where(usable, 1 / jnp.where(usable, x, 1.0), jnp.where(x == 0, jnp.inf, 0.0))


def _check_matrix(matrix: Array, size: int) -> None:
    checks.assert_axis_dimension(matrix, -1, size)
    checks.assert_axis_dimension(matrix, -2, size)


def _matrix(rows: list[list[Array]]) -> Array:
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def _expand(array: Array, rank: int, *, matrix: bool = True) -> Array:
    """Inserts axes of length 1, so that there are `rank` of them before the matrix (or vector)."""
    trailing = 2 if matrix else 1
    leading = array.ndim - trailing
    if leading > rank:
        raise checks.value_error(
            f"an array of shape {array.shape} has {leading} leading axes, more than the {rank} of "
            "the points or the depth that it applies to."
        )
    return array.reshape(*array.shape[:leading], *(1,) * (rank - leading), *array.shape[leading:])


def _accumulated(array: Array, camera: Camera, *others: Array) -> tuple:
    """The array, the camera and others in the dtype that they have in common, at least float32."""
    if not isinstance(camera, UnifiedCamera):
        _check_matrix(camera, 3)
        return accumulated(array, camera, *others)
    _check_matrix(camera.intrinsics, 3)
    leading = jnp.shape(camera.intrinsics)[:-2]
    if jnp.shape(camera.alpha) != leading:
        raise checks.value_error(
            f"alpha of a UnifiedCamera has the leading axes of its intrinsics, {leading}; got "
            f"shape {jnp.shape(camera.alpha)}."
        )
    array, intrinsics, alpha, *rest = accumulated(array, *camera, *others)
    return array, UnifiedCamera(intrinsics, alpha), *rest


def _expand_camera(camera: Camera, rank: int) -> tuple[Array, Array | None]:
    """Intrinsics `[..., 1, 1, 3, 3]`, and α `[..., 1, 1]` if the camera has one, of this rank."""
    if not isinstance(camera, UnifiedCamera):
        return _expand(camera, rank), None
    alpha = _expand(camera.alpha[..., None], rank, matrix=False)[..., 0]
    return _expand(camera.intrinsics, rank), alpha


def _rays(height: int, width: int, camera: Camera) -> tuple[Array, Array]:
    """`viewing_rays` of all pixels, `[..., H, W, 3]`."""
    matrix = camera.intrinsics if isinstance(camera, UnifiedCamera) else camera
    grid = pixel_grid(height, width).astype(matrix.dtype)
    return _viewing_rays(grid, *_expand_camera(camera, matrix.ndim))  # [..., 1, 1, 3, 3]


def _viewing_rays(coords: Array, matrix: Array, alpha: Array | None) -> tuple[Array, Array]:
    y = (coords[..., 1] - matrix[..., 1, 2]) / matrix[..., 1, 1]
    x = (coords[..., 0] - matrix[..., 0, 2] - matrix[..., 0, 1] * y) / matrix[..., 0, 0]
    if alpha is None:
        return jnp.stack([x, y, jnp.ones_like(x)], axis=-1), jnp.ones((), bool)
    seen = alpha**2 * (x**2 + y**2) < 1
    x, y = jnp.where(seen, x, 0.0), jnp.where(seen, y, 0.0)
    square = x**2 + y**2
    root = jnp.sqrt(1 + (1 - 2 * alpha) * square)  # at least (1 - α) / α
    factor = (1 - alpha + alpha * root) / (1 - alpha**2 * square)
    return jnp.stack([factor * x, factor * y, jnp.ones_like(x)], axis=-1), seen


def _divisor(points: Array, alpha: Array | None) -> Array:
    """What the projection divides x and y of points in front of the camera by."""
    if alpha is None:
        return points[..., 2]
    return alpha * _norm(points) + (1 - alpha) * points[..., 2]


def _divisor_change(before: Array, after: Array, change: Array, alpha: Array | None) -> Array:
    """`_divisor(after) - _divisor(before)` without the rounding errors of a difference."""
    if alpha is None:
        return change[..., 2]
    longer = jnp.sum(change * (before + after), axis=-1) / (_norm(before) + _norm(after))
    return alpha * longer + (1 - alpha) * change[..., 2]


def _norm(points: Array) -> Array:
    return jnp.sqrt(jnp.sum(points**2, axis=-1))


def _change_of_camera(
    points: Array, camera: tuple[Array, Array | None], other: tuple[Array, Array | None]
) -> Array:
    """How far the image of points moves, `[..., 2]`, where another camera takes it."""
    (matrix, alpha), (other_matrix, other_alpha) = camera, other
    divisor, difference = _divisor(points, alpha), other_matrix - matrix
    x, y = points[..., 0] / divisor, points[..., 1] / divisor
    moved = _scale(x, y, difference) + difference[..., :2, 2]
    if alpha is None and other_alpha is None:
        return moved
    less = (alpha if alpha is not None else 0.0) - (other_alpha if other_alpha is not None else 0.0)
    ratio = less * (_norm(points) - points[..., 2]) / _divisor(points, other_alpha)
    return moved + _scale(x * ratio, y * ratio, other_matrix)


def _scale(x: Array, y: Array, intrinsics: Array) -> Array:
    """`(fx x + skew y, fy y)`: the intrinsics without the principal point."""
    scaled = intrinsics[..., 0, 0] * x + intrinsics[..., 0, 1] * y
    return jnp.stack([scaled, intrinsics[..., 1, 1] * y], axis=-1)


def _rotate(rotation: Array, points: Array, rank: int) -> Array:
    # Three products rather than a reduction, which XLA's CPU backend would not fuse.
    matrix = _expand(rotation, rank)
    x, y, z = (matrix[..., i] * points[..., i, None] for i in range(3))
    return x + y + z


def _in_front(points: Array, min_depth: float | Array) -> tuple[Array, Array]:
    """Replaces points behind the camera and non-finite ones by (0, 0, 1); and which were kept."""
    in_front = (points[..., 2] >= min_depth) & jnp.all(jnp.isfinite(points), axis=-1)
    ahead = jnp.array([0.0, 0.0, 1.0], points.dtype)
    return jnp.where(in_front[..., None], points, ahead), in_front


# Σ_k (-θ²)^k / (2k + n)! for n = 1, 2, 3, highest power first; exact to float64 for θ < 0.5.
_SERIES = [[(-1) ** k / math.factorial(2 * k + n) for k in range(7, -1, -1)] for n in (1, 2, 3)]


def _exponential_series(omega: Array) -> tuple[Array, Array, Array]:
    """`sin θ / θ`, `(1 - cos θ) / θ²` and `(θ - sin θ) / θ³` for `θ = |ω|`, smooth at zero."""
    square = jnp.sum(omega**2, axis=-1)
    small = square < 0.25
    near, far = jnp.where(small, square, 0.0), jnp.where(small, 1.0, square)
    theta = jnp.sqrt(far)
    closed = (
        jnp.sin(theta) / theta,
        2 * (jnp.sin(theta / 2) / theta) ** 2,
        (theta - jnp.sin(theta)) / (theta * far),
    )
    series = [jnp.polyval(jnp.array(c, omega.dtype), near) for c in _SERIES]
    first, second, third = (jnp.where(small, s, c) for s, c in zip(series, closed))
    return first, second, third
