"""Stereo pairs, video and flow of random scenes: endless, exact, and rendered on the device.

Each function renders one sample from a random key and the textures; `sampler` makes batches of them
by index.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sslax import ops
from sslax.augment.keys import example_keys
from sslax.data.scenes.draw import random_intrinsics, random_motion, random_scene, trajectory
from sslax.data.scenes.render import FACES, motion, move, product, render
from sslax.data.scenes.textures import Pyramid, as_pyramid, pyramid

Array = jax.Array
Sample = dict[str, Array]
BASELINE = 0.2  # meters


def stereo(
    key: Array,
    textures: Array | Pyramid,
    *,
    size: tuple[int, int] = (64, 128),
    baseline: float = BASELINE,
    boxes: int = 6,
    drive: bool = False,
    brightness: float = 0.0,
) -> Sample:
    """A rectified stereo pair, left then right.

    Args:
        key: random key.
        textures: `[K, h, w, 3]`, as `textures` returns them, or their `pyramid`.
        size: height H and width W.
        baseline: distance between the cameras, in meters.
        boxes: number of boxes in the room.
        drive: a car's camera instead of a hand-held one; see `random_scene` and `trajectory`.
        brightness: random exposure of each image, by up to `exp(±brightness)`.

    Returns:
        'image' `[2, H, W, 3]`; 'disparity' `[2, H, W]`, positive, of the left and of the right
        image; 'visible' `[2, H, W]` (bool), the pixels that the other image shows too; 'depth'
        `[2, H, W]`; 'intrinsics' `[3, 3]`; 'baseline' `[]`; 'pose' `[4, 4]`, from the left camera
        to the right.
    """
    keys = jax.random.split(key, 3)
    levels = as_pyramid(textures)
    scene = random_scene(keys[0], len(levels.texels), boxes=boxes, drive=drive)
    intrinsics = random_intrinsics(keys[1], size)
    cameras = jnp.stack([jnp.eye(4), _shift_right(baseline)])
    views = jax.vmap(lambda camera: render(scene, camera, intrinsics, size, levels))(cameras)
    poses = jnp.stack([_shift_right(-baseline), _shift_right(baseline)])  # to the other camera

    def visibility(view: Sample, pose: Array, other: Array) -> Array:
        poses = jnp.broadcast_to(pose, (len(scene.poses), 4, 4))
        return motion(view, poses, intrinsics, scene, other)[1]

    visible = jax.vmap(visibility)(views, poses, cameras[::-1])
    return {
        "image": expose(keys[2], views["image"], brightness),
        "disparity": ops.depth_to_disparity(views["depth"], intrinsics[0, 0], baseline),
        "visible": visible,
        "depth": views["depth"],
        "intrinsics": intrinsics,
        "baseline": jnp.float32(baseline),
        "pose": poses[0],
    }


def video(
    key: Array,
    textures: Array | Pyramid,
    *,
    size: tuple[int, int] = (64, 128),
    frames: int = 3,
    baseline: float = 0.0,
    boxes: int = 6,
    drive: bool = False,
    speed: float = 1.0,
    still: float = 0.0,
    moving: float = 0.0,
    following: float = 0.0,
    brightness: float = 0.0,
    turn: float = 1.0,
    focal: tuple[float, float] = (0.6, 1.0),
    alpha: float = 0.0,
) -> Sample:
    """S consecutive frames, of which the middle one is the target.

    Args:
        key: random key.
        textures: `[K, h, w, 3]`, as `textures` returns them, or their `pyramid`.
        size: height H and width W.
        frames: number of frames S.
        baseline: if not 0, adds the target's right-hand stereo partner as a last frame.
        boxes: number of boxes in the room.
        drive: a car's camera instead of a hand-held one; see `random_scene` and `trajectory`.
        speed: speed of the camera; 1 is 5 to 20 cm per frame, and beyond 2 it may run into boxes.
        still: probability that the camera is static.
        moving: probability that a box moves on its own.
        following: probability that this box moves with the camera, like a car ahead at the same
            speed, and so looks infinitely far.
        brightness: random exposure of each image, by up to `exp(±brightness)`.
        turn: factor on the angles that the camera turns by; 1 is about 0.5 degrees per frame.
        focal: range of the focal length, in widths; each sample has its own.
        alpha: of a wide lens, `ops.UnifiedCamera`; 0 for a pinhole camera. With focal lengths above
            alpha / sqrt(2) widths, all pixels of images as wide as high see what is in front.

    Returns:
        'image' `[S, H, W, 3]`; 'depth' `[S, H, W]`; 'pose' `[S, 4, 4]`, from the target's camera to
        each frame's; 'flow' `[S, H, W, 2]` from the target to each frame, with the box's motion;
        'visible' `[S, H, W]` (bool), the target's pixels that each frame shows too; 'occluded'
        `[H, W]` (bool), those that another surface hides in some frame; 'moving' `[H, W]` (bool),
        those of the moving box; 'intrinsics' `[3, 3]`; with a wide lens, its 'alpha' `[]`.
    """
    keys = jax.random.split(key, 6)
    levels = as_pyramid(textures)
    scene = random_scene(keys[0], len(levels.texels), boxes=boxes, drive=drive)
    intrinsics = random_intrinsics(keys[1], size, focal=focal)
    lens = {"alpha": jnp.float32(alpha)} if alpha else {}
    device = ops.UnifiedCamera(intrinsics, lens["alpha"]) if lens else intrinsics
    probabilities = jnp.array([still, moving, following])
    static, moves, follows = jax.random.uniform(keys[2], (3,)) < probabilities
    follows &= ~static
    speed = jnp.where(static, 0.0, speed)
    pace = {"speed": speed, "turn": turn, "drive": drive}
    path = _path(keys[3], frames, baseline=baseline, **pace)
    motions = random_motion(keys[4], scene, path.steps, moving=moves)
    motions = jnp.where(follows, motions.at[:, 1].set(path.following), motions)
    views = jax.vmap(
        lambda camera, motions: render(move(scene, motions), camera, device, size, levels)
    )(path.cameras, motions)
    view = {name: views[name][frames // 2] for name in ("depth", "surface")}
    poses = ops.se3_inverse(path.cameras)  # the target's camera is the world
    flow, visible, occluded = jax.vmap(
        lambda pose, motions, camera: motion(
            view, product(pose, motions), device, move(scene, motions), camera
        )
    )(poses, motions, path.cameras)
    return {
        "image": expose(keys[5], views["image"], brightness),
        "depth": views["depth"],
        "pose": poses,
        "flow": flow,
        "visible": visible,
        "occluded": jnp.any(occluded, axis=0),
        "moving": (moves | follows) & (view["surface"] // FACES == 1),
        "intrinsics": intrinsics,
        **lens,
    }


class _Path(NamedTuple):
    """Where the cameras of a video's images are.

    Attributes:
        cameras: `[S, 4, 4]`, camera-to-world; the target's camera is the world.
        following: `[S, 4, 4]`, motion of a box that keeps its place before the camera.
        steps: `[S]`, frames since the target.
    """

    cameras: Array
    following: Array
    steps: Array


def _path(key: Array, frames: int, *, baseline: float, **pace: Any) -> _Path:
    """A random `trajectory`; with a baseline, the target's stereo partner is a last camera."""
    cameras = trajectory(key, frames, reference=frames // 2, **pace)
    steps = jnp.arange(frames) - frames // 2
    if not baseline:
        return _Path(cameras, cameras, steps)
    return _Path(
        jnp.concatenate([cameras, _shift_right(baseline)[None]]),
        jnp.concatenate([cameras, jnp.eye(4)[None]]),
        jnp.append(steps, 0),
    )


def flow(
    key: Array,
    textures: Array | Pyramid,
    *,
    size: tuple[int, int] = (64, 128),
    boxes: int = 6,
    drive: bool = False,
    speed: float = 1.5,
    moving: float = 1.0,
    brightness: float = 0.0,
) -> Sample:
    """Two frames, and the flow in both directions.

    Args:
        key: random key.
        textures: `[K, h, w, 3]`, as `textures` returns them, or their `pyramid`.
        size: height H and width W.
        boxes: number of boxes in the room.
        drive: a car's camera instead of a hand-held one; see `random_scene` and `trajectory`.
        speed: speed of the camera; 1 is 5 to 20 cm per frame, and beyond 2 it may run into boxes.
        moving: probability that a box moves on its own.
        brightness: random exposure of each image, by up to `exp(±brightness)`.

    Returns:
        'image' `[2, H, W, 3]`; 'flow' `[2, H, W, 2]`, (x, y) in pixels, from the first frame to the
        second and back; 'visible' `[2, H, W]` (bool), the pixels that the other frame shows too;
        'depth' `[2, H, W]`; 'pose' `[4, 4]`, from the first camera to the second; 'moving'
        `[2, H, W]` (bool), the moving box; 'intrinsics' `[3, 3]`.
    """
    keys = jax.random.split(key, 6)
    levels = as_pyramid(textures)
    scene = random_scene(keys[0], len(levels.texels), boxes=boxes, drive=drive)
    intrinsics = random_intrinsics(keys[1], size)
    cameras = trajectory(keys[2], 2, speed=speed, drive=drive)
    moves = jax.random.bernoulli(keys[3], moving)
    motions = random_motion(keys[4], scene, jnp.arange(2), moving=moves)
    scenes = jax.vmap(move, (None, 0))(scene, motions)
    views = jax.vmap(lambda scene, camera: render(scene, camera, intrinsics, size, levels))(
        scenes, cameras
    )
    # The first camera is the world, in which nothing has moved yet.
    forward = product(ops.se3_inverse(cameras[1]), motions[1])
    poses = jnp.stack([forward, ops.se3_inverse(forward)])
    others = jax.tree.map(lambda x: x[::-1], (scenes, cameras))
    flow, visible, _ = jax.vmap(
        lambda view, poses, scene, camera: motion(view, poses, intrinsics, scene, camera)
    )(views, poses, *others)
    return {
        "image": expose(keys[5], views["image"], brightness),
        "flow": flow,
        "visible": visible,
        "depth": views["depth"],
        "pose": ops.se3_inverse(cameras[1]),
        "moving": moves & (views["surface"] // FACES == 1),
        "intrinsics": intrinsics,
    }


def sampler(
    sample: Callable[[Array, Pyramid], Sample], textures: Array, *, seed: int
) -> Callable[[Array], Sample]:
    """Batches of samples by index, rendered in one compiled call.

    Sample i depends on the seed and i alone, not on its batch or the devices. Indices that are
    sharded over devices give a batch that is sharded alike.

    Args:
        sample: `stereo`, `video`, `flow` or `layered`, with keyword arguments bound by
            `functools.partial`.
        textures: `[K, h, w, 3]`, uint8 or float in [0, 1].
        seed: different for training and test.

    Returns:
        `index [B] int32 -> batch`, the sample's arrays with a leading axis B.

    Example:
        >>> import functools
        >>> from sslax.data import scenes
        >>> textures = scenes.textures("train", count=4, side=32)
        >>> layered = functools.partial(scenes.layered, size=(8, 16), layers=1)
        >>> batch = scenes.sampler(layered, textures, seed=0)(jnp.arange(2))
        >>> batch["image"].shape, batch["flow"].shape
        ((2, 2, 8, 16, 3), (2, 2, 8, 16, 2))
    """
    textures = jnp.asarray(textures)
    return lambda index: _batch(sample, textures, jax.random.key(seed), index)


@functools.partial(jax.jit, static_argnames="sample")
def _batch(
    sample: Callable[[Array, Pyramid], Sample], textures: Array, key: Array, index: Array
) -> Sample:
    return jax.vmap(sample, (0, None))(example_keys(key, index), pyramid(textures))


def _shift_right(distance: float) -> Array:
    """Camera-to-world pose of a camera `distance` to the right of the origin."""
    return ops.rigid_transform(jnp.eye(3), jnp.array([distance, 0.0, 0.0]))


def expose(key: Array, images: Array, brightness: float) -> Array:
    """Multiplies each of the images `[S, H, W, 3]` by its own random exposure."""
    if not brightness:
        return images
    gain = jnp.exp(brightness * jax.random.uniform(key, (len(images), 1, 1, 1), minval=-1.0))
    return jnp.minimum(gain * images, 1.0)
