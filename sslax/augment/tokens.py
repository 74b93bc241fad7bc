"""Random choices of tokens (patches of an image): which a network sees, and which it predicts.

Tokens are numbered row by row, as a Vision Transformer flattens its grid.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks, ranges
from sslax.ranges import Fraction, FractionRange, PositiveInt, PositiveRange
from sslax.types import Array

# Folded into the key of the block sizes. Small numbers are not safe: fold_in(key, i) is also the
# key of example i and the i-th key of a split.
_SIZES = 0x512E5

_BLOCKS = 100  # that are drawn at most for a blockwise mask


def random_masking(key: Array, tokens: int, *, ratio: float = 0.75) -> tuple[Array, Array]:
    """MAE's random masking: keeps a uniform choice of tokens, without replacement.

    Args:
        key: random key.
        tokens: T, number of tokens.
        ratio: fraction of the tokens that is masked.

    Returns:
        Indices `[K]` int32 of the `K = int((1 - ratio) T)` visible tokens, at least one,
        increasing, and the mask `[T]` (bool), True for a masked token.

    Raises:
        ValueError: `ratio` is not in [0, 1).

    Example:
        >>> import jax
        >>> visible, mask = random_masking(jax.random.key(0), 8, ratio=0.75)
        >>> visible.shape, int(mask.sum()), bool(mask[visible].any())
        ((2,), 6, False)

    He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv:2111.06377.
    """
    if tokens < 1 or not 0 <= ratio < 1:
        raise checks.value_error(
            f"ratio must be in [0, 1) and tokens positive; got {ratio} of {tokens}."
        )
    kept = max(int((1 - ratio) * tokens), 1)
    visible = jnp.sort(jax.random.permutation(key, tokens)[:kept]).astype(jnp.int32)
    return visible, jnp.ones(tokens, bool).at[visible].set(False)


def random_unit_masking(
    key: Array, grid: tuple[int, int], *, unit: int = 2, ratio: float = 0.6
) -> Array:
    """SimMIM's random masking: of squares of `unit` x `unit` tokens, each as a whole.

    Args:
        key: random key.
        grid: (H, W), rows and columns of the token grid.
        unit: side of the squares, in tokens; divides H and W.
        ratio: fraction of the squares that is masked, rounded up to a whole number of them.

    Returns:
        `[H W]` bool, True for a masked token.

    Raises:
        ValueError: `ratio` is not in (0, 1), or `unit` does not divide the grid.

    Example:
        >>> import jax
        >>> mask = random_unit_masking(jax.random.key(0), (4, 4), unit=2, ratio=0.6)
        >>> mask.shape, int(mask.sum())  # three of four squares
        ((16,), 12)

    Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022, arXiv:2111.09886.
    """
    if not 0 < ratio < 1:
        raise checks.value_error(f"ratio must be in (0, 1); got {ratio}.")
    if unit < 1 or any(side < unit or side % unit for side in grid):
        raise checks.value_error(f"squares of {unit} tokens do not divide a grid of {grid}.")
    rows, columns = (side // unit for side in grid)
    count = math.ceil(ratio * rows * columns)
    mask = jax.random.permutation(key, rows * columns).reshape(rows, columns) < count
    return jnp.repeat(jnp.repeat(mask, unit, axis=0), unit, axis=1).ravel()


def inverse_block_masking(
    key: Array,
    grid: tuple[int, int],
    *,
    ratio: float = 0.8,
    block: PositiveInt = 3,
    surplus: Fraction = 0.07,
) -> tuple[Array, Array]:
    """data2vec 2.0's inverse block masking: squares of tokens are visible, all others masked.

    ```
    visible: K = floor((1 - ratio) H W) tokens
    squares: floor((1 - ratio + surplus) H W / block²) of side `block`, around random tokens
    ```

    Squares are cut off at the border, and may overlap. Where they have more than K tokens, a random
    choice of K is visible; where they have fewer, random tokens of the others are, too.

    Args:
        key: random key.
        grid: (H, W), rows and columns of the token grid.
        ratio: fraction of the tokens that is masked.
        block: side of the squares.
        surplus: share of the grid that is added to the squares, since they overlap.

    Returns:
        Indices `[K]` int32 of the visible tokens, increasing, and the mask `[H W]` (bool), True for
        a masked token.

    Raises:
        ValueError: `ratio` is not in (0, 1), or so large that no token is visible.

    Example:
        >>> import jax
        >>> visible, mask = inverse_block_masking(jax.random.key(0), (14, 14))
        >>> visible.shape, int(mask.sum()), bool(mask[visible].any())
        ((39,), 157, False)

    Baevski et al., "Efficient Self-supervised Learning with Contextualized Target Representations
    for Vision, Speech and Language", ICML 2023, arXiv:2212.07525.
    """
    rows, columns = grid
    tokens = rows * columns
    share = round(1 - ratio, 9)  # so that 0.2 of 25 is 5
    kept, squares = int(share * tokens), int((share + surplus) * tokens / block**2)
    if not 0 < ratio < 1 or not kept:
        raise checks.value_error(
            f"ratio must be in (0, 1) and leave a visible token; got {ratio} of {tokens}."
        )
    center_key, choice_key = jax.random.split(key)
    centers = jax.random.randint(center_key, (squares, 1), 0, tokens, jnp.int32)
    token = jnp.arange(tokens, dtype=jnp.int32)

    def near(distance: Array) -> Array:
        return (distance >= -(block // 2)) & (distance < block - block // 2)

    inside = near(token // columns - centers // columns) & near(token % columns - centers % columns)
    preference = jax.random.uniform(choice_key, (tokens,), jnp.float32)
    order = jnp.argsort(jnp.where(jnp.any(inside, axis=0), preference, 1 + preference))
    visible = jnp.sort(order[:kept]).astype(jnp.int32)
    return visible, jnp.ones(tokens, bool).at[visible].set(False)


def blockwise_masking(
    key: Array,
    grid: tuple[int, int],
    *,
    ratio: FractionRange = (0.1, 0.5),
    probability: Fraction = 1.0,
    smallest: int | None = None,
) -> Array:
    """Blockwise masking of BEiT, iBOT and DINOv2: rectangles that may overlap, up to a share.

    ```
    high = H W s, s ~ U(ratio), or 0 with probability 1 - `probability`; n tokens are masked
    block:  area ~ U(smallest, high - n), log r ~ U(-log(1/0.3), log(1/0.3)),
            height = round(sqrt(area r)), width = round(sqrt(area / r)), uniform position
    ```

    A block is masked if it is smaller than the grid in both directions and adds between one and
    `high - n` tokens; otherwise another is drawn. Drawing ends when `high` is reached, after ten
    blocks in a row that were not masked, as in the authors' code, or after 100 altogether, so that
    shapes are static and examples independent.

    Args:
        key: random key.
        grid: (H, W), rows and columns of the token grid.
        ratio: range of the share of tokens that is masked at most.
        probability: that anything is masked at all (0.5 in iBOT and DINOv2).
        smallest: least area that is drawn, unless less is left: 4 in DINOv2; None for
            `(min(H, W) // 3)²`, iBOT's.

    Returns:
        `[H W]` bool, True for a masked token; at most `int(ratio[1] H W)` of them.

    Raises:
        ValueError: `ratio` is not an increasing pair in (0, 1], or `probability` not in [0, 1].

    Example:
        >>> import jax
        >>> mask = blockwise_masking(jax.random.key(0), (14, 14))
        >>> mask.shape, 0 < int(mask.sum()) <= 98
        ((196,), True)

    Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022, arXiv:2106.08254; Zhou
    et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022, arXiv:2111.07832.
    """
    ranges.check("ratio", ratio, FractionRange)
    ranges.check("probability", probability, Fraction)
    rows, columns = grid
    least = float((min(grid) // 3) ** 2 if smallest is None else smallest)
    any_key, ratio_key, blocks_key = jax.random.split(key, 3)
    share = jax.random.uniform(ratio_key, (), jnp.float32, minval=ratio[0], maxval=ratio[1])
    chosen = jax.random.uniform(any_key, (), jnp.float32) < probability
    high = jnp.where(chosen, rows * columns * share, 0)
    y, x = jnp.arange(rows, dtype=jnp.float32)[:, None], jnp.arange(columns, dtype=jnp.float32)

    def add_block(state: tuple[Array, Array], draws: Array) -> tuple[tuple[Array, Array], None]:
        mask, failures = state
        left = high - jnp.sum(mask, dtype=jnp.float32)
        area = jnp.maximum(least + (left - least) * draws[0], 0.0)
        aspect = jnp.exp((2 * draws[1] - 1) * math.log(1 / 0.3))
        height, width = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
        top = jnp.floor(draws[2] * (rows - height + 1))
        first = jnp.floor(draws[3] * (columns - width + 1))
        block = (y >= top) & (y < top + height) & (x >= first) & (x < first + width)
        new = jnp.sum(block & ~mask, dtype=jnp.float32)
        fits = (height < rows) & (width < columns) & (new > 0) & (new <= left)
        fits &= (left > 0) & (failures < 10)
        return (mask | (block & fits), jnp.where(fits, 0, failures + 1)), None

    start = jnp.zeros(grid, bool), jnp.zeros((), jnp.int32)
    draws = jax.random.uniform(blocks_key, (_BLOCKS, 4), jnp.float32)
    return jax.lax.scan(add_block, start, draws)[0][0].ravel()


class TokenBlocks(NamedTuple):
    """The context and the target blocks of one image, as token indices with padding.

    Attributes:
        context: `[J]` int32, the context's tokens, increasing, then padding (repeats of the first).
        context_mask: `[J]` bool, False for padding, which attention must exclude.
        targets: `[M, L]` int32, the tokens of each target block, row by row, then padding (repeats
            of the block's first token).
        target_mask: `[M, L]` bool, False for padding, which the loss must exclude.
    """

    context: Array
    context_mask: Array
    targets: Array
    target_mask: Array


def random_token_blocks(
    key: Array,
    grid: tuple[int, int],
    *,
    size_key: Array | None = None,
    targets: PositiveInt = 4,
    target_scale: FractionRange = (0.15, 0.2),
    target_aspect: PositiveRange = (0.75, 1.5),
    context_scale: FractionRange = (0.85, 1.0),
    min_context: PositiveInt = 10,
    max_context: PositiveInt | None = None,
) -> TokenBlocks:
    """I-JEPA's masks: target blocks to predict, and the context block without their tokens.

    ```
    block:    area = floor(H W s), s ~ U(scale);  r ~ U(aspect);
              height = round(sqrt(area r)), width = round(sqrt(area / r)), uniform position
    targets:  M blocks of one size;   context: one square block minus the union of the targets
    ```

    All shapes are static: J and L are the largest numbers of context and target tokens that can
    occur, and the masks mark the real ones. With the same `size_key` for all examples of a batch
    their blocks have the same sizes, as in the authors' code:

    ```
    sample = functools.partial(random_token_blocks, grid=(14, 14), size_key=rng)
    blocks = jax.vmap(sample)(batch_keys(rng, batch))
    ```

    Context and targets are disjoint and the context has at least `min_context` tokens. If the
    context block has fewer, random tokens outside all blocks are added. The context includes tokens
    of the targets only if there are too few others, which cannot happen if
    `H W - M L >= min_context`.

    Differences from the authors' code:

    - Blocks can touch the last row and column, and be as large as the grid. The code draws corners
      with an exclusive upper bound and limits sides to `H - 1` and `W - 1`, so no block reaches the
      last row or column.
    - Area and aspect ratio are independent, each on 256 equally likely levels. The code uses one
      random number for both, so large targets are also tall.
    - Masks are padded. The code truncates all masks of a batch to the shortest one and keeps the
      first tokens in raster order, so tokens at the bottom are dropped more often. With
      `max_context` a random subset is kept here.
    - A context that is too small is filled up as above. The code redraws its position, and after
      every 20 failures lets it overlap one more target. (Its threshold is also one higher: it asks
      for more than `min_context` tokens.)

    Args:
        key: random key of the example.
        grid: (H, W), rows and columns of the token grid.
        size_key: random key of the block sizes; None derives it from `key`. Any key that is also
            used for `example_keys` is safe.
        targets: M, number of target blocks.
        target_scale: range of the area of a target block, as a fraction of the grid.
        target_aspect: range of its aspect ratio, height over width.
        context_scale: range of the area of the context block, as a fraction of the grid.
        min_context: smallest number of context tokens.
        max_context: largest number of context tokens, J; None for no limit.

    Returns:
        `TokenBlocks`.

    Raises:
        ValueError: a range is not a positive, increasing pair, a scale exceeds 1, there is no
            target, or the limits of the context cannot be met.

    Example:
        >>> import jax
        >>> blocks = random_token_blocks(jax.random.key(0), (14, 14))
        >>> blocks.context.shape, blocks.targets.shape
        ((172,), (4, 42))
        >>> set(blocks.context.tolist()) & set(blocks.targets.ravel().tolist())
        set()

    Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive
    Architecture", CVPR 2023, arXiv:2301.08243.
    """
    target_sizes = _block_sizes(tuple(grid), tuple(target_scale), tuple(target_aspect))
    context_sizes = _block_sizes(tuple(grid), tuple(context_scale), (1.0, 1.0))
    context_slots = _context_slots(grid, target_sizes, context_sizes, min_context, max_context)
    ranges.check("targets", targets, PositiveInt)

    size_keys = jax.random.split(jax.random.fold_in(key if size_key is None else size_key, _SIZES))
    target_key, context_key, choice_key = jax.random.split(key, 3)
    target_size = target_sizes.sample(size_keys[0])
    target_corners = _random_corners(target_key, grid, target_size, targets)
    target_tokens, target_mask = _block_tokens(grid, target_corners, target_size, target_sizes.area)

    context_size = context_sizes.sample(size_keys[1])
    (context_corner,) = _random_corners(context_key, grid, context_size, 1)
    in_target = jnp.zeros(grid[0] * grid[1], bool).at[target_tokens.ravel()].set(True)
    in_context = _inside_block(grid, context_corner, context_size)
    context, context_mask = _choose_context(
        choice_key, in_context, in_target, context_slots, min_context
    )
    return TokenBlocks(context, context_mask, target_tokens, target_mask)


class _BlockSizes(NamedTuple):
    """The possible sizes of a block, `[S, 2]` (height, width), and their probabilities `[S]`."""

    sizes: np.ndarray
    probabilities: np.ndarray

    @property
    def area(self) -> int:
        """The largest number of tokens."""
        return int(self.sizes.prod(axis=1).max())

    def sample(self, key: Array) -> Array:
        """A random size, `[2]` int32."""
        index = jax.random.choice(key, len(self.sizes), p=jnp.asarray(self.probabilities))
        return jnp.asarray(self.sizes)[index]


@functools.lru_cache
def _block_sizes(
    grid: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float]
) -> _BlockSizes:
    """Sizes for uniform area and aspect ratio, both on 256 levels.

    A table rather than a computation on the device, so that the largest size is known exactly.
    """
    ranges.check("scale", scale, FractionRange)
    ranges.check("aspect", aspect, PositiveRange)
    levels = (np.arange(256) + 0.5) / 256
    area = np.floor(grid[0] * grid[1] * (scale[0] + (scale[1] - scale[0]) * levels))
    ratio = aspect[0] + (aspect[1] - aspect[0]) * levels[:, None]
    sides = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=-1).reshape(-1, 2)
    rounded = np.clip(np.round(sides), 1, grid).astype(np.int32)
    sizes, counts = np.unique(rounded, axis=0, return_counts=True)
    return _BlockSizes(sizes, counts / counts.sum())


def _context_slots(
    grid: tuple[int, int],
    target_sizes: _BlockSizes,
    context_sizes: _BlockSizes,
    min_context: int,
    max_context: int | None,
) -> int:
    """The largest number of context tokens that can occur."""
    tokens = grid[0] * grid[1]
    smallest_target = int(target_sizes.sizes.prod(axis=1).min())
    slots = max(min(context_sizes.area, tokens - smallest_target), min_context)
    if max_context is not None:
        slots = min(slots, max_context)
    if not 1 <= min_context <= slots <= tokens:
        raise checks.value_error(
            f"a {grid[0]} x {grid[1]} grid cannot have between min_context={min_context} and "
            f"max_context={max_context} context tokens."
        )
    return slots


def _random_corners(key: Array, grid: tuple[int, int], size: Array, count: int) -> Array:
    """`[count, 2]` first rows and columns of blocks, uniform over all that fit."""
    return jax.random.randint(key, (count, 2), 0, jnp.array(grid, jnp.int32) - size + 1, jnp.int32)


def _block_tokens(
    grid: tuple[int, int], corners: Array, size: Array, slots: int
) -> tuple[Array, Array]:
    """Tokens `[M, slots]` of blocks, row by row and padded, and the mask of the real ones."""
    position = jnp.arange(slots, dtype=jnp.int32)
    real = position < size[0] * size[1]
    position = jnp.where(real, position, 0)
    row, column = jnp.divmod(position, size[1])
    tokens = (corners[:, 0, None] + row) * grid[1] + corners[:, 1, None] + column
    return tokens, jnp.broadcast_to(real, tokens.shape)


def _inside_block(grid: tuple[int, int], corner: Array, size: Array) -> Array:
    """`[T]` bool: the token is in the block."""
    row, column = jnp.divmod(jnp.arange(grid[0] * grid[1], dtype=jnp.int32), grid[1])
    inside_rows = (row >= corner[0]) & (row < corner[0] + size[0])
    return inside_rows & (column >= corner[1]) & (column < corner[1] + size[1])


def _choose_context(
    key: Array, in_context: Array, in_target: Array, slots: int, min_context: int
) -> tuple[Array, Array]:
    """Context tokens `[slots]`, padded, and the mask of the real ones."""
    count = jnp.clip(jnp.sum(in_context & ~in_target), min_context, slots)
    # Tokens by preference: of the context alone, of no block or target, of the targets.
    preference = jnp.where(in_target, 2.0, jnp.where(in_context, 0.0, 1.0))
    order = jnp.argsort(preference + jax.random.uniform(key, in_target.shape, jnp.float32))
    chosen = jnp.zeros_like(in_target).at[order[:slots]].set(jnp.arange(slots) < count)
    context = jnp.argsort(~chosen, stable=True)[:slots].astype(jnp.int32)
    mask = jnp.arange(slots) < count
    return jnp.where(mask, context, context[0]), mask
