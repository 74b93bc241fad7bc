"""Pose networks: from frames to the camera's motions between them.

Frames are stacked on the channels, `[N, H, W, F·C]`. Motions are twists `[N, F - 1, 6]` as
`sslax.ops.se3_exp` takes them, the translation and then the axis-angle, scaled by 0.01: a network
starts close to standing still. Which frames a motion leads from and to is the method's affair.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.models.conv import Conv
from sslax.models.depth import UpConv, scaled

_he = nn.initializers.he_normal()
# Faint rather than zero: zero kernels would keep the gradient from the layers before.
_faint = nn.initializers.variance_scaling(0.01, "fan_in", "normal")


class PoseDecoder(nn.Module):
    """Monodepth2's pose decoder: motions from the last stage of an encoder.

    A 1x1 Conv-ReLU, two 3x3 Conv-ReLU and a 1x1 convolution, `width` channels each; the mean over
    all places, times 0.01. The stage may be that of stacked frames, or one of every frame: the
    first convolution then serves each, and its results are stacked (Monodepth2's "shared" pose
    network, whose encoder is that of depth).

    Attributes:
        motions: to predict, F - 1.
        width: channels.
        dtype: dtype of the computation; parameters and outputs are float32.

    Godard et al., Digging Into Self-Supervised Monocular Depth Estimation,
    https://arxiv.org/abs/1806.01260, 2019.
    """

    motions: int = 1
    width: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, Any], *, train: bool) -> jax.Array:
        """Predicts.

        Args:
            x: 'stages', of which the last by name is read: `[N, h, w, C]`, or, of F frames,
                `[N, F, h, w, C]`.
            train: without effect.

        Returns:
            Twists `[N, motions, 6]` float32.
        """
        del train
        stage = x["stages"][max(x["stages"])]
        chex.assert_rank(stage, {4, 5})
        frames = stage if stage.ndim == 5 else stage[:, None]
        n, f, h, w, _ = frames.shape
        y = _relu_conv(frames.reshape(n * f, h, w, -1), self.width, 1, self.dtype, "squeeze")
        y = y.reshape(n, f, h, w, -1).transpose(0, 2, 3, 1, 4).reshape(n, h, w, -1)
        for name in ("conv1", "conv2"):
            y = _relu_conv(y, self.width, 3, self.dtype, name)
        return _twists(y, self.motions, self.dtype)


class PoseCNN(nn.Module):
    """SfMLearner's pose network: seven convolutions of stride 2, motions from the last map's mean.

    Kernels of 7, 5 and then 3 pixels, ReLU, no normalisation; a 1x1 convolution gives the motions.
    With `explainability`, transposed convolutions lead from the fifth map back to the frames' size
    and predict, at the finest four sizes, how far each motion explains what is seen. The logits
    stand for SfMLearner's pairs of logits, whose softmax depends on their difference alone.

    Attributes:
        motions: to predict, F - 1.
        explainability: predicts masks, too.
        width: factor on the channels 16, 32, 64, 128, 256, 256, 256.
        dtype: dtype of the computation; parameters and outputs are float32.

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video,
    https://arxiv.org/abs/1704.07813, 2017.
    """

    motions: int = 1
    explainability: bool = False
    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool
    ) -> jax.Array | tuple[jax.Array, tuple[jax.Array, ...]]:
        """Predicts.

        Args:
            x: stacked frames `[N, H, W, F·C]`.
            train: without effect.

        Returns:
            Twists `[N, motions, 6]` float32; with `explainability` a pair of them and of four
            maps of logits `[N, h, w, motions]` float32, (H, W) first, then halved (rounded up).
        """
        del train
        chex.assert_rank(x, 4)
        widths = [scaled(c, self.width) for c in (16, 32, 64, 128, 256, 256, 256)]
        sizes, fifth = [], None
        for i, (width, side) in enumerate(zip(widths, (7, 5, 3, 3, 3, 3, 3)), start=1):
            sizes.append(x.shape[1:3])
            x = _relu_conv(x, width, side, self.dtype, f"conv{i}", stride=2)
            fifth = x if i == 5 else fifth
        twists = _twists(x, self.motions, self.dtype)
        return (twists, self._explain(fifth, widths, sizes)) if self.explainability else twists

    def _explain(
        self, y: jax.Array, widths: list[int], sizes: list[tuple[int, int]]
    ) -> tuple[jax.Array, ...]:
        masks = []
        for i, side in zip(reversed(range(5)), (3, 3, 3, 5, 7)):
            y = UpConv(widths[i], side, dtype=self.dtype, name=f"up{i}")(y)
            y = nn.relu(y[:, : sizes[i][0], : sizes[i][1]])
            if i < 4:
                mask = _head(self.motions, side, self.dtype, f"mask{i}")(y)
                masks.insert(0, mask.astype(jnp.float32))
        return tuple(masks)


def _relu_conv(
    x: jax.Array, width: int, side: int, dtype: Any, name: str, stride: int = 1
) -> jax.Array:
    conv = Conv(width, side, stride=stride, use_bias=True, dtype=dtype, kernel_init=_he, name=name)
    return nn.relu(conv(x))


def _head(outputs: int, side: int, dtype: Any, name: str) -> Conv:
    return Conv(outputs, side, use_bias=True, dtype=dtype, kernel_init=_faint, name=name)


def _twists(y: jax.Array, motions: int, dtype: Any) -> jax.Array:
    y = _head(6 * motions, 1, dtype, "twists")(y).astype(jnp.float32)
    return 0.01 * jnp.mean(y, axis=(1, 2)).reshape(-1, motions, 6)
