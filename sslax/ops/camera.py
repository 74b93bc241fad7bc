"""Pinhole cameras: intrinsics, projection, rigid motion, depth and disparity.

Pixel centers lie at integer coordinates, `(x, y)` in pixels; the camera looks along +z, x right and
y down; depth is z. Intrinsics are `[[fx, skew, cx], [0, fy, cy], [0, 0, 1]]` in pixels. A pose is
a `[4, 4]` matrix that takes points of the target camera to the source camera.

Products are written out or asked for in full precision: the default matrix product of an
accelerator keeps 8 to 11 bits of the mantissa, which is pixels of error in a projection.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.ops.warp import pixel_grid


def backproject(depth: jax.Array, intrinsics: jax.Array) -> jax.Array:
    """Points seen by the pixels: `P(p) = depth(p) K⁻¹ (x, y, 1)`.

    Args:
        depth: `[..., H, W]`, along the optical axis.
        intrinsics: `[..., 3, 3]`, in pixels of this resolution.

    Returns:
        `[..., H, W, 3]`, in the unit of the depth.

    Example:
        >>> intrinsics = jnp.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        >>> backproject(jnp.full((1, 2), 4.0), intrinsics)[0].tolist()
        [[-2.0, 0.0, 4.0], [0.0, 0.0, 4.0]]
    """
    _check_matrix(intrinsics, 3)
    return depth[..., None] * _rays(*depth.shape[-2:], intrinsics)


def project(
    points: jax.Array, intrinsics: jax.Array, *, min_depth: float = 1e-3
) -> tuple[jax.Array, jax.Array]:
    """Pixels at which points are seen: `(x, y, 1) z = K P`.

    Args:
        points: `[..., 3]`, in the camera's frame.
        intrinsics: `[..., 3, 3]`, in pixels; leading axes are those of the points from the left,
            so that points `[B, H, W, 3]` go with intrinsics `[B, 3, 3]`.
        min_depth: the nearest z that counts as in front of the camera, in the unit of the points.

    Returns:
        Coordinates `[..., 2]`, `(x, y)` in pixels, and `in_front` `[...]` (bool): z is at least
        `min_depth` and the point is finite. Elsewhere the coordinates are the principal point's,
        with zero gradient.

    Example:
        >>> intrinsics = jnp.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        >>> coords, in_front = project(jnp.array([[2.0, 0.0, 4.0], [2.0, 0.0, -4.0]]), intrinsics)
        >>> coords[0].tolist(), in_front.tolist()
        ([2.0, 0.0], [True, False])
    """
    points = jnp.asarray(points)
    checks.assert_axis_dimension(points, -1, 3)
    _check_matrix(intrinsics, 3)
    points, in_front = _in_front(points, min_depth)
    intrinsics = _expand(intrinsics, points.ndim - 1)
    x, y = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
    return _stretch(x, y, intrinsics) + intrinsics[..., :2, 2], in_front


def rigid_flow(
    depth: jax.Array,
    pose: jax.Array,
    intrinsics: jax.Array,
    *,
    source_intrinsics: jax.Array | None = None,
    min_depth: float = 1e-3,
) -> tuple[jax.Array, jax.Array]:
    """Flow of a still scene under the camera's motion: `flow(p) = π(K' (R P(p) + t)) - p`.

    Exactly zero under the identity, where the difference of two projections would be rounding, and
    right for infinite depth.

    Args:
        depth: `[..., H, W]` of the target view; not positive where unknown.
        pose: `[..., 4, 4]`, from the target camera to the source camera.
        intrinsics: `[..., 3, 3]` of the target camera, in pixels.
        source_intrinsics: `[..., 3, 3]` of the source camera, where they differ.
        min_depth: the nearest depth that counts as in front of either camera.

    Returns:
        Flow `[..., H, W, 2]`, and `valid` `[..., H, W]` (bool): the depth is known, the point lies
        in front of the source camera and is seen between its outermost pixel centers. Points that
        have no image have zero flow and zero gradient.

    Example:
        >>> intrinsics = jnp.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        >>> pose = rigid_transform(jnp.eye(3), jnp.array([1.0, 0.0, 0.0]))
        >>> flow, valid = rigid_flow(jnp.full((1, 4), 2.0), pose, intrinsics)
        >>> flow[0, :, 0].tolist(), valid[0].tolist()
        ([1.0, 1.0, 1.0, 1.0], [True, True, True, False])

    Zhou et al., "Unsupervised Learning of Depth and Ego-Motion from Video", 2017.
    """
    depth, pose, intrinsics = jnp.asarray(depth), jnp.asarray(pose), jnp.asarray(intrinsics)
    _check_matrix(pose, 4)
    _check_matrix(intrinsics, 3)
    height, width = depth.shape[-2:]
    rays = _rays(height, width, intrinsics)
    # All is divided by the target's depth, so that infinite depth is a rotation, and only what the
    # motion changes is computed, so that the identity leaves no rounding.
    known = depth >= min_depth
    inverse_depth = jnp.where(known, _reciprocal(jnp.where(known, depth, 1.0)), 0.0)
    translation = _expand(pose[..., :3, 3], depth.ndim, matrix=False)
    turn = pose[..., :3, :3] - jnp.eye(3, dtype=pose.dtype)
    change = _rotate(turn, rays, depth.ndim) + inverse_depth[..., None] * translation
    moved, in_front = _in_front(rays + change, jnp.maximum(min_depth * inverse_depth, 1e-6))
    has_image = known & in_front
    change = jnp.where(has_image[..., None], change, 0.0)

    x, y = moved[..., 0] / moved[..., 2], moved[..., 1] / moved[..., 2]
    shift = (change[..., :2] - rays[..., :2] * change[..., 2:]) / moved[..., 2:]
    target = _expand(intrinsics, depth.ndim)
    flow = _stretch(shift[..., 0], shift[..., 1], target)
    if source_intrinsics is not None:
        _check_matrix(source_intrinsics, 3)
        other = _expand(source_intrinsics - intrinsics, depth.ndim)
        flow += _stretch(x, y, other) + other[..., :2, 2]
    flow = jnp.where(has_image[..., None], flow, 0.0)
    coords = pixel_grid(height, width) + flow
    last = jnp.array([width - 1, height - 1], coords.dtype)
    return flow, has_image & jnp.all((coords >= 0) & (coords <= last), axis=-1)


def transform_points(pose: jax.Array, points: jax.Array) -> jax.Array:
    """Rigid motion of points: `R P + t`.

    Args:
        pose: `[..., 4, 4]`; leading axes are those of the points from the left.
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
    rank = points.ndim - 1
    return _rotate(pose[..., :3, :3], points, rank) + _expand(pose[..., :3, 3], rank, matrix=False)


def so3_exp(axis_angle: jax.Array) -> jax.Array:
    """Rotation by an axis times an angle (Rodrigues).

    `R = cos θ I + (sin θ / θ) [ω]ₓ + ((1 - cos θ) / θ²) ω ωᵀ`, `θ = |ω|`

    Smooth everywhere; at zero its derivative is `[·]ₓ`.

    Args:
        axis_angle: `[..., 3]`, radians.

    Returns:
        `[..., 3, 3]`.

    Example:
        >>> so3_exp(jnp.array([0.0, 0.0, jnp.pi / 2])).round(3).tolist()
        [[-0.0, -1.0, 0.0], [1.0, -0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    axis_angle = jnp.asarray(axis_angle)
    checks.assert_axis_dimension(axis_angle, -1, 3)
    sine, cosine, _ = _exponential_series(axis_angle)
    x, y, z = jnp.moveaxis(sine[..., None] * axis_angle, -1, 0)
    zero = jnp.zeros_like(x)
    skew = _matrix([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
    outer = axis_angle[..., :, None] * axis_angle[..., None, :]
    diagonal = 1 - cosine * jnp.sum(axis_angle**2, axis=-1)
    eye = jnp.eye(3, dtype=axis_angle.dtype)
    return diagonal[..., None, None] * eye + skew + cosine[..., None, None] * outer


def se3_exp(twist: jax.Array) -> jax.Array:
    """Rigid motion of a twist, the exponential of SE(3).

    `[R | t] = [exp ω | V ρ]`, `V = I + ((1 - cos θ) / θ²) [ω]ₓ + ((θ - sin θ) / θ³) [ω]ₓ²`

    Pose networks usually predict the translation itself; that is
    `rigid_transform(so3_exp(rotation), translation)`. To first order the two agree.

    Args:
        twist: `[..., 6]`, the translation part ρ, then the axis-angle ω in radians.

    Returns:
        `[..., 4, 4]`.

    Example:
        >>> se3_exp(jnp.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]))[:3, 3].tolist()
        [1.0, 2.0, 3.0]
    """
    twist = jnp.asarray(twist)
    checks.assert_axis_dimension(twist, -1, 6)
    rho, omega = twist[..., :3], twist[..., 3:]
    _, first, second = _exponential_series(omega)
    once = jnp.cross(omega, rho)
    twice = jnp.cross(omega, once)
    return rigid_transform(
        so3_exp(omega), rho + first[..., None] * once + second[..., None] * twice
    )


def se3_inverse(pose: jax.Array) -> jax.Array:
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
    rotation = jnp.swapaxes(pose[..., :3, :3], -1, -2)
    return rigid_transform(rotation, -jnp.sum(rotation * pose[..., None, :3, 3], axis=-1))


def rigid_transform(rotation: jax.Array, translation: jax.Array) -> jax.Array:
    """The matrix `[[R, t], [0, 1]]`.

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
    upper = jnp.concatenate([rotation, translation[..., None]], axis=-1)
    last = jnp.broadcast_to(jnp.array([0, 0, 0, 1], upper.dtype), (*upper.shape[:-2], 1, 4))
    return jnp.concatenate([upper, last], axis=-2)


def euler_to_matrix(angles: jax.Array) -> jax.Array:
    """Rotation `Rx Ry Rz` of Euler angles, as SfMLearner's pose network predicts them.

    Args:
        angles: `[..., 3]`, about x, y and z, radians.

    Returns:
        `[..., 3, 3]`.

    Example:
        >>> euler_to_matrix(jnp.array([0.0, 0.0, jnp.pi / 2])).round(3)[0].tolist()
        [-0.0, -1.0, 0.0]
    """
    checks.assert_axis_dimension(angles, -1, 3)
    (cx, cy, cz), (sx, sy, sz) = (jnp.moveaxis(f(angles), -1, 0) for f in (jnp.cos, jnp.sin))
    return _matrix(
        [
            [cy * cz, -cy * sz, sy],
            [cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy],
            [sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy],
        ]
    )


def flip_intrinsics(intrinsics: jax.Array, width: int) -> jax.Array:
    """Intrinsics of the image mirrored left to right: `cx → width - 1 - cx`.

    Args:
        intrinsics: `[..., 3, 3]`, in pixels.
        width: of the image, in pixels.

    Returns:
        `[..., 3, 3]`.

    Example:
        >>> flip_intrinsics(jnp.array([[2.0, 0, 1], [0, 2, 0], [0, 0, 1]]), 4)[0, 2].item()
        2.0
    """
    intrinsics = jnp.asarray(intrinsics)
    _check_matrix(intrinsics, 3)
    flipped = intrinsics.at[..., 0, 1].multiply(-1)  # the skew, if there is one
    return flipped.at[..., 0, 2].set(width - 1 - intrinsics[..., 0, 2])


def resize_intrinsics(
    intrinsics: jax.Array, scale: float | jax.Array | Sequence[float]
) -> jax.Array:
    """Intrinsics of the image resized: `f → s f`, `c → (c + 0.5) s - 0.5`.

    Args:
        intrinsics: `[..., 3, 3]`, in pixels.
        scale: new size / old size; one number, or `(x, y)`.

    Returns:
        `[..., 3, 3]`.

    Example:
        >>> resize_intrinsics(jnp.array([[2.0, 0, 1], [0, 2, 0], [0, 0, 1]]), 0.5)[:2].tolist()
        [[1.0, 0.0, 0.25], [0.0, 1.0, -0.25]]
    """
    intrinsics = jnp.asarray(intrinsics)
    _check_matrix(intrinsics, 3)
    scale = jnp.broadcast_to(jnp.asarray(scale, intrinsics.dtype), (2,))
    # The edge of the image, half a pixel before the first center, stays where it is.
    half = jnp.zeros_like(intrinsics).at[..., :2, 2].set(0.5)
    stretch = jnp.append(scale, jnp.ones_like(scale[:1]))[:, None]
    return (intrinsics + half) * stretch - half


def crop_intrinsics(
    intrinsics: jax.Array, left: float | jax.Array, top: float | jax.Array
) -> jax.Array:
    """Intrinsics of a crop: `cx → cx - left`, `cy → cy - top`.

    Args:
        intrinsics: `[..., 3, 3]`, in pixels.
        left: column of the crop's first pixel; a number, or one for each of the leading axes.
        top: row of the crop's first pixel.

    Returns:
        `[..., 3, 3]`.

    Example:
        >>> crop_intrinsics(jnp.array([[2.0, 0, 1], [0, 2, 5], [0, 0, 1]]), 1, 2)[:2, 2].tolist()
        [0.0, 3.0]
    """
    intrinsics = jnp.asarray(intrinsics)
    _check_matrix(intrinsics, 3)
    return intrinsics.at[..., 0, 2].add(-left).at[..., 1, 2].add(-top)


def disparity_to_depth(
    disparity: jax.Array,
    focal: float | jax.Array,
    baseline: float | jax.Array,
    *,
    doffs: float | jax.Array = 0.0,
) -> jax.Array:
    """Depth of a rectified stereo pair: `z = b f / (d + doffs)`.

    Args:
        disparity: `[...]`, in pixels.
        focal: in pixels of the same resolution; broadcasts against the disparity.
        baseline: distance of the cameras; the depth has its unit.
        doffs: cx of the right camera minus cx of the left, in pixels (0 where they agree).

    Returns:
        `[...]`: infinite at disparity 0, and 0 (unknown) where the disparity is unknown (infinite
        or NaN); zero gradient at both.

    Example:
        >>> disparity_to_depth(jnp.array([10.0, 0.0, jnp.inf]), 500.0, 0.2).tolist()
        [10.0, inf, 0.0]
    """
    return baseline * focal * _reciprocal(disparity + doffs)


def depth_to_disparity(
    depth: jax.Array,
    focal: float | jax.Array,
    baseline: float | jax.Array,
    *,
    doffs: float | jax.Array = 0.0,
) -> jax.Array:
    """Disparity of a rectified stereo pair: `d = b f / z - doffs`.

    Args:
        depth: `[...]`, in the unit of the baseline.
        focal: in pixels of the resolution of the disparity; broadcasts against the depth.
        baseline: distance of the cameras.
        doffs: cx of the right camera minus cx of the left, in pixels (0 where they agree).

    Returns:
        `[...]`, in pixels: infinite (unknown) at depth 0, `-doffs` at infinite depth; zero gradient
        at both.

    Example:
        >>> depth_to_disparity(jnp.array([10.0, jnp.inf, 0.0]), 500.0, 0.2).tolist()
        [10.0, 0.0, inf]
    """
    return baseline * focal * _reciprocal(depth) - doffs


def sigmoid_to_depth(
    activation: jax.Array, *, min_depth: float = 0.1, max_depth: float = 100.0
) -> tuple[jax.Array, jax.Array]:
    """Inverse depth and depth from a network's sigmoid (`disp_to_depth` of Monodepth2).

    `d = 1/max + (1/min - 1/max) σ`, `z = 1 / d`

    Args:
        activation: `[...]`, in [0, 1].
        min_depth: depth at activation 1.
        max_depth: depth at activation 0.

    Returns:
        The inverse depth `[...]`, which the smoothness loss sees, and the depth `[...]`.

    Raises:
        ValueError: unless 0 < min_depth < max_depth.

    Example:
        >>> sigmoid_to_depth(jnp.array([0.0, 1.0]), max_depth=10.0)[1].round(3)
        Array([10. ,  0.1], dtype=float32)

    Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation", 2019.
    """
    if not 0 < min_depth < max_depth:
        raise ValueError(f"depths from {min_depth} to {max_depth}: need 0 < min_depth < max_depth.")
    inverse_depth = 1 / max_depth + (1 / min_depth - 1 / max_depth) * activation
    return inverse_depth, 1 / inverse_depth


def _reciprocal(x: jax.Array) -> jax.Array:
    """`1 / x` that exchanges zero and infinity, with zero gradient there; NaN becomes zero."""
    usable = jnp.isfinite(x) & (x != 0)
    return jnp.where(usable, 1 / jnp.where(usable, x, 1.0), jnp.where(x == 0, jnp.inf, 0.0))


def _check_matrix(matrix: jax.Array, size: int) -> None:
    checks.assert_axis_dimension(matrix, -1, size)
    checks.assert_axis_dimension(matrix, -2, size)


def _matrix(rows: list[list[jax.Array]]) -> jax.Array:
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def _expand(array: jax.Array, rank: int, *, matrix: bool = True) -> jax.Array:
    """Axes of size one after the leading axes of matrices (or vectors), for `rank` of them."""
    trailing = 2 if matrix else 1
    leading = array.ndim - trailing
    if leading > rank:
        raise ValueError(f"{array.shape} has more leading axes than the {rank} it is applied to.")
    return array.reshape(*array.shape[:leading], *(1,) * (rank - leading), *array.shape[leading:])


def _rays(height: int, width: int, intrinsics: jax.Array) -> jax.Array:
    """`K⁻¹ (x, y, 1)` of every pixel, `[..., H, W, 3]`."""
    intrinsics = _expand(intrinsics, intrinsics.ndim)  # [..., 1, 1, 3, 3]
    grid = pixel_grid(height, width)
    y = (grid[..., 1] - intrinsics[..., 1, 2]) / intrinsics[..., 1, 1]
    x = (grid[..., 0] - intrinsics[..., 0, 2] - intrinsics[..., 0, 1] * y) / intrinsics[..., 0, 0]
    return jnp.stack([x, y, jnp.ones_like(x)], axis=-1)


def _stretch(x: jax.Array, y: jax.Array, intrinsics: jax.Array) -> jax.Array:
    """`(fx x + skew y, fy y)`: the intrinsics without the principal point."""
    stretched = intrinsics[..., 0, 0] * x + intrinsics[..., 0, 1] * y
    return jnp.stack([stretched, intrinsics[..., 1, 1] * y], axis=-1)


def _rotate(rotation: jax.Array, points: jax.Array, rank: int) -> jax.Array:
    # Three products, not a reduction, which XLA's CPU backend would not fuse with what follows.
    matrix = _expand(rotation, rank)
    return sum(matrix[..., i] * points[..., i, None] for i in range(3))


def _in_front(points: jax.Array, min_depth: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Points with those behind the camera, or not finite, replaced by (0, 0, 1)."""
    in_front = (points[..., 2] >= min_depth) & jnp.all(jnp.isfinite(points), axis=-1)
    ahead = jnp.array([0.0, 0.0, 1.0], points.dtype)
    return jnp.where(in_front[..., None], points, ahead), in_front


# Σ_k (-θ²)^k / (2k + n)! for n = 1, 2, 3, highest power first: float64's precision below θ = 0.5.
_SERIES = [[(-1) ** k / math.factorial(2 * k + n) for k in range(7, -1, -1)] for n in (1, 2, 3)]


def _exponential_series(omega: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`sin θ / θ`, `(1 - cos θ) / θ²` and `(θ - sin θ) / θ³` of `θ = |ω|`, smooth at zero."""
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
    return tuple(jnp.where(small, s, c) for s, c in zip(series, closed))
