"""Random erasing."""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.augment.crop import sample_box

Array = jax.Array


def random_erasing(
    key: Array,
    image: Array,
    *,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    probability: float = 0.5,
) -> Array:
    """Paints a random box of the image in one random color, with a probability.

    ``y[p] = c where p lies in the box, x[p] elsewhere``, with ``c ~ U(0, 1)`` in every channel.

    Args:
        key: random key.
        image: `[H, W, C]` float in [0, 1].
        scale: range of the box's area, as a fraction of the image's.
        ratio: range of the box's aspect, width over height.
        probability: of the erasing.

    Returns:
        `[H, W, C]`.

    Raises:
        ValueError: if a range is not positive and increasing.

    Example:
        >>> import jax
        >>> image = jax.numpy.zeros((8, 8, 1))
        >>> y = random_erasing(jax.random.key(0), image, scale=(0.25, 0.25), ratio=(1.0, 1.0),
        ...                    probability=1.0)
        >>> int((y > 0).sum())
        16

    Reference: Zhong et al., Random Erasing Data Augmentation, 2017 (arXiv:1708.04896).
    """
    checks.assert_rank(image, 3)
    height, width, channels = image.shape
    place, color, chance = jax.random.split(key, 3)
    box = sample_box(place, height, width, scale=scale, ratio=ratio)
    rows = jnp.arange(height)
    columns = jnp.arange(width)
    inside = ((rows >= box.top) & (rows < box.top + box.height))[:, None] & (
        (columns >= box.left) & (columns < box.left + box.width)
    )[None, :]
    inside &= jax.random.bernoulli(chance, probability)
    paint = jax.random.uniform(color, (1, 1, channels), image.dtype)
    return jnp.where(inside[:, :, None], paint, image)
