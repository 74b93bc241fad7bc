"""RAFT: optical flow by repeated lookups in an all-pairs correlation."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sslax import ops
from sslax.checks import assert_axis_dimension, assert_equal_shape_prefix, assert_rank
from sslax.errors import check_choice
from sslax.models import correlation as corr
from sslax.models.conv import Conv, conv_in_loop
from sslax.models.depth import scaled
from sslax.models.norm import BatchNorm
from sslax.models.pwc import pad_to_multiple, pairs
from sslax.models.weights import check_like, flatten, read_tensors
from sslax.ranges import Positive, PositiveInt
from sslax.types import PyTree

_STRIDE = 8  # of the features, in pixels of the image
_kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default


class RAFT(nn.Module):
    """Optical flow by recurrent updates at an eighth of the resolution.

    The correlation of all pairs of pixels is computed once. Starting from zero flow, each iteration
    looks up the correlations around the position that the flow points to, and a convolutional GRU,
    which also sees features of the first image (the context), turns them into an update. Topology,
    padding and the order of channels are torchvision's: with its weights the outputs are equal.

    Attributes:
        small: RAFT-S rather than the full network: bottleneck blocks, one 3x3 GRU, radius 3, no
            batch normalization, bilinear upsampling.
        width: factor on all channels.
        blocks: residual blocks of each of the encoders' three stages.
        iterations: number of updates.
        levels: of the correlation pyramid; the features need `2^(levels - 1)` pixels a side.
        radius: of the lookup; None for 4, or 3 in the small network.
        convex: upsampling by learned convex combinations of 3 x 3 neighbors; None for the full
            network only.
        norm: of the context encoder: 'batch', 'instance' or 'none'; None for 'batch', or 'none' in
            the small network. The feature encoder has 'instance'.
        correlation: 'dense' keeps the correlation of all pairs; 'on_demand' recomputes it at every
            iteration, a few rows at a time: for large images (see `correlation_lookup`). Values and
            gradients are the same.
        remat: recomputes each iteration in the backward pass rather than storing its activations.
        both: also predicts the flow from the second image to the first, from the same features.
        dtype: of the convolutions; parameters, correlations and flows are float32.

    Teed and Deng, RAFT, https://arxiv.org/abs/2003.12039, 2020.
    """

    small: bool = False
    width: Positive = 1.0
    blocks: PositiveInt = 2
    iterations: PositiveInt = 12
    levels: PositiveInt = 4
    radius: PositiveInt | None = None
    convex: bool | None = None
    norm: Literal["batch", "instance", "none", None] = None
    correlation: Literal["dense", "on_demand"] = "dense"
    remat: bool = False
    both: bool = True
    dtype: Any = jnp.float32

    @staticmethod
    def is_feature(name: str) -> bool:
        """Whether top-level parameters of that name belong to the encoder of single images."""
        return name == "feature_encoder"

    @nn.compact
    def __call__(self, x: jax.Array | dict[str, jax.Array], *, train: bool) -> jax.Array:
        """Estimates the flow of pairs of images.

        Args:
            x: images `[N, 2, H, W, C]` in [0, 1], or a dictionary with these as 'image'.
            train: batch normalization uses the batch's statistics.

        Returns:
            Flows `[N, D, iterations, H, W, 2]` float32, (x, y) in pixels; D is 2 with `both` (first
            to second, second to first), else 1. Images whose sides are no multiples of 8 are
            edge-padded, and the flows cropped.

        Raises:
            UserError: an unknown correlation or norm.
            ValueError: images too small for the levels.
        """
        images = x["image"] if isinstance(x, dict) else x
        assert_rank(images, 5)
        assert_axis_dimension(images, 1, 2)
        check_choice("correlation", self.correlation, ("dense", "on_demand"))
        height, width = images.shape[2:4]
        images = 2 * pad_to_multiple(images, _STRIDE) - 1
        images = images.reshape(-1, *images.shape[2:]).astype(self.dtype)
        sizes = _SMALL if self.small else _FULL
        encoder = {
            "small": self.small,
            "width": self.width,
            "blocks": self.blocks,
            "dtype": self.dtype,
        }
        features = Encoder(**encoder, outputs=sizes.features, name="feature_encoder")(
            images, train=train
        )
        sources = images if self.both else images[::2]
        norm = self.norm or ("none" if self.small else "batch")
        outputs = sizes.hidden + sizes.context
        context = Encoder(**encoder, outputs=outputs, norm=norm, name="context_encoder")(
            sources, train=train
        )
        first, second = pairs(features, self.both)
        if self.correlation == "dense":
            searched = corr.correlation_pyramid(first, second, levels=self.levels)
        else:
            searched = (first, second)
        hidden = scaled(sizes.hidden, self.width)
        start = jnp.tanh(context[..., :hidden]), jnp.zeros((*first.shape[:3], 2), jnp.float32)
        gates = _Gates(self.small, self.width, self.dtype, name="gates")
        scan = nn.scan(
            nn.remat(_Iteration, prevent_cse=False) if self.remat else _Iteration,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=(nn.broadcast, nn.broadcast),
            length=self.iterations,
        )
        iterate = scan(
            small=self.small,
            width=self.width,
            levels=self.levels,
            radius=(3 if self.small else 4) if self.radius is None else self.radius,
            convex=not self.small if self.convex is None else self.convex,
            dtype=self.dtype,
            name="iteration",
        )
        _, flows = iterate(start, searched, gates(nn.relu(context[..., hidden:])))
        flows = flows[:, :, :height, :width]  # [iterations, D N, H, W, 2]
        flows = flows.reshape(self.iterations, -1, 2 if self.both else 1, *flows.shape[2:])
        return jnp.moveaxis(flows, 0, 2)


class _Channels(NamedTuple):
    """Channels of a RAFT network at width 1."""

    stages: tuple[int, ...]
    features: int
    hidden: int
    context: int
    correlation: tuple[int, ...]
    flow: tuple[int, ...]
    motion: int
    head: int


_FULL = _Channels((64, 96, 128), 256, 128, 128, (256, 192), (128, 64), 128, 256)
_SMALL = _Channels((32, 64, 96), 128, 96, 64, (96,), (64, 32), 82, 128)


class Encoder(nn.Module):
    """Features at an eighth of the resolution: a 7x7 convolution and residual blocks.

    Convolutions before a normalization have no bias, which it would subtract.

    Attributes:
        outputs: channels, before `width`.
        small: bottleneck rather than basic blocks, and fewer channels.
        width: factor on all channels.
        blocks: of each of three stages.
        norm: 'batch', 'instance' or 'none'.
        dtype: of the computation; parameters are float32.
    """

    outputs: int
    small: bool = False
    width: float = 1.0
    blocks: int = 2
    norm: str = "instance"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Encodes images `[N, H, W, C]` as `[N, H / 8, W / 8, outputs]`."""
        check_choice("norm", self.norm, ("batch", "instance", "none"))
        stages = (_SMALL if self.small else _FULL).stages
        widths = [scaled(channels, self.width) for channels in stages]
        layers = {"norm": self.norm, "train": train, "dtype": self.dtype}
        x = nn.relu(_Layer(widths[0], 7, 2, **layers, name="convnormrelu")(x))
        for i, channels in enumerate(widths, start=1):
            for j in range(self.blocks):
                block = _Block(channels, 2 if i > 1 and j == 0 else 1, self.small, layers)
                x = block.copy(name=f"layer{i}_{j}")(x)
        outputs = scaled(self.outputs, self.width)
        conv = Conv(outputs, 1, use_bias=True, dtype=self.dtype, kernel_init=_kaiming, name="conv")
        return conv(x)


