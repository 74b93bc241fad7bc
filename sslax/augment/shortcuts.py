"""Against the shortcut of chromatic aberration, which tells where in a photograph a patch lies.

A lens magnifies each color a little differently, so red and blue edges lie off the green ones,
inwards or outwards from the center of the image. A network that is asked for the places of patches
reads this off their colors and learns nothing else. `drop_colors` and `project_colors` take it
away; `render_aberration` puts it into images, to measure whether a network uses it.
"""

import jax
import jax.numpy as jnp

from sslax.augment.color import assert_color_image
from sslax.augment.image import apply_separable

Array = jax.Array


def drop_colors(key: Array, patch: Array, *, noise_std: float = 0.01) -> Array:
    """Patch of which one random channel is kept, noise in the others.

    ``y_k = x_k`` for one k, all equally likely, and ``y_c = mean(x_k) + noise_std std(x_k) n`` with
    ``n ~ N(0, 1)`` for the others: a single channel has no edges to compare.

    Before it: `standardize`, if patches are standardized at all, since after it the noise would be
    raised to the strength of an image.

    Args:
        key: random key.
        patch: `[h, w, C]` float, C of 1 or 3; one channel stays as it is.
        noise_std: standard deviation of the noise as a fraction of the kept channel's; 0 makes the
            others flat. The default is the paper's; the released code draws from a gray level's
            width, U(-1/2, 1/2) of 255, around the mean: about 0.006 for photographs.

    Returns:
        `[h, w, C]`.

    Raises:
        ValueError: for another number of channels.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> patch = jnp.array([[[0.0, 0.25, 0.5], [1.0, 0.75, 0.5]]])
        >>> drop_colors(jax.random.key(0), patch, noise_std=0.0)
        Array([[[0.5 , 0.25, 0.5 ],
                [0.5 , 0.75, 0.5 ]]], dtype=float32)

    Reference: Doersch et al., Unsupervised Visual Representation Learning by Context Prediction,
    2015 (arXiv:1505.05192).
    """
    assert_color_image(patch)
    channels = patch.shape[-1]
    if channels == 1:
        return patch
    choice, noise = jax.random.split(key)
    kept = jax.nn.one_hot(jax.random.randint(choice, (), 0, channels), channels, dtype=patch.dtype)
    channel = jnp.sum(kept * patch, axis=-1, keepdims=True)
    mean, variance = channel.mean(), channel.var()
    # The root's slope at zero, a flat channel, is infinite: it is taken of 1 there, and dropped.
    std = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
    other = mean + noise_std * std * jax.random.normal(noise, patch.shape, patch.dtype)
    return jnp.where(kept > 0, patch, other)


def project_colors(image: Array) -> Array:
    """Image without its green-magenta part.

    ``y = x B`` at each pixel, ``B = I - a^T a / (a a^T)``, ``a = (-1, 2, -1)``: of each color only
    what is orthogonal to `a` stays, so that nothing is left of red and blue lying off green. Gray
    stays as it is.

    Args:
        image: `[H, W, C]` float, C of 1 or 3; one channel stays as it is.

    Returns:
        `[H, W, C]`; of an image in [0, 1], values in [-1/6, 7/6].

    Raises:
        ValueError: for another number of channels.

    Example:
        >>> import jax.numpy as jnp
        >>> project_colors(jnp.array([[[0.5, 0.5, 0.5], [0.0, 0.75, 0.0]]]))
        Array([[[0.5 , 0.5 , 0.5 ],
                [0.25, 0.25, 0.25]]], dtype=float32)

    Reference: Doersch et al., Unsupervised Visual Representation Learning by Context Prediction,
    2015 (arXiv:1505.05192).
    """
    assert_color_image(image)
    if image.shape[-1] == 1:
        return image
    red, green, blue = (image[..., c : c + 1] for c in range(3))
    part = (2.0 * green - red - blue) / 6.0
    return jnp.concatenate([red + part, green - 2.0 * part, blue + part], axis=-1)


def render_aberration(image: Array, *, scale_red: Array, scale_blue: Array) -> Array:
    """Lateral chromatic aberration: red and blue magnified about the center of the image.

    ``y_c(p) = x_c(m + (p - m) / s_c)`` with m the center, ``((H - 1) / 2, (W - 1) / 2)``, bilinear,
    the border pixel beyond the border; green stays.

    A diagnosis: train the task on images with aberration and measure it on images without, or ask
    for the position of a patch (`patch_at`); a network that has learned the shortcut shows it.

    Args:
        image: `[H, W, C]` float, C of 1 or 3; one channel stays as it is.
        scale_red, scale_blue: scalars, positive; above 1 the color's edges lie further out. May be
            traced, and the result has a gradient to them, at 1 as well.

    Returns:
        `[H, W, C]`.

    Raises:
        ValueError: for another number of channels.

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.array([[[0.0] * 3, [0.5] * 3, [1.0] * 3]])
        >>> render_aberration(image, scale_red=2.0, scale_blue=1.0)[0]
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
    return jnp.concatenate([magnify(red, scale_red), green, magnify(blue, scale_blue)], axis=-1)


def _magnify_weights(size: int, scale: Array) -> Array:
    """`[size, size]` weights of a bilinear magnification of one side about its center."""
    pixel = jnp.arange(size, dtype=jnp.float32)
    center = (size - 1) / 2
    source = center + (pixel - center) / scale
    # y = x_0 + sum_p clip(source - p, 0, 1) (x_p+1 - x_p): the weights of a row sum to 1, and the
    # slope at a whole pixel is the mean of those to its sides, that of clip where it bends.
    passed = jnp.clip(source[:, None] - pixel[:-1], 0.0, 1.0)
    return jnp.pad(passed, ((0, 0), (1, 0)), constant_values=1.0) - jnp.pad(
        passed, ((0, 0), (0, 1))
    )
