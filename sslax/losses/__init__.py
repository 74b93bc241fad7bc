"""Losses: arrays in, arrays out."""

from sslax.losses.contrastive import info_nce, nt_xent
from sslax.losses.reduction import masked_mean

__all__ = [
    "info_nce",
    "masked_mean",
    "nt_xent",
]
