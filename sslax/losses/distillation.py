"""Self-distillation: a student predicts what a teacher, or its own other branch, has made.

These losses compare two rows; no example meets another, so that nothing changes between one
device and many.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.scores import l2_normalize

Array = jax.Array


def negative_cosine(predictions: Array, targets: Array) -> Array:
    """Negative cosine similarity, the loss of SimSiam and, up to a constant, of BYOL.

    ```
    loss = -<p, t> / (|p| |t|)
    ```

    BYOL's squared distance of unit vectors is `2 + 2 loss`. Gradients reach both arguments; where
    the method stops one, do so: `negative_cosine(predictions, jax.lax.stop_gradient(targets))`.

    Args:
        predictions: `[..., D]`.
        targets: `[..., D]`.

    Returns:
        `[...]`, between -1 and 1, float32 at least. Zero, with a finite gradient, for a zero
        vector.

    Raises:
        AssertionError: the shapes differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> losses.negative_cosine(jnp.array([[2.0, 0.0]]), jnp.array([[3.0, 0.0]])).tolist()
        [-1.0]

    Chen and He, `Exploring Simple Siamese Representation Learning
    <https://arxiv.org/abs/2011.10566>`_, 2021; Grill et al., `Bootstrap Your Own Latent
    <https://arxiv.org/abs/2006.07733>`_, 2020.
    """
    checks.assert_equal_shape([predictions, targets])
    return -(l2_normalize(predictions) * l2_normalize(targets)).sum(-1)


def distillation_cross_entropy(
    student: Array,
    teacher: Array,
    *,
    center: Array | None = None,
    student_temperature: float | Array = 0.1,
    teacher_temperature: float | Array = 0.04,
) -> Array:
    """DINO's loss: cross-entropy of the student under the teacher's centered, sharpened output.

    ```
    p = softmax((teacher - center) / teacher_temperature)        (no gradient)
    loss = -sum_k p_k log softmax(student / student_temperature)_k
    ```

    With more views, sum over the pairs of different views; the leading axes broadcast, so that
    `distillation_cross_entropy(student[:, None], teacher[:, :, None], ...)` makes all of them.

    Args:
        student: `[..., K]`, logits.
        teacher: `[..., K]`, logits; leading axes broadcast against the student's.
        center: `[K]`, the running mean of the teacher's logits (see `update_center`); None for no
            centering, as when the teacher's output is balanced in another way.
        student_temperature: divides the student's logits.
        teacher_temperature: divides the teacher's; lower than the student's, which sharpens.

    Returns:
        `[...]`, float32 at least.

    Raises:
        AssertionError: the numbers of logits differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> teacher = jnp.array([[5.0, 0.0]])
        >>> print(losses.distillation_cross_entropy(jnp.zeros((1, 2)), teacher).round(4))
        [0.6931]

    Caron et al., `Emerging Properties in Self-Supervised Vision Transformers
    <https://arxiv.org/abs/2104.14294>`_, 2021.
    """
    checks.assert_equal_shape_suffix([student, teacher], 1)
    student, teacher = _accurate(student), _accurate(jax.lax.stop_gradient(teacher))
    if center is not None:
        checks.assert_shape(center, student.shape[-1:])
        teacher = teacher - jax.lax.stop_gradient(center)
    targets = jax.nn.softmax(teacher / teacher_temperature)
    return -(targets * jax.nn.log_softmax(student / student_temperature)).sum(-1)


def update_center(
    center: Array, teacher: Array, *, momentum: float = 0.9, axis_name: str | None = None
) -> Array:
    """Moves DINO's center towards the mean of the teacher's logits.

    ```
    center <- momentum * center + (1 - momentum) * mean(teacher)
    ```

    Args:
        center: `[K]`.
        teacher: `[..., K]`, logits of the whole batch, of all views.
        momentum: of the moving average.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[K]`, in the center's dtype; the same on every device. No gradient goes through it.

    Raises:
        AssertionError: the numbers of logits differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> losses.update_center(jnp.zeros(2), jnp.array([[4.0, 0.0]]), momentum=0.5).tolist()
        [2.0, 0.0]
    """
    checks.assert_rank(center, 1)
    checks.assert_equal_shape_suffix([center, teacher], 1)
    teacher = _accurate(jax.lax.stop_gradient(teacher)).reshape(-1, center.shape[0])
    mean = teacher.mean(0)
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    center_ = _accurate(jax.lax.stop_gradient(center))
    return (momentum * center_ + (1 - momentum) * mean).astype(center.dtype)


def _accurate(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
