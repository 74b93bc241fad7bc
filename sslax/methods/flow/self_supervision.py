"""Self-supervision of UFlow and SMURF: flow of whole frames teaches the flow of their centers.

Jonschkowski et al., What Matters in Unsupervised Optical Flow, ECCV 2020.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sslax import augment, checks, losses, ops
from sslax.methods.flow.matching import crop_like_input, merge_pairs, merge_swapped
from sslax.methods.flow.method import FirstPass, Forward, network_input
from sslax.methods.flow.resolution import NetworkOutput, level_factor
from sslax.types import Array, Batch

Compare = Callable[[NetworkOutput, NetworkOutput, int, tuple[int, int]], Array]


def center_pass(crop: float, compare: Compare) -> Callable[..., Array]:
    """The term of a `SecondPass`: the student sees the centers of frames, the teacher all of them.

    The teacher is the network itself, given clean frames.

    Args:
        crop: margin that the student does not see, as a fraction of the shorter side.
        compare: `(student, teacher, margin, size) -> scalar`, of both outputs of the network.
    """

    def term(forward: Forward, batch: Batch, first: FirstPass, keys: Array) -> Array:
        frames = crop_like_input(batch)
        size = frames.shape[2:4]
        margin = crop_margin(size, crop)
        teacher = forward({"image": frames}, False)
        center = {**batch, "input": zoom_center(batch["input"], margin)}
        student = forward(network_input(center, keys[0]), True)
        return compare(student, teacher, margin, size)

    return term


def self_supervision(
    student: Array, teacher: Array, *, margin: int, size: tuple[int, int]
) -> tuple[Array, Array]:
    """Error of a student, who sees the centers of frames, against a teacher, who sees all of them.

    ```
    mask  = center(c_0.003(teacher)) (1 - c_0.03(student))
    error = mean(mask robust_l1(student - center(teacher)))
    ```
    where `c` is `ops.forward_backward_confidence`, 0 where the flow leaves the frame: the teacher
    is consistent and the student is not. The mean is over all pixels.

    Args:
        student: `[B, 2, h, w, 2]`, flow of the enlarged centers.
        teacher: `[B, 2, h, w, 2]`, flow of the whole frames; no gradient.
        margin: what was cut off at each side, in pixels of the frames.
        size: `(H, W)` of the frames.

    Returns:
        The error, and the mask `[2 B, h, w]`.
    """
    checks.assert_equal_shape([student, teacher])
    factor = level_factor(student, size)
    margin, sides = margin / factor, (size[0] / factor, size[1] / factor)
    teacher = jax.lax.stop_gradient(teacher)
    consistent = _confidence(teacher, sigma=0.003)
    consistent = zoom_center(consistent[..., None], margin, sides)[..., 0]
    inconsistent = 1 - _confidence(student, sigma=0.03)
    mask = jax.lax.stop_gradient(consistent * inconsistent)
    error = losses.robust_l1(
        merge_pairs(student) - zoom_center_flow(merge_pairs(teacher), margin, sides)
    )
    return jnp.mean(mask[..., None] * error), mask


def _confidence(flows: Array, *, sigma: float) -> Array:
    return ops.forward_backward_confidence(merge_pairs(flows), merge_swapped(flows), sigma=sigma)


def crop_margin(size: tuple[int, int], crop: float) -> int:
    """Pixels cut off at each side: a fraction of the shorter side that leaves at least one."""
    return min(round(crop * min(size)), (min(size) - 1) // 2)


def zoom_center(x: Array, margin: float, sides: tuple[float, float] | None = None) -> Array:
    """Cuts `margin` pixels off each side of `[..., h, w, C]` and enlarges the rest to the old size.

    Bilinear; values stay as they are, so flow goes through `zoom_center_flow`.

    Args:
        x: images or maps.
        margin: in pixels of x, maybe a fraction.
        sides: height and width of the frames in pixels of x, maybe fractions; None for those of x.
    """
    height, width = x.shape[-3:-1]
    sides = sides or (height, width)

    def weights(size: int, side: float) -> Array:
        pixel = jnp.arange(size, dtype=jnp.float32)
        position = margin + (pixel + 0.5) * ((side - 2 * margin) / side) - 0.5
        position = jnp.clip(position, 0, size - 1)
        return jnp.maximum(0.0, 1.0 - jnp.abs(pixel - position[:, None]))

    flat = x.reshape(-1, height, width, x.shape[-1])
    rows, columns = weights(height, sides[0]), weights(width, sides[1])
    zoomed = jax.vmap(lambda image: augment.apply_separable(image, rows, columns))(flat)
    return zoomed.reshape(x.shape)


def zoom_center_flow(flow: Array, margin: float, sides: tuple[float, float] | None = None) -> Array:
    """`zoom_center` of a flow `[..., h, w, 2]`, whose vectors are enlarged too."""
    height, width = sides or flow.shape[-3:-1]
    zoom = jnp.array([width / (width - 2 * margin), height / (height - 2 * margin)])
    return zoom * zoom_center(flow, margin, sides)
