"""Jigsaw permutations: distinct, far apart, deterministic."""

import itertools

import numpy as np
import pytest

from sslax import ops


def distances(permutations):
    apart = (permutations[:, None] != permutations[None]).sum(-1)
    return apart[~np.eye(len(permutations), dtype=bool)]


def test_usual_set_is_far_apart():
    """100 of the 362,880 permutations of nine tiles; random sets have smaller distances."""
    chosen = ops.jigsaw_permutations(100, seed=0)
    assert chosen.shape == (100, 9) and chosen.dtype == np.int32
    np.testing.assert_array_equal(np.sort(chosen, 1), np.tile(np.arange(9), (100, 1)))
    assert distances(chosen).min() >= 6
    rng = np.random.default_rng(0)
    assert distances(np.array([rng.permutation(9) for _ in range(100)])).min() < 6


def test_each_permutation_is_the_farthest_from_the_previous_ones():
    chosen = ops.jigsaw_permutations(10, tiles=5, seed=3)
    everything = np.array(list(itertools.permutations(range(5))))
    for count in range(1, 10):
        nearest = (everything[:, None] != chosen[:count]).sum(-1).min(1)
        assert (chosen[count] != chosen[:count]).sum(-1).min() == nearest.max()


def test_the_first_nine_differ_at_every_position():
    assert distances(ops.jigsaw_permutations(9)).min() == 9


def test_the_result_depends_on_the_seed_alone():
    first, again, other = (ops.jigsaw_permutations(5, tiles=6, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    longer = ops.jigsaw_permutations(9, tiles=6, seed=1)
    np.testing.assert_array_equal(longer[:5], first)


def test_all_permutations_can_be_chosen():
    chosen = ops.jigsaw_permutations(24, tiles=4)
    assert len({tuple(row) for row in chosen.tolist()}) == 24


def test_errors():
    with pytest.raises(ValueError, match=r"count must be in 1, ..., 6"):
        ops.jigsaw_permutations(7, tiles=3)
    with pytest.raises(ValueError, match="too many permutations"):
        ops.jigsaw_permutations(7, tiles=16)
