"""Pose networks: from frames to the camera motions between them.

Frames are stacked on the channels, `[N, H, W, F·C]`. Motions are `[N, F - 1, 6]`: three
numbers of translation, then three angles. They are scaled by 0.01, so that a network starts near a
static camera. Which frames a motion is between, and whether the angles are an axis-angle vector
(Monodepth2) or Euler angles (SfMLearner), is up to the method; either way the translation is that
of the pose itself, `[R | t]`, unlike that of a twist that `sslax.ops.se3_exp` takes.

With `camera`, each returns a pair: what it returns otherwise, and the intrinsics of the frames
shrunk to one pixel, `[N, 3, 3]` float32, which `sslax.ops.resize_intrinsics` brings to the frames'
size W x H. They are read where the motions are, by two 1x1 convolutions whose outputs a and b, b
without a bias, are averaged over all positions (Gordon et al., Depth from Videos in the Wild,
https://arxiv.org/abs/1904.04998, 2019):

```
(fx, fy) = softplus(a) (W, H),   (cx, cy) = (b + 1/2) (W, H) - 1/2
```
The last 1/2 is not theirs: here pixel centers lie at integers.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax import ops
from sslax.checks import assert_rank
from sslax.models.conv import Conv
from sslax.models.correlation import cost_volume
from sslax.models.depth import UpConv, scaled

_he = nn.initializers.he_normal()
# Small rather than zero: a zero kernel would block the gradient to the layers before it.
_small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")

_SHARPNESS = 10.0  # initial factor on the cosines before the softmax


class PoseDecoder(nn.Module):
    """Monodepth2's pose decoder: motions from the last stage of an encoder.

    A 1x1 Conv-ReLU, two 3x3 Conv-ReLU with `width` channels each, and a 1x1 convolution; the mean
    over all positions, times 0.01. The stage is that of stacked frames, or there is one for every
    frame: the first convolution is then applied to each and its outputs are stacked (Monodepth2's
    "shared" pose network, which has the depth network's encoder).

    Attributes:
        motions: number of motions to predict, F - 1.
        width: channels.
        dtype: of the computation; parameters and outputs are float32.
        camera: also predicts the intrinsics, see the module's docstring.

    Godard et al., Digging Into Self-Supervised Monocular Depth Estimation,
    https://arxiv.org/abs/1806.01260, 2019.
    """

    motions: int = 1
    width: int = 256
    dtype: Any = jnp.float32
    camera: bool = False

    @nn.compact
    def __call__(
        self, x: dict[str, Any], *, train: bool
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Predicts the motions.

        Args:
            x: 'stages', of which the last by name is read: `[N, h, w, C]`, or `[N, F, h, w, C]`
                where frames were encoded one by one.
            train: without effect.

        Returns:
            Twists `[N, motions, 6]` float32; with `camera`, them and the intrinsics.
        """
        del train
        stage = x["stages"][max(x["stages"])]
        assert_rank(stage, 5 if stage.ndim == 5 else 4)
        frames = stage if stage.ndim == 5 else stage[:, None]
        n, f, h, w, _ = frames.shape
        y = _relu_conv(frames.reshape(n * f, h, w, -1), self.width, 1, self.dtype, "squeeze")
        y = y.reshape(n, f, h, w, -1).transpose(0, 2, 3, 1, 4).reshape(n, h, w, -1)
        for name in ("conv1", "conv2"):
            y = _relu_conv(y, self.width, 3, self.dtype, name)
        twists = _twists(y, self.motions, self.dtype)
        return (twists, _camera(y, self.dtype)) if self.camera else twists


class PoseCNN(nn.Module):
    """SfMLearner's pose network: seven convolutions of stride 2, motions from the last map's mean.

    Kernels of 7, 5 and then 3 pixels, ReLU, no normalization; a 1x1 convolution gives the motions.
    With `explainability`, transposed convolutions lead from the fifth map back to the frames' size
    and predict at the largest sizes where each motion explains the image. A logit stands for
    SfMLearner's pair of logits, whose softmax depends only on their difference.

    Attributes:
        motions: number of motions to predict, F - 1.
        explainability: also predicts masks, at so many of the largest sizes; 0 for none.
        width: factor on the channels 16, 32, 64, 128, 256, 256, 256.
        dtype: of the computation; parameters and outputs are float32.
        camera: also predicts the intrinsics, see the module's docstring.

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video,
    https://arxiv.org/abs/1704.07813, 2017.
    """

    motions: int = 1
    explainability: int = 0
    width: float = 1.0
    dtype: Any = jnp.float32
    camera: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Any:
        """Predicts the motions, and perhaps masks and the camera.

        Args:
            x: stacked frames `[N, H, W, F·C]`.
            train: without effect.

        Returns:
            Twists `[N, motions, 6]` float32; with `explainability` a pair of twists and a tuple of
            maps of logits `[N, h, w, motions]` float32, (H, W) first, each half of the one
            before, rounded up. With `camera`, a pair of that and the intrinsics.
        """
        del train
        assert_rank(x, 4)
        widths = [scaled(c, self.width) for c in (16, 32, 64, 128, 256, 256, 256)]
        sizes, fifth = [], None
        for i, (width, side) in enumerate(zip(widths, (7, 5, 3, 3, 3, 3, 3)), start=1):
            sizes.append(x.shape[1:3])
            x = _relu_conv(x, width, side, self.dtype, f"conv{i}", stride=2)
            fifth = x if i == 5 else fifth
        motion: Any = _twists(x, self.motions, self.dtype)
        if self.explainability:
            masks = _explain(
                fifth, widths[:5], sizes[:5], self.motions, self.explainability, self.dtype
            )
            motion = motion, masks
        return (motion, _camera(x, self.dtype)) if self.camera else motion


class PoseCorrelation(nn.Module):
    """Motions from a correlation of the frames: the pose network for short training runs.

    A convolution of stride 2 and one of stride 1 compute features of each frame, from which the
    frame's mean is subtracted. A soft argmax over their correlation gives a coarse flow from the
    first frame to another one, a useful one even with random weights. For each factor k, with a
    and b the two frames' features averaged over k x k positions and divided by their length:

    ```
    flow_k(p) = k Σ_d d softmax_d(s_k a(p) · b(p + d)),  |d_x|, |d_y| <= radius
    ```
    with a learned sharpness s_k. The flows, resized to one resolution, their largest probabilities
    and the coordinates pass three convolutions of stride 2 and a 1x1 convolution to a motion, which
    is averaged over positions. With `explainability`, transposed convolutions lead from the last
    map back to the frames' size and predict masks as in `PoseCNN`.

    Attributes:
        motions: number of motions to predict, F - 1, each with the same weights.
        explainability: also predicts masks, at so many of the largest sizes; 0 for none.
        width: channels; the features have half of them.
        radius: of each search, which reaches 2 k radius pixels of the frames.
        factors: the factors k, one search each.
        dtype: of the convolutions; parameters and outputs are float32.
        camera: also predicts the intrinsics, see the module's docstring; the mean over the motions.

    The correlation is PWC-Net's (Sun et al., https://arxiv.org/abs/1709.02371, 2018), and its
    expectation GC-Net's soft argmax (Kendall et al., https://arxiv.org/abs/1703.04309, 2017).
    """

    motions: int = 1
    explainability: int = 0
    width: int = 64
    radius: int = 4
    factors: Sequence[int] = (1,)
    dtype: Any = jnp.float32
    camera: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Any:
        """Predicts the motions, and perhaps masks and the camera.

        Args:
            x: stacked frames `[N, H, W, F·C]`; motions are from the first frame to each other one.
            train: without effect.

        Returns:
            Twists `[N, motions, 6]` float32; with `explainability` a pair of twists and a tuple of
            maps of logits `[N, h, w, motions]` float32, (H, W) first, each half of the one
            before, rounded up. With `camera`, a pair of that and the intrinsics.
        """
        del train
        assert_rank(x, 4)
        n, sizes = x.shape[0], [x.shape[1:3]]
        frames = jnp.concatenate(jnp.split(x, self.motions + 1, axis=-1))
        features = Features(max(self.width // 2, 1), self.dtype, name="features")(frames)
        first, *others = jnp.split(features, self.motions + 1)
        first, others = jnp.tile(first, (self.motions, 1, 1, 1)), jnp.concatenate(others)
        init = nn.initializers.constant(_SHARPNESS)
        sharpness = self.param("sharpness", init, (len(self.factors),))
        flows = [
            coarse_flow(first, others, s, self.radius, k) for k, s in zip(self.factors, sharpness)
        ]
        h, w = first.shape[1:3]
        grid = 2 * ops.pixel_grid(h, w) / jnp.array([w, h]) - 1
        y = jnp.concatenate([*flows, jnp.broadcast_to(grid, (first.shape[0], h, w, 2))], axis=-1)
        for i in range(3):
            sizes.append(y.shape[1:3])
            y = _relu_conv(y.astype(self.dtype), self.width, 3, self.dtype, f"conv{i}", stride=2)
        motion: Any = _twists(y, 1, self.dtype).reshape(self.motions, n, 6).swapaxes(0, 1)
        if self.explainability:
            widths = [max(self.width >> i, 1) for i in (2, 1, 0, 0)]
            motion = (
                motion,
                tuple(
                    jnp.moveaxis(mask.reshape(self.motions, n, *mask.shape[1:3]), 0, -1)
                    for mask in _explain(y, widths, sizes, 1, self.explainability, self.dtype)
                ),
            )
        if not self.camera:
            return motion
        each = _camera(y, self.dtype).reshape(self.motions, n, 3, 3)
        return motion, jnp.mean(each, axis=0)


class Features(nn.Module):
    """Features `[N, h, w, width]` float32 at half the images' resolution, minus their mean."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        y = _relu_conv(images, self.width, 5, self.dtype, "conv0", stride=2)
        conv = Conv(self.width, 3, use_bias=True, dtype=self.dtype, kernel_init=_he, name="conv1")
        y = conv(y).astype(jnp.float32)
        return y - jnp.mean(y, axis=(1, 2), keepdims=True)


def coarse_flow(
    first: jax.Array, second: jax.Array, sharpness: jax.Array | float, radius: int, factor: int
) -> jax.Array:
    """Flow by a soft argmax over the cosines of features, searched at a lower resolution.

    Args:
        first: features `[N, h, w, C]`, of any length.
        second: likewise.
        sharpness: factor on the cosines before the softmax.
        radius: of the search, in pixels of the lower resolution.
        factor: by which the resolution is lower.

    Returns:
        `[N, h, w, 3]`: the flow (x, y) in pixels of the features, and the largest probability.
    """
    h, w, c = first.shape[1:]
    low = max(h // factor, 1), max(w // factor, 1)
    first, second = (_unit(ops.resize(maps, low, method="area")) for maps in (first, second))
    # Times the channels, because the cost volume is a mean over them.
    costs = sharpness * c * cost_volume(first, second, radius=radius)
    flow, confidence = soft_argmax(costs, radius)
    flow = flow * jnp.array([w / low[1], h / low[0]])
    return ops.resize(jnp.concatenate([flow, confidence], axis=-1), (h, w))


def _unit(y: jax.Array) -> jax.Array:
    return y * jax.lax.rsqrt(jnp.sum(jnp.square(y), axis=-1, keepdims=True) + 1e-6)


def soft_argmax(costs: jax.Array, radius: int) -> tuple[jax.Array, jax.Array]:
    """Expected displacement and largest probability under a softmax of costs.

    Args:
        costs: `[N, h, w, (2 r + 1)²]`, in the order of `cost_volume`; higher is better.
        radius: r.

    Returns:
        (x, y) `[N, h, w, 2]` and the probability `[N, h, w, 1]`.
    """
    side = jnp.arange(-radius, radius + 1, dtype=costs.dtype)
    displacements = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    probability = jax.nn.softmax(costs, axis=-1)
    flow = jnp.dot(probability, displacements, precision="highest")
    return flow, jnp.max(probability, axis=-1, keepdims=True)


def _explain(
    y: jax.Array,
    widths: list[int],
    sizes: list[tuple[int, int]],
    masks: int,
    levels: int,
    dtype: Any,
) -> tuple[jax.Array, ...]:
    """Mask logits `[N, h, w, masks]` at the first `levels` of `sizes`, by transposed convolutions.

    Each size is half of the one before it, and `y` is half of the last. Kernels have 3 pixels, but
    5 and 7 at the largest two sizes.
    """
    logits: list[jax.Array] = []
    for i in reversed(range(len(sizes))):
        side = (7, 5)[i] if i < 2 else 3
        y = UpConv(widths[i], side, dtype=dtype, name=f"up{i}")(y)
        y = nn.relu(y[:, : sizes[i][0], : sizes[i][1]])
        if i < levels:
            logits.insert(0, _head(masks, side, dtype, f"mask{i}")(y).astype(jnp.float32))
    return tuple(logits)


def _relu_conv(
    x: jax.Array, width: int, side: int, dtype: Any, name: str, stride: int = 1
) -> jax.Array:
    conv = Conv(width, side, stride=stride, use_bias=True, dtype=dtype, kernel_init=_he, name=name)
    return nn.relu(conv(x))


def _head(outputs: int, side: int, dtype: Any, name: str, bias: bool = True) -> Conv:
    return Conv(outputs, side, use_bias=bias, dtype=dtype, kernel_init=_small, name=name)


def _twists(y: jax.Array, motions: int, dtype: Any) -> jax.Array:
    y = _head(6 * motions, 1, dtype, "twists")(y).astype(jnp.float32)
    return 0.01 * jnp.mean(y, axis=(1, 2)).reshape(-1, motions, 6)


def _camera(y: jax.Array, dtype: Any) -> jax.Array:
    """Intrinsics `[N, 3, 3]` of frames shrunk to one pixel, whose middle is at 0."""
    focal = _head(2, 1, dtype, "focal")(y).astype(jnp.float32)
    center = _head(2, 1, dtype, "center", bias=False)(y).astype(jnp.float32)
    focal, center = (jnp.mean(pair, axis=(1, 2)) for pair in (focal, center))
    return ops.intrinsics_matrix(nn.softplus(focal), center)
