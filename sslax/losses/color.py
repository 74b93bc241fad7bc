"""Class rebalancing for colorization."""

import jax.numpy as jnp

from sslax import checks
from sslax.ops.dtypes import at_least_float32
from sslax.types import Array


def class_rebalancing_weights(prior: Array, *, gamma: float = 0.5, alpha: float = 1.0) -> Array:
    """Weights that upweight rare colors, since most pixels of natural images are nearly gray.

    ```
    w_q ∝ ((1 - γ) p_q + γ / Q)^-α   with   Σ_q p_q w_q = 1
    ```
    The mean weight under the prior is 1, so the scale of the loss does not change.

    Args:
        prior: `[Q]`, frequency of each color bin: probabilities or counts.
        gamma: γ, weight of the uniform distribution in the mixture; 1 gives equal weights.
        alpha: α, strength; 0 gives equal weights.

    Returns:
        `[Q]`, float32 or wider.

    Raises:
        ValueError: `gamma` is not in [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> prior = jnp.array([0.75, 0.25])
        >>> weights = losses.class_rebalancing_weights(prior)
        >>> print((weights[1] / weights[0]).round(3), (prior * weights).sum().round(3))
        1.667 1.0

    Zhang et al., "Colorful Image Colorization", ECCV 2016.
    """
    checks.assert_rank(prior, 1)
    if not 0 <= gamma <= 1:
        raise checks.value_error(f"gamma, a mixture weight, must be in [0, 1]; got {gamma}.")
    prior = at_least_float32(prior)
    prior = prior / prior.sum()
    # With gamma = 0 the weight of a bin that never occurs would be infinite; it gets 0.
    mixed = (1 - gamma) * prior + gamma / prior.size
    weights = jnp.where(mixed > 0, jnp.where(mixed > 0, mixed, 1) ** -alpha, 0)
    return weights / (prior * weights).sum()
