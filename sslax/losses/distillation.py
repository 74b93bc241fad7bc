"""Self-distillation: a student predicts the output of a teacher, or of its own other branch.

The losses treat examples independently, so they are the same on one device and on many.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.scores import l2_normalize
from sslax.ops.dtypes import accumulated, at_least_float32, floating_dtype
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
    targets = jax.nn.softmax(_divide(teacher, "teacher_temperature", teacher_temperature))
    predictions = jax.nn.log_softmax(_divide(student, "student_temperature", student_temperature))
    return -(targets * predictions).sum(-1)


def _divide(logits: Array, name: str, temperature: float | Array) -> Array:
    return logits / jnp.asarray(checks.positive(name, temperature), logits.dtype)


def update_center(
    center: Array, teacher: Array, *, momentum: float = 0.9, axis_name: str | None = None
) -> Array:
    """Updates DINO's center, a moving average of the teacher's logits.

    ```
    center <- momentum * center + (1 - momentum) * mean(teacher)
    ```

    Args:
        center: `[K]`.
        teacher: `[..., K]`, logits of all views of the batch.
        momentum: decay of the moving average.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[K]`, in the floating dtype of `center`, no gradient; the same on every device.

    Raises:
        AssertionError: the numbers of logits differ.

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
    teacher = at_least_float32(jax.lax.stop_gradient(teacher)).reshape(-1, center.shape[0])
    mean = teacher.mean(0)
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    old = jax.lax.stop_gradient(center).astype(mean.dtype)
    return (momentum * old + (1 - momentum) * mean).astype(floating_dtype(center))
