"""Self-supervised losses: pure functions from arrays to arrays.

Arrays are positional, options keyword-only. A loss returns one value per example or per pixel,
which the caller averages, or a scalar if it does not decompose.

Notation, which adds to that of `sslax.ops`:

- `[N, D]`: N embeddings of D dimensions; `a`, `b`: the embeddings of two views, in the same order.
- `[M, D]`: other embeddings, such as a queue of negatives.
- V: views of an image; K: prototypes, or logits of a projection head.
- slices: random directions that embeddings are projected on. `key`: a JAX random key, the same on
  every device.
- T: patches or tokens of an image; P: values per patch.
- S: source frames that are warped to a target; I: iterations of a flow network; Q: color bins.
- i, j: rows of a batch; z: unit vectors; cos(x, y): cosine similarity; s: logits.
- `temperature` divides similarities. `epsilon` keeps a division or a root finite.
- Masks are 1 (or True) where a value counts.
- "float32 or wider": computed and returned in float32, or in float64 if the inputs are float64.
- Integers are promoted to float32, except images, whose range they leave open: they are refused.
- Values (temperatures, the range of images) are checked where they are known, that is, not under
  jit; a traced temperature that is not positive gives NaN.
- Derivatives: forward mode, reverse mode and their compositions, such as Hessian-vector products,
  unless the docstring says "reverse mode only": then `grad` and `grad` of `grad`, but not `jvp`.
- `axis_name`: None for global arrays (one device, or jit over sharded arrays); inside shard_map or
  pmap the name of the mapped axis that splits the batch. Values and gradients are the same.
"""

from sslax.losses.clustering import mean_entropy_gap, msn, swapped_prediction
from sslax.losses.coding_rate import emp_ssl, total_coding_rate
from sslax.losses.color import class_rebalancing_weights
from sslax.losses.consistency import disparity_consistency, forward_backward_error
from sslax.losses.contrastive import (
    decoupled_contrastive,
    info_nce,
    nt_xent,
    sigmoid_contrastive,
    sup_con,
    triplet,
)
from sslax.losses.distillation import (
    distillation_cross_entropy,
    gram_anchoring,
    masked_patch_distillation,
    negative_cosine,
    update_center,
)
from sslax.losses.flow import sequence_loss, sequence_weights
from sslax.losses.gaussianity import lejepa, sigreg, view_invariance, visreg
from sslax.losses.masked import masked_reconstruction
from sslax.losses.neighbors import koleo, nearest_neighbor_contrastive
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
from sslax.losses.spectrum import frossl, mmcr, tico, update_covariance, w_mse

__all__ = [
    "Score",
    "barlow_twins",
    "bilinear",
    "census_error",
    "charbonnier",
    "class_rebalancing_weights",
    "cosine",
    "covariance_penalty",
    "cross_correlation",
    "decoupled_contrastive",
    "disparity_consistency",
    "distillation_cross_entropy",
    "dot",
    "edge_aware_smoothness",
    "emp_ssl",
    "explainability_regularization",
    "forward_backward_error",
    "frossl",
    "gram_anchoring",
    "info_nce",
    "koleo",
    "l1",
    "l2_normalize",
    "lejepa",
    "masked_mean",
    "masked_patch_distillation",
    "masked_reconstruction",
    "mean_entropy_gap",
    "minimum_reprojection",
    "mmcr",
    "msn",
    "nearest_neighbor_contrastive",
    "negative_cosine",
    "nt_xent",
    "photometric_error",
    "robust_l1",
    "robust_power",
    "sequence_loss",
    "sequence_weights",
    "sigmoid_contrastive",
    "sigreg",
    "sup_con",
    "swapped_prediction",
    "tico",
    "total_coding_rate",
    "triplet",
    "update_center",
    "update_covariance",
    "variance_hinge",
    "vicreg",
    "view_invariance",
    "visreg",
    "w_mse",
]
