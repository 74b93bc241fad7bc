"""Assertions pass and fail where they should, and name the public function that was called."""

import functools

import jax
import jax.numpy as jnp
import pytest

from sslax import augment, checks, losses, ops
from sslax.measures import depth, flow, knn, linear, logistic
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


X, ONE = jnp.linspace(-1, 1, 12).reshape(4, 3), jnp.ones((1, 3))
IMAGE = jnp.linspace(0, 1, 96).reshape(2, 4, 4, 3)
BRIGHT = 255 * IMAGE
LABELS = jnp.array([0, 0, 1, 1])
FEATURES = X, LABELS, X, LABELS
NAN = X.at[2, 1].set(jnp.nan)


def temperatures(value):
    """Every function with a temperature."""
    scores = jnp.stack([X, X], axis=1)
    return {
        "annealed_mean": lambda: ops.annealed_mean(X[:, 0], X[:, :2], temperature=value),
        "decoupled_contrastive": lambda: losses.decoupled_contrastive(X, X, temperature=value),
        "distillation_cross_entropy": lambda: losses.distillation_cross_entropy(
            X, X, teacher_temperature=value
        ),
        "few_label_accuracy": lambda: linear.few_label_accuracy(
            *FEATURES, num_classes=2, labels_per_class=1, trials=1, temperature=value
        ),
        "info_nce": lambda: losses.info_nce(X, X, temperature=value),
        "knn_accuracy": lambda: knn.knn_accuracy(*FEATURES, num_classes=2, k=1, temperature=value),
        "nt_xent": lambda: losses.nt_xent(X, X, temperature=value),
        "sigmoid_contrastive": lambda: losses.sigmoid_contrastive(X, X, temperature=value),
        "sinkhorn": lambda: ops.sinkhorn(X, epsilon=value),
        "sup_con": lambda: losses.sup_con(X, LABELS, temperature=value),
        "swapped_prediction": lambda: losses.swapped_prediction(scores, temperature=value),
    }


@pytest.mark.parametrize("value", [0.0, -1, float("nan"), float("inf"), "array 0", "array nan"])
def test_temperatures_are_positive(value):
    if isinstance(value, str):
        value = jnp.float32(value.removeprefix("array "))
    for name, call in temperatures(value).items():
        with pytest.raises(ValueError, match=f"^{name}: .*(temperature|epsilon) must be pos"):
            call()


def test_traced_temperatures_that_are_not_positive_give_nan():
    for name in temperatures(1.0):
        if name not in ("few_label_accuracy", "knn_accuracy"):
            for bad in (0.0, -1.0, jnp.inf):
                value = jax.jit(lambda t, name=name: temperatures(t)[name]())(bad)
                assert jnp.isnan(value).any(), name


def test_a_temperature_is_a_scalar():
    with pytest.raises(AssertionError, match=r"^nt_xent expects an array of rank 0"):
        losses.nt_xent(X, X, temperature=jnp.ones(3))


