"""Random scenes, cameras and motions. Lengths are in meters, at the scale of a room."""

import jax
import jax.numpy as jnp
import numpy as np

from sslax import ops
from sslax.data.scenes.render import FACES, Scene, product

Array = jax.Array
NEAREST, FARTHEST = 1.5, 6.0  # depths of the boxes' near sides
# Brightness of the faces under light from above, in the order of faces: of a box, and of the room,
# which is seen from inside. The y axis points down.
_LIGHT = np.array([[0.7, 0.75, 1.0, 0.4, 0.55, 0.6], [0.7, 0.75, 0.4, 1.0, 0.55, 0.6]], np.float32)
_REACH = 5.0  # frames; a trajectory curves back after about as many, and so stays in the room


def random_scene(key: Array, textures: int, *, boxes: int = 6, drive: bool = False) -> Scene:
    """A room with boxes, and a camera at the origin that looks along +z.

    The first box stands upright on the floor, as does half of the others; the rest float at random
    orientations. Every third is as thin as a board. All are more than 1.5 m ahead.

    Args:
        key: random key.
        textures: number of textures to choose from.
        boxes: number of boxes in the room.
        drive: as a car's camera sees it: level with the floor, all boxes standing on it, and lit
            from above, so that a single image says more about depth.

    Returns:
        The scene, with `boxes + 1` boxes.
    """
    # One large draw, because every draw costs a fraction of a second to compile.
    shapes = (9,), (boxes, 10), (5, boxes + 1, FACES)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    draws = jax.random.uniform(key, (int(ends[-1]),))
    walls, sides, faces = (
        part.reshape(shape) for part, shape in zip(jnp.split(draws, ends[:-1]), shapes)
    )
    room, half, turn, floor = _room(walls, level=drive)
    number = jnp.arange(boxes)
    stands = (number % 2 == 0) | drive
    poses, half_sizes = jax.vmap(_box, (0, 0, 0, None, None))(
        2 * sides - 1, stands, number % 3 == 2, turn, floor
    )
    poses = jnp.concatenate([room[None], poses])
    half_sizes = jnp.concatenate([half[None], half_sizes])
    return Scene(poses, half_sizes, *_surfaces(faces, half_sizes, textures, lit=drive))


def random_intrinsics(
    key: Array, size: tuple[int, int], *, focal: tuple[float, float] = (0.6, 1.0)
) -> Array:
    """Intrinsics `[3, 3]` of a camera, with square pixels.

    Args:
        key: random key.
        size: height and width in pixels.
        focal: range of the focal length, in widths; by default, horizontal fields of view of 53 to
            80 degrees. The principal point is within 4 % of the width from the image's center.
    """
    height, width = size
    draw, *shift = jax.random.uniform(key, (3,), minval=-1.0)
    center = [(side - 1) / 2 + 0.04 * width * s for side, s in zip((width, height), shift)]
    shortest, longest = focal
    focal = width * ((shortest + longest) / 2 + (longest - shortest) / 2 * draw)
    zero, one = jnp.zeros(()), jnp.ones(())
    rows = [[focal, zero, center[0]], [zero, focal, center[1]], [zero, zero, one]]
    return jnp.array([jnp.stack(row) for row in rows])


def trajectory(
    key: Array,
    frames: int,
    *,
    reference: int = 0,
    speed: float | Array = 1.0,
    drive: bool = False,
    turn: float = 1.0,
) -> Array:
    """A smooth camera trajectory.

    `C(t) = exp(ρ sin(t / ρ) v + ρ (1 - cos(t / ρ)) a)`

    with a random twist v and acceleration a, t frames after the reference; with ρ = 5 it stays
    within about a meter.

    Args:
        key: random key.
        frames: number of frames S.
        reference: the frame at which the camera is at the origin.
        speed: 1 is 5 to 20 cm and about 0.5 degrees per frame; 0 is a static camera.
        drive: a car's motion: ahead and hardly sideways, turning about the vertical axis alone;
            otherwise that of a hand-held camera.
        turn: factor on the angles alone.

    Returns:
        Camera-to-world `[S, 4, 4]`; exactly the identity at the reference, and everywhere if the
        speed is 0.
    """
    twists = _velocity(key, 2, drive) * jnp.array([[1.0], [0.3]])
    twists *= jnp.repeat(jnp.array([1.0, turn]), 3)
    time = (jnp.arange(frames) - reference)[:, None] / _REACH
    path = jnp.sin(time) * twists[0] + (1 - jnp.cos(time)) * twists[1]
    return ops.se3_exp(speed * _REACH * path)


