"""Losses: arrays in, arrays out."""

from sslax.losses.clustering import swapped_prediction
from sslax.losses.color import color_class_balance
from sslax.losses.consistency import disparity_consistency, forward_backward_error
from sslax.losses.contrastive import (
    decoupled_contrastive,
    info_nce,
    nt_xent,
    sigmoid_contrastive,
    sup_con,
    triplet,
)
from sslax.losses.distillation import distillation_cross_entropy, negative_cosine, update_center
from sslax.losses.flow import sequence_loss, sequence_weights
from sslax.losses.masked import masked_reconstruction
from sslax.losses.photometric import (
    census_error,
    charbonnier,
    explainability_regularization,
    l1,
    minimum_reprojection,
    photometric_error,
    robust_l1,
    robust_power,
)
from sslax.losses.reduction import masked_mean
from sslax.losses.redundancy import (
    barlow_twins,
    covariance_penalty,
    cross_correlation,
    variance_hinge,
    vicreg,
)
from sslax.losses.scores import Score, bilinear, cosine, dot, l2_normalize
from sslax.losses.smoothness import edge_aware_smoothness

__all__ = [
    "Score",
    "barlow_twins",
    "bilinear",
    "census_error",
    "charbonnier",
    "color_class_balance",
    "cosine",
    "covariance_penalty",
    "cross_correlation",
    "decoupled_contrastive",
    "disparity_consistency",
    "distillation_cross_entropy",
    "dot",
    "edge_aware_smoothness",
    "explainability_regularization",
    "forward_backward_error",
    "info_nce",
    "l1",
    "l2_normalize",
    "masked_mean",
    "masked_reconstruction",
    "minimum_reprojection",
    "negative_cosine",
    "nt_xent",
    "photometric_error",
    "robust_l1",
    "robust_power",
    "sequence_loss",
    "sequence_weights",
    "sigmoid_contrastive",
    "sup_con",
    "swapped_prediction",
    "triplet",
    "update_center",
    "variance_hinge",
    "vicreg",
]
