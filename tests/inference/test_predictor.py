"""Images that a network takes, and those it refuses."""

import numpy as np
import pytest

from sslax.errors import UserError
from sslax.inference.predictor import check_images


def test_images_that_are_not_finite_are_refused():
    images = np.full((2, 4, 4, 3), 0.5, np.float32)
    assert check_images(images) is not None
    for value in (np.nan, np.inf, -np.inf):
        images[1, 2, 3, 0] = value
        with pytest.raises(UserError, match="NaN or infinite"):
            check_images(images)
