"""Self-distillation: a student predicts the output of a teacher, or of its own other branch.

The losses treat examples independently, so they are the same on one device and on many, except
where Sinkhorn-Knopp balances the teacher's output over the batch.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.scores import l2_normalize, over_temperature
from sslax.ops.dtypes import accumulated, at_least_float32, floating_dtype
from sslax.ops.sinkhorn import sinkhorn
from sslax.types import Array


def negative_cosine(predictions: Array, targets: Array) -> Array:
    """Negative cosine similarity, the loss of SimSiam and, up to a constant, of BYOL.

    ```
    loss = -<p, t> / (|p| |t|)
    ```

    BYOL's squared distance of unit vectors is `2 + 2 loss`. Gradients flow to both arguments; if
    the method stops one, write `negative_cosine(predictions, jax.lax.stop_gradient(targets))`.

    Args:
        predictions: `[..., D]`.
        targets: `[..., D]`.

    Returns:
        `[...]` in [-1, 1], float32 or wider; 0, with a finite gradient, for zero vectors.

    Raises:
        AssertionError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> losses.negative_cosine(jnp.array([[2.0, 0.0]]), jnp.array([[3.0, 0.0]])).tolist()
        [-1.0]

    Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, arXiv:2011.10566;
    Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, arXiv:2006.07733.
    """
    checks.assert_equal_shape([predictions, targets])
    predictions, targets = accumulated(predictions, targets)
    return -(l2_normalize(predictions) * l2_normalize(targets)).sum(-1)


def distillation_cross_entropy(
    student: Array,
    teacher: Array,
    *,
    center: Array | None = None,
    student_temperature: float | Array = 0.1,
    teacher_temperature: float | Array = 0.04,
) -> Array:
    """DINO's loss: cross-entropy of the student with the teacher's centered, sharpened output.

    ```
    p = softmax((teacher - center) / teacher_temperature)        (no gradient)
    loss = -sum_k p_k log softmax(student / student_temperature)_k
    ```

    Leading axes broadcast: for student logits `[N, V, K]` and teacher logits `[N, W, K]`,
    `distillation_cross_entropy(student[:, None], teacher[:, :, None])` gives the losses
    `[N, W, V]` of all pairs of views.

    Args:
        student: `[..., K]`, logits.
        teacher: `[..., K]`, logits; leading axes broadcast against the student's, except the first
            one, of the examples.
        center: `[K]`, the running mean of the teacher's logits (see `update_center`); None for no
            centering, if the teacher's output is balanced in another way.
        student_temperature: divides the student's logits.
        teacher_temperature: divides the teacher's logits; lower than the student's, to sharpen.

    Returns:
        `[...]`, float32 or wider.

    Raises:
        AssertionError: the numbers of logits, or of examples, differ.
        ValueError: a temperature is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> teacher = jnp.array([[5.0, 0.0]])
        >>> print(losses.distillation_cross_entropy(jnp.zeros((1, 2)), teacher).round(4))
        [0.6931]

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
    arXiv:2104.14294.
    """
    checks.assert_equal_shape_suffix([student, teacher], 1)
    if student.ndim == teacher.ndim > 1:
        checks.assert_equal_shape_prefix([student, teacher], 1)
    student, teacher = accumulated(student, jax.lax.stop_gradient(teacher))
    if center is not None:
        checks.assert_shape(center, student.shape[-1:])
        teacher = teacher - jax.lax.stop_gradient(center).astype(teacher.dtype)
    targets = jax.nn.softmax(over_temperature(teacher, "teacher_temperature", teacher_temperature))
    return _cross_entropy(targets, student, student_temperature)


def masked_patch_distillation(
    student: Array,
    teacher: Array,
    mask: Array,
    *,
    center: Array | None = None,
    iterations: int = 0,
    student_temperature: float | Array = 0.1,
    teacher_temperature: float | Array = 0.07,
    axis_name: str | None = None,
) -> Array:
    """iBOT's loss: the student's masked patches predict the teacher's output for the whole image.

    ```
    p_it = softmax((teacher_it - center) / teacher_temperature)                     (no gradient)
    or, with iterations: p = sinkhorn(teacher / teacher_temperature) of all masked patches
    e_it = -sum_k p_itk log softmax(student_it / student_temperature)_k
    loss_i = sum_t mask_it e_it / max(1, sum_t mask_it)
    ```

    The mean over all images is the loss of the paper: those without masked patches count in it, and
    a patch weighs less in an image that has many. The head needs to see masked patches only: T may
    be the largest number of them in an image, and the mask 0 where an image has fewer. Values that
    do not count may be anything, and memory is a few arrays `[N, T, K]`.

    Args:
        student: `[N, T, K]`, logits of patches.
        teacher: `[N, T, K]`, logits of the same patches of the same view.
        mask: `[N, T]`, 1 (or True) for the patches that the student did not see.
        center: `[K]`, the running mean of the teacher's logits (see `update_center`); None for no
            centering.
        iterations: of Sinkhorn-Knopp, over the masked patches of the whole batch (3 in DINOv2),
            instead of centering; 0 for none.
        student_temperature: divides the student's logits.
        teacher_temperature: divides the teacher's logits; in the paper it rises to 0.07 from 0.04.
        axis_name: the mapped axis that splits the batch; None for global arrays. Only
            Sinkhorn-Knopp needs it.

    Returns:
        `[N]`, float32 or wider; 0, with zero gradient, for an image without masked patches.

    Raises:
        AssertionError: student and teacher differ in shape, or the mask is not `[N, T]`.
        ValueError: a temperature is not positive, iterations are negative, or both a center and
            iterations are given.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> teacher = jnp.array([[[5.0, 0.0], [0.0, 5.0]]])
        >>> mask = jnp.array([[1, 0]])
        >>> print(losses.masked_patch_distillation(0 * teacher, teacher, mask).round(4))
        [0.6931]

    Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022, arXiv:2111.07832;
    with Sinkhorn-Knopp: Oquab et al., "DINOv2: Learning Robust Visual Features without
    Supervision", TMLR 2024, arXiv:2304.07193.
    """
    checks.assert_rank([student, mask], [3, 2])
    checks.assert_equal_shape([student, teacher])
    checks.assert_equal_shape_prefix([student, mask], 2)
    if center is not None and iterations:
        raise checks.value_error("pass a center or iterations of Sinkhorn-Knopp, not both.")
    student, teacher = accumulated(student, jax.lax.stop_gradient(teacher))
    mask = mask.astype(student.dtype)
    counts = (mask > 0)[..., None]
    student, teacher = jnp.where(counts, student, 0), jnp.where(counts, teacher, 0)
    if center is not None:
        checks.assert_shape(center, student.shape[-1:])
        teacher = teacher - jax.lax.stop_gradient(center).astype(teacher.dtype)
    targets = sinkhorn(
        over_temperature(teacher, "teacher_temperature", teacher_temperature).reshape(
            -1, teacher.shape[-1]
        ),
        weights=mask.reshape(-1),
        epsilon=1.0,
        iterations=iterations,
        axis_name=axis_name,
    )
    errors = _cross_entropy(targets.reshape(teacher.shape), student, student_temperature)
    return (mask * errors).sum(1) / jnp.maximum(mask.sum(1), 1)


def gram_anchoring(student: Array, teacher: Array) -> Array:
    """DINOv3's Gram anchoring: patches are as similar to each other as in an earlier network.

    ```
    x_it = student_it / |student_it|, y_it = teacher_it / |teacher_it|              (no gradient)
    loss_i = mean_tu (<x_it, x_iu> - <y_it, y_iu>)^2
    ```

    Memory is two T x T matrices for each image, and one more in the backward pass.

    Args:
        student: `[N, T, D]`, features of an image's patches.
        teacher: `[N, T, E]`, features of the same patches by the Gram teacher, at the student's
            resolution.

    Returns:
        `[N]` in [0, 4], float32 or wider.

    Raises:
        AssertionError: the numbers of images or of patches differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> patches = jnp.eye(2)[None]
        >>> losses.gram_anchoring(patches, 3 * patches).tolist()
        [0.0]
        >>> losses.gram_anchoring(jnp.ones((1, 2, 2)), patches).round(4).tolist()
        [0.5]

    Siméoni et al., "DINOv3", 2025, arXiv:2508.10104.
    """
    checks.assert_rank([student, teacher], 3)
    checks.assert_equal_shape_prefix([student, teacher], 2)
    x, y = (l2_normalize(z) for z in accumulated(student, jax.lax.stop_gradient(teacher)))
    ours, theirs = (jnp.einsum("itd,iud->itu", z, z) for z in (x, y))
    return ((ours - theirs) ** 2).mean((1, 2))


def _cross_entropy(targets: Array, student: Array, temperature: float | Array) -> Array:
    predictions = jax.nn.log_softmax(over_temperature(student, "student_temperature", temperature))
    return -(targets * predictions).sum(-1)


def update_center(
    center: Array,
    teacher: Array,
    *,
    mask: Array | None = None,
    momentum: float = 0.9,
    axis_name: str | None = None,
) -> Array:
    """Updates DINO's center, a moving average of the teacher's logits.

    ```
    center <- momentum * center + (1 - momentum) * mean(teacher)
    ```

    Args:
        center: `[K]`.
        teacher: `[..., K]`, logits of all views, or patches, of the batch.
        mask: `[...]`, 1 (or True) for the logits that count, such as those of masked patches; None
            if all do. The center stays where it is if none does.
        momentum: decay of the moving average.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[K]`, in the floating dtype of `center`, no gradient; the same on every device.

    Raises:
        AssertionError: the numbers of logits differ, or the mask has another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> losses.update_center(jnp.zeros(2), jnp.array([[4.0, 0.0]]), momentum=0.5).tolist()
        [2.0, 0.0]

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
    arXiv:2104.14294.
    """
    checks.assert_rank(center, 1)
    checks.assert_equal_shape_suffix([center, teacher], 1)
    logits = at_least_float32(jax.lax.stop_gradient(teacher)).reshape(-1, center.shape[0])
    old = jax.lax.stop_gradient(center).astype(logits.dtype)
    if mask is None:
        mean = logits.mean(0)
        mean = mean if axis_name is None else jax.lax.pmean(mean, axis_name)
    else:
        checks.assert_shape(mask, teacher.shape[:-1])
        weights = mask.reshape(-1, 1).astype(logits.dtype)
        sums = (jnp.where(weights > 0, logits, 0) * weights).sum(0), weights.sum()
        total, count = sums if axis_name is None else jax.lax.psum(sums, axis_name)
        mean = jnp.where(count > 0, total / jnp.where(count > 0, count, 1), old)
    return (momentum * old + (1 - momentum) * mean).astype(floating_dtype(center))
