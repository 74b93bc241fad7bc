"""Ego-motion and trajectories against ground truth, in float64 on the host.

Arrays of rigid motions `[N, 4, 4]` come in two kinds. A *trajectory* holds camera-to-world
matrices; column 3 is the position of camera i. *Relative poses* hold, at i, the transform from
camera i + 1 to camera i: what `compose_poses` chains into a trajectory, and what a pose network
predicts (target to source) if frame i + 1 is its target and frame i its source. If frame i was the
target, take `inverse_poses` first.

A network trained on monocular video predicts translations up to scale, so every error of length
needs one; each function says which scale it uses.
"""

from typing import NamedTuple

import numpy as np

from sslax import checks
from sslax.errors import check_choice

LENGTHS = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0)
_ALIGNMENTS = ("none", "first", "scale", "se3", "sim3")


class Similarity(NamedTuple):
    """`x -> scale · rotation x + translation`.

    Attributes:
        scale: a number.
        rotation: `[3, 3]`.
        translation: `[3]`.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray


class Segments(NamedTuple):
    """Errors of segments of a trajectory; concatenate those of several sequences.

    Attributes:
        length: `[S]`, nominal length of the segment along the ground truth: 100, 200, ...
        translation: `[S]`, translation error over length, dimensionless.
        rotation: `[S]`, rotation error over length, degrees per unit of length.
    """

    length: np.ndarray
    translation: np.ndarray
    rotation: np.ndarray


def inverse_poses(poses: np.ndarray) -> np.ndarray:
    """Inverses of rigid motions: `[Rᵀ | -Rᵀ t]`.

    Args:
        poses: `[..., 4, 4]`.

    Returns:
        `[..., 4, 4]`, float64.

    Example:
        >>> pose = np.eye(4)
        >>> pose[:3, 3] = 1, 2, 3
        >>> inverse_poses(pose)[:3, 3].tolist()
        [-1.0, -2.0, -3.0]
    """
    checks.assert_axis_dimension(poses, -1, 4)
    checks.assert_axis_dimension(poses, -2, 4)
    poses = _rigid(poses)
    rotation = np.swapaxes(poses[..., :3, :3], -1, -2)
    return _motion(rotation, -(rotation @ poses[..., :3, 3:])[..., 0])


def compose_poses(relative: np.ndarray) -> np.ndarray:
    """Chains relative poses into a trajectory: `C_0 = I`, `C_{i+1} = C_i T_i`.

    Rotations are first orthonormalized, since float32 rounding would grow with every product.

    Args:
        relative: `[N - 1, 4, 4]`, at i from camera i + 1 to camera i.

    Returns:
        Camera-to-world matrices `[N, 4, 4]`, float64, in the frame of the first camera.

    Example:
        >>> forward = np.eye(4)
        >>> forward[2, 3] = 2.0  # camera i + 1 is two units ahead of camera i
        >>> compose_poses(np.stack([forward] * 3))[:, 2, 3].tolist()
        [0.0, 2.0, 4.0, 6.0]
    """
    checks.assert_shape(relative, (None, 4, 4))
    relative = _rigid(relative)
    u, _, vt = np.linalg.svd(relative[:, :3, :3])
    steps = _motion(u @ vt, relative[:, :3, 3])
    trajectory = [np.eye(4)]
    for step in steps:
        trajectory.append(trajectory[-1] @ step)
    return np.stack(trajectory)


def relative_poses(trajectory: np.ndarray, *, step: int = 1) -> np.ndarray:
    """Relative poses of cameras `step` frames apart: `T_i = C_i⁻¹ C_{i+step}`.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`.
        step: distance in frames.

    Returns:
        `[N - step, 4, 4]`, from camera i + step to camera i; `compose_poses` inverts `step=1`.

    Example:
        >>> trajectory = np.stack([np.eye(4)] * 4)
        >>> trajectory[:, 0, 3] = 0, 1, 3, 6
        >>> relative_poses(trajectory)[:, 0, 3].tolist()
        [1.0, 2.0, 3.0]
    """
    checks.assert_shape(trajectory, (None, 4, 4))
    trajectory = _rigid(trajectory)
    return inverse_poses(trajectory[:-step]) @ trajectory[step:]


def consecutive_motions(poses: np.ndarray) -> np.ndarray:
    """Relative poses of consecutive frames, from the poses of overlapping samples.

    Sample i has frames i to i + S - 1, and poses from its target, frame i + S // 2, to each of
    them. The relative pose from frame k + 1 to k is `P_k P_{k+1}⁻¹`, taken from the sample whose
    target is k, or is closest to k among the samples with both frames.

    Args:
        poses: `[N - S + 1, S, 4, 4]`.

    Returns:
        `[N - 1, 4, 4]`, at k from camera k + 1 to camera k; `compose_poses` chains them.

    Example:
        >>> step = np.eye(4)
        >>> step[2, 3] = -1.0  # the next camera is ahead, so points come nearer
        >>> sample = np.stack([inverse_poses(step), np.eye(4), step])
        >>> consecutive_motions(np.stack([sample, sample]))[:, 2, 3].tolist()
        [1.0, 1.0, 1.0]
    """
    checks.assert_shape(poses, (None, None, 4, 4))
    poses = _rigid(poses)
    samples, frames = poses.shape[:2]
    first = np.arange(samples + frames - 2)  # earlier frame of each pair
    sample = np.clip(first - min(frames // 2, frames - 2), 0, samples - 1)
    index = first - sample
    return poses[sample, index] @ inverse_poses(poses[sample, index + 1])


def rotation_angle(rotation: np.ndarray) -> np.ndarray:
    """Angle of a rotation, `atan2(|R - Rᵀ| / √2, tr R - 1)`, accurate for small angles too.

    Args:
        rotation: `[..., 3, 3]`.

    Returns:
        `[...]`, degrees in [0, 180].

    Example:
        >>> rotation_angle(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])).item()
        90.0
    """
    r = np.asarray(rotation, np.float64)
    twice_sine = np.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1
    )
    sine = np.linalg.norm(twice_sine, axis=-1)
    return np.degrees(np.arctan2(sine, np.trace(r, axis1=-2, axis2=-1) - 1))


def translation_scale(translation: np.ndarray, truth: np.ndarray) -> float:
    """Least-squares scale of predicted translations: `Σ <g, t> / Σ <t, t>`.

    Args:
        translation: `[N, 3]`, predicted.
        truth: `[N, 3]`.

    Returns:
        The scale; 0 if all predicted translations are 0.

    Example:
        >>> translation_scale(np.array([[1.0, 0, 0]]), np.array([[4.0, 0, 0]]))
        4.0
    """
    translation, truth = np.asarray(translation, np.float64), np.asarray(truth, np.float64)
    checks.assert_equal_shape([translation, truth])
    energy = np.sum(translation**2)
    return float(np.sum(translation * truth) / energy) if energy > 0 else 0.0


def relative_pose_errors(
    relative: np.ndarray, truth: np.ndarray, *, scale: float = 1.0
) -> dict[str, np.ndarray]:
    """Errors of relative poses, pose by pose.

    With `T` the pose with its translation times `scale`, and `E = truth⁻¹ T`: 'rotation' is the
    angle of `E` in degrees, 'translation' the length of its translation, and 'direction' the angle
    in degrees between the two translations, which does not depend on scale. A predicted translation
    of zero has no direction and counts as 90. Poses whose true camera is static (moves less than
    1e-9) are left out of 'direction'.

    Args:
        relative: `[N, 4, 4]`, predicted.
        truth: `[N, 4, 4]`.
        scale: of the predicted translations; `translation_scale`, or 1 for metric poses.

    Returns:
        'rotation' `[N]`, 'translation' `[N]`, 'direction' `[M]` with M <= N.

    Example:
        >>> truth, turned = np.stack([np.eye(4)] * 2), np.stack([np.eye(4)] * 2)
        >>> truth[0, :3, 3], turned[0, :3, 3] = (0, 0, 2), (0, 3, 0)
        >>> errors = relative_pose_errors(turned, truth)
        >>> {name: error.round(3).tolist() for name, error in errors.items()}
        {'rotation': [0.0, 0.0], 'translation': [3.606, 0.0], 'direction': [90.0]}

    Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012.
    """
    checks.assert_shape([relative, truth], (None, 4, 4))
    checks.assert_equal_shape([relative, truth])
    relative, truth = _rigid(relative), _rigid(truth)
    scaled = _motion(relative[:, :3, :3], scale * relative[:, :3, 3])
    error = inverse_poses(truth) @ scaled
    moved, true_move = scaled[:, :3, 3], truth[:, :3, 3]
    across = np.linalg.norm(np.cross(moved, true_move), axis=1)
    direction = np.degrees(np.arctan2(across, np.sum(moved * true_move, 1)))
    direction = np.where(np.any(moved != 0, 1), direction, 90.0)
    return {
        "rotation": rotation_angle(error[:, :3, :3]),
        "translation": np.linalg.norm(error[:, :3, 3], axis=1),
        "direction": direction[np.linalg.norm(true_move, axis=1) > 1e-9],
    }


def snippets(trajectory: np.ndarray, *, length: int = 5) -> np.ndarray:
    """All snippets of consecutive frames, each in the frame of its first camera.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`.
        length: frames per snippet.

    Returns:
        `[N - length + 1, length, 4, 4]`.

    Raises:
        ValueError: if the trajectory is shorter than one snippet.

    Example:
        >>> trajectory = np.stack([np.eye(4)] * 4)
        >>> trajectory[:, 0, 3] = 0, 1, 3, 6
        >>> snippets(trajectory, length=3)[:, :, 0, 3].tolist()
        [[0.0, 1.0, 3.0], [0.0, 2.0, 5.0]]
    """
    checks.assert_shape(trajectory, (None, 4, 4))
    trajectory = _rigid(trajectory)
    if len(trajectory) < length:
        raise checks.value_error(
            f"A trajectory of {len(trajectory)} poses has no snippet of {length}."
        )
    starts = range(len(trajectory) - length + 1)
    return _from_first(np.stack([trajectory[i : i + length] for i in starts]))


def snippet_errors(predicted: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Absolute trajectory error of short snippets, as reported by SfMLearner and its successors.

    With `x_k`, `g_k` the predicted and true positions of the L cameras relative to the first, and
    `s` the snippet's own `translation_scale`,

    ```
    ate = sqrt(Σ_k |s x_k - g_k|² / L)        ate_legacy = sqrt(Σ_k |s x_k - g_k|²) / L
    ```
    `ate` is the root mean square. Published tables report `ate_legacy`, which SfMLearner's code
    calls RMSE; it is smaller by sqrt(L), a factor of 2.24 for five frames. 'rotation' is the mean
    angle between the cameras' rotations, including the first, which is always 0. Papers quote mean
    and standard deviation over snippets.

    Args:
        predicted: `[S, L, 4, 4]`, camera-to-world in any frame; `snippets` of a trajectory, or
            snippets predicted separately.
        truth: `[S, L, 4, 4]`.

    Returns:
        'ate' and 'ate_legacy' in the unit of the truth, 'rotation' in degrees, and 'scale', each
        `[S]`. A snippet predicted as a static camera has scale 0, hence an error as large as the
        true motion; the published code divides by zero there.

    Example:
        >>> truth = np.tile(np.eye(4), (1, 5, 1, 1))
        >>> truth[0, :, 0, 3] = 0, 1, 2, 3, 4
        >>> bent = truth.copy()
        >>> bent[0, :, 0, 3] = 0, 1, 2, 3, 5
        >>> {name: error.round(4).tolist() for name, error in snippet_errors(bent, truth).items()}
        {'ate': [0.2679], 'ate_legacy': [0.1198], 'rotation': [0.0], 'scale': [0.8718]}

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video,
    https://arxiv.org/abs/1704.07813
    """
    checks.assert_shape([predicted, truth], (None, None, 4, 4))
    checks.assert_equal_shape([predicted, truth])
    predicted, truth = _from_first(_rigid(predicted)), _from_first(_rigid(truth))
    length = truth.shape[1]
    position, true_position = predicted[..., :3, 3], truth[..., :3, 3]
    scale = np.array([translation_scale(x, g) for x, g in zip(position, true_position)])
    squared = np.sum((scale[:, None, None] * position - true_position) ** 2, (1, 2))
    between = np.swapaxes(truth[..., :3, :3], -1, -2) @ predicted[..., :3, :3]
    return {
        "ate": np.sqrt(squared / length),
        "ate_legacy": np.sqrt(squared) / length,
        "rotation": rotation_angle(between).mean(1),
        "scale": scale,
    }


