"""Permutation sets for jigsaw puzzles."""

import math
from itertools import permutations

import numpy as np

from sslax import checks


def jigsaw_permutations(count: int, *, tiles: int = 9, seed: int = 0) -> np.ndarray:
    """A set of permutations with large Hamming distances, the classes of the jigsaw task.

    Greedy: starting from a random permutation, it repeatedly adds the permutation with the largest
    minimum distance to those already chosen. Ties go to the largest sum of distances, then to a
    random one. All `tiles!` permutations are candidates.

    Args:
        count: number of permutations, at most `tiles!`.
        tiles: number of tiles, at most 9; the usual 3 x 3 puzzle has 9.
        seed: seed of the random choices. The result depends on the arguments alone.

    Returns:
        `[count, tiles]` int32, a NumPy array with distinct rows: permutation k puts tile
        `result[k, i]` at position i.

    Raises:
        ValueError: `count` exceeds the number of permutations, or `tiles` is above 9.

    Example:
        >>> from sslax import ops
        >>> chosen = ops.jigsaw_permutations(3, tiles=3, seed=0)
        >>> sorted(chosen[:, 0].tolist())  # they differ at every position
        [0, 1, 2]

    Noroozi and Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
    ECCV 2016, arXiv:1603.09246.
    """
    if not 1 <= tiles <= 9:
        raise checks.value_error(
            f"tiles must be in 1, ..., 9, or there are too many permutations; got {tiles}."
        )
    if not 1 <= count <= math.factorial(tiles):
        raise checks.value_error(
            f"count must be in 1, ..., {math.factorial(tiles)}, the number of permutations of "
            f"{tiles} tiles; got {count}."
        )
    candidates = np.array(list(permutations(range(tiles))), np.uint8)
    by_position = np.ascontiguousarray(candidates.T)
    random_rank = np.random.default_rng(seed).permutation(len(candidates)).astype(np.int64)
    nearest = np.full(len(candidates), tiles, np.uint8)
    total = np.zeros(len(candidates), np.uint32)
    chosen = [int(random_rank.argmax())]
    while len(chosen) < count:
        distance = np.zeros(len(candidates), np.uint8)
        for tiles_there, tile in zip(by_position, candidates[chosen[-1]]):
            distance += tiles_there != tile
        np.minimum(nearest, distance, out=nearest)
        total += distance
        best = np.flatnonzero(nearest == nearest.max())
        best = best[total[best] == total[best].max()]
        chosen.append(int(best[random_rank[best].argmax()]))
    return candidates[chosen].astype(np.int32)
