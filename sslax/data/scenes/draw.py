"""Random scenes, cameras and motions. Lengths are in meters, as of a person in a room."""

import jax
import jax.numpy as jnp
import numpy as np

from sslax import ops
from sslax.data.scenes.render import FACES, Scene, product

Array = jax.Array
NEAREST, FARTHEST = 1.5, 6.0  # depths between which boxes begin
# How bright faces are that are lit from above, in the order of faces: those of a box, and those of
# the room, seen from inside. The y axis points down.
_LIGHT = np.array([[0.7, 0.75, 1.0, 0.4, 0.55, 0.6], [0.7, 0.75, 0.4, 1.0, 0.55, 0.6]], np.float32)
_REACH = 5.0  # a trajectory returns after about so many steps, and so stays in the room


def random_scene(key: Array, textures: int, *, boxes: int = 6, drive: bool = False) -> Scene:
    """A room and boxes around a camera at the origin, which looks along +z.

    The first box stands on the floor, upright, as does half of the others; the rest float, turned
    anyhow. Every third is as thin as a picture. All begin more than 1.5 m ahead.

    Args:
        key: random key.
        textures: number of textures to choose from.
        boxes: number of boxes in the room.
        drive: as a car's camera sees it: level with the floor, on which all boxes stand, and lit
            from above, so that a single image tells more of its depth.

    Returns:
        The scene, of `boxes + 1` boxes.
    """
    # One large draw, because each that is compiled costs a fraction of a second.
    shapes = (9,), (boxes, 10), (5, boxes + 1, FACES)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    draws = jax.random.uniform(key, (int(ends[-1]),))
    walls, sides, faces = (
        part.reshape(shape) for part, shape in zip(jnp.split(draws, ends[:-1]), shapes)
    )
    room, half, turn, floor = _room(walls, level=drive)
    number = jnp.arange(boxes)
    stand = (number % 2 == 0) | drive
    poses, halves = jax.vmap(_box, (0, 0, 0, None, None))(
        2 * sides - 1, stand, number % 3 == 2, turn, floor
    )
    poses, halves = jnp.concatenate([room[None], poses]), jnp.concatenate([half[None], halves])
    return Scene(poses, halves, *_surfaces(faces, halves, textures, lit=drive))


def random_intrinsics(key: Array, size: tuple[int, int]) -> Array:
    """Intrinsics `[3, 3]` of a camera that sees 53 to 80 degrees of the width.

    Square pixels; the principal point is within 4 % of the width from the middle.
    """
    height, width = size
    focal, *shift = jax.random.uniform(key, (3,), minval=-1.0)
    middle = [(side - 1) / 2 + 0.04 * width * s for side, s in zip((width, height), shift)]
    focal = width * (0.8 + 0.2 * focal)
    zero, one = jnp.zeros(()), jnp.ones(())
    rows = [[focal, zero, middle[0]], [zero, focal, middle[1]], [zero, zero, one]]
    return jnp.array([jnp.stack(row) for row in rows])


def trajectory(
    key: Array,
    frames: int,
    *,
    reference: int = 0,
    speed: float | Array = 1.0,
    drive: bool = False,
) -> Array:
    """Smooth motion of a camera.

    `C(t) = exp(ρ sin(t / ρ) v + ρ (1 - cos(t / ρ)) a)`

    The twist v and some acceleration a, over t frames since the reference; with ρ = 5 a curve that
    stays within a metre or so.

    Args:
        key: random key.
        frames: number of frames S.
        reference: the frame at which the camera is at the origin.
        speed: 1 is 5 to 20 cm and 0.5 degrees or so a frame; 0 stands still.
        drive: as a car does: ahead and hardly aside, turning about the upright axis alone;
            otherwise anywhere, as if held in a hand.

    Returns:
        `[S, 4, 4]`, from the camera to the world; exactly the identity at the reference, and
        everywhere if the speed is 0.
    """
    twists = _velocity(key, 2, drive) * jnp.array([[1.0], [0.3]])
    time = (jnp.arange(frames) - reference)[:, None] / _REACH
    path = jnp.sin(time) * twists[0] + (1 - jnp.cos(time)) * twists[1]
    return ops.se3_exp(speed * _REACH * path)