def random_motion(key: Array, scene: Scene, steps: Array, *, moving: Array | bool = True) -> Array:
    """Motion of the first box: along the floor, while it turns about its vertical axis.

    Args:
        key: random key.
        scene: the boxes at step 0.
        steps: `[S]`, the time of each frame.
        moving: whether it moves at all.

    Returns:
        `[S, N, 4, 4]` motions of all boxes in the world's frame, for `move`; exactly the identity
        at step 0, and for static boxes.
    """
    direction, length, turn = jax.random.uniform(key, (3,))
    angle = 2 * jnp.pi * direction
    step = (0.05 + 0.15 * length) * jnp.stack([jnp.cos(angle), jnp.zeros(()), jnp.sin(angle)])
    twist = jnp.concatenate([step, jnp.array([0.0, 0.1, 0.0]) * (2 * turn - 1)])
    time = _REACH * jnp.sin(steps / _REACH)
    local = ops.se3_exp(time[:, None] * twist)
    pose = scene.poses[1]
    motion = product(pose, local, ops.se3_inverse(pose))
    static = jnp.broadcast_to(jnp.eye(4), (len(steps), len(scene.poses), 4, 4))
    moves = (moving & (steps != 0))[:, None, None]
    return static.at[:, 1].set(jnp.where(moves, motion, jnp.eye(4)))


def _velocity(key: Array, count: int, drive: bool) -> Array:
    """Twists `[count, 6]` per frame: ahead or sideways rather than up, with little pitch."""
    draws = jax.random.normal(key, (count, 7))
    heading = draws[:, :3] * jnp.array([0.8, 0.25, 1.0])
    turn = draws[:, 4:] * jnp.array([0.004, 0.01, 0.003])
    if drive:
        heading = jnp.array([0.1, 0.0, 0.0]) * draws[:, :3] + jnp.array([0.0, 0.0, 1.0])
        turn = draws[:, 4:] * jnp.array([0.0, 0.01, 0.0])
    heading /= jnp.linalg.norm(heading, axis=-1, keepdims=True) + 1e-6
    length = 0.05 + 0.15 * jax.scipy.special.ndtr(draws[:, 3:4])  # uniform
    return jnp.concatenate([length * heading, turn], axis=-1)


def _room(draws: Array, *, level: bool) -> tuple[Array, Array, Array, Array]:
    """Pose, half sizes and rotation of the room, and the height of its floor, from nine draws."""
    low = jnp.array([-5.0, -4.0, -3.0, 1.8, 1.0, 5.0, -0.1, -0.5, -0.05])
    high = jnp.array([-1.8, -1.2, -2.5, 5.0, 1.7, 12.0, 0.1, 0.5, 0.05])
    draws = low + (high - low) * draws
    axes = jnp.array([0.0, 1.0, 0.0]) if level else 1.0
    first, last, turn = draws[:3], draws[3:6], ops.so3_exp(axes * draws[6:])
    center = product(turn, (first + last) / 2)
    return ops.rigid_transform(turn, center), (last - first) / 2, turn, last[1]


def _box(
    draws: Array, stands: Array, thin: Array, turn: Array, floor: Array
) -> tuple[Array, Array]:
    """Pose and half sizes of one box in the camera's view, from ten draws from [-1, 1]."""
    half = 0.5 + 0.25 * draws[:3]
    half = half.at[2].multiply(jnp.where(thin, 0.05, 1.0))
    half = half.at[1].multiply(jnp.where(stands, 1.5, 1.0))
    # Uniform in inverse depth, and all in front of the camera.
    share = (1 + draws[3]) / 2
    depth = jnp.linalg.norm(half) + 1 / (share / NEAREST + (1 - share) / FARTHEST)
    sideways = draws[4:6] * jnp.array([0.55, 0.3])
    center = product(turn.T, depth * jnp.append(sideways, 1.0))  # in the room's frame
    center = center.at[1].set(jnp.where(stands, floor - half[1], center[1]))
    yaw = jnp.pi * draws[6] * jnp.where(thin, 0.25, 1.0)
    upright, tilt = ops.so3_exp(jnp.stack([yaw * jnp.array([0.0, 1.0, 0.0]), 0.7 * draws[7:]]))
    rotation = jnp.where(stands, upright, product(upright, tilt))
    return ops.rigid_transform(product(turn, rotation), product(turn, center)), half


def _surfaces(
    draws: Array, half_sizes: Array, textures: int, *, lit: bool
) -> tuple[Array, Array, Array, Array]:
    """Texture, tile, offset and gain of all faces, from draws `[5, N, 6]`."""
    # The product of a draw below 1 and a count may round to the count.
    texture = jnp.minimum((draws[0] * textures).astype(jnp.int32), textures - 1)
    # About one tile on a face of a box, and several on a wall.
    is_room = jnp.arange(len(half_sizes)) == 0
    length = jnp.where(is_room, 2.5, 1.2 * half_sizes.max(1))[:, None]
    tile = (1 + draws[1]) * length
    gain = 0.55 + 0.45 * draws[4]
    if lit:
        gain = jnp.where(is_room[:, None], _LIGHT[1], _LIGHT[0]) * (0.85 + 0.15 * draws[4])
    return texture, tile, jnp.moveaxis(draws[2:4], 0, -1), gain
