"""Random erasing."""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.augment.crop import sample_box
from sslax.types import Array


def random_erasing(
    key: Array,
    image: Array,
    *,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    probability: float = 0.5,
) -> Array:
    """Fills a random box of the image with one random color, with a given probability.

    `y[p] = c` for p in the box and `x[p]` elsewhere, with `c ~ U(0, 1)` in every channel.

    Args:
        key: random key.
        image: `[H, W, C]` float in [0, 1].
        scale: range of the box's area, as a fraction of the image's.
        ratio: range of the box's aspect ratio, width over height.
        probability: probability of erasing.

    Returns:
        `[H, W, C]`.

    Raises:
        ValueError: a range is not a positive, increasing pair.

    Example:
        >>> import jax
        >>> image = jax.numpy.zeros((8, 8, 1))
        >>> y = random_erasing(jax.random.key(0), image, scale=(0.25, 0.25), ratio=(1.0, 1.0),
        ...                    probability=1.0)
        >>> int((y > 0).sum())
        16

    Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, arXiv:1708.04896.
    """
    checks.assert_rank(image, 3)
    height, width, channels = image.shape
    box_key, color_key, chance_key = jax.random.split(key, 3)
    box = sample_box(box_key, height, width, scale=scale, ratio=ratio)
    rows = jnp.arange(height)
    columns = jnp.arange(width)
    inside = ((rows >= box.top) & (rows < box.top + box.height))[:, None] & (
        (columns >= box.left) & (columns < box.left + box.width)
    )[None, :]
    inside &= jax.random.bernoulli(chance_key, probability)
    color = jax.random.uniform(color_key, (1, 1, channels), image.dtype)
    return jnp.where(inside[:, :, None], color, image)