class _Layer(nn.Module):
    """Convolution and normalization."""

    features: int
    kernel_size: int
    stride: int
    norm: str
    train: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(
            self.features,
            self.kernel_size,
            stride=self.stride,
            use_bias=self.norm == "none",
            dtype=self.dtype,
            kernel_init=_kaiming,
            name="conv",
        )(x)
        if self.norm == "batch":
            return BatchNorm(self.train, dtype=self.dtype, name="norm")(x)
        return instance_norm(x) if self.norm == "instance" else x


class _Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1, each with a ReLU, and a shortcut."""

    channels: int
    stride: int
    small: bool
    layers: Mapping[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, inner = self.channels, max(1, self.channels // 4)
        sizes = [(channels, 3, self.stride), (channels, 3, 1)]
        if self.small:
            sizes = [(inner, 1, 1), (inner, 3, self.stride), (channels, 1, 1)]
        y = x
        for i, size in enumerate(sizes, start=1):
            y = nn.relu(_Layer(*size, **self.layers, name=f"convnormrelu{i}")(y))
        if self.stride > 1 or x.shape[-1] != channels:
            x = _Layer(channels, 1, self.stride, **self.layers, name="downsample")(x)
        return nn.relu(x + y)


def instance_norm(x: jax.Array, *, epsilon: float = 1e-5) -> jax.Array:
    """Normalizes each channel of each example of `[N, H, W, C]` to mean 0 and variance 1."""
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(y), axis=(1, 2), keepdims=True)
    return (y * lax.rsqrt(variance + epsilon)).astype(x.dtype)


class _LoopConv(nn.Module):
    """Same-size convolution of stride 1 with a bias, for the body of a loop."""

    features: int
    kernel_size: tuple[int, int]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel, bias = _weights(self, shape)
        return bias + conv_in_loop(x.astype(self.dtype), kernel)


class _GRU(NamedTuple):
    """A convolutional GRU whose context does not change between iterations.

    Attributes:
        kernel_zr: kernel of the gates z and r, over hidden state and motion.
        context_zr: the context's contribution to z and r, with the bias.
        kernel_q: kernel of the candidate q, over hidden state and motion.
        context_q: the context's contribution to q, with the bias.
    """

    kernel_zr: jax.Array
    context_zr: jax.Array
    kernel_q: jax.Array
    context_q: jax.Array

    def __call__(self, hidden: jax.Array, motion: jax.Array) -> jax.Array:
        """The next hidden state."""
        inputs = jnp.concatenate([hidden, motion], axis=-1)
        gates = nn.sigmoid(self.context_zr + conv_in_loop(inputs, self.kernel_zr))
        z, r = jnp.split(gates, 2, axis=-1)
        inputs = jnp.concatenate([r * hidden, motion], axis=-1)
        q = jnp.tanh(self.context_q + conv_in_loop(inputs, self.kernel_q))
        return (1 - z) * hidden + z * q


class _Gates(nn.Module):
    """The GRUs' weights, applied to the context.

    A gate convolves hidden state, context and motion. The context is the same in all iterations, so
    by linearity its contribution is computed once, outside of the loop.
    """

    small: bool
    width: float
    dtype: Any

    @nn.compact
    def __call__(self, context: jax.Array) -> tuple[_GRU, ...]:
        sizes = _SMALL if self.small else _FULL
        hidden, motion = (scaled(channels, self.width) for channels in (sizes.hidden, sizes.motion))
        inputs = hidden + context.shape[-1] + motion
        cuts = hidden, hidden + context.shape[-1]
        grus = []
        for i, kernel_size in enumerate([(3, 3)] if self.small else [(1, 5), (5, 1)], start=1):
            kernels, contributions = [], []
            for gate in "zrq":
                name = f"convgru{i}_conv{gate}"
                kernel, bias = _Weights((*kernel_size, inputs, hidden), self.dtype, name=name)()
                hidden_part, context_part, motion_part = jnp.split(kernel, cuts, axis=2)
                kernels.append(jnp.concatenate([hidden_part, motion_part], axis=2))
                contributions.append(bias + conv_in_loop(context, context_part))
            zr = [jnp.concatenate(parts[:2], axis=-1) for parts in (kernels, contributions)]
            grus.append(_GRU(zr[0], zr[1], kernels[2], contributions[2]))
        return tuple(grus)


class _Weights(nn.Module):
    """Kernel and bias of a convolution."""

    shape: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        return _weights(self, self.shape)


def _weights(module: nn.Module, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    kernel = module.param("kernel", _uniform, shape)
    bias = module.param("bias", nn.initializers.zeros, shape[-1:])
    return kernel.astype(module.dtype), bias.astype(module.dtype)


class _Iteration(nn.Module):
    """One update of the flow: lookup, motion encoder, GRU, flow head, upsampling."""

    small: bool
    width: float
    levels: int
    radius: int
    convex: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        carry: tuple[jax.Array, jax.Array],
        searched: tuple[jax.Array, ...],
        grus: tuple[_GRU, ...],
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        hidden, flow = carry
        # The gradient reaches the update, not the flow that it starts from.
        flow = lax.stop_gradient(flow)
        coords = ops.pixel_grid(*flow.shape[1:3]) + flow
        if searched[0].ndim == 4:
            first, second = searched
            correlations = corr.correlation_lookup(
                first, second, coords, levels=self.levels, radius=self.radius
            )
        else:
            correlations = corr.lookup(searched, coords, radius=self.radius)
        block = _Update(self.small, self.width, self.dtype, name="update_block")
        hidden, update = block(hidden, grus, correlations, flow)
        flow = flow + update.astype(jnp.float32)
        if not self.convex:
            return (hidden, flow), upsample_corners(flow, _STRIDE)
        x = _LoopConv(scaled(256, self.width), (3, 3), self.dtype, name="mask_convrelu")(hidden)
        logits = _LoopConv(9 * _STRIDE**2, (1, 1), self.dtype, name="mask_conv")(nn.relu(x))
        # The authors' factor, which scales down this branch's gradient.
        return (hidden, flow), upsample_convex(flow, 0.25 * logits, _STRIDE)


class _Update(nn.Module):
    """Motion encoder, GRUs and flow head."""

    small: bool
    width: float
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: jax.Array, grus: tuple[_GRU, ...], correlations: jax.Array, flow: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        sizes = _SMALL if self.small else _FULL

        def conv(x: jax.Array, features: int, side: int, name: str) -> jax.Array:
            return _LoopConv(features, (side, side), self.dtype, name=name)(x)

        flow = flow.astype(self.dtype)
        x, y = correlations.astype(self.dtype), flow
        for i, (channels, side) in enumerate(zip(sizes.correlation, (1, 3)), start=1):
            x = nn.relu(conv(x, scaled(channels, self.width), side, f"convcorr{i}"))
        for i, (channels, side) in enumerate(zip(sizes.flow, (7, 3)), start=1):
            y = nn.relu(conv(y, scaled(channels, self.width), side, f"convflow{i}"))
        motion = scaled(sizes.motion, self.width) - 2
        x = nn.relu(conv(jnp.concatenate([x, y], axis=-1), motion, 3, "motion_conv"))
        x = jnp.concatenate([x, flow], axis=-1)
        for gru in grus:
            hidden = gru(hidden, x)
        y = nn.relu(conv(hidden, scaled(sizes.head, self.width), 3, "flow_conv1"))
        return hidden, conv(y, 2, 3, "flow_conv2")


def upsample_convex(flow: jax.Array, logits: jax.Array, factor: int) -> jax.Array:
    """Upsampling by a convex combination of nine coarse flows for every pixel.

    `out(f p + (u, v)) = f Σ_k softmax_k(logits(p))[k, v, u] flow(p + d_k)` with the displacements
    `d_k` of the 3 x 3 neighbors, row by row; neighbors outside the image are zero.

    Args:
        flow: `[N, h, w, 2]`, in pixels of its resolution.
        logits: `[N, h, w, 9 factor²]`, in the order (k, v, u).
        factor: f, the increase in resolution.

    Returns:
        `[N, factor h, factor w, 2]` float32.

    Example:
        >>> upsample_convex(jnp.ones((1, 1, 1, 2)), jnp.zeros((1, 1, 1, 36)), 2).shape
        (1, 2, 2, 2)

    Teed and Deng, RAFT, https://arxiv.org/abs/2003.12039, 2020.
    """
    assert_rank([flow, logits], 4)
    assert_equal_shape_prefix([flow, logits], 3)
    assert_axis_dimension(logits, -1, 9 * factor**2)
    n, h, w, _ = flow.shape
    weights = logits.astype(jnp.float32).reshape(n, h, w, 9, factor, factor)
    weights = jax.nn.softmax(weights, axis=3)
    padded = jnp.pad(factor * flow, ((0, 0), (1, 1), (1, 1), (0, 0)))
    neighbors = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    # Weighted sums rather than matrix products, which accelerators compute less precisely.
    out = sum(
        weights[:, :, :, k, :, :, None] * neighbor[:, :, :, None, None]
        for k, neighbor in enumerate(neighbors)
    )
    return out.transpose(0, 1, 3, 2, 4, 5).reshape(n, factor * h, factor * w, 2)


def upsample_corners(flow: jax.Array, factor: int) -> jax.Array:
    """Bilinear upsampling with aligned corner pixels, as the weights of RAFT-S expect.

    Args:
        flow: `[N, h, w, 2]`, in pixels of its resolution.
        factor: increase in resolution.

    Returns:
        `[N, factor h, factor w, 2]`, in pixels of its own resolution.

    Example:
        >>> flow = jnp.array([0.0, 3.0]).reshape(1, 1, 2, 1) * jnp.ones(2)
        >>> upsample_corners(flow, 2)[0, 0, :, 0].tolist()
        [0.0, 2.0, 4.0, 6.0]
    """
    assert_rank(flow, 4)
    _, h, w, _ = flow.shape

    def weights(size: int) -> jax.Array:
        position = np.arange(factor * size) * ((size - 1) / (factor * size - 1))
        hats = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)))
        return jnp.asarray(hats, jnp.float32)

    return factor * jnp.einsum(
        "yh,nhwc,xw->nyxc", weights(h), flow.astype(jnp.float32), weights(w), precision="highest"
    )


def load_torchvision_raft(
    source: str | os.PathLike | Mapping[str, Any], module: RAFT | None = None
) -> tuple[PyTree, PyTree]:
    """Converts the state dict of torchvision's `raft_large` or `raft_small`.

    Biases before a normalization, which subtracts them, are dropped, and subtracted from the
    running mean of batch normalization.

    Args:
        source: arrays by name, or a file of them: `.safetensors`, `.npz`, or, where PyTorch is
            installed, `.pth`.
        module: the `RAFT` that the weights are for; None for torchvision's own.

    Returns:
        `(params, model_state)`, float32.

    Raises:
        ValueError: an array is missing, unexpected, or of another shape; the message names it.
        ImportError: a PyTorch file without PyTorch.
    """
    tensors = source if isinstance(source, Mapping) else read_tensors(Path(source))
    if module is None:
        module = RAFT(small="mask_predictor.conv.weight" not in tensors)
    image = jax.ShapeDtypeStruct((1, 2, 128, 128, 3), jnp.float32)
    like = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    wanted = flatten(like)
    arrays, shifts = {}, {}
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        array = np.asarray(tensor, np.float32)
        path = _torchvision_path(name, array.ndim)
        if re.search(r"_encoder\..*\.0\.bias$", name) and path not in wanted:
            shifts[path.replace("params", "batch_stats", 1).replace("/conv/bias", "/norm/mean")] = (
                array
            )
        else:
            arrays[path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    arrays |= {path: arrays[path] - shift for path, shift in shifts.items() if path in arrays}
    check_like(wanted, arrays, "the state dict")
    leaves = [jax.device_put(arrays[name]) for name in wanted]
    variables = dict(jax.tree.unflatten(jax.tree.structure(like), leaves))
    return variables.pop("params"), variables


def _torchvision_path(name: str, rank: int) -> str:
    """'feature_encoder.layer1.0.downsample.0.weight' -> '.../layer1_0/downsample/conv/kernel'.

    'update_block.recurrent_block.convgru1.convz.weight' is 'gates/convgru1_convz/kernel'.
    """
    *scope, leaf = re.sub(r"\.(layer\d)\.(\d)\.", r".\1_\2.", name).split(".")
    collection = "batch_stats" if leaf.startswith("running_") else "params"
    leaf = {
        "weight": "kernel" if rank == 4 else "scale",
        "running_mean": "mean",
        "running_var": "var",
    }.get(leaf, leaf)
    if scope[0].endswith("encoder"):
        scope = [{"0": "conv", "1": "norm"}.get(part, part) for part in scope]
        return "/".join([collection, *scope, leaf])
    scope = [part for part in scope if part != "0"]
    if scope[0] == "mask_predictor":
        return "/".join([collection, "iteration", f"mask_{scope[1]}", leaf])
    _, block, *layer = scope
    if block == "recurrent_block":
        return "/".join([collection, "gates", "_".join(layer), leaf])
    if block == "flow_head":
        module = f"flow_{layer[0]}"
    else:
        module = "motion_conv" if layer == ["conv"] else layer[0]
    return "/".join([collection, "iteration", "update_block", module, leaf])
