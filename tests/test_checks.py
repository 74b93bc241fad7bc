"""Every assertion passes where it should and fails where it should, naming who was called."""

import jax.numpy as jnp
import pytest

from sslax import checks

A, B, C = jnp.zeros((2, 3)), jnp.zeros((2, 4)), jnp.zeros((5, 2, 3))


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (checks.assert_rank, (A, 2), (A, 3)),
        (checks.assert_rank, ([A, B], 2), ([A, C], 2)),
        (checks.assert_rank, ([A, C], [2, 3]), ([C, A], [2, 3])),
        (checks.assert_equal_rank, ([A, B],), ([A, C],)),
        (checks.assert_equal_shape, ([A, A],), ([A, B],)),
        (checks.assert_equal_shape_prefix, ([A, B], 1), ([A, B], 2)),
        (checks.assert_equal_shape_suffix, ([A, C], 2), ([B, C], 1)),
        (checks.assert_shape, (A, (None, 3)), (A, (None, 4))),
        (checks.assert_shape, ([A, A], (2, 3)), (C, (2, 3))),
        (checks.assert_axis_dimension, (A, -1, 3), (A, -1, 2)),
        (checks.assert_axis_dimension, (C, 0, 5), (A, 2, 3)),
        (checks.assert_axis_dimension_gt, (A, 0, 1), (A, 0, 2)),
    ],
)
def test_checks(check, good, bad):
    def called(arguments):
        check(*arguments)

    called(good)
    with pytest.raises(AssertionError, match=r"^called takes .*; got shape \["):
        called(bad)
