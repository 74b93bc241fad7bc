"""Questions asked of features and labels before any measure is taken."""

import chex
import numpy as np

from sslax.types import Array


def check_labeled(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    num_classes: int,
) -> None:
    """Raises where shapes disagree or a label lies outside `[0, num_classes)`."""
    chex.assert_rank([train_features, test_features], 2)
    chex.assert_equal_shape_suffix([train_features, test_features], 1)
    for name, features, labels in (
        ("training", train_features, train_labels),
        ("test", test_features, test_labels),
    ):
        chex.assert_shape(labels, (features.shape[0],))
        labels = np.asarray(labels)
        if labels.size == 0:
            raise ValueError(f"The {name} set is empty; an accuracy needs at least one example.")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"The {name} labels span {labels.min()} to {labels.max()} but num_classes is "
                f"{num_classes}; labels must be 0 to num_classes - 1."
            )
