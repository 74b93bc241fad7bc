"""Contrastive losses."""

import jax
import jax.numpy as jnp

Array = jax.Array


def _normalize(x: Array) -> Array:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = (x * x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def info_nce(
    queries: Array,
    keys: Array,
    *,
    negatives: Array | None = None,
    temperature: float | Array = 0.1,
    axis_name: str | None = None,
) -> Array:
    """InfoNCE `[N]`: each query against its key among the batch's keys, or among `negatives`."""
    queries, keys = _normalize(queries) / temperature, _normalize(keys)
    positive = (queries * keys).sum(-1)
    if negatives is not None:
        others = queries @ _normalize(negatives).T
        logits = jnp.concatenate([positive[:, None], others], axis=1)
    else:
        if axis_name is not None:
            keys = jax.lax.all_gather(keys, axis_name, tiled=True)
        logits = queries @ keys.T
    return jax.nn.logsumexp(logits, axis=1) - positive


def nt_xent(
    a: Array, b: Array, *, temperature: float | Array = 0.1, axis_name: str | None = None
) -> Array:
    """NT-Xent `[2N]`, a's rows, then b's."""
    n = a.shape[0]
    a, b = _normalize(a), _normalize(b)
    everything = (a, b)
    first = 0
    if axis_name is not None:
        everything = tuple(jax.lax.all_gather(z, axis_name, tiled=True) for z in (a, b))
        first = jax.lax.axis_index(axis_name) * n
    rows = jnp.concatenate([a, b]) / temperature
    keys = jnp.concatenate(everything)
    self_index = first + jnp.arange(n)
    self_index = jnp.concatenate([self_index, self_index + keys.shape[0] // 2])
    logits = rows @ keys.T
    logits = jnp.where(self_index[:, None] == jnp.arange(keys.shape[0]), -jnp.inf, logits)
    positive = (rows * jnp.concatenate([b, a])).sum(-1)
    return jax.nn.logsumexp(logits, axis=1) - positive
