"""Photometric losses: how well a warped image reconstructs its target.

Errors are per pixel and masks separate; `losses.masked_mean` reduces the two. Robust penalties are
elementwise.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.ops.dtypes import accumulated, at_least_float32
from sslax.ops.image import rgb_to_gray, separable_filter, ssim
from sslax.ops.no_inline import no_inline
from sslax.types import Array


def photometric_error(
    target: Array,
    reconstruction: Array,
    *,
    ssim_weight: float = 0.85,
    window: str = "box3",
) -> Array:
    """Photometric error: structural dissimilarity (SSIM) mixed with the absolute difference.

    ```
    error = mean_c [w (1 - SSIM_c) / 2 + (1 - w) |target_c - reconstruction_c|]
    ```
    with `(1 - SSIM) / 2` clipped to [0, 1].

    Args:
        target: `[..., H, W, C]` in [0, 1].
        reconstruction: the same shape; further leading axes broadcast, so `[S, B, H, W, C]`
            compares S reconstructions (of S sources or scales) with one target. The numbers of
            examples are equal.
        ssim_weight: w; 0 leaves the absolute difference only.
        window: window of SSIM, 'box3' or 'gaussian' (see `ops.ssim`).

    Returns:
        `[..., H, W]`, float32 or wider. The gradient at equal images is zero. Differentiable in
        reverse mode only, unless `ssim_weight` is 0.

    Raises:
        AssertionError: sizes, channels or numbers of examples differ.
        TypeError: an image has an integer dtype.
        ValueError: `ssim_weight` is not in [0, 1], `window` is unknown, or the images have another
            range, such as 0 to 255.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> image = jnp.linspace(0, 1, 48).reshape(4, 4, 3)
        >>> losses.photometric_error(image, image).shape
        (4, 4)
        >>> float(losses.photometric_error(image, image).max().round(4))
        0.0

    Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency", CVPR 2017.
    """
    _check_images(target, reconstruction)
    if not 0 <= ssim_weight <= 1:
        raise checks.value_error(
            f"ssim_weight, a mixture weight, must be in [0, 1]; got {ssim_weight}."
        )
    return _photometric_error(target, reconstruction, ssim_weight=ssim_weight, window=window)


# The errors are read by a minimum over sources, a mask and a mean, and again by their gradients.
@partial(no_inline, static_argnames=("ssim_weight", "window"))
def _photometric_error(
    target: Array, reconstruction: Array, *, ssim_weight: float, window: str
) -> Array:
    target, reconstruction = accumulated(target, reconstruction)
    error = (1 - ssim_weight) * l1(target - reconstruction)
    if ssim_weight:
        similarity = ssim(target, reconstruction, window=window)
        error = error + ssim_weight * jnp.clip((1 - similarity) / 2, 0, 1)
    return error.mean(-1)


def l1(x: Array) -> Array:
    """Absolute value `|x|` with zero gradient at zero.

    The gradient of `jnp.abs` at zero is 1, which would push equal images and constant fields in one
    direction.

    Args:
        x: residuals, `[...]`.

    Returns:
        `[...]`, float32 or wider.

    Example:
        >>> import jax
        >>> from sslax import losses
        >>> jax.grad(losses.l1)(0.0).item(), jax.grad(losses.l1)(-2.0).item()
        (0.0, -1.0)
    """
    x = at_least_float32(x)
    return jnp.sign(x) * x


def charbonnier(x: Array, *, epsilon: float = 1e-3, exponent: float = 0.45) -> Array:
    """Generalized Charbonnier penalty, smooth at zero.

    `(x² + ε²)^α`

    Args:
        x: residuals, `[...]`.
        epsilon: ε, where the penalty changes from quadratic to `|x|^2α`.
        exponent: α; 0.45 is the usual choice for flow, 0.5 gives a smooth absolute value.

    Returns:
        `[...]`, float32 or wider; `ε^2α` at zero, with zero gradient.

    Raises:
        ValueError: `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.charbonnier(jnp.array(3.0), epsilon=4.0, exponent=0.5))
        5.0

    Sun et al., "A Quantitative Analysis of Current Practices in Optical Flow Estimation", IJCV
    2014.
    """
    _check_epsilon(epsilon)
    x = at_least_float32(x)
    return (x * x + epsilon**2) ** exponent


def robust_l1(x: Array, *, epsilon: float = 1e-3) -> Array:
    """Smooth absolute value `sqrt(x² + ε²)`: `charbonnier` with exponent 1/2.

    Args:
        x: residuals, `[...]`.
        epsilon: ε, where the penalty changes from quadratic to linear.

    Returns:
        `[...]`, float32 or wider.

    Raises:
        ValueError: `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.robust_l1(jnp.array(3.0), epsilon=4.0))
        5.0
    """
    return charbonnier(x, epsilon=epsilon, exponent=0.5)


def robust_power(x: Array, *, epsilon: float = 0.01, exponent: float = 0.4) -> Array:
    """Robust penalty that grows slowly for outliers.

    `(|x| + ε)^q`

    Args:
        x: residuals, `[...]`.
        epsilon: ε.
        exponent: q.

    Returns:
        `[...]`, float32 or wider. The gradient at zero is zero.

    Raises:
        ValueError: `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.robust_power(jnp.array(-3.99), epsilon=0.01, exponent=0.5))
        2.0

    Liu et al., "DDFlow: Learning Optical Flow with Unlabeled Data Distillation", AAAI 2019; applied
    to `census_error` in UFlow and SMURF.
    """
    _check_epsilon(epsilon)
    x = at_least_float32(x)
    return (l1(x) + epsilon) ** exponent


def census_error(
    target: Array,
    reconstruction: Array,
    *,
    mask: Array | None = None,
    radius: int = 3,
    softness: float = 0.81,
    threshold: float = 0.1,
) -> tuple[Array, Array]:
    """Soft Hamming distance between the census transforms of two images.

    ```
    error(p) = n mean_o d_o² / (threshold + d_o²)
    d_o      = census_o(target)(p) - census_o(reconstruction)(p)
    ```
    with the mean over those of the `n` neighbors that are inside the image and have mask 1; a plain
    sum if all of them do. Multiplying both images by the mask instead would add its outline to both
    transforms.

    The offsets are processed one at a time, in both passes, so memory stays at a few images instead
    of `(2 radius + 1)²`.

    Args:
        target: `[..., H, W, C]` in [0, 1], C = 1 or 3.
        reconstruction: the same shape; leading axes broadcast as in `photometric_error`.
        mask: `[..., H, W]`, 1 where the reconstruction is valid, for example where the warp read
            inside the source; broadcasts. None for everywhere.
        radius: the neighborhood is `2 radius + 1` pixels wide, `n = (2 radius + 1)² - 1`.
        softness: see `ops.census_transform`.
        threshold: squared difference of the transforms that counts half.

    Returns:
        The error `[..., H, W]` in [0, n], float32 or wider, and `valid` `[..., H, W]` (bool): the
        mask is 1 and the whole neighborhood is inside the image. UFlow's loss is the `masked_mean`
        of `robust_power` of the error. ARFlow's has `radius=1` and is the plain mean of the error
        over all pixels, divided by n + 1, with 0 where `valid` is False. Differentiable in reverse
        mode only.

    Raises:
        AssertionError: sizes, channels or numbers of examples differ.
        TypeError: an image has an integer dtype.
        ValueError: `radius`, `softness` or `threshold` is not positive, or the images have another
            range than [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> image = jnp.linspace(0, 1, 64).reshape(8, 8, 1)
        >>> error, valid = losses.census_error(image, image + 0.1)
        >>> float(error.max().round(3)), int(valid.sum())
        (0.0, 4)

    Meister et al., "UnFlow", AAAI 2018; Jonschkowski et al., "What Matters in Unsupervised Optical
    Flow", ECCV 2020.
    """
    _check_images(target, reconstruction)
    if radius < 1:
        raise checks.value_error(f"radius must be at least 1; got {radius}.")
    checks.assert_positive(softness=softness, threshold=threshold)
    target, reconstruction = accumulated(target, reconstruction)
    gray = [255 * rgb_to_gray(image)[..., 0] for image in (target, reconstruction)]
    a, b = jnp.broadcast_arrays(*gray)
    valid = _interior(a.shape, radius)
    counted = jnp.ones(a.shape[-2:], a.dtype)
    if mask is not None:
        checks.assert_equal_shape_suffix([mask, a], 2)
        given = jax.lax.stop_gradient(mask).astype(a.dtype) > 0
        valid &= given
        counted = given.astype(a.dtype)
    side = 2 * radius + 1
    padded = _pad(counted, radius)[..., None]
    in_patch = separable_filter(padded, (1.0,) * side, padding="valid")[..., 0]
    distance = _census_distance(radius, softness, threshold, a, b, counted)
    return distance * ((side**2 - 1) / jnp.maximum(in_patch - counted, 1)), valid


def minimum_reprojection(
    errors: Array,
    *,
    identity_errors: Array | None = None,
    valid: Array | None = None,
    key: Array | None = None,
    noise: float = 1e-5,
) -> tuple[Array, Array]:
    """Minimum reprojection error over the sources, and Monodepth2's automask.

    ```
    error = min_s errors_s,   automask = [error <= min_s identity_errors_s]
    ```
    The minimum rather than the mean, because a pixel occluded in one source is usually visible in
    another. Pixels that no warp improves (static camera, objects moving with it, textureless walls)
    say nothing about depth and are masked. The authors' loss is `mean(automask * error)`;
    `masked_mean(error, automask)` divides by the number of unmasked pixels instead.

    Args:
        errors: `[S, ..., H, W]`, of the warped sources.
        identity_errors: `[S', ..., H, W]`, of the unwarped sources; None for no automask.
        valid: `[S, ..., H, W]`, 1 where the source was read inside its image. Elsewhere it is
            ignored; a pixel without any valid source has error 0 and mask 0.
        key: random key to break ties by Gaussian noise on the identity errors, as the authors do.
            Without it ties stay unmasked: a pose network that starts from zero motion makes every
            pixel a tie, and masking them all would leave no gradient.
        noise: standard deviation of that noise.

    Returns:
        The error `[..., H, W]`, and the mask `[..., H, W]` (bool), which has no gradient.

    Raises:
        ValueError: `key` without `identity_errors`.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> errors = jnp.array([[[0.125, 0.5]], [[0.5, 0.375]]])
        >>> identity_errors = jnp.full((1, 1, 2), 0.25)
        >>> error, mask = losses.minimum_reprojection(errors, identity_errors=identity_errors)
        >>> error.tolist(), mask.tolist()
        ([[0.125, 0.375]], [[True, False]])

    Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation", ICCV 2019.
    """
    if key is not None and identity_errors is None:
        raise checks.value_error("key breaks ties with identity_errors, which is None; pass both.")
    has_source = jnp.ones(errors.shape[1:], bool)
    errors = at_least_float32(errors)
    if valid is not None:
        checks.assert_equal_shape([errors, valid])
        valid = valid.astype(bool)
        has_source = valid.any(0)
        errors = jnp.where(valid, errors, jnp.where(has_source, jnp.inf, 0))
    error = errors.min(0)
    if identity_errors is None:
        return error, has_source
    checks.assert_equal_shape_suffix([errors, identity_errors], errors.ndim - 1)
    identity_errors = identity_errors.astype(errors.dtype)
    if key is not None:
        draw = jax.random.normal(key, identity_errors.shape, identity_errors.dtype)
        identity_errors = identity_errors + noise * draw
    return error, has_source & (error <= identity_errors.min(0))


def explainability_regularization(logits: Array) -> Array:
    """Cross-entropy that pulls SfMLearner's explainability mask towards 1.

    `-log sigmoid(logit)`. Without it a mask that multiplies the photometric error goes to zero.

    Args:
        logits: `[...]`, logits of the probability that a pixel is explained; for a network with two
            logits and a softmax, their difference.

    Returns:
        `[...]`, float32 or wider.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.explainability_regularization(jnp.array(0.0)).round(4))
        0.6931

    Zhou et al., "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017.
    """
    return jax.nn.softplus(-at_least_float32(logits))


def _check_images(target: Array, reconstruction: Array) -> None:
    checks.assert_same_examples(target, reconstruction, 3)
    checks.assert_unit_range(target, reconstruction)


def _check_epsilon(epsilon: float) -> None:
    checks.assert_positive(epsilon=epsilon)  # or the gradient at 0 is NaN


def _interior(shape: tuple[int, ...], border: int) -> Array:
    """`[..., H, W]` bool: at least `border` pixels away from every edge."""
    y = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 2)
    x = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    inside_y = (y >= border) & (y < shape[-2] - border)
    return inside_y & (x >= border) & (x < shape[-1] - border)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _census_distance(
    radius: int,
    softness: float,
    threshold: float,
    a: Array,
    b: Array,
    counted: Array,
) -> Array:
    """`[..., H, W]` soft Hamming distance, summed over the neighbors with `counted` 1."""
    padded = [_pad(x, radius) for x in (a, b, counted)]

    def add(total: Array, offset: Array) -> tuple[Array, None]:
        there_a, there_b, there_counted = (_shifted(x, offset, a.shape) for x in padded)
        da, db = there_a - a, there_b - b
        d = da * jax.lax.rsqrt(softness + da * da) - db * jax.lax.rsqrt(softness + db * db)
        return total + there_counted * (d * d / (threshold + d * d)), None

    return jax.lax.scan(add, jnp.zeros_like(a), _offsets(radius))[0]


def _census_distance_forward(
    radius: int,
    softness: float,
    threshold: float,
    a: Array,
    b: Array,
    counted: Array,
) -> tuple[Array, tuple[Array, ...]]:
    return _census_distance(radius, softness, threshold, a, b, counted), (a, b, counted)


def _census_distance_backward(
    radius: int,
    softness: float,
    threshold: float,
    operands: tuple[Array, ...],
    g: Array,
) -> tuple[Array, Array, None]:
    # A pair (p, p + o) adds the same distance to both of its pixels, so its gradient at p has the
    # weights of both: a second gather, where autodiff would scatter.
    a, b, counted = operands
    padded = [_pad(x, radius) for x in (a, b, counted, g)]

    def add(total: tuple[Array, Array], offset: Array) -> tuple[tuple, None]:
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


def _offsets(radius: int) -> Array:
    """`[n, 2]` corners (y, x) of the shifted windows, without the unshifted one."""
    corners = np.array([*np.ndindex(2 * radius + 1, 2 * radius + 1)])
    return jnp.asarray(corners[(corners != radius).any(-1)], jnp.int32)


def _pad(x: Array, radius: int) -> Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(radius, radius)] * 2)


def _shifted(padded: Array, corner: Array, shape: tuple[int, ...]) -> Array:
    starts = (np.int32(0),) * (padded.ndim - 2) + (corner[0], corner[1])
    return jax.lax.dynamic_slice(padded, starts, (*padded.shape[:-2], *shape[-2:]))
