"""Ray-casting of textured boxes: images with exact depth, motion and visibility.

A scene is a set of boxes, of which the first is the room, seen from inside. Rays intersect boxes in
closed form, so depth is exact. Points move rigidly, so flow is exact. Whether a point is visible in
another view is decided by casting one more ray, through the point's exact projection there, so
visibility needs no tolerance.

Cameras are camera-to-world matrices `[4, 4]`. Everything else is as in `sslax.ops`: pixel centers
at integers, x right, y down, the camera looks along +z and depth is z.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks, ops
from sslax.data.scenes.textures import Pyramid, as_pyramid, read_texture
from sslax.ops import Camera

Array = jax.Array
FACES = 6  # of a box: low x, high x, low y, high y, low z, high z


class Scene(NamedTuple):
    """N boxes of six textured faces each; the first is the room.

    Attributes:
        poses: `[N, 4, 4]`, from a box's frame, whose origin is its center, to the world.
        half_sizes: `[N, 3]`, half the lengths of its sides.
        texture: `[N, 6]` int32, index of each face's texture.
        tile: `[N, 6]`, the length that one texture covers; beyond, it is mirrored.
        offset: `[N, 6, 2]`, position of the face's center in the texture, in tiles.
        gain: `[N, 6]`, a factor on the texture's brightness.
    """

    poses: Array
    half_sizes: Array
    texture: Array
    tile: Array
    offset: Array
    gain: Array


def move(scene: Scene, motions: Array) -> Scene:
    """Moves each box.

    Args:
        scene: N boxes.
        motions: `[N, 4, 4]`, rigid, in the world's frame.

    Returns:
        The scene with `motions @ poses`.
    """
    return scene._replace(poses=product(motions, scene.poses))


def render(
    scene: Scene,
    camera: Array,
    intrinsics: Camera,
    size: tuple[int, int],
    textures: Array | Pyramid,
    *,
    rays: int = 2,
) -> dict[str, Array]:
    """Renders a view.

    A pixel's color is the mean over `rays²` rays, each of which reads its texture at the level of
    detail (trilinear between levels) that its share of the pixel covers. Depth and surface are
    those of the ray through the pixel's center. Not differentiable across edges.

    Args:
        scene: the boxes; the camera must be inside the first and outside the others.
        camera: camera-to-world `[4, 4]`.
        intrinsics: `[3, 3]`, in pixels, or a `UnifiedCamera` whose pixels all see something in
            front of it.
        size: height H and width W.
        textures: `[K, h, w, 3]`, uint8 or float in [0, 1], sides powers of two; or their `pyramid`.
        rays: square root of the rays per pixel.

    Returns:
        'image' `[H, W, 3]` in [0, 1], 'depth' `[H, W]` and 'surface' `[H, W]` int32, six times the
        index of the box plus that of the face.

    Example:
        >>> one = jnp.ones((1, 6))
        >>> room = Scene(jnp.eye(4)[None], jnp.full((1, 3), 2.0), 0 * one.astype(int), one,
        ...              jnp.zeros((1, 6, 2)), one)
        >>> K = jnp.array([[4.0, 0, 1.5], [0, 4, 0.5], [0, 0, 1]])
        >>> view = render(room, jnp.eye(4), K, (2, 4), jnp.full((1, 32, 32, 3), 0.5))
        >>> view["depth"][0].tolist(), view["surface"][0].tolist(), float(view["image"].max())
        ([2.0, 2.0, 2.0, 2.0], [5, 5, 5, 5], 0.5)
    """
    checks.assert_shape(camera, (4, 4))
    levels = as_pyramid(textures)
    depth, surface = cast(scene, camera, intrinsics, ops.pixel_grid(*size))
    faces = _faces(scene, camera, levels)

    def color(coords: Array) -> Array:
        surfaces = cast(scene, camera, intrinsics, coords)
        return _shade(scene, faces, surfaces, intrinsics, coords, levels, 1 / rays)

    return {"image": pixel_means(color, size, rays), "depth": depth, "surface": surface}


def pixel_means(color: Callable[[Array], Array], size: tuple[int, int], rays: int) -> Array:
    """Mean of `color`, `[H, W, 2] -> [H, W, 3]`, over `rays²` points in each pixel."""
    grid = ops.pixel_grid(*size)
    steps = (jnp.arange(rays) + 0.5) / rays - 0.5
    shifts = jnp.stack(jnp.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    # One point of all pixels at a time: a quarter of the memory.
    add = lambda image, shift: (image + color(grid + shift), None)  # noqa: E731
    image, _ = jax.lax.scan(add, jnp.zeros((*size, 3)), shifts)
    return image / rays**2


def cast(scene: Scene, camera: Array, intrinsics: Camera, coords: Array) -> tuple[Array, Array]:
    """The first surface on the ray through each point of the image.

    Args:
        scene: the boxes.
        camera: camera-to-world `[4, 4]`.
        intrinsics: `[3, 3]`, in pixels, or a `UnifiedCamera`.
        coords: `[..., 2]`, (x, y) in pixels, integer or not.

    Returns:
        Depth `[...]` along the optical axis, and the surface `[...]` int32.
    """
    boxes = product(ops.se3_inverse(camera), scene.poses)  # to the camera's frame
    ray = _rays(coords, intrinsics)

    def intersect(first: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        depth, surface = first
        entry, face = _entry(boxes[i], scene.half_sizes[i], ray)
        closer = entry < depth
        depth = jnp.where(closer, entry, depth)
        return (depth, jnp.where(closer, FACES * i + face, surface)), None

    # A scan, because the unrolled loop takes many times as long to compile.
    wall = _exit(boxes[0], scene.half_sizes[0], ray)
    return jax.lax.scan(intersect, wall, jnp.arange(1, len(scene.poses)))[0]


def motion(
    view: dict[str, Array],
    poses: Array,
    intrinsics: Camera,
    other: Scene,
    other_camera: Array,
) -> tuple[Array, Array, Array]:
    """Flow from one view to another, and which of its pixels are visible there.

    Args:
        view: 'depth' and 'surface' `[H, W]` of the first view.
        poses: `[N, 4, 4]`, for each box from the first camera to the other: `C'⁻¹ M' M⁻¹ C` with
            cameras C and the box's motions M in the world.
        intrinsics: `[3, 3]` of both cameras, in pixels, or a `UnifiedCamera`.
        other: the scene at the time of the other view.
        other_camera: that view's camera-to-world `[4, 4]`.

    Returns:
        Flow `[H, W, 2]`, (x, y) in pixels, also where it leaves the image; `visible` `[H, W]`
        (bool), where the other image contains the point and shows its surface; and `occluded`
        `[H, W]` (bool), where it contains the point but shows another surface in front of it.
        Points behind the other camera have zero flow and are neither.
    """
    flow, inside = ops.rigid_flow(view["depth"], poses[view["surface"] // FACES], intrinsics)
    coords = ops.pixel_grid(*view["depth"].shape) + flow
    # A ray meets the plane of a face once, so on the same face it meets the same point.
    _, surface = cast(other, other_camera, intrinsics, coords)
    same = surface == view["surface"]
    return flow, inside & same, inside & ~same


def product(*matrices: Array) -> Array:
    """Matrix product in full precision, which is not the default on accelerators."""
    result = matrices[0]
    for matrix in matrices[1:]:
        result = jnp.matmul(result, matrix, precision="highest")
    return result


def _rays(coords: Array, intrinsics: Camera) -> tuple[Array, Array]:
    """x and y of the ray's direction; z is 1, so that ray lengths are depths."""
    rays, _ = ops.viewing_rays(coords, intrinsics)
    return rays[..., 0], rays[..., 1]


