"""Vision transformers (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sslax.checks import assert_rank, assert_shape
from sslax.errors import UserError, check_choice
from sslax.types import Array, Encoding

Initializer = Callable[..., Array]

_xavier = nn.initializers.xavier_uniform()


class ViT(nn.Module):
    """A vision transformer that returns pooled features, intermediate blocks and all tokens.

    Blocks are pre-norm by default, with the exact GELU. The residual stream and the softmax are
    float32 whatever `dtype` is. There is no batch normalization; without drop path, training and
    evaluation compute the same.

    Initialization is MAE's and MoCo v3's: linear maps Xavier-uniform, with queries, keys and values
    as three separate maps; biases 0; the class token normal with deviation 0.02. Learned positions
    are truncated normal with deviation 0.02, as DINO's; the class token has no position.

    Attributes:
        patch: side of the non-overlapping patches in pixels; divides the images' sides.
        width: of the tokens; a multiple of `heads`, and of 4 for "sincos".
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden units of a block's MLP, over `width`.
        pool: the features: "cls", the class token, or "mean", the mean of the patch tokens; both
            after the last LayerNorm.
        position: "sincos", the fixed table of `sincos_positions` for the images' grid (MAE,
            MoCo v3); "learned", a table `[h, w, width]` for the grid at initialization, resized to
            others by `resize_positions` (DINO); or "rope": every block rotates queries and keys by
            `rope_angles` (DINOv3).
        position_antialias: how "learned" positions are resized, see `resize_positions`.
        freeze_patch_embedding: the random patch projection is not trained, which stabilizes
            contrastive training (MoCo v3). It is then no parameter, out of the reach of weight
            decay and LARS, but model state, in the collection "frozen"; a momentum encoder starts
            from a copy of it.
        class_token: prepends a learned token.
        drop_path: probability that the last block's branches are left out for an example in
            training; it rises linearly from 0 at the first block (stochastic depth, Huang et al.
            2016).
        drop_path_uniform: all blocks have that probability (DINOv2).
        mask_token: a learned token, zero at first, stands for the patches that are masked; where
            there is none, nothing can be.
        registers: learned tokens without a position, which take part in the attention and are left
            out of all outputs (Darcet et al. 2023, https://arxiv.org/abs/2309.16588).
        layer_scale: both branches of a block are multiplied by learned vectors that start at this
            value (CaiT, https://arxiv.org/abs/2103.17239); 0 for none.
        swiglu: the MLPs are gated, see `Block`.
        post_norm: the blocks are post-norm, see `Block`, and the first LayerNorm is that of the
            embedded tokens rather than of the last block's output (data2vec).
        norm_epsilon: of the LayerNorms; DINOv3's is 1e-5.
        mlp_stages: the outputs of the MLPs of so many last blocks are stages, too.
        remat: recomputes each block in the backward pass rather than storing its activations.
        dtype: of the linear maps; parameters and outputs are float32.
    """

    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    pool: str = "cls"
    position: str = "sincos"
    position_antialias: bool = True
    freeze_patch_embedding: bool = False
    class_token: bool = True
    drop_path: float = 0.0
    drop_path_uniform: bool = False
    mask_token: bool = False
    registers: int = 0
    layer_scale: float = 0.0
    swiglu: bool = False
    post_norm: bool = False
    norm_epsilon: float = 1e-6
    mlp_stages: int = 0
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array | dict[str, Array], *, train: bool) -> Encoding:
        """Encodes images, a subset of their patches, or images with masked patches.

        Args:
            x: images `[N, H, W, C]`, or a dictionary of

                - 'image': the images;
                - 'keep' `[N, K]` int32: indices of the patches to encode, row by row, without
                  repetition; the other patches have no influence;
                - 'keep_mask' `[N, K]`, optional: False where an entry of 'keep' only pads the row
                  to K. Padding is not attended to and does not enter the mean; its own tokens are
                  meaningless;
                - 'masked' `[N, T]`: True for patches that the mask token replaces, at their
                  position; not together with 'keep';
                - 'key' `[N]`, in training with drop path: random keys.
            train: whether paths are dropped.

        Returns:
            Features `[N, width]`; the stages are four evenly spaced blocks, "block03", ..., and
            "tokens", the last block after the last LayerNorm, and those of `mlp_stages`, "mlp03",
            ..., before they are added to the tokens: each `[N, (1 +) T, width]`, the class token
            first, then T patches (or K, in the order of 'keep'). All float32.

        Raises:
            UserError: `patch` does not divide the images' sides; an unknown `pool` or `position`,
                or a pool without its token; drop path in training without keys; patches are
                masked and there is no mask token.
            ValueError: 4 does not divide the width, or, for "rope", that of a head.
        """
        x = x if isinstance(x, dict) else {"image": x}
        images, keep, mask = x["image"], x.get("keep"), x.get("keep_mask")
        assert_rank(images, 4)
        grid = self._grid(images.shape[1:3])
        patches, positions = patchify(images, self.patch), self._positions(grid)
        angles = None
        if self.position == "rope":
            angles = jnp.asarray(rope_angles(grid, self.width // self.heads))[None]
        if keep is not None:
            assert_shape(keep, (len(images), None))
            patches = jnp.take_along_axis(patches, keep[..., None], axis=1)
            positions = jnp.take(positions, keep, axis=0)
            angles = None if angles is None else jnp.take(angles[0], keep, axis=0)
        if mask is not None:
            assert_shape(mask, patches.shape[:2])
            mask = mask.astype(bool)
        y = PatchEmbedding(
            self.width, self.freeze_patch_embedding, self.dtype, name="patch_embedding"
        )(patches)
        y = self._replace_masked(y.astype(jnp.float32), x.get("masked")) + positions
        first, attended = self._first_tokens(), mask
        if len(first):
            first = jnp.broadcast_to(first, (y.shape[0], *first.shape))
            y = jnp.concatenate([first, y], axis=1)
            before = (0, 0), (first.shape[1], 0)
            if mask is not None:
                attended = jnp.pad(mask, before, constant_values=True)
            if angles is not None:
                angles = jnp.pad(angles, (*before, (0, 0)))  # which rotates these tokens by nothing
        if self.post_norm:
            y = layer_norm(jnp.float32, "embedding_norm", self.norm_epsilon)(y)
        factors = self._branch_factors(x.get("key")) if train and self.drop_path else None
        returned = {-(-self.depth * quarter // 4) for quarter in (1, 2, 3, 4)}
        stages = {}
        for i in range(1, self.depth + 1):
            name = f"block{i:02}"  # two digits: jit returns dictionaries in alphabetical order
            block = block_type(self.remat)(
                self.heads,
                self.mlp_ratio,
                self.dtype,
                layer_scale=self.layer_scale,
                swiglu=self.swiglu,
                post_norm=self.post_norm,
                norm_epsilon=self.norm_epsilon,
                name=name,
            )
            y, mlp = block(y, attended, None if factors is None else factors[:, i - 1], angles)
            if i in returned:
                stages[name] = self._without_registers(y)
            if i > self.depth - self.mlp_stages:
                stages[f"mlp{i:02}"] = self._without_registers(mlp)
        tokens = self._without_registers(y)
        if not self.post_norm:
            tokens = layer_norm(jnp.float32, "norm", self.norm_epsilon)(tokens)
        stages["tokens"] = tokens
        if self.pool == "cls":
            return Encoding(tokens[:, 0], stages)
        return Encoding(_mean(tokens[:, int(self.class_token) :], mask), stages)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Number of patches along the height and the width."""
        check_choice("pool", self.pool, ("cls", "mean"))
        check_choice("position", self.position, ("sincos", "learned", "rope"))
        if self.pool == "cls" and not self.class_token:
            raise UserError("pool='cls' needs the class token; choose pool='mean'.")
        if size[0] % self.patch or size[1] % self.patch:
            raise UserError(
                f"Images of {size[0]} x {size[1]} pixels do not divide into patches of "
                f"{self.patch}: set config.model.patch to a divisor of their sides."
            )
        return size[0] // self.patch, size[1] // self.patch

    def _replace_masked(self, patches: Array, masked: Array | None) -> Array:
        """The embedded patches `[N, T, width]`, the mask token in place of those masked."""
        token = None
        if self.mask_token:
            token = self.param("mask_token", nn.initializers.zeros, (self.width,))
        if masked is None:
            return patches
        if token is None:
            raise UserError(
                "config.model.mask_token is False, but this method masks patches: set it to True."
            )
        assert_shape(masked, patches.shape[:2])
        return jnp.where(masked.astype(bool)[..., None], token, patches)

    def _first_tokens(self) -> Array:
        """The class token and the registers, `[(1 +) R, width]`."""
        tokens, init = [jnp.zeros((0, self.width))], nn.initializers.normal(0.02)
        if self.class_token:
            tokens.append(self.param("class_token", init, (self.width,))[None])
        if self.registers:
            tokens.append(self.param("registers", init, (self.registers, self.width)))
        return jnp.concatenate(tokens)

    def _without_registers(self, tokens: Array) -> Array:
        if not self.registers:
            return tokens
        first = int(self.class_token)
        rest = tokens[:, first + self.registers :]
        return jnp.concatenate([tokens[:, :first], rest], axis=1)

    def _branch_factors(self, keys: Array | None) -> Array:
        """What each block's two branches are multiplied by, `[N, depth, 2]`: 0, or 1 / (1 - p)."""
        if keys is None:
            raise UserError(
                f"config.model.drop_path is {self.drop_path}, which this method does not support: "
                "set it to 0.0."
            )
        first = self.drop_path if self.drop_path_uniform else 0.0
        rates = jnp.linspace(first, self.drop_path, self.depth)[:, None]
        draws = jax.vmap(lambda key: jax.random.uniform(key, (self.depth, 2)))(keys)
        return jnp.where(draws >= rates, 1 / (1 - rates), 0.0)

    def _positions(self, grid: tuple[int, int]) -> Array:
        """The table `[T, width]` that is added to the patches; of width 1, zeros, for "rope"."""
        if self.position == "rope":
            return jnp.zeros((grid[0] * grid[1], 1))
        if self.position == "sincos":
            return jnp.asarray(sincos_positions(grid, self.width))
        shape = (*grid, self.width)
        if self.has_variable("params", "position"):  # perhaps of another grid
            table = self.get_variable("params", "position")
        else:
            table = self.param("position", nn.initializers.truncated_normal(0.02), shape)
        table = resize_positions(table, grid, antialias=self.position_antialias)
        return table.reshape(-1, self.width)


def _mean(tokens: Array, mask: Array | None) -> Array:
    """Mean of the real tokens, `[N, T, width] -> [N, width]`."""
    if mask is None:
        return jnp.mean(tokens, axis=1)
    count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    return jnp.sum(jnp.where(mask[..., None], tokens, 0), axis=1) / count


class PatchEmbedding(nn.Module):
    """Linear map of patches `[N, T, P]` to tokens `[N, T, width]`, trained or frozen."""

    width: int
    frozen: bool
    dtype: Any

    @nn.compact
    def __call__(self, patches: Array) -> Array:
        kernel = self._weights("kernel", _xavier, (patches.shape[-1], self.width))
        bias = self._weights("bias", nn.initializers.zeros, (self.width,))
        x = patches.astype(self.dtype) @ kernel.astype(self.dtype)
        return x + bias.astype(self.dtype)

    def _weights(self, name: str, init: Initializer, shape: tuple[int, ...]) -> Array:
        if not self.frozen:
            return self.param(name, init, shape)
        return self.variable(
            "frozen", name, lambda: init(self.make_rng("params"), shape, jnp.float32)
        ).value


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`, for float32 tokens `[N, T, width]`.

    With `post_norm` it is `norm(x + attention(x))`, then `norm(x + mlp(x))` (Vaswani et al. 2017).
    With `layer_scale` each branch is multiplied by a learned vector. With `swiglu` the MLP is
    `linear2(silu(a) * b)` with `a, b` the halves of `linear1(x)` (Shazeer 2020,
    https://arxiv.org/abs/2002.05202); it has two thirds of the hidden units, rounded up to a
    multiple of 8, so that it has about as many parameters (DINOv2).

    Attributes:
        heads: attention heads.
        mlp_ratio: hidden units of the MLP, over the tokens' width.
        dtype: of the linear maps.
        kernel_init: of all linear maps; None for Xavier-uniform.
        output_init: of the last linear map of each branch; None for `kernel_init`.
        layer_scale: the vectors' first value; 0 for none.
        swiglu: the MLP is gated.
        post_norm: each LayerNorm follows its branch rather than begins it.
        norm_epsilon: of the LayerNorms.
    """

    heads: int
    mlp_ratio: float
    dtype: Any
    kernel_init: Initializer | None = None
    output_init: Initializer | None = None
    layer_scale: float = 0.0
    swiglu: bool = False
    post_norm: bool = False
    norm_epsilon: float = 1e-6

    @nn.compact
    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        factors: Array | None = None,
        angles: Array | None = None,
    ) -> tuple[Array, Array]:
        """Updates tokens.

        Args:
            x: `[N, T, width]`.
            mask: `[N, T]`; tokens of False are not attended to.
            factors: `[N, 2]`, what the two branches are multiplied by; None for 1.
            angles: `[N or 1, T, width / heads / 2]`, by which queries and keys are rotated; None
                for none.

        Returns:
            The tokens, and the output of the MLP, both `[N, T, width]` float32.
        """
        width, output_init = x.shape[-1], self.output_init or self.kernel_init or _xavier
        attention = Attention(
            self.heads,
            self.dtype,
            self.kernel_init or _xavier_of(3),
            output_init,
            name="attention",
        )
        first, second = (1, 1) if factors is None else jnp.moveaxis(factors[..., None, None], 1, 0)
        linear2 = linear(width, self.dtype, "linear2", kernel_init=output_init)
        x, _ = self._add(1, x, lambda y: attention(y, mask, angles), first)
        return self._add(2, x, lambda y: linear2(self._hidden(y)), second)

    def _add(
        self, number: int, x: Array, branch: Callable[[Array], Array], factor: Array | int
    ) -> tuple[Array, Array]:
        """The tokens after one of the branches, and what the branch gives."""
        dtype = jnp.float32 if self.post_norm else self.dtype
        norm = layer_norm(dtype, f"norm{number}", self.norm_epsilon)
        y = branch(x if self.post_norm else norm(x)).astype(x.dtype)
        x = x + factor * self._scaled(y, f"scale{number}")
        return (norm(x) if self.post_norm else x), y

    def _hidden(self, x: Array) -> Array:
        """The MLP's hidden units, after the activation."""
        units = round(self.mlp_ratio * x.shape[-1])
        if not self.swiglu:
            init = self.kernel_init or _xavier
            return gelu(linear(units, self.dtype, "linear1", kernel_init=init)(x))
        units, init = 8 * -(-(2 * units // 3) // 8), self.kernel_init or _xavier_of(2)
        both = linear(2 * units, self.dtype, "linear1", kernel_init=init)(x)
        gate, value = jnp.split(both, 2, axis=-1)
        return nn.silu(gate) * value

    def _scaled(self, branch: Array, name: str) -> Array:
        if not self.layer_scale:
            return branch
        init = nn.initializers.constant(self.layer_scale)
        return branch * self.param(name, init, branch.shape[-1:])


def block_type(remat: bool) -> type[Block]:
    """`Block`, or with `remat` one that recomputes its activations in the backward pass."""
    return nn.remat(Block) if remat else Block


class Attention(nn.Module):
    """Self-attention of tokens `[N, T, width]`; queries, keys and values in one kernel."""

    heads: int
    dtype: Any
    kernel_init: Initializer
    output_init: Initializer

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, angles: Array | None = None) -> Array:
        n, tokens, width = x.shape
        if width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {width}.")
        x = linear(3 * width, self.dtype, "qkv", kernel_init=self.kernel_init)(x)
        x = x.reshape(n, tokens, 3, self.heads, -1)
        q, k, v = jnp.moveaxis(x, (2, 3), (0, 2))  # each [N, heads, T, width / heads]
        if angles is not None:
            q, k = rotate(q, angles[:, None]), rotate(k, angles[:, None])
        # On CPU this takes half to nine tenths of the time of jax.nn.dot_product_attention.
        scores = jnp.matmul(
            q * q.shape[-1] ** -0.5, jnp.swapaxes(k, 2, 3), preferred_element_type=jnp.float32
        )
        if mask is not None:
            # Finite, so that a row without any key has no NaN.
            scores = jnp.where(mask[:, None, None], scores, jnp.finfo(scores.dtype).min)
        x = jax.nn.softmax(scores).astype(self.dtype) @ v
        x = jnp.moveaxis(x, 1, 2).reshape(n, tokens, width)
        return linear(width, self.dtype, "projection", kernel_init=self.output_init)(x)


def gelu(x: Array) -> Array:
    """`x Φ(x)` with the error function: on CPU half the time of `jax.nn.gelu`, which uses erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def linear(features: int, dtype: Any, name: str, *, kernel_init: Initializer = _xavier) -> nn.Dense:
    """A linear map with a bias."""
    return nn.Dense(features, dtype=dtype, kernel_init=kernel_init, name=name)


def layer_norm(dtype: Any, name: str, epsilon: float = 1e-6) -> nn.LayerNorm:
    """LayerNorm with a transformer's epsilon."""
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)


def rotate(x: Array, angles: Array) -> Array:
    """Rotates pairs of channels, channel k of the first half with channel k of the second.

    Args:
        x: `[..., C]`.
        angles: in radians, broadcastable to `[..., C / 2]`.

    Returns:
        The shape and dtype of `x`; computed in float32.
    """
    a, b = jnp.split(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 2, axis=-1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _xavier_of(maps: int) -> Initializer:
    """Xavier-uniform for several maps side by side, rather than for one with all their outputs."""

    def init(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
        size = shape[0], shape[1] // maps
        kernels = [_xavier(k, size, dtype) for k in jax.random.split(key, maps)]
        return jnp.concatenate(kernels, axis=1)

    return init


def sincos_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """MAE's fixed position table of a grid of patches.

    With ω_k = 10000^(-4 k / width) for 0 <= k < width / 4, the row of the patch at (x, y) is
    [sin(x ω), cos(x ω), sin(y ω), cos(y ω)].

    Args:
        grid: number of patches along the height and the width.
        width: of the tokens; a multiple of 4.

    Returns:
        `[h w, width]` float32, row by row.

    Raises:
        ValueError: 4 does not divide `width`.

    Example:
        >>> sincos_positions((1, 2), 4).round(2).tolist()
        [[0.0, 1.0, 0.0, 1.0], [0.8399999737739563, 0.5400000214576721, 0.0, 1.0]]
    """
    if width % 4:
        raise ValueError(
            f"Sine-cosine positions need a width that is a multiple of 4, not {width}."
        )
    y, x = np.indices(grid).reshape(2, -1, 1)
    frequencies = 10000.0 ** (-4 * np.arange(width // 4) / width)
    waves = [wave(axis * frequencies) for axis in (x, y) for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)


def rope_angles(grid: tuple[int, int], channels: int) -> np.ndarray:
    """The angles of DINOv3's axial rotary positions, for a grid of patches.

    The centers of an image's patches have coordinates x and y in [-1, 1]. With the periods
    p_k = 100^(4 k / channels) for 0 <= k < channels / 4, the row of the patch at (x, y) is
    [2π y / p, 2π x / p].

    Args:
        grid: number of patches along the height and the width.
        channels: of a head's queries and keys; a multiple of 4.

    Returns:
        `[h w, channels / 2]` float32 in radians, row by row; for `rotate`.

    Raises:
        ValueError: 4 does not divide `channels`.

    Example:
        >>> (rope_angles((1, 2), 4) / np.pi).tolist()
        [[0.0, -1.0], [0.0, 1.0]]

    Siméoni et al., DINOv3, https://arxiv.org/abs/2508.10104, 2025; Su et al., RoFormer: Enhanced
    Transformer with Rotary Position Embedding, https://arxiv.org/abs/2104.09864, 2021.
    """
    if channels % 4:
        raise ValueError(
            f"Rotary positions need heads whose width is a multiple of 4, not {channels}."
        )
    periods = 100.0 ** (4 * np.arange(channels // 4) / channels)
    centers = 2 * (np.indices(grid).reshape(2, -1, 1) + 0.5) / np.reshape(grid, (2, 1, 1)) - 1
    return np.concatenate([*(2 * np.pi * centers / periods)], axis=1).astype(np.float32)


def resize_positions(table: Array, grid: tuple[int, int], *, antialias: bool = True) -> Array:
    """A table of learned positions for another grid of patches, by bicubic interpolation.

    Args:
        table: `[h, w, D]`.
        grid: number of patches along the height and the width.
        antialias: a kernel that widens where the grid shrinks, as DINOv2 with registers has it.
            DINO and DINOv2 without registers have none: a kernel of four patches with the
            parameter -0.75 (PyTorch's, where the other has -0.5), and ratios of sizes computed
            from `grid + 0.1`.

    Returns:
        `[*grid, D]`; the table itself where the grid is its own.

    Example:
        >>> resize_positions(jnp.ones((2, 2, 8)), (3, 4)).shape
        (3, 4, 8)
    """
    if table.shape[:2] == tuple(grid):
        return table
    if antialias:
        return jax.image.resize(table, (*grid, table.shape[-1]), "bicubic")
    rows, columns = (_cubic_weights(*sizes) for sizes in zip(table.shape[:2], grid))
    return jnp.einsum("yh,hwd,xw->yxd", rows, table, columns, precision="highest")


def _cubic_weights(size: int, new: int) -> np.ndarray:
    """Weights `[new, size]` of the four nearest elements; those beyond an edge are the edge's."""
    source = (np.arange(new) + 0.5) * size / (new + 0.1) - 0.5
    weights = np.zeros((new, size), np.float32)
    for tap in (-1, 0, 1, 2):
        index = np.floor(source).astype(int) + tap
        d = np.abs(source - index)
        near, far = (1.25 * d - 2.25) * d**2 + 1, -0.75 * (((d - 5) * d + 8) * d - 4)
        at = np.arange(new), np.clip(index, 0, size - 1)
        np.add.at(weights, at, np.where(d <= 1, near, far))
    return weights


def patchify(images: Array, patch: int) -> Array:
    """Cuts images into square patches, row by row; pixels in a patch row by row, channels last.

    Args:
        images: `[N, H, W, C]`.
        patch: side in pixels.

    Returns:
        `[N, T, patch² C]` with T = H W / patch².

    Raises:
        ValueError: the sides are no multiples of `patch`.

    Example:
        >>> import jax.numpy as jnp
        >>> patchify(jnp.arange(8).reshape(1, 2, 4, 1), 2).tolist()
        [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    """
    assert_rank(images, 4)
    n, height, width, channels = images.shape
    if height % patch or width % patch:
        raise ValueError(f"{height} x {width} pixels do not divide into patches of {patch}.")
    x = images.reshape(n, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(n, -1, patch * patch * channels)


def unpatchify(patches: Array, patch: int, size: tuple[int, int]) -> Array:
    """The inverse of `patchify`.

    Args:
        patches: `[N, T, patch² C]`.
        patch: side in pixels.
        size: (H, W) of the images in pixels.

    Returns:
        `[N, H, W, C]`.

    Example:
        >>> import jax.numpy as jnp
        >>> images = jnp.arange(16).reshape(1, 4, 4, 1)
        >>> bool((unpatchify(patchify(images, 2), 2, (4, 4)) == images).all())
        True
    """
    assert_shape(patches, (None, size[0] * size[1] // patch**2, None))
    rows, columns = size[0] // patch, size[1] // patch
    x = patches.reshape(len(patches), rows, columns, patch, patch, -1)
    return x.swapaxes(2, 3).reshape(len(patches), *size, -1)
