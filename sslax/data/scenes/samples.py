"""Stereo pairs, video and flow of random scenes: endless, exact, and made on the device.

A sample is a pure function of a random key and the textures, for one example; `sampler` makes
batches of them by number.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sslax import ops
from sslax.data.scenes.draw import random_intrinsics, random_motion, random_scene, trajectory
from sslax.data.scenes.render import FACES, Scene, motion, moved, product, render
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
    """A rectified pair, left then right.

    Args:
        key: random key.
        textures: `[K, h, w, 3]`, as `textures` makes them.
        size: height H and width W.
        baseline: distance of the cameras, in meters.
        boxes: number of boxes in the room.
        drive: a car's camera, see `random_scene` and `trajectory`.
        brightness: each image is multiplied by up to `exp(±brightness)`.

    Returns:
        'image' `[2, H, W, 3]`; 'disparity' `[2, H, W]`, positive, of the left and of the right
        image; 'visible' `[2, H, W]` (bool), seen in the other image; 'depth' `[2, H, W]`;
        'intrinsics' `[3, 3]`; 'baseline' `[]`; 'pose' `[4, 4]`, from the left camera to the right.
    """
    keys = jax.random.split(key, 3)
    levels = as_pyramid(textures)
    scene = random_scene(keys[0], len(levels.texels), boxes=boxes, drive=drive)
    intrinsics = random_intrinsics(keys[1], size)
    cameras = jnp.stack([jnp.eye(4), _aside(baseline)])
    views = jax.vmap(lambda camera: render(scene, camera, intrinsics, size, levels))(cameras)
    poses = jnp.stack([_aside(-baseline), _aside(baseline)])  # to the other camera

    def seen(view: Sample, pose: Array, other: Array) -> Array:
        return motion(view, _for_all(pose, scene), intrinsics, scene, other)[1]

    visible = jax.vmap(seen)(views, poses, cameras[::-1])
    return {
        "image": exposed(keys[2], views["image"], brightness),
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
) -> Sample:
    """A snippet of S frames, whose middle one is the target.

    Args:
        key: random key.
        textures: `[K, h, w, 3]`, as `textures` makes them.
        size: height H and width W.
        frames: number of frames S.
        baseline: not 0: a last frame, the right-hand partner of the target, is added.
        boxes: number of boxes in the room.
        drive: a car's camera, see `random_scene` and `trajectory`.
        speed: of the camera; 1 is 5 to 20 cm a frame, and beyond 2 it may run into boxes.
        still: probability that the camera stands still.
        moving: probability that a box moves on its own.
        following: probability that this box keeps its place before a moving camera, like a car
            ahead at the same speed, and so looks infinitely far.
        brightness: each image is multiplied by up to `exp(±brightness)`.

    Returns:
        'image' `[S, H, W, 3]`; 'depth' `[S, H, W]`; 'pose' `[S, 4, 4]`, from the target's camera to
        each frame's; 'flow' `[S, H, W, 2]` from the target to each frame, moving box included;
        'visible' `[S, H, W]` (bool), the target's pixels that are seen in each frame; 'occluded'
        `[H, W]` (bool), those that another surface hides in some frame; 'moving' `[H, W]` (bool),
        those of the box that moves; 'intrinsics' `[3, 3]`.
    """
    keys = jax.random.split(key, 6)
    levels = as_pyramid(textures)
    target = frames // 2
    scene = random_scene(keys[0], len(levels.texels), boxes=boxes, drive=drive)
    intrinsics = random_intrinsics(keys[1], size)
    chances = jnp.array([still, moving, following])
    stands, moves, follows = jax.random.uniform(keys[2], (3,)) < chances
    follows &= ~stands
    speed = jnp.where(stands, 0.0, speed)
    cameras = trajectory(keys[3], frames, reference=target, speed=speed, drive=drive)
    steps = jnp.arange(frames) - target
    path = cameras
    if baseline:
        cameras = jnp.concatenate([cameras, _aside(baseline)[None]])
        path = jnp.concatenate([path, jnp.eye(4)[None]])
        steps = jnp.append(steps, 0)
    motions = random_motion(keys[4], scene, steps, moving=moves)
    motions = jnp.where(follows, motions.at[:, 1].set(path), motions)
    views = jax.vmap(
        lambda camera, motions: render(moved(scene, motions), camera, intrinsics, size, levels)
    )(cameras, motions)
    poses = ops.se3_inverse(cameras)  # the target's camera is the world
    view = {name: views[name][target] for name in ("depth", "surface")}
    flow, visible, occluded = jax.vmap(
        lambda pose, motions, camera: motion(
            view, product(pose, motions), intrinsics, moved(scene, motions), camera
        )
    )(poses, motions, cameras)
    return {
        "image": exposed(keys[5], views["image"], brightness),
        "depth": views["depth"],
        "pose": poses,
        "flow": flow,
        "visible": visible,
        "occluded": jnp.any(occluded, axis=0),
        "moving": (moves | follows) & (view["surface"] // FACES == 1),
        "intrinsics": intrinsics,
    }


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
    """Two frames and the flow both ways.

    Args:
        key: random key.
        textures: `[K, h, w, 3]`, as `textures` makes them.
        size: height H and width W.
        boxes: number of boxes in the room.
        drive: a car's camera, see `random_scene` and `trajectory`.
        speed: of the camera; 1 is 5 to 20 cm a frame, and beyond 2 it may run into boxes.
        moving: probability that a box moves on its own.
        brightness: each image is multiplied by up to `exp(±brightness)`.

    Returns:
        'image' `[2, H, W, 3]`; 'flow' `[2, H, W, 2]`, `(x, y)` in pixels, of the first to the
        second and of the second to the first; 'visible' `[2, H, W]` (bool), seen in the other;
        'depth' `[2, H, W]`; 'pose' `[4, 4]`, from the first camera to the second; 'moving'
        `[2, H, W]` (bool), the box that moves; 'intrinsics' `[3, 3]`.
    """
    keys = jax.random.split(key, 6)
    levels = as_pyramid(textures)
    scene = random_scene(keys[0], len(levels.texels), boxes=boxes, drive=drive)
    intrinsics = random_intrinsics(keys[1], size)
    cameras = trajectory(keys[2], 2, speed=speed, drive=drive)
    moves = jax.random.bernoulli(keys[3], moving)
    motions = random_motion(keys[4], scene, jnp.arange(2), moving=moves)
    scenes = jax.vmap(moved, (None, 0))(scene, motions)
    views = jax.vmap(lambda scene, camera: render(scene, camera, intrinsics, size, levels))(
        scenes, cameras
    )
    # The first camera is the world, in which nothing has moved yet.
    there = product(ops.se3_inverse(cameras[1]), motions[1])
    poses = jnp.stack([there, ops.se3_inverse(there)])
    others = jax.tree.map(lambda x: x[::-1], (scenes, cameras))
    flow, visible, _ = jax.vmap(
        lambda view, poses, scene, camera: motion(view, poses, intrinsics, scene, camera)
    )(views, poses, *others)
    return {
        "image": exposed(keys[5], views["image"], brightness),
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
    """Batches of samples by number, made in one compiled call.

    Sample i depends on the seed and i alone: neither on its batch nor on the devices. Numbers that
    are sharded over devices give a batch that is.

    Args:
        sample: `stereo`, `video`, `flow` or `layered`, with their knobs bound by
            `functools.partial`.
        textures: `[K, h, w, 3]`, uint8 or float in [0, 1].
        seed: another for training than for the test.

    Returns:
        `numbers [B] int32 -> batch`, the sample's arrays with a leading axis B.

    Example:
        >>> import functools
        >>> from sslax.data import scenes
        >>> pictures = scenes.textures("train", count=4, side=32)
        >>> layered = functools.partial(scenes.layered, size=(8, 16), layers=1)
        >>> batch = scenes.sampler(layered, pictures, seed=0)(jnp.arange(2))
        >>> batch["image"].shape, batch["flow"].shape
        ((2, 2, 8, 16, 3), (2, 2, 8, 16, 2))
    """
    textures = jnp.asarray(textures)
    return lambda numbers: _batch(sample, textures, jax.random.key(seed), numbers)


@functools.partial(jax.jit, static_argnames="sample")
def _batch(
    sample: Callable[[Array, Pyramid], Sample], textures: Array, key: Array, numbers: Array
) -> Sample:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    return jax.vmap(sample, (0, None))(keys, pyramid(textures))


def _aside(distance: float) -> Array:
    """A camera `distance` to the right of the origin, to the world."""
    return ops.rigid_transform(jnp.eye(3), jnp.array([distance, 0.0, 0.0]))


def _for_all(pose: Array, scene: Scene) -> Array:
    return jnp.broadcast_to(pose, (len(scene.poses), 4, 4))


def exposed(key: Array, images: Array, brightness: float) -> Array:
    """Images `[S, H, W, 3]`, each brighter or darker by its own factor."""
    if not brightness:
        return images
    gain = jnp.exp(brightness * jax.random.uniform(key, (len(images), 1, 1, 1), minval=-1.0))
    return jnp.minimum(gain * images, 1.0)