# Function, exception, words of the message, call.
REFUSED = [
    ("barlow_twins", ValueError, "two examples", lambda: losses.barlow_twins(ONE, ONE)),
    ("cross_correlation", ValueError, "two examples", lambda: losses.cross_correlation(ONE, ONE)),
    ("vicreg", ValueError, "two examples", lambda: losses.vicreg(ONE, ONE)),
    ("nt_xent", ValueError, "no negatives", lambda: losses.nt_xent(ONE, ONE)),
    ("info_nce", ValueError, "no negatives", lambda: losses.info_nce(ONE, ONE)),
    ("l2_normalize", ValueError, "epsilon", lambda: losses.l2_normalize(X, epsilon=0.0)),
    ("sup_con", TypeError, "integers", lambda: losses.sup_con(X, X[:, 0])),
    ("knn_accuracy", TypeError, "integers", lambda: knn.knn_accuracy(
        X, LABELS / 2, X, LABELS, num_classes=2, k=1)),
    ("knn_probabilities", TypeError, "integers", lambda: knn.knn_probabilities(
        X, LABELS / 2, X, num_classes=2, k=1)),
    ("knn_accuracy", ValueError, "finite", lambda: knn.knn_accuracy(
        NAN, LABELS, X, LABELS, num_classes=2, k=1)),
    ("nearest_neighbors", ValueError, "finite", lambda: knn.nearest_neighbors(X, NAN, k=1)),
    ("nearest_neighbors", ValueError, "k = 0", lambda: knn.nearest_neighbors(X, X, k=0)),
    ("logistic_regression", ValueError, "finite", lambda: linear.logistic_regression(
        X, LABELS, NAN, LABELS, num_classes=2, l2=0.1)),
    ("fit_logistic", TypeError, "integers", lambda: logistic.fit_logistic(
        X, X[:, 0], num_classes=2, l2=0.1)),
    ("held_out_mask", TypeError, "integers", lambda: linear.held_out_mask(X[:, 0])),
    ("ssim", AssertionError, "equally many", lambda: ops.ssim(IMAGE, IMAGE[:1])),
    ("photometric_error", AssertionError, "equally many", lambda: losses.photometric_error(
        IMAGE[:1], IMAGE)),
    ("census_error", AssertionError, "equally many", lambda: losses.census_error(
        IMAGE, IMAGE[:1])),
    ("distillation_cross_entropy", AssertionError, "first 1 axes", lambda:
        losses.distillation_cross_entropy(X, X[:1])),
    ("photometric_error", ValueError, r"to 255\. Divide", lambda: losses.photometric_error(
        BRIGHT, BRIGHT)),
    ("census_error", ValueError, "Divide", lambda: losses.census_error(IMAGE, BRIGHT)),
    ("edge_aware_smoothness", ValueError, "Divide", lambda: losses.edge_aware_smoothness(
        IMAGE[..., 0], BRIGHT)),
    ("census_transform", ValueError, "Divide", lambda: ops.census_transform(BRIGHT)),
    ("rgb_to_lab", ValueError, "Divide", lambda: ops.rgb_to_lab(BRIGHT)),
    ("to_float", ValueError, "Divide", lambda: augment.to_float(BRIGHT)),
    ("adjust_hue", ValueError, "Divide", lambda: augment.adjust_hue(BRIGHT[0], 0.1)),
    ("random_exposure", ValueError, "Divide", lambda: augment.random_exposure(
        jax.random.key(0), BRIGHT)),
    ("solarize", ValueError, "Divide", lambda: augment.solarize(BRIGHT[0])),
    ("resize", ValueError, "positive integers", lambda: ops.resize(IMAGE, (-2, 3))),
    ("resize", ValueError, "positive integers", lambda: ops.resize(IMAGE, (2.0, 3))),
    ("resize", TypeError, "uint8", lambda: ops.resize(IMAGE.astype(jnp.uint8), (2, 3))),
    ("resize", ValueError, "positive integers", lambda: augment.resize(IMAGE[0], size=-1)),
    ("center_crop", ValueError, "positive integers", lambda: augment.center_crop(
        IMAGE[0], size=(0, 2))),
    ("resize_flow", ValueError, "positive integers", lambda: flow.resize_flow(
        IMAGE[..., :2], (0, 3))),
    ("resize_depth", ValueError, "positive integers", lambda: depth.resize_depth(
        IMAGE[..., 0], (0, 3))),
    ("pixel_grid", ValueError, "positive integers", lambda: ops.pixel_grid(-1, 3)),
    ("image_pyramid", ValueError, "at least 1", lambda: ops.image_pyramid(IMAGE, 0)),
    ("image_gradients", ValueError, "stride", lambda: ops.image_gradients(IMAGE, stride=0)),
    ("gaussian_kernel", ValueError, "sigma", lambda: ops.gaussian_kernel(0.0)),
    ("gaussian_blur", ValueError, "sigma", lambda: ops.gaussian_blur(IMAGE, sigma=-1.0)),
    ("gaussian_blur", ValueError, "sigma", lambda: augment.gaussian_blur(
        IMAGE[0], jnp.float32(0), kernel_size=3)),
    ("census_error", ValueError, "radius", lambda: losses.census_error(IMAGE, IMAGE, radius=0)),
    ("charbonnier", ValueError, "epsilon", lambda: losses.charbonnier(X, epsilon=jnp.nan)),
    ("sinkhorn", ValueError, "iterations", lambda: ops.sinkhorn(X, iterations=-1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "error", "words", "call"), REFUSED, ids=[f"{r[0]}-{i}" for i, r in enumerate(REFUSED)]
)
def test_refused_with_the_name_of_the_function(name, error, words, call):
    with pytest.raises(error, match=f"^{name}(:| expects) .*{words}"):
        call()


def test_overshoot_and_further_axes_are_accepted():
    losses.photometric_error(IMAGE, 1.2 * IMAGE - 0.1)
    stack = jnp.stack([IMAGE] * 3)
    assert losses.photometric_error(IMAGE, stack).shape == (3, 2, 4, 4)
    assert losses.photometric_error(IMAGE[:, None], jnp.stack([IMAGE] * 3, 1)).shape == (2, 3, 4, 4)
    # A known image inside a traced function is looked at, too.
    jax.jit(lambda x: losses.photometric_error(x, IMAGE))(IMAGE)
    with pytest.raises(ValueError, match=r"^photometric_error: images"):
        jax.jit(lambda x: losses.photometric_error(x, BRIGHT))(IMAGE)
