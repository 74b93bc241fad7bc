"""Permutation sets for jigsaw puzzles."""

import math
from itertools import permutations

import numpy as np


def jigsaw_permutations(count: int, *, tiles: int = 9, seed: int = 0) -> np.ndarray:
    """A set of permutations far from each other, for solving jigsaw puzzles.

    Starts from a random permutation and adds, again and again, the one whose smallest Hamming
    distance to the chosen ones is largest; of equals, the one whose sum of distances is largest;
    of equals again, a random one. All `tiles`! permutations are candidates.

    Args:
        count: how many; at most `tiles`!.
        tiles: of the puzzle; 9 for the usual 3 x 3. Ten and more are too many to go through.
        seed: of the random choices; the result depends on it and the arguments alone.

    Returns:
        `[count, tiles]` int32, on the host: row k puts tile `result[k, i]` into place i. All rows
        differ.

    Raises:
        ValueError: there are not so many permutations, or too many tiles to go through.

    Example:
        >>> from sslax import ops
        >>> chosen = ops.jigsaw_permutations(3, tiles=3, seed=0)
        >>> sorted(chosen[:, 0].tolist())  # three derangements of each other
        [0, 1, 2]

    Noroozi and Favaro, `Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles
    <https://arxiv.org/abs/1603.09246>`_, 2016.
    """
    if not 1 <= tiles <= 9:
        raise ValueError(f"{tiles} tiles have too many permutations; use between 1 and 9.")
    if not 1 <= count <= math.factorial(tiles):
        raise ValueError(
            f"{count} permutations of {tiles} tiles do not exist; ask for 1 to "
            f"{math.factorial(tiles)}."
        )
    candidates = np.array(list(permutations(range(tiles))), np.uint8)
    by_place = np.ascontiguousarray(candidates.T)
    random_rank = np.random.default_rng(seed).permutation(len(candidates)).astype(np.int64)
    nearest = np.full(len(candidates), tiles, np.uint8)
    total = np.zeros(len(candidates), np.uint32)
    chosen = [int(random_rank.argmax())]
    while len(chosen) < count:
        distance = np.zeros(len(candidates), np.uint8)
        for place, tile in zip(by_place, candidates[chosen[-1]]):
            distance += place != tile
        np.minimum(nearest, distance, out=nearest)
        total += distance
        best = np.flatnonzero(nearest == nearest.max())
        best = best[total[best] == total[best].max()]
        chosen.append(int(best[random_rank[best].argmax()]))
    return candidates[chosen].astype(np.int32)
