"""Gradient descent on a loss in NumPy, whose gradient is taken by central differences."""

import jax
import numpy as np


def descend(loss, params, rate, width=1e-6):
    """A step on `loss(params)`, for a tree of arrays in float64."""
    leaves, structure = jax.tree.flatten(params)
    after = [leaf.copy() for leaf in leaves]
    for i, leaf in enumerate(leaves):
        for at in np.ndindex(leaf.shape):
            ahead, behind = leaf.copy(), leaf.copy()
            ahead[at] += width
            behind[at] -= width
            values = [
                loss(jax.tree.unflatten(structure, [*leaves[:i], moved, *leaves[i + 1 :]]))
                for moved in (ahead, behind)
            ]
            after[i][at] -= rate * (values[0] - values[1]) / (2 * width)
    return jax.tree.unflatten(structure, after)
