"""Losses: arrays in, arrays out."""

from sslax.losses.contrastive import (
    decoupled_contrastive,
    info_nce,
    nt_xent,
    sigmoid_contrastive,
    sup_con,
    triplet,
)
from sslax.losses.reduction import masked_mean
from sslax.losses.scores import Score, bilinear, cosine, dot, l2_normalize

__all__ = [
    "Score",
    "bilinear",
    "cosine",
    "decoupled_contrastive",
    "dot",
    "info_nce",
    "l2_normalize",
    "masked_mean",
    "nt_xent",
    "sigmoid_contrastive",
    "sup_con",
    "triplet",
]
