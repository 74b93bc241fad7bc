"""Integers are promoted to float32 by every loss; images of integers are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses


def integers(*shape, low=-3):
    rng = np.random.default_rng(sum(shape))
    return np.int32(rng.integers(low, 4, shape))


A, B = integers(6, 5), integers(6, 5) + integers(6, 5, low=0)[::-1]
FLOW = integers(1, 3, 4, 2)
VIEWS = integers(4, 3, 4)
KEY = jax.random.key(0)
LABELS = np.array([0, 0, 1, 1, 2, 2])

CASES = {
    "barlow_twins": (losses.barlow_twins, A, B),
    "bilinear": (lambda a, b: losses.info_nce(a, b, score=losses.bilinear(A[:5])), A, B),
    "charbonnier": (losses.charbonnier, A),
    "class_rebalancing_weights": (losses.class_rebalancing_weights, integers(4, low=1)),
    "cosine": (losses.cosine, A, B),
    "covariance_penalty": (losses.covariance_penalty, A),
    "cross_correlation": (losses.cross_correlation, A, B),
    "decoupled_contrastive": (lambda a, b: losses.decoupled_contrastive(a, b, sigma=0.5), A, B),
    "disparity_consistency": (losses.disparity_consistency, FLOW[..., 0], FLOW[..., 1]),
    "distillation_cross_entropy": (losses.distillation_cross_entropy, A, B),
    "dot": (lambda a, b: losses.info_nce(a, b, score=losses.dot), A, B),
    "emp_ssl": (losses.emp_ssl, VIEWS),
    "explainability_regularization": (losses.explainability_regularization, A),
    "forward_backward_error": (losses.forward_backward_error, FLOW, -FLOW),
    "frossl": (losses.frossl, VIEWS),
    "gram_anchoring": (losses.gram_anchoring, VIEWS, VIEWS[::-1]),
    "info_nce": (losses.info_nce, A, B),
    "info_nce of a function": (
        lambda a, b: losses.info_nce(a, b, score=lambda x, y: x @ y.T),
        A,
        B,
    ),
    "info_nce with a queue": (lambda a, b: losses.info_nce(a, b, negatives=B[:3], tile=2), A, B),
    "koleo": (losses.koleo, A),
    "l1": (losses.l1, A),
    "l2_normalize": (losses.l2_normalize, A),
    "lejepa": (lambda z: losses.lejepa(z, KEY, slices=4), VIEWS),
    "masked_mean": (losses.masked_mean, A, integers(6, 5, low=0)),
    "masked_patch_distillation": (
        lambda s, t: losses.masked_patch_distillation(s, t, LABELS[:4, None] > [-1, 0, 1]),
        VIEWS,
        VIEWS[::-1],
    ),
    "masked_reconstruction": (
        lambda p, t: losses.masked_reconstruction(p, t, jnp.ones((2, 3), int), normalize=True),
        integers(2, 3, 4),
        integers(2, 3, 4)[::-1],
    ),
    "mean_entropy_gap": (losses.mean_entropy_gap, A),
    "minimum_reprojection": (
        lambda e: losses.minimum_reprojection(e, valid=integers(2, 3, 4, low=0)),
        integers(2, 3, 4, low=0),
    ),
    "mmcr": (losses.mmcr, VIEWS),
    "msn": (losses.msn, VIEWS, VIEWS[:, 0]),
    "nearest_neighbor_contrastive": (losses.nearest_neighbor_contrastive, A, B, A[::-1]),
    "negative_cosine": (losses.negative_cosine, A, B),
    "nt_xent": (losses.nt_xent, A, B),
    "nt_xent in tiles": (lambda a, b: losses.nt_xent(a, b, tile=2), A, B),
    "robust_l1": (losses.robust_l1, A),
    "robust_power": (losses.robust_power, A),
    "sequence_loss": (losses.sequence_loss, np.stack([FLOW, 2 * FLOW]), FLOW[::-1]),
    "sigmoid_contrastive": (losses.sigmoid_contrastive, A, B),
    "sigreg": (lambda z: losses.sigreg(z, KEY, slices=4), VIEWS),
    "sup_con": (lambda a: losses.sup_con(a, LABELS), A),
    "swapped_prediction": (losses.swapped_prediction, integers(4, 2, 3)),
    "tico": (losses.tico, A, B, A[:5]),
    "total_coding_rate": (losses.total_coding_rate, A),
    "triplet": (losses.triplet, A, B, A[::-1]),
    "update_center": (losses.update_center, A[0], B),
    "update_covariance": (losses.update_covariance, A[:5], A),
    "variance_hinge": (losses.variance_hinge, A),
    "vicreg": (losses.vicreg, A, B),
    "view_invariance": (losses.view_invariance, VIEWS),
    "visreg": (lambda z: losses.visreg(z, KEY, slices=4), VIEWS),
    "w_mse": (lambda z: losses.w_mse(z, KEY, group_size=4), VIEWS),
}


@pytest.mark.parametrize("name", CASES)
def test_integers_are_promoted(name):
    function, *arguments = CASES[name]
    floats = [x.astype(np.float32) for x in arguments]
    both = jax.jit(lambda *inputs: [function(*x) for x in inputs])
    ours, expected = both(arguments, floats)
    for x, y in zip(
        *(values if isinstance(values, tuple) else (values,) for values in (ours, expected))
    ):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: losses.photometric_error(x, x),
        lambda x: losses.census_error(x, x),
        lambda x: losses.edge_aware_smoothness(jnp.ones((2, 4, 5)), x),
    ],
)
def test_images_of_integers_are_refused(call):
    with pytest.raises(TypeError, match="convert it to float"):
        call(jnp.ones((2, 4, 5, 3), jnp.uint8))
