"""Ego-motion and trajectories against ground truth, in float64 on the host.

Two kinds of `[N, 4, 4]` arrays of rigid motions appear. A *trajectory* holds camera-to-world
matrices: column 3 is where camera i stands. *Relative poses* hold, at i, the motion that takes
points of camera i + 1 to camera i: what `compose_poses` chains to a trajectory, and what a pose
network predicts (target to source) when frame i + 1 is its target and frame i its source. If its
target was frame i, invert first: `inverse_poses`.

A network trained on video knows no metre, so all errors of length need a scale: every function
here says whose.
"""

from typing import NamedTuple

import chex
import numpy as np

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
    """Errors of the parts of a trajectory; those of several sequences are concatenated.

    Attributes:
        length: `[S]`, how long the part is by the ground truth, nominally: 100, 200, ...
        translation: `[S]`, error per length, a pure number.
        rotation: `[S]`, error per length, degrees per unit.
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
    poses = _rigid(poses)
    rotation = np.swapaxes(poses[..., :3, :3], -1, -2)
    return _motion(rotation, -(rotation @ poses[..., :3, 3:])[..., 0])


def compose_poses(relative: np.ndarray) -> np.ndarray:
    """The trajectory of relative poses: `C_0 = I`, `C_{i+1} = C_i T_i`.

    Rotations are made exactly orthonormal first, since the rounding of float32 would grow with
    every product.

    Args:
        relative: `[N - 1, 4, 4]`, at i from camera i + 1 to camera i.

    Returns:
        Camera-to-world matrices `[N, 4, 4]`, float64, in the frame of the first camera.

    Example:
        >>> forward = np.eye(4)
        >>> forward[2, 3] = 2.0  # camera i + 1 stands two units ahead of camera i
        >>> compose_poses(np.stack([forward] * 3))[:, 2, 3].tolist()
        [0.0, 2.0, 4.0, 6.0]
    """
    relative = _rigid(relative, rank=3)
    u, _, vt = np.linalg.svd(relative[:, :3, :3])
    steps = _motion(u @ vt, relative[:, :3, 3])
    trajectory = [np.eye(4)]
    for step in steps:
        trajectory.append(trajectory[-1] @ step)
    return np.stack(trajectory)


def relative_poses(trajectory: np.ndarray, *, step: int = 1) -> np.ndarray:
    """Motions between cameras `step` apart: `T_i = C_i⁻¹ C_{i+step}`.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`.
        step: distance in frames.

    Returns:
        `[N - step, 4, 4]`, from camera i + step to camera i. With `step=1`, `compose_poses` undoes
        it.

    Example:
        >>> trajectory = np.stack([np.eye(4)] * 4)
        >>> trajectory[:, 0, 3] = 0, 1, 3, 6
        >>> relative_poses(trajectory)[:, 0, 3].tolist()
        [1.0, 2.0, 3.0]
    """
    trajectory = _rigid(trajectory, rank=3)
    return inverse_poses(trajectory[:-step]) @ trajectory[step:]


def consecutive_motions(poses: np.ndarray) -> np.ndarray:
    """Motions between consecutive frames from the poses of overlapping samples.

    Sample i has the frames i to i + S - 1 and poses from its target, frame i + S // 2, to each of
    them. From frame k + 1 to k it is `P_k P_{k+1}⁻¹`, and of the samples that have both frames the
    one counts that has k as its target, or the nearest to it.

    Args:
        poses: `[N - S + 1, S, 4, 4]`.

    Returns:
        `[N - 1, 4, 4]`, at k from camera k + 1 to camera k: what `compose_poses` chains.

    Example:
        >>> step = np.eye(4)
        >>> step[2, 3] = -1.0  # the next camera stands ahead: points come nearer
        >>> sample = np.stack([inverse_poses(step), np.eye(4), step])
        >>> consecutive_motions(np.stack([sample, sample]))[:, 2, 3].tolist()
        [1.0, 1.0, 1.0]
    """
    poses = _rigid(poses)
    samples, frames = poses.shape[:2]
    first = np.arange(samples + frames - 2)  # of the two frames
    sample = np.clip(first - min(frames // 2, frames - 2), 0, samples - 1)
    place = first - sample
    return poses[sample, place] @ inverse_poses(poses[sample, place + 1])


def rotation_angle(rotation: np.ndarray) -> np.ndarray:
    """Angle of a rotation, `atan2(|R - Rᵀ| / √2, tr R - 1)`, exact for small angles too.

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
    """The factor that brings translations nearest to the truth: `Σ <g, t> / Σ <t, t>`.

    Args:
        translation: `[N, 3]`, predicted.
        truth: `[N, 3]`.

    Returns:
        The factor; 0 where the prediction does not move.

    Example:
        >>> translation_scale(np.array([[1.0, 0, 0]]), np.array([[4.0, 0, 0]]))
        4.0
    """
    translation, truth = np.asarray(translation, np.float64), np.asarray(truth, np.float64)
    chex.assert_equal_shape([translation, truth])
    energy = np.sum(translation**2)
    return float(np.sum(translation * truth) / energy) if energy > 0 else 0.0


def relative_pose_errors(
    relative: np.ndarray, truth: np.ndarray, *, scale: float = 1.0
) -> dict[str, np.ndarray]:
    """Errors of relative poses, one by one.

    With `T` the pose, its translation times `scale`, and `E = truth⁻¹ T`: 'rotation' is the angle
    of `E` in degrees, 'translation' the length of its translation, and 'direction' the angle
    between the two translations in degrees, which no scale changes. A predicted translation of zero
    has no direction and counts 90; where the truth stands still (nearer than 1e-9) there is none
    to compare to, and those pairs are left out of 'direction', which is shorter then.

    Args:
        relative: `[N, 4, 4]`, predicted.
        truth: `[N, 4, 4]`.
        scale: of the predicted translations; `translation_scale`, or 1 for metric poses.

    Returns:
        'rotation' `[N]`, 'translation' `[N]`, 'direction' `[M]`.

    Example:
        >>> truth, turned = np.stack([np.eye(4)] * 2), np.stack([np.eye(4)] * 2)
        >>> truth[0, :3, 3], turned[0, :3, 3] = (0, 0, 2), (0, 3, 0)
        >>> errors = relative_pose_errors(turned, truth)
        >>> {name: error.round(3).tolist() for name, error in errors.items()}
        {'rotation': [0.0, 0.0], 'translation': [3.606, 0.0], 'direction': [90.0]}

    Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012.
    """
    relative, truth = _rigid(relative, rank=3), _rigid(truth, rank=3)
    chex.assert_equal_shape([relative, truth])
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
    """All runs of consecutive frames, each in the frame of its first camera.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`.
        length: frames in a run.

    Returns:
        `[N - length + 1, length, 4, 4]`.

    Raises:
        ValueError: for a trajectory shorter than one run.

    Example:
        >>> trajectory = np.stack([np.eye(4)] * 4)
        >>> trajectory[:, 0, 3] = 0, 1, 3, 6
        >>> snippets(trajectory, length=3)[:, :, 0, 3].tolist()
        [[0.0, 1.0, 3.0], [0.0, 2.0, 5.0]]
    """
    trajectory = _rigid(trajectory, rank=3)
    if len(trajectory) < length:
        raise ValueError(f"{len(trajectory)} poses hold no snippet of {length} frames.")
    runs = np.stack([trajectory[i : i + length] for i in range(len(trajectory) - length + 1)])
    return _from_first(runs)


def snippet_errors(predicted: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Absolute trajectory error of short snippets, the measure of SfMLearner and its successors.

    With `x_k`, `g_k` the positions of the L cameras relative to the first, and the scale of each
    snippet by `translation_scale`,

    ```
    ate = sqrt(Σ_k |s x_k - g_k|² / L)        ate_legacy = sqrt(Σ_k |s x_k - g_k|²) / L
    ```
    `ate` is the root mean square. Published tables hold `ate_legacy`, which SfMLearner's code calls
    RMSE; it is smaller by sqrt(L), 2.24 times for five frames. 'rotation' is the mean angle between
    the cameras' rotations, the first one, always 0, included. Papers quote mean and standard
    deviation over snippets.

    Args:
        predicted: `[S, L, 4, 4]`, camera-to-world in any frame; `snippets` of a trajectory, or
            predicted snippet by snippet.
        truth: `[S, L, 4, 4]`.

    Returns:
        'ate', 'ate_legacy' in the unit of the truth, 'rotation' in degrees, 'scale', each `[S]`.
        A snippet that is predicted not to move has scale 0, and so the truth's own length as its
        error, where the published code divides by zero.

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
    predicted, truth = _rigid(predicted, rank=4), _rigid(truth, rank=4)
    chex.assert_equal_shape([predicted, truth])
    predicted, truth = _from_first(predicted), _from_first(truth)
    length = truth.shape[1]
    moved, true_moves = predicted[..., :3, 3], truth[..., :3, 3]
    scale = np.array([translation_scale(x, g) for x, g in zip(moved, true_moves)])
    squared = np.sum((scale[:, None, None] * moved - true_moves) ** 2, (1, 2))
    between = np.swapaxes(truth[..., :3, :3], -1, -2) @ predicted[..., :3, :3]
    return {
        "ate": np.sqrt(squared / length),
        "ate_legacy": np.sqrt(squared) / length,
        "rotation": rotation_angle(between).mean(1),
        "scale": scale,
    }


def umeyama(source: np.ndarray, target: np.ndarray, *, with_scale: bool) -> Similarity:
    """The similarity, or rigid motion, that brings points nearest to others.

    Minimizes `Σ_i |s R x_i + t - y_i|²` over rotations (no reflections), translations and, if
    asked, the scale. Points on a line leave the turn about it open, points that coincide the whole
    rotation and the scale; some minimum is returned (for coinciding points the identity).

    Args:
        source: `[N, 3]`.
        target: `[N, 3]`.
        with_scale: False keeps s = 1.

    Returns:
        The minimum.

    Example:
        >>> points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> fit = umeyama(points, 3 * points + 1, with_scale=True)
        >>> round(fit.scale, 6), fit.translation.round(6).tolist()
        (3.0, [1.0, 1.0, 1.0])

    Umeyama, Least-squares estimation of transformation parameters between two point patterns, IEEE
    PAMI 1991.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    chex.assert_rank([source, target], 2)
    chex.assert_equal_shape([source, target])
    chex.assert_axis_dimension(source, 1, 3)
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
    """Brings a predicted trajectory into the frame, and perhaps to the scale, of the truth.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`, predicted.
        truth: `[N, 4, 4]`.
        align: 'none'; 'first', the first cameras made equal; 'scale', the same and the
            least-squares scale of the positions; 'se3', the rigid motion of least squares over all
            positions; 'sim3', with scale.

    Returns:
        `[N, 4, 4]`.

    Raises:
        ValueError: for an unknown alignment.

    Example:
        >>> truth = np.stack([np.eye(4)] * 3)
        >>> truth[:, 0, 3] = 5, 6, 7
        >>> small = truth.copy()
        >>> small[:, 0, 3] = 0, 0.1, 0.2
        >>> align_trajectory(small, truth, align="scale")[:, 0, 3].round(6).tolist()
        [5.0, 6.0, 7.0]
    """
    trajectory, truth = _rigid(trajectory, rank=3), _rigid(truth, rank=3)
    chex.assert_equal_shape([trajectory, truth])
    if align not in _ALIGNMENTS:
        raise ValueError(f"align is {align!r}; choose one of {', '.join(_ALIGNMENTS)}.")
    if align == "none":
        return trajectory
    if align in ("se3", "sim3"):
        fit = umeyama(trajectory[:, :3, 3], truth[:, :3, 3], with_scale=align == "sim3")
        positions = fit.scale * trajectory[:, :3, 3] @ fit.rotation.T + fit.translation
        return _motion(fit.rotation @ trajectory[:, :3, :3], positions)
    moved = truth[0] @ inverse_poses(trajectory[0]) @ trajectory
    if align == "scale":
        start = truth[0, :3, 3]
        steps = moved[:, :3, 3] - start
        moved[:, :3, 3] = start + translation_scale(steps, truth[:, :3, 3] - start) * steps
    return moved


