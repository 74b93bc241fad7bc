"""Losses: arrays in, arrays out."""

from sslax.losses.color import color_class_balance
from sslax.losses.consistency import (
    disparity_consistency,
    forward_backward_error,
)
from sslax.losses.contrastive import (
    decoupled_contrastive,
    info_nce,
    nt_xent,
    sigmoid_contrastive,
    sup_con,
    triplet,
)
from sslax.losses.flow import (
    sequence_loss,
    sequence_weights,
)
from sslax.losses.photometric import (
    census_error,
    charbonnier,
    explainability_regularisation,
    minimum_reprojection,
    photometric_error,
    robust_l1,
    robust_power,
)
from sslax.losses.reduction import masked_mean
from sslax.losses.scores import Score, bilinear, cosine, dot, l2_normalize
from sslax.losses.smoothness import edge_aware_smoothness

__all__ = [
    "Score",
    "bilinear",
    "census_error",
    "charbonnier",
    "color_class_balance",
    "cosine",
    "decoupled_contrastive",
    "disparity_consistency",
    "dot",
    "edge_aware_smoothness",
    "explainability_regularisation",
    "forward_backward_error",
    "info_nce",
    "l2_normalize",
    "masked_mean",
    "minimum_reprojection",
    "nt_xent",
    "photometric_error",
    "robust_l1",
    "robust_power",
    "sequence_loss",
    "sequence_weights",
    "sigmoid_contrastive",
    "sup_con",
    "triplet",
]
