"""Assertions pass and fail where they should, and name the public function that was called."""

import functools

import jax
import jax.numpy as jnp
import pytest

from sslax import augment, checks, losses, ops
from sslax.ops.no_inline import no_inline

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
def test_assertions(check, good, bad):
    public(check, good)
    with pytest.raises(AssertionError, match=r"^public expects .*; got shape \["):
        public(check, bad)


# Functions that reach `assert_rank(x, 3)` in different ways.


def public(check, arguments):
    check(*arguments)


def _private(x):
    checks.assert_rank(x, 3)


def through_private(x):
    _private(x)


def through_lambda(x):
    (lambda x: _private(x))(x)


def through_comprehension(x):
    return [_private(x) for _ in range(1)]


def through_jit(x):
    return jax.jit(_private)(x)


def through_vmap(x):
    return jax.vmap(lambda x: _private(x))(x)


def through_gradient(x):
    return jax.grad(lambda x: (_private(x), x.sum())[1])(x)


def through_partial(x):
    return functools.partial(_private, x)()


def through_no_inline(x):
    return no_inline(_private)(x)


def through_nested(x):
    def nested(x):
        _private(x)

    return nested(x)


def factory():
    def inner(x):
        _private(x)

    return inner


class Callable:
    def __call__(self, x):
        _private(x)

    def method(self, x):
        self._private(x)

    def _private(self, x):
        _private(x)


@pytest.mark.parametrize(
    "function",
    [
        through_private,
        through_lambda,
        through_comprehension,
        through_jit,
        through_vmap,
        through_gradient,
        through_partial,
        through_no_inline,
        through_nested,
    ],
)
def test_the_public_function_is_named(function):
    with pytest.raises(AssertionError, match=f"^{function.__name__} expects an array of rank 3"):
        function(A)


def test_factories_classes_and_methods_are_named():
    for function, name in (
        (factory(), "factory"),
        (Callable(), "Callable"),
        (Callable().method, "Callable.method"),
    ):
        with pytest.raises(AssertionError, match=f"^{name} expects"):
            function(A)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("nt_xent", lambda: losses.nt_xent(A, B)),
        ("decoupled_contrastive", lambda: losses.decoupled_contrastive(A, B)),
        ("backproject", lambda: ops.backproject(A, B)),
        ("splat", lambda: ops.splat(C, C)),
        ("gaussian_blur", lambda: augment.gaussian_blur(A, 1.0, kernel_size=3)),
        ("adjust_hue", lambda: augment.adjust_hue(A, 0.1)),
        (
            "make_views",
            lambda: augment.make_views([augment.ViewRecipe()])(jax.random.key(0), {"image": A}),
        ),
    ],
)
def test_library_functions_are_named(name, call):
    with pytest.raises(AssertionError, match=f"^{name} expects"):
        call()
