"""Checks shared by the classifiers of frozen features."""

import numpy as np
from jax.typing import ArrayLike

from sslax import checks


def check_labeled(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    num_classes: int,
) -> None:
    """Raises if shapes disagree, features are not finite, or labels not in `[0, num_classes)`."""
    checks.assert_rank([train_features, test_features], 2)
    checks.assert_equal_shape_suffix([train_features, test_features], 1)
    for name, features, labels in (
        ("training", train_features, train_labels),
        ("test", test_features, test_labels),
    ):
        checks.assert_shape(labels, np.shape(features)[:1])
        checks.assert_integer(f"{name} labels", labels)
        checks.assert_finite(f"{name} features", features)
        values = np.asarray(labels)
        if values.size == 0:
            raise checks.value_error(
                f"The {name} set is empty; an accuracy needs at least one example."
            )
        if values.min() < 0 or values.max() >= num_classes:
            raise checks.value_error(
                f"The {name} labels span {values.min()} to {values.max()} but num_classes is "
                f"{num_classes}; labels must be 0 to num_classes - 1."
            )
