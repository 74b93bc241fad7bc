"""Photometric losses: how well one image is rebuilt from another.

Errors are per pixel; the caller reduces them, with `losses.masked_mean` where a mask belongs to
them. Robust penalties are per element.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.ops.calls import computed_once
from sslax.ops.image import rgb_to_gray, separable_filter, ssim


def photometric_error(
    target: jax.Array,
    reconstruction: jax.Array,
    *,
    ssim_weight: float = 0.85,
    window: str = "box3",
) -> jax.Array:
    """Structural dissimilarity mixed with the absolute difference, per pixel.

    ```
    error = mean_c [w (1 - SSIM_c) / 2 + (1 - w) |target_c - reconstruction_c|]
    ```
    with `(1 - SSIM) / 2` clipped to [0, 1].

    Args:
        target: `[..., H, W, C]` in [0, 1].
        reconstruction: the same shape; leading axes broadcast, so that `[S, B, H, W, C]` compares
            S reconstructions (sources, scales) with one target.
        ssim_weight: `w`; 0 leaves the absolute difference alone.
        window: of the structural similarity, 'box3' or 'gaussian' (see `ops.ssim`).

    Returns:
        `[..., H, W]`, float32. Its gradient at equal images is zero.

    Raises:
        ValueError: `ssim_weight` is not within [0, 1], or an unknown window.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> image = jnp.linspace(0, 1, 48).reshape(4, 4, 3)
        >>> losses.photometric_error(image, image).shape
        (4, 4)
        >>> float(losses.photometric_error(image, image).max().round(4))
        0.0

    Godard et al., Unsupervised monocular depth estimation with left-right consistency, CVPR 2017.
    """
    checks.assert_equal_shape_suffix([target, reconstruction], 3)
    if not 0 <= ssim_weight <= 1:
        raise ValueError(f"ssim_weight is {ssim_weight}; it mixes two errors and lies in [0, 1].")
    return _photometric_error(target, reconstruction, ssim_weight=ssim_weight, window=window)


# A minimum over sources, a mask and a mean read the errors, and their gradients once more.
@partial(computed_once, static_argnames=("ssim_weight", "window"))
def _photometric_error(
    target: jax.Array, reconstruction: jax.Array, *, ssim_weight: float, window: str
) -> jax.Array:
    dtype = jnp.promote_types(jnp.result_type(target, reconstruction), jnp.float32)
    target, reconstruction = target.astype(dtype), reconstruction.astype(dtype)
    error = (1 - ssim_weight) * l1(target - reconstruction)
    if ssim_weight:
        similarity = ssim(target, reconstruction, window=window)
        error = error + ssim_weight * jnp.clip((1 - similarity) / 2, 0, 1)
    return error.mean(-1)


def l1(x: jax.Array) -> jax.Array:
    """Absolute value `|x|` whose gradient at zero is zero.

    JAX's own has slope 1 there: equal images would push each other, all in the same direction.

    Args:
        x: residuals, `[...]`.

    Returns:
        `[...]`, float32 (float64 for float64).

    Example:
        >>> import jax
        >>> from sslax import losses
        >>> jax.grad(losses.l1)(0.0).item(), jax.grad(losses.l1)(-2.0).item()
        (0.0, -1.0)
    """
    x = jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
    return jnp.sign(x) * x


def charbonnier(x: jax.Array, *, epsilon: float = 1e-3, exponent: float = 0.45) -> jax.Array:
    """Generalized Charbonnier penalty, smooth at zero.

    `(x² + ε²)^α`

    Args:
        x: residuals, `[...]`.
        epsilon: `ε`, where the penalty turns from quadratic to `|x|^2α`.
        exponent: `α`; 0.45 is the classic choice for flow, 0.5 a smooth absolute value.

    Returns:
        `[...]`, float32 (float64 for float64). At zero it is `ε^2α`, with zero gradient.

    Raises:
        ValueError: `epsilon` is not positive; the gradient at zero would not exist.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.charbonnier(jnp.array(3.0), epsilon=4.0, exponent=0.5))
        5.0

    Sun et al., A quantitative analysis of current practices in optical flow estimation, IJCV 2014.
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon is {epsilon}; it must be positive, or the gradient at 0 is NaN.")
    x = jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
    return (x * x + epsilon**2) ** exponent


def robust_l1(x: jax.Array, *, epsilon: float = 1e-3) -> jax.Array:
    """Smooth absolute value `sqrt(x² + ε²)`: `charbonnier` with exponent 1/2.

    Args:
        x: residuals, `[...]`.
        epsilon: `ε`, where the penalty turns from quadratic to linear.

    Returns:
        `[...]`, float32 (float64 for float64).

    Raises:
        ValueError: `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.robust_l1(jnp.array(3.0), epsilon=4.0))
        5.0
    """
    return charbonnier(x, epsilon=epsilon, exponent=0.5)