def umeyama(source: np.ndarray, target: np.ndarray, *, with_scale: bool) -> Similarity:
    """Least-squares alignment of two point sets by a similarity or a rigid motion.

    Minimizes `Σ_i |s R x_i + t - y_i|²` over rotations (no reflections), translations and, with
    `with_scale`, the scale. Collinear points leave the rotation about their line undetermined;
    coincident points leave rotation and scale undetermined, and get the identity and 1.

    Args:
        source: x, `[N, 3]`.
        target: y, `[N, 3]`.
        with_scale: False keeps s = 1.

    Returns:
        A minimizer.

    Example:
        >>> points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> fit = umeyama(points, 3 * points + 1, with_scale=True)
        >>> round(fit.scale, 6), fit.translation.round(6).tolist()
        (3.0, [1.0, 1.0, 1.0])

    Umeyama, Least-squares estimation of transformation parameters between two point patterns, IEEE
    PAMI 1991.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    checks.assert_rank([source, target], 2)
    checks.assert_equal_shape([source, target])
    checks.assert_axis_dimension(source, 1, 3)
    center, target_center = source.mean(0), target.mean(0)
    x, y = source - center, target - target_center
    energy = np.sum(x**2)
    if energy == 0:
        return Similarity(1.0, np.eye(3), target_center - center)
    u, singular, vt = np.linalg.svd(y.T @ x)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * sign) @ vt
    scale = float(singular @ sign / energy) if with_scale else 1.0
    return Similarity(scale, rotation, target_center - scale * rotation @ center)


def align_trajectory(trajectory: np.ndarray, truth: np.ndarray, *, align: str) -> np.ndarray:
    """Aligns a predicted trajectory to the ground truth.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`, predicted.
        truth: `[N, 4, 4]`.
        align: 'none'; 'first': the first cameras coincide; 'scale': likewise, with a least-squares
            scale of the positions; 'se3': least-squares rigid motion over all positions; 'sim3':
            likewise, with scale.

    Returns:
        `[N, 4, 4]`.

    Raises:
        UserError: if the alignment is unknown.

    Example:
        >>> truth = np.stack([np.eye(4)] * 3)
        >>> truth[:, 0, 3] = 5, 6, 7
        >>> small = truth.copy()
        >>> small[:, 0, 3] = 0, 0.1, 0.2
        >>> align_trajectory(small, truth, align="scale")[:, 0, 3].round(6).tolist()
        [5.0, 6.0, 7.0]
    """
    checks.assert_shape([trajectory, truth], (None, 4, 4))
    checks.assert_equal_shape([trajectory, truth])
    check_choice("align", align, _ALIGNMENTS)
    trajectory, truth = _rigid(trajectory), _rigid(truth)
    if align == "none":
        return trajectory
    if align in ("se3", "sim3"):
        fit = umeyama(trajectory[:, :3, 3], truth[:, :3, 3], with_scale=align == "sim3")
        positions = fit.scale * trajectory[:, :3, 3] @ fit.rotation.T + fit.translation
        return _motion(fit.rotation @ trajectory[:, :3, :3], positions)
    aligned = truth[0] @ inverse_poses(trajectory[0]) @ trajectory
    if align == "scale":
        start = truth[0, :3, 3]
        offset = aligned[:, :3, 3] - start
        aligned[:, :3, 3] = start + translation_scale(offset, truth[:, :3, 3] - start) * offset
    return aligned


def absolute_trajectory_error(
    trajectory: np.ndarray, truth: np.ndarray, *, align: str = "sim3"
) -> float:
    """Absolute trajectory error: root mean square distance of the cameras, after alignment.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`, predicted.
        truth: `[N, 4, 4]`.
        align: as in `align_trajectory`; report it with the number.

    Returns:
        The error in the unit of the truth.

    Raises:
        UserError: if the alignment is unknown.

    Example:
        >>> truth = np.stack([np.eye(4)] * 3)
        >>> late = truth.copy()
        >>> late[2, 0, 3] = 3.0
        >>> round(absolute_trajectory_error(late, truth, align="none"), 4)
        1.7321

    Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012.
    """
    aligned = align_trajectory(trajectory, truth, align=align)
    offset = aligned[:, :3, 3] - np.asarray(truth, np.float64)[:, :3, 3]
    return float(np.sqrt(np.mean(np.sum(offset**2, 1))))


def odometry_segments(
    trajectory: np.ndarray,
    truth: np.ndarray,
    *,
    lengths: tuple[float, ...] = LENGTHS,
    step: int = 10,
) -> Segments:
    """KITTI's odometry errors over segments of 100 to 800 meters.

    A segment of each length starts at every `step`-th frame and ends at the first frame that lies
    farther than that along the true path; segments that would end beyond the path are left out.
    With `D` the motion from the first to the last camera and `E = D⁻¹ D_true`, the errors are the
    length of E's translation and the angle of its rotation, both over the nominal length.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`, predicted, in meters; call `align_trajectory` first
            if its scale is unknown.
        truth: `[N, 4, 4]`, in meters.
        lengths: nominal lengths of the segments.
        step: frames between starts.

    Returns:
        Errors of the segments; there may be none.

    Example:
        >>> truth = np.tile(np.eye(4), (200, 1, 1))
        >>> truth[:, 2, 3] = np.arange(200.0)
        >>> slow = truth.copy()
        >>> slow[:, 2, 3] *= 0.9
        >>> {n: round(v, 3) for n, v in odometry_errors(odometry_segments(slow, truth)).items()}
        {'segments': 10, 't_rel': 10.1, 'r_rel': 0.0}

    Geiger, Lenz and Urtasun, Are we ready for Autonomous Driving? The KITTI Vision Benchmark
    Suite, CVPR 2012.
    """
    checks.assert_shape([trajectory, truth], (None, 4, 4))
    checks.assert_equal_shape([trajectory, truth])
    trajectory, truth = _rigid(trajectory), _rigid(truth)
    steps = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1)
    distance = np.concatenate([[0.0], np.cumsum(steps)])
    first, length = (a.ravel() for a in np.meshgrid(np.arange(0, len(truth), step), lengths))
    last = np.searchsorted(distance, distance[first] + length, side="right")  # first one beyond
    fits = last < len(truth)
    first, last, length = first[fits], last[fits], length[fits]
    motion = inverse_poses(trajectory[first]) @ trajectory[last]
    error = inverse_poses(motion) @ inverse_poses(truth[first]) @ truth[last]
    return Segments(
        length,
        np.linalg.norm(error[:, :3, 3], axis=1) / length,
        rotation_angle(error[:, :3, :3]) / length,
    )


def odometry_errors(segments: Segments) -> dict[str, float]:
    """The two numbers of KITTI's odometry table.

    Args:
        segments: of one sequence, or of several, concatenated; every segment has the same weight,
            so a long sequence has more.

    Returns:
        'segments', their number; 't_rel' in percent; 'r_rel' in degrees per 100 meters (the
        benchmark's own page uses degrees per meter). Without segments, only 'segments': 0.

    Example:
        >>> odometry_errors(Segments(np.array([100.0]), np.array([0.02]), np.array([0.001])))
        {'segments': 1, 't_rel': 2.0, 'r_rel': 0.1}
    """
    numbers: dict[str, float] = {"segments": len(segments.length)}
    if numbers["segments"]:
        numbers["t_rel"] = 100 * float(segments.translation.mean())
        numbers["r_rel"] = 100 * float(segments.rotation.mean())
    return numbers


def _rigid(poses: np.ndarray) -> np.ndarray:
    """Poses `[..., 4, 4]` in float64; raises if one is not a rigid motion."""
    poses = np.asarray(poses, np.float64)
    rotation = poses[..., :3, :3]
    product = rotation @ np.swapaxes(rotation, -1, -2)
    # NaN fails the comparison too.
    if not (np.abs(product - np.eye(3)) < 1e-3).all() or (np.linalg.det(rotation) < 0).any():
        raise checks.value_error(
            "poses must be rigid motions [R | t] with R a rotation: some R are not orthonormal to "
            "1e-3, are reflections, or are not finite."
        )
    return poses


def _motion(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    poses = np.zeros((*rotation.shape[:-2], 4, 4))
    poses[..., :3, :3], poses[..., :3, 3], poses[..., 3, 3] = rotation, translation, 1.0
    return poses


def _from_first(snippets: np.ndarray) -> np.ndarray:
    """Snippets `[S, L, 4, 4]`, each in the frame of its first camera."""
    return inverse_poses(snippets[:, :1]) @ snippets
