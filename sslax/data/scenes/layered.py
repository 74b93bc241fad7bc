"""Photographs that move over each other affinely, with exact flow."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import ops
from sslax.data.scenes.render import pixel_means, product
from sslax.data.scenes.samples import expose
from sslax.data.scenes.textures import Pyramid, as_pyramid, read_texture

Array = jax.Array
_SIDES = 6  # of the polygons, at most
_NOWHERE, _EVERYWHERE, _ELLIPSE, _POLYGON = range(4)


class Layers(NamedTuple):
    """L layers at one time, the last on top, each inside the unit disc of its own coordinates.

    Attributes:
        inverse: `[L, 3, 3]`, affine, from pixels to the layer's coordinates.
        shape: `[L]` int32: nowhere, everywhere, the unit disc (an ellipse in the image), a polygon.
        angles: `[L, 6]`, directions of a polygon's normals.
        radii: `[L, 6]`, distances of its sides from the origin.
        texture: `[L]` int32, index of the texture.
        tile: `[L]`, the length in the layer's coordinates that one texture covers.
        gain: `[L]`, a factor on the texture's brightness.
    """

    inverse: Array
    shape: Array
    angles: Array
    radii: Array
    texture: Array
    tile: Array
    gain: Array


def layered(
    key: Array,
    textures: Array | Pyramid,
    *,
    size: tuple[int, int] = (64, 128),
    layers: int = 4,
    speed: float = 1.0,
    brightness: float = 0.0,
    rays: int = 2,
) -> dict[str, Array]:
    """Two frames of a photograph, with 1 to `layers` others over it, cut to ellipses and polygons.

    Each layer has its own affine motion, `p' = c + B (p - c) + e`.

    Args:
        key: random key.
        textures: `[K, h, w, 3]`, uint8 or float in [0, 1], sides powers of two; or their `pyramid`.
        size: height H and width W.
        layers: largest number of photographs over the first.
        speed: at 1, layers shift by up to 8 % of the width horizontally and 4 % vertically, rotate
            by up to 8 degrees and scale by up to 8 %; the background by half of that.
        brightness: random exposure of each image, by up to `exp(±brightness)`.
        rays: square root of the rays per pixel.

    Returns:
        'image' `[2, H, W, 3]`; 'flow' `[2, H, W, 2]`, (x, y) in pixels, from the first frame to the
        second and back; 'visible' `[2, H, W]` (bool), the pixels that the other frame shows too.

    Dosovitskiy et al., "FlowNet: Learning Optical Flow with Convolutional Networks", 2015.
    """
    keys = jax.random.split(key, 3)
    levels = as_pyramid(textures)
    first, centers = _random_layers(keys[0], len(levels.texels), layers, size)
    moves = _random_moves(keys[1], centers, size[1], speed)
    second = first._replace(inverse=product(first.inverse, _inverse(moves)))
    both = jax.tree.map(lambda *pair: jnp.stack(pair), first, second)
    other = jax.tree.map(lambda x: x[::-1], both)
    images = jax.vmap(lambda scene: _draw(scene, size, levels, rays))(both)
    flow, visible = jax.vmap(lambda scene, other, moves: _motion(scene, other, moves, size))(
        both, other, jnp.stack([moves, _inverse(moves)])
    )
    return {"image": expose(keys[2], images, brightness), "flow": flow, "visible": visible}


def _random_layers(
    key: Array, textures: int, layers: int, size: tuple[int, int]
) -> tuple[Layers, Array]:
    """The layers of the first frame, and their centers `[L, 2]` in pixels."""
    height, width = size
    # One large draw, because every draw costs a fraction of a second to compile.
    draws = jax.random.uniform(key, (10 + 2 * _SIDES, layers + 1))
    number = jnp.arange(layers + 1)
    is_background = number == 0
    middle = jnp.array([width - 1, height - 1]) / 2
    centers = middle * (1 + jnp.where(is_background, 0.0, 1.8 * draws[:2] - 0.9).T)
    # Log-uniform half sizes, from a tenth of the height to half of it.
    stretch = jnp.exp(0.8 * draws[2] - 0.4)
    half_sizes = 0.5 * height * 0.2 ** draws[3] * jnp.stack([stretch, 1 / stretch])
    half_sizes = jnp.where(is_background, width / 2, half_sizes).T
    rotation = _rotation(jnp.where(is_background, 0.0, draws[4] - 0.5))
    last = 1 + jnp.floor(layers * draws[5, 0])
    shape = jnp.where(draws[6] < 0.5, _ELLIPSE, _POLYGON)
    layers = Layers(
        inverse=_inverse(_affine(rotation * half_sizes[:, None], centers)),
        shape=jnp.where(is_background, _EVERYWHERE, jnp.where(number <= last, shape, _NOWHERE)),
        angles=2 * jnp.pi / _SIDES * (jnp.arange(_SIDES) + 0.8 * draws[10 : 10 + _SIDES].T),
        radii=0.5 + 0.5 * draws[10 + _SIDES :].T,
        texture=jnp.minimum((textures * draws[7]).astype(jnp.int32), textures - 1),
        tile=(1 + draws[8]) * jnp.where(is_background, 1.0, 2.0),
        gain=0.7 + 0.3 * draws[9],
    )
    return layers, centers


def _random_moves(key: Array, centers: Array, width: int, speed: float) -> Array:
    """`[L, 3, 3]` affine motions of the layers, from pixels to pixels."""
    shift, turn, stretch = jnp.split(
        jax.random.uniform(key, (len(centers), 5), minval=-1.0), (2, 3), axis=1
    )
    speed = speed * jnp.where(jnp.arange(len(centers)) == 0, 0.5, 1.0)[:, None]
    matrix = _rotation(0.14 * speed * turn)[:, 0] * (1 + 0.08 * speed * stretch)[:, None]
    about_centers = centers - jnp.sum(matrix * centers[:, None], axis=-1)
    return _affine(matrix, about_centers + 0.08 * width * speed * shift * jnp.array([1.0, 0.5]))


def _top(scene: Layers, coords: Array) -> Array:
    """Index of the topmost layer, `[...]` int32, at points `[..., 2]` of the image."""

    def cover(top: Array, layer: tuple[Array, Layers]) -> tuple[Array, None]:
        number, (inverse, shape, angles, radii, *_) = layer
        x, y = _apply(inverse, coords)
        sides = zip(jnp.cos(angles), jnp.sin(angles), radii)
        outside_polygon = functools.reduce(jnp.logical_or, (c * x + s * y > r for c, s, r in sides))
        outside = jnp.where(shape == _POLYGON, outside_polygon, x * x + y * y > 1)
        covers = (shape == _EVERYWHERE) | ((shape != _NOWHERE) & ~outside)
        return jnp.where(covers, number, top), None

    bottom = jnp.zeros(coords.shape[:-1], jnp.int32)
    return jax.lax.scan(cover, bottom, (jnp.arange(len(scene.shape)), scene))[0]


def _motion(
    scene: Layers, other: Layers, moves: Array, size: tuple[int, int]
) -> tuple[Array, Array]:
    """Flow `[H, W, 2]` to the other frame, and which pixels are visible there."""
    height, width = size
    grid = ops.pixel_grid(*size)
    top = _top(scene, grid)
    flow = jnp.stack(_apply((moves - jnp.eye(3))[top], grid), axis=-1)
    coords = grid + flow
    inside = jnp.all((coords >= 0) & (coords <= jnp.array([width - 1, height - 1])), axis=-1)
    return flow, inside & (_top(other, coords) == top)


def _draw(scene: Layers, size: tuple[int, int], levels: Pyramid, rays: int) -> Array:
    """The image `[H, W, 3]`, the mean over `rays²` points in each pixel."""
    texels = jnp.array(levels.size[::-1]) / scene.tile[:, None]  # [L, 2], per unit length
    # One pixel to the right and one down, in texels.
    lengths = jnp.linalg.norm(scene.inverse[:, :2, :2] * texels[:, :, None], axis=1)
    footprint = lengths.max(1) / rays

    def color(coords: Array) -> Array:
        top = _top(scene, coords)
        u, v = _apply(scene.inverse[top], coords)
        coords = u * texels[top, 0], v * texels[top, 1]
        texel = read_texture(levels, scene.texture[top], coords, footprint[top])
        return texel * scene.gain[top][..., None]

    return pixel_means(color, size, rays)


def _rotation(angle: Array) -> Array:
    """Rotations `[..., 2, 2]` by angles in radians."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    rows = jnp.stack([cosine, -sine], axis=-1), jnp.stack([sine, cosine], axis=-1)
    return jnp.stack(rows, axis=-2)


def _affine(matrix: Array, shift: Array) -> Array:
    """The matrix `[..., 3, 3]` of `x → matrix x + shift`."""
    upper = jnp.concatenate([matrix, shift[..., None]], axis=-1)
    last = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0]), (*upper.shape[:-2], 1, 3))
    return jnp.concatenate([upper, last], axis=-2)


def _inverse(affine: Array) -> Array:
    a, b, c, d = (affine[..., i, j] for i in range(2) for j in range(2))
    rows = jnp.stack([d, -b], axis=-1), jnp.stack([-c, a], axis=-1)
    matrix = jnp.stack(rows, axis=-2) / (a * d - b * c)[..., None, None]
    return _affine(matrix, -jnp.sum(matrix * affine[..., None, :2, 2], axis=-1))


def _apply(affine: Array, coords: Array) -> tuple[Array, Array]:
    """x and y of points `[..., 2]` under affine maps `[..., 3, 3]`."""
    x, y = coords[..., 0], coords[..., 1]
    return tuple(
        affine[..., i, 0] * x + affine[..., i, 1] * y + affine[..., i, 2] for i in range(2)
    )