def _ray_changes(coords: Array, intrinsics: Camera) -> tuple[tuple[Array, Array], ...]:
    """How x and y of the ray change from one pixel to the next, to the right and down."""
    if not isinstance(intrinsics, ops.UnifiedCamera):
        return (1 / intrinsics[0, 0], jnp.zeros(())), (jnp.zeros(()), 1 / intrinsics[1, 1])

    def along(axis: int) -> tuple[Array, Array]:
        step = jnp.broadcast_to(jnp.eye(2)[axis], coords.shape)
        return jax.jvp(lambda at: _rays(at, intrinsics), (coords,), (step,))[1]

    return along(0), along(1)


def _crossings(box: Array, half: Array, ray: tuple[Array, Array]) -> tuple[list, list, list]:
    """For each axis of a box: depths where the ray crosses its two planes, and in which order."""
    x, y = ray
    near, far, rising = [], [], []
    for axis in range(3):
        right, down, ahead = box[0, axis], box[1, axis], box[2, axis]
        direction = right * x + down * y + ahead
        origin = -(right * box[0, 3] + down * box[1, 3] + ahead * box[2, 3])
        parallel = jnp.abs(direction) < 1e-9
        inverse = 1 / jnp.where(parallel, 1e-9, direction)
        center, extent = -origin * inverse, half[axis] * jnp.abs(inverse)
        near.append(center - extent)
        far.append(center + extent)
        rising.append((inverse > 0).astype(jnp.int32))
    return near, far, rising