def random_motion(key: Array, scene: Scene, steps: Array, *, moving: Array | bool = True) -> Array:
    """The first box's own motion: over the floor, and turning about its upright axis.

    Args:
        key: random key.
        scene: the boxes at step 0.
        steps: `[S]`, the time of each frame.
        moving: whether it moves at all.

    Returns:
        `[S, N, 4, 4]` motions of all boxes in the world, for `moved`; exactly the identity at step
        0, and for boxes that stand still.
    """
    direction, length, turn = jax.random.uniform(key, (3,))
    angle = 2 * jnp.pi * direction
    step = (0.05 + 0.15 * length) * jnp.stack([jnp.cos(angle), jnp.zeros(()), jnp.sin(angle)])
    twist = jnp.concatenate([step, jnp.array([0.0, 0.1, 0.0]) * (2 * turn - 1)])
    time = _REACH * jnp.sin(steps / _REACH)
    local = ops.se3_exp(time[:, None] * twist)
    pose = scene.poses[1]
    motion = product(pose, local, ops.se3_inverse(pose))
    still = jnp.broadcast_to(jnp.eye(4), (len(steps), len(scene.poses), 4, 4))
    moves = (moving & (steps != 0))[:, None, None]
    return still.at[:, 1].set(jnp.where(moves, motion, jnp.eye(4)))


def _velocity(key: Array, count: int, drive: bool) -> Array:
    """Twists `[count, 6]` of one frame: ahead or to a side rather than up, pitching little."""
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
    """Pose and half lengths of the room, its rotation, the height of its floor, of nine draws."""
    low = jnp.array([-5.0, -4.0, -3.0, 1.8, 1.0, 5.0, -0.1, -0.5, -0.05])
    high = jnp.array([-1.8, -1.2, -2.5, 5.0, 1.7, 12.0, 0.1, 0.5, 0.05])
    draws = low + (high - low) * draws
    axes = jnp.array([0.0, 1.0, 0.0]) if level else 1.0
    first, last, turn = draws[:3], draws[3:6], ops.so3_exp(axes * draws[6:])
    center = product(turn, (first + last) / 2)
    return ops.rigid_transform(turn, center), (last - first) / 2, turn, last[1]


def _box(draws: Array, stand: Array, thin: Array, turn: Array, floor: Array) -> tuple[Array, Array]:
    """Pose and half lengths of one box in the camera's view, of ten draws from [-1, 1]."""
    halves = 0.5 + 0.25 * draws[:3]
    halves = halves.at[2].multiply(jnp.where(thin, 0.05, 1.0))
    halves = halves.at[1].multiply(jnp.where(stand, 1.5, 1.0))
    # Uniform in inverse depth, and all in front of the camera.
    share = (1 + draws[3]) / 2
    depth = jnp.linalg.norm(halves) + 1 / (share / NEAREST + (1 - share) / FARTHEST)
    aside = draws[4:6] * jnp.array([0.55, 0.3])
    place = product(turn.T, depth * jnp.append(aside, 1.0))  # in the room's frame
    place = place.at[1].set(jnp.where(stand, floor - halves[1], place[1]))
    yaw = jnp.pi * draws[6] * jnp.where(thin, 0.25, 1.0)
    upright, tumbled = ops.so3_exp(jnp.stack([yaw * jnp.array([0.0, 1.0, 0.0]), 0.7 * draws[7:]]))
    spin = jnp.where(stand, upright, product(upright, tumbled))
    return ops.rigid_transform(product(turn, spin), product(turn, place)), halves


def _surfaces(
    draws: Array, halves: Array, textures: int, *, lit: bool
) -> tuple[Array, Array, Array, Array]:
    """Texture, tile, offset and gain of all faces, of draws `[5, N, 6]`."""
    # Rounding may make a draw times a count the count.
    texture = jnp.minimum((draws[0] * textures).astype(jnp.int32), textures - 1)
    # About one picture to a face of a box, and several to a wall.
    length = jnp.where(jnp.arange(len(halves)) == 0, 2.5, 1.2 * halves.max(1))[:, None]
    tile = (1 + draws[1]) * length
    gain = 0.55 + 0.45 * draws[4]
    if lit:
        of_room = jnp.arange(len(halves)) == 0
        gain = jnp.where(of_room[:, None], _LIGHT[1], _LIGHT[0]) * (0.85 + 0.15 * draws[4])
    return texture, tile, jnp.moveaxis(draws[2:4], 0, -1), gain
