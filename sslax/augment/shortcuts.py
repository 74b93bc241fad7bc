"""Chromatic aberration, a shortcut that reveals the position of a patch in a photograph.

A lens magnifies each color slightly differently, so red and blue edges are displaced from green
ones, towards or away from the center of the image. A network that predicts the positions of patches
can read them off the colors and learn nothing else. `drop_colors` and `project_colors` remove the
cue; `chromatic_aberration` adds it to images, to test whether a network uses it.
"""

import jax
import jax.numpy as jnp

from sslax.augment.color import assert_color_image
from sslax.augment.image import apply_separable
from sslax.types import Array


def drop_colors(key: Array, patch: Array, *, noise_std: float = 0.01) -> Array:
    """Color dropping: keeps one random channel and replaces the others by noise.

    `y_k = x_k` for one k, all equally likely, and `y_c = mean(x_k) + noise_std std(x_k) n` with
    `n ~ N(0, 1)` for the others. A single channel has no edges to compare.

    Apply it after `standardize`, which would otherwise amplify the noise to the contrast of an
    image.

    Args:
        key: random key.
        patch: `[h, w, C]` float, C = 1 or 3; one-channel patches are unchanged.
        noise_std: standard deviation of the noise, as a fraction of the kept channel's; 0 makes the
            other channels constant. The default is the paper's; the released code draws from
            U(-1/2, 1/2) gray levels around the mean, about 0.006 for photographs.

    Returns:
        `[h, w, C]`.

    Raises:
        ValueError: C is not 1 or 3.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> patch = jnp.array([[[0.0, 0.25, 0.5], [1.0, 0.75, 0.5]]])
        >>> drop_colors(jax.random.key(0), patch, noise_std=0.0)
        Array([[[0.5 , 0.25, 0.5 ],
                [0.5 , 0.75, 0.5 ]]], dtype=float32)

    Doersch et al., "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015,
    arXiv:1505.05192.
    """
    assert_color_image(patch)
    channels = patch.shape[-1]
    if channels == 1:
        return patch
    choice_key, noise_key = jax.random.split(key)
    choice = jax.random.randint(choice_key, (), 0, channels, jnp.int32)
    kept = jax.nn.one_hot(choice, channels, dtype=patch.dtype)
    channel = jnp.sum(kept * patch, axis=-1, keepdims=True)
    mean, variance = channel.mean(), channel.var()
    # The root of a flat channel's variance, 0, would have an infinite slope.
    std = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
    other = mean + noise_std * std * jax.random.normal(noise_key, patch.shape, patch.dtype)
    return jnp.where(kept > 0, patch, other)


def project_colors(image: Array) -> Array:
    """Removes the green-magenta component of an image.

    `y = x B` at each pixel, `B = I - a^T a / (a a^T)`, `a = (-1, 2, -1)`: projects colors onto the
    plane orthogonal to `a`, which removes displacements of red and blue against green. Gray is
    unchanged.

    Args:
        image: `[H, W, C]` float, C = 1 or 3; one-channel images are unchanged.

    Returns:
        `[H, W, C]`, in [-1/6, 7/6] for an image in [0, 1].

    Raises:
        ValueError: C is not 1 or 3.

    Example:
        >>> import jax.numpy as jnp
        >>> project_colors(jnp.array([[[0.5, 0.5, 0.5], [0.0, 0.75, 0.0]]]))
        Array([[[0.5 , 0.5 , 0.5 ],
                [0.25, 0.25, 0.25]]], dtype=float32)

    Doersch et al., "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015,
    arXiv:1505.05192.
    """
    assert_color_image(image)
    if image.shape[-1] == 1:
        return image
    red, green, blue = (image[..., c : c + 1] for c in range(3))
    component = (2.0 * green - red - blue) / 6.0
    return jnp.concatenate([red + component, green - 2.0 * component, blue + component], axis=-1)


def chromatic_aberration(image: Array, *, scale_red: Array, scale_blue: Array) -> Array:
    """Adds lateral chromatic aberration: magnifies red and blue about the center of the image.

    `y_c(p) = x_c(m + (p - m) / s_c)` with the center `m = ((H - 1) / 2, (W - 1) / 2)`, bilinear,
    with border pixels repeated; green is unchanged.

    A diagnostic: train the task on images with aberration and evaluate it on images without, or
    predict the position of a patch (`random_patch`).

    Args:
        image: `[H, W, C]` float, C = 1 or 3; one-channel images are unchanged.
        scale_red, scale_blue: positive scalars; above 1 edges move outward. May be traced;
            gradients flow to them, at 1 too.

    Returns:
        `[H, W, C]`.

    Raises:
        ValueError: C is not 1 or 3.

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.array([[[0.0] * 3, [0.5] * 3, [1.0] * 3]])
        >>> chromatic_aberration(image, scale_red=2.0, scale_blue=1.0)[0]
        Array([[0.25, 0.  , 0.  ],
               [0.5 , 0.5 , 0.5 ],
               [0.75, 1.  , 1.  ]], dtype=float32)
    """
    assert_color_image(image)
    if image.shape[-1] == 1:
        return image

    def magnify(channel: Array, scale: Array) -> Array:
        return apply_separable(channel, *(_magnify_weights(n, scale) for n in channel.shape[:2]))

    red, green, blue = (image[..., c : c + 1] for c in range(3))
    red, blue = magnify(red, scale_red), magnify(blue, scale_blue)
    return jnp.concatenate([red, green.astype(red.dtype), blue], axis=-1)


def _magnify_weights(size: int, scale: Array) -> Array:
    """`[size, size]` weights of a bilinear magnification of one axis about its center."""
    pixel = jnp.arange(size, dtype=jnp.float32)
    center = (size - 1) / 2
    source = center + (pixel - center) / jnp.asarray(scale, jnp.float32)
    # y = x_0 + sum_p clip(source - p, 0, 1) (x_p+1 - x_p): the weights of a row sum to 1, and the
    # slope at an integer position is the mean of the slopes on both sides.
    passed = jnp.clip(source[:, None] - pixel[:-1], 0.0, 1.0)
    before = jnp.pad(passed, ((0, 0), (1, 0)), constant_values=1.0)
    return before - jnp.pad(passed, ((0, 0), (0, 1)))