def _exit(box: Array, half: Array, ray: tuple[Array, Array]) -> tuple[Array, Array]:
    """Depth and face where the ray leaves a box that it starts in."""
    _, far, rising = _crossings(box, half, ray)
    depth, face = far[0], rising[0]
    for axis in (1, 2):
        sooner = far[axis] < depth
        depth = jnp.where(sooner, far[axis], depth)
        face = jnp.where(sooner, 2 * axis + rising[axis], face)
    return depth, face


def _entry(box: Array, half: Array, ray: tuple[Array, Array]) -> tuple[Array, Array]:
    """Depth and face where the ray enters a box from outside; infinite where it misses."""
    near, far, rising = _crossings(box, half, ray)
    depth, face = near[0], 1 - rising[0]
    for axis in (1, 2):
        later = near[axis] > depth
        depth = jnp.where(later, near[axis], depth)
        face = jnp.where(later, 2 * axis + 1 - rising[axis], face)
    leaves = jnp.minimum(jnp.minimum(far[0], far[1]), far[2])
    return jnp.where((depth < leaves) & (depth > 0), depth, jnp.inf), face


def _faces(scene: Scene, camera: Array, levels: Pyramid) -> Array:
    """`[6 N, 12]`, for each face: from points in the camera's frame to texels, normal, gain.

    Two rows `(a, b)` with `texel = a · X + b`, the normal n, and the gain.
    """
    boxes = product(ops.se3_inverse(camera), scene.poses)
    axes, center = jnp.swapaxes(boxes[:, :3, :3], 1, 2), boxes[:, :3, 3]  # [N, axis, 3]
    height, width = levels.size
    rows = []
    for face in range(FACES):
        normal = face // 2
        # Textures are upright on walls: their y axis points down, as the box's.
        across, along = ((2, 1), (0, 2), (0, 1))[normal]
        row = []
        for side, axis, texels in ((0, across, width), (1, along, height)):
            a = axes[:, axis] * (texels / scene.tile[:, face])[:, None]
            b = texels * scene.offset[:, face, side] - jnp.sum(a * center, axis=1)
            row += [a, b[:, None]]
        rows.append(jnp.concatenate([*row, axes[:, normal], scene.gain[:, face, None]], axis=1))
    return jnp.stack(rows, axis=1).reshape(-1, 12)


def _shade(
    scene: Scene,
    faces: Array,
    hit: tuple[Array, Array],
    intrinsics: Camera,
    coords: Array,
    levels: Pyramid,
    extent: float,
) -> Array:
    """Colors `[H, W, 3]` of the surfaces hit by the rays at `coords`, each `extent` pixels wide."""
    depth, surface = hit
    x, y = _rays(coords, intrinsics)
    # Column by column, because XLA's CPU backend would otherwise store all twelve.
    column = [faces[:, i][surface] for i in range(12)]
    (nx, ny, nz), gain = column[8:11], column[11]
    # On the plane n · X = c the point X = z r changes by z (dr - r (n · dr) / (n · r)) where the
    # ray r changes by dr.
    facing = nx * x + ny * y + nz
    facing = jnp.where(jnp.abs(facing) < 1e-6, 1e-6, facing)
    texels: list[Array] = []
    steps = _ray_changes(coords, intrinsics)
    changes: tuple[list[Array], list[Array]] = [], []
    for ax, ay, az, b in (column[:4], column[4:8]):
        rate = ax * x + ay * y + az
        texels.append(depth * rate + b)
        for change, (dx, dy) in zip(changes, steps):
            change.append(depth * (dx * (ax - rate * nx / facing) + dy * (ay - rate * ny / facing)))
    across, along = changes
    footprint = jnp.sqrt(
        jnp.maximum(across[0] ** 2 + across[1] ** 2, along[0] ** 2 + along[1] ** 2)
    )
    texture = scene.texture.reshape(-1)[surface]
    color = read_texture(levels, texture, tuple(texels), extent * footprint)
    return color * gain[..., None]