def absolute_trajectory_error(
    trajectory: np.ndarray, truth: np.ndarray, *, align: str = "sim3"
) -> float:
    """Root mean square distance of the cameras of a whole trajectory, after alignment.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`, predicted.
        truth: `[N, 4, 4]`.
        align: as in `align_trajectory`; say it beside the number.

    Returns:
        The error in the unit of the truth.

    Raises:
        ValueError: for an unknown alignment.

    Example:
        >>> truth = np.stack([np.eye(4)] * 3)
        >>> late = truth.copy()
        >>> late[2, 0, 3] = 3.0
        >>> round(absolute_trajectory_error(late, truth, align="none"), 4)
        1.7321

    Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012.
    """
    aligned = align_trajectory(trajectory, truth, align=align)
    apart = aligned[:, :3, 3] - np.asarray(truth, np.float64)[:, :3, 3]
    return float(np.sqrt(np.mean(np.sum(apart**2, 1))))


def odometry_segments(
    trajectory: np.ndarray,
    truth: np.ndarray,
    *,
    lengths: tuple[float, ...] = LENGTHS,
    step: int = 10,
) -> Segments:
    """KITTI's odometry errors over parts of 100 to 800 meters.

    Every `step`-th frame begins one part of each length, which ends at the first frame whose way
    along the true path is longer than that; parts that the path is too short for are left out. With
    `D` the motion from the first to the last camera, `E = D⁻¹ D_true`, and errors are the length of
    E's translation and the angle of its rotation, both over the nominal length.

    Args:
        trajectory: camera-to-world `[N, 4, 4]`, predicted, in meters; `align_trajectory` first if
            its scale is unknown.
        truth: `[N, 4, 4]`, in meters.
        lengths: of the parts.
        step: frames between the beginnings of parts.

    Returns:
        The parts' errors, perhaps none.

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
    trajectory, truth = _rigid(trajectory, rank=3), _rigid(truth, rank=3)
    chex.assert_equal_shape([trajectory, truth])
    steps = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    first, length = (a.ravel() for a in np.meshgrid(np.arange(0, len(truth), step), lengths))
    last = np.searchsorted(way, way[first] + length, side="right")  # the first that is farther
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
        segments: of one sequence, or of several, concatenated: every part counts alike, so a long
            sequence counts more.

    Returns:
        'segments', how many there are; 't_rel' in percent; 'r_rel' in degrees per 100 meters (the
        benchmark's own page has degrees per metre). Without a part only 'segments', which is 0.

    Example:
        >>> odometry_errors(Segments(np.array([100.0]), np.array([0.02]), np.array([0.001])))
        {'segments': 1, 't_rel': 2.0, 'r_rel': 0.1}
    """
    numbers: dict[str, float] = {"segments": len(segments.length)}
    if numbers["segments"]:
        numbers["t_rel"] = 100 * float(segments.translation.mean())
        numbers["r_rel"] = 100 * float(segments.rotation.mean())
    return numbers


def _rigid(poses: np.ndarray, *, rank: int | None = None) -> np.ndarray:
    """Poses in float64, refused where they are no rigid motions."""
    poses = np.asarray(poses, np.float64)
    if rank is not None:
        chex.assert_rank(poses, rank)
    chex.assert_shape(poses, (..., 4, 4))
    rotation = poses[..., :3, :3]
    product = rotation @ np.swapaxes(rotation, -1, -2)
    # NaN fails the comparison too.
    if not (np.abs(product - np.eye(3)) < 1e-3).all() or (np.linalg.det(rotation) < 0).any():
        raise ValueError(
            "poses must be rigid motions [R | t], R a rotation: some are not orthonormal to 1e-3, "
            "mirror, or are not finite."
        )
    return poses


def _motion(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    poses = np.zeros((*rotation.shape[:-2], 4, 4))
    poses[..., :3, :3], poses[..., :3, 3], poses[..., 3, 3] = rotation, translation, 1.0
    return poses


def _from_first(runs: np.ndarray) -> np.ndarray:
    """Runs of poses `[S, L, 4, 4]` in the frame of the first of each."""
    return inverse_poses(runs[:, :1]) @ runs