def robust_power(x: jax.Array, *, epsilon: float = 0.01, exponent: float = 0.4) -> jax.Array:
    """Robust penalty that flattens for outliers.

    `(|x| + ε)^q`

    Args:
        x: residuals, `[...]`.
        epsilon: `ε`.
        exponent: `q`.

    Returns:
        `[...]`, float32 (float64 for float64). The gradient at zero is zero.

    Raises:
        ValueError: `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.robust_power(jnp.array(-3.99), epsilon=0.01, exponent=0.5))
        2.0

    Liu et al., DDFlow, AAAI 2019; the distance of `census_error` in UFlow and SMURF.
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon is {epsilon}; it must be positive, or the gradient at 0 is NaN.")
    x = jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
    return (l1(x) + epsilon) ** exponent


def census_error(
    target: jax.Array,
    reconstruction: jax.Array,
    *,
    mask: jax.Array | None = None,
    radius: int = 3,
    softness: float = 0.81,
    threshold: float = 0.1,
) -> tuple[jax.Array, jax.Array]:
    """Soft Hamming distance between the census transforms of two images.

    ```
    error(p) = N mean_o d_o² / (threshold + d_o²)
    d_o      = census_o(target)(p) - census_o(reconstruction)(p)
    ```
    with the mean over those of the N neighbors that lie inside the image and under the mask: a
    plain sum where all of them do. Multiplying both images by the mask first, instead, would draw
    its outline into both transforms.

    The offsets are visited one by one, forwards and backwards, so memory stays at a few images
    instead of `(2 radius + 1)²`.

    Args:
        target: `[..., H, W, C]` in [0, 1], C = 1 or 3.
        reconstruction: the same shape; leading axes broadcast.
        mask: `[..., H, W]`, 1 where the reconstruction is meaningful (the warp read inside its
            source, say); broadcasts. None trusts every pixel.
        radius: the neighborhood is `2 radius + 1` pixels wide, `N = (2 radius + 1)² - 1`.
        softness: of the transform, see `ops.census`.
        threshold: a difference counts half where its square reaches it.

    Returns:
        The error `[..., H, W]`, between 0 and N, float32; and `valid`, of the same shape, bool:
        under the mask, with the whole neighborhood inside the image. `masked_mean` of
        `robust_power` of the error is UFlow's loss; divide by N + 1 for ARFlow's mean.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> image = jnp.linspace(0, 1, 64).reshape(8, 8, 1)
        >>> error, valid = losses.census_error(image, image + 0.1)
        >>> float(error.max().round(3)), int(valid.sum())
        (0.0, 4)

    Meister et al., UnFlow, AAAI 2018; Jonschkowski et al., What matters in unsupervised optical
    flow, ECCV 2020.
    """
    checks.assert_equal_shape_suffix([target, reconstruction], 3)
    gray = [255 * rgb_to_gray(image)[..., 0] for image in (target, reconstruction)]
    a, b = jnp.broadcast_arrays(*gray)
    valid = _interior(a.shape, radius)
    counted = jnp.ones(a.shape[-2:], a.dtype)
    if mask is not None:
        checks.assert_equal_shape_suffix([mask, a], 2)
        valid &= mask > 0
        counted = jax.lax.stop_gradient(mask > 0).astype(a.dtype)
    side = 2 * radius + 1
    padded = _pad(counted, radius)[..., None]
    in_patch = separable_filter(padded, (1.0,) * side, padding="valid")[..., 0]
    distance = _census_distance(radius, softness, threshold, a, b, counted)
    return distance * ((side**2 - 1) / jnp.maximum(in_patch - counted, 1)), valid


def minimum_reprojection(
    errors: jax.Array,
    *,
    identity_errors: jax.Array | None = None,
    valid: jax.Array | None = None,
    key: jax.Array | None = None,
    noise: float = 1e-5,
) -> tuple[jax.Array, jax.Array]:
    """The best source of every pixel, and the pixels that a moving camera explains better.

    ```
    error = min_s errors_s,   automask = [error <= min_s identity_errors_s]
    ```
    A pixel occluded in one source is usually visible in another, so the minimum counts, not the
    mean. A pixel that no warp improves (a static camera, a car moving alongside, a bare wall) says
    nothing about depth and is masked. The authors' loss is `mean(automask * error)`; divide by
    the mask's sum instead with `masked_mean(error, automask)`.

    Args:
        errors: `[S, ..., H, W]`, from the warped sources.
        identity_errors: `[S', ..., H, W]`, from the sources as they are; None for no automask.
        valid: `[S, ..., H, W]`, 1 where the source was read inside its image. Elsewhere the source
            does not compete; a pixel that no source sees has error 0 and mask 0.
        key: breaks ties at random, as the authors do, by Gaussian noise on the identity errors.
            Without it ties stay in the mask: where training starts from no motion every pixel is
            a tie, and masking them all would leave nothing to learn from.
        noise: standard deviation of that noise.

    Returns:
        The error `[..., H, W]` and the mask, bool, which has no gradient.

    Raises:
        ValueError: a key was given but no `identity_errors` for its noise.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> errors = jnp.array([[[0.125, 0.5]], [[0.5, 0.375]]])
        >>> identity_errors = jnp.full((1, 1, 2), 0.25)
        >>> error, mask = losses.minimum_reprojection(errors, identity_errors=identity_errors)
        >>> error.tolist(), mask.tolist()
        ([[0.125, 0.375]], [[True, False]])

    Godard et al., Digging into self-supervised monocular depth estimation, ICCV 2019.
    """
    if key is not None and identity_errors is None:
        raise ValueError("key breaks ties with identity_errors, which are missing; pass both.")
    seen = jnp.ones(errors.shape[1:], bool)
    if valid is not None:
        checks.assert_equal_shape([errors, valid])
        valid = valid.astype(bool)
        seen = valid.any(0)
        errors = jnp.where(valid, errors, jnp.where(seen, jnp.inf, 0))
    error = errors.min(0)
    if identity_errors is None:
        return error, seen
    checks.assert_equal_shape_suffix([errors, identity_errors], errors.ndim - 1)
    if key is not None:
        draw = jax.random.normal(key, identity_errors.shape, identity_errors.dtype)
        identity_errors = identity_errors + noise * draw
    return error, seen & (error <= identity_errors.min(0))


def explainability_regularization(logits: jax.Array) -> jax.Array:
    """Cross-entropy of an explainability mask with "everything is explained".

    `-log sigmoid(logit)`: without it a mask that multiplies the photometric error goes to zero.

    Args:
        logits: `[...]`, of the probability that a pixel is explained; where a network emits two
            logits and a softmax, their difference.

    Returns:
        `[...]`, float32 (float64 for float64).

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.explainability_regularization(jnp.array(0.0)).round(4))
        0.6931

    Zhou et al., Unsupervised learning of depth and ego-motion from video, CVPR 2017.
    """
    return jax.nn.softplus(-logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))


def _interior(shape: tuple[int, ...], border: int) -> jax.Array:
    """`[..., H, W]` bool: at least `border` pixels away from every edge."""
    y = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 2)
    x = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    far_y = (y >= border) & (y < shape[-2] - border)
    return far_y & (x >= border) & (x < shape[-1] - border)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _census_distance(
    radius: int,
    softness: float,
    threshold: float,
    a: jax.Array,
    b: jax.Array,
    counted: jax.Array,
) -> jax.Array:
    """Sum over the counted neighbors of the soft Hamming distance, `[..., H, W]`."""
    padded = [_pad(x, radius) for x in (a, b, counted)]

    def add(total: jax.Array, offset: jax.Array) -> tuple[jax.Array, None]:
        there_a, there_b, there_counted = (_shifted(x, offset, a.shape) for x in padded)
        da, db = there_a - a, there_b - b
        d = da * jax.lax.rsqrt(softness + da * da) - db * jax.lax.rsqrt(softness + db * db)
        return total + there_counted * (d * d / (threshold + d * d)), None

    return jax.lax.scan(add, jnp.zeros_like(a), _offsets(radius))[0]


def _census_distance_forward(
    radius: int,
    softness: float,
    threshold: float,
    a: jax.Array,
    b: jax.Array,
    counted: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _census_distance(radius, softness, threshold, a, b, counted), (a, b, counted)


def _census_distance_backward(
    radius: int,
    softness: float,
    threshold: float,
    operands: tuple[jax.Array, ...],
    g: jax.Array,
) -> tuple[jax.Array, jax.Array, None]:
    # The pair (p, p + o) adds the same distance to both of its pixels, so its gradient arrives at
    # p with the weights of both: a second gather, where autodiff would scatter.
    a, b, counted = operands
    padded = [_pad(x, radius) for x in (a, b, counted, g)]

    def add(total: tuple[jax.Array, jax.Array], offset: jax.Array) -> tuple[tuple, None]:
        there_a, there_b, there_counted, there_g = (_shifted(x, offset, a.shape) for x in padded)
        da, db = there_a - a, there_b - b
        ra, rb = jax.lax.rsqrt(softness + da * da), jax.lax.rsqrt(softness + db * db)
        d = da * ra - db * rb
        weight = there_counted * g + counted * there_g
        slope = 2 * threshold * softness * d / (threshold + d * d) ** 2 * weight
        return (total[0] - slope * ra**3, total[1] + slope * rb**3), None

    zeros = jnp.zeros_like(a), jnp.zeros_like(b)
    return *jax.lax.scan(add, zeros, _offsets(radius))[0], None


_census_distance.defvjp(_census_distance_forward, _census_distance_backward)


def _offsets(radius: int) -> jax.Array:
    """Corners `[n, 2]` (y, x) of the shifted windows, without the center's own."""
    corners = np.stack(np.indices((2 * radius + 1,) * 2), -1).reshape(-1, 2)
    return jnp.asarray(corners[(corners != radius).any(-1)], jnp.int32)


def _pad(x: jax.Array, radius: int) -> jax.Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(radius, radius)] * 2)


def _shifted(padded: jax.Array, corner: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    starts = (0,) * (padded.ndim - 2) + (corner[0], corner[1])
    return jax.lax.dynamic_slice(padded, starts, (*padded.shape[:-2], *shape[-2:]))
