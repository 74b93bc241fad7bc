"""Class rebalancing for colorisation."""

import jax
import jax.numpy as jnp

from sslax import checks


def color_class_balance(prior: jax.Array, *, gamma: float = 0.5, alpha: float = 1.0) -> jax.Array:
    """Weights that make rare colors count: most pixels of natural images are nearly gray.

    ```
    w_q ∝ ((1 - γ) p_q + γ / Q)^-α   with   Σ_q p_q w_q = 1
    ```
    Under the prior the mean weight is 1, so the scale of the loss does not change.

    Args:
        prior: `[Q]`, how often each color bin occurs: probabilities or counts.
        gamma: share of the uniform distribution mixed in; 1 gives equal weights.
        alpha: strength; 0 gives equal weights.

    Returns:
        `[Q]`, float32 (float64 for float64 priors).

    Raises:
        ValueError: `gamma` is not in [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> prior = jnp.array([0.75, 0.25])
        >>> weights = losses.color_class_balance(prior)
        >>> print((weights[1] / weights[0]).round(3), (prior * weights).sum().round(3))
        1.667 1.0

    Zhang, Isola and Efros, Colorful image colorization, ECCV 2016.
    """
    checks.assert_rank(prior, 1)
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma}; it mixes two distributions and lies in [0, 1].")
    prior = prior.astype(jnp.promote_types(prior.dtype, jnp.float32))
    prior = prior / prior.sum()
    # A bin that never occurs has no finite weight without the uniform part; none is asked of it.
    mixed = (1 - gamma) * prior + gamma / prior.size
    weights = jnp.where(mixed > 0, jnp.where(mixed > 0, mixed, 1) ** -alpha, 0)
    return weights / (prior * weights).sum()
