"""Masks of tokens: counts, ranges, disjointness, distributions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import augment

COUNT = 4000
KEYS = jax.random.split(jax.random.key(0), COUNT)
GRID = (14, 14)


def draw(keys=KEYS, **options):
    """Blocks of all keys, as NumPy arrays, in one compiled call."""
    sample = functools.partial(augment.random_token_blocks, **{"grid": GRID, **options})
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(sample))(keys))


def as_grid(tokens, mask, grid=GRID):
    """`[..., H, W]` bool: which cells of the grid the real tokens occupy."""
    cells = np.zeros((*tokens.shape[:-1], grid[0] * grid[1]), bool)
    np.put_along_axis(cells, tokens, True, axis=-1)
    # Padding repeats a real token.
    assert (cells.sum(-1) == mask.sum(-1)).all()
    return cells.reshape(*tokens.shape[:-1], *grid)


def rectangles(cells):
    """First rows and columns, heights and widths of `[N, H, W]` blocks, which must be full."""
    rows, columns = cells.any(2), cells.any(1)
    height, width = rows.sum(1), columns.sum(1)
    assert (cells.sum((1, 2)) == height * width).all()
    return rows.argmax(1), columns.argmax(1), height, width


@pytest.fixture(scope="module")
def blocks():
    return draw()


def test_shapes_and_padding(blocks):
    assert blocks.context.shape == blocks.context_mask.shape == (COUNT, 172)
    assert blocks.targets.shape == blocks.target_mask.shape == (COUNT, 4, 42)
    assert blocks.context.dtype == blocks.targets.dtype == np.int32
    for tokens, mask in (
        (blocks.context, blocks.context_mask),
        (blocks.targets, blocks.target_mask),
    ):
        assert mask.dtype == bool and tokens.min() >= 0 and tokens.max() < 196
        assert (mask[..., :-1] >= mask[..., 1:]).all()  # real tokens first
        # Real tokens increase, padding repeats the first one.
        increases = np.diff(tokens, axis=-1) > 0
        assert increases[mask[..., 1:]].all()
        first = np.broadcast_to(tokens[..., :1], tokens.shape)
        np.testing.assert_array_equal(tokens[~mask], first[~mask])


def test_targets_are_four_blocks_of_one_size_in_range(blocks):
    cells = as_grid(blocks.targets, blocks.target_mask)
    _, _, height, width = (x.reshape(COUNT, 4) for x in rectangles(cells.reshape(-1, *GRID)))
    assert (height == height[:, :1]).all() and (width == width[:, :1]).all()
    # Areas before rounding are 29 to 39 tokens, aspect ratios 0.75 to 1.5.
    assert (height * width).min() >= 24 and (height * width).max() <= 42
    assert np.abs(np.mean(height * width) - np.mean(np.floor(196 * np.linspace(0.15, 0.2)))) < 1
    sizes, counts = np.unique(np.stack([height[:, 0], width[:, 0]], -1), axis=0, return_counts=True)
    # The same formula on continuous draws.
    rng = np.random.default_rng(0)
    area = np.floor(196 * rng.uniform(0.15, 0.2, 400_000))
    aspect = rng.uniform(0.75, 1.5, 400_000)
    sides = np.round(np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], -1))
    expected = {
        tuple(s): n / 400_000 for s, n in zip(*np.unique(sides, axis=0, return_counts=True))
    }
    for size, count in zip(sizes, counts):
        share = expected[tuple(size)]
        assert abs(count / COUNT - share) < 5 * np.sqrt(share / COUNT) + 2e-3
    assert sum(expected[tuple(size)] for size in sizes) > 0.99


def test_positions_of_targets_are_uniform_and_independent(blocks):
    cells = as_grid(blocks.targets, blocks.target_mask)
    top, left, height, width = (x.reshape(COUNT, 4) for x in rectangles(cells.reshape(-1, *GRID)))
    chosen = (height[:, 0] == 6) & (width[:, 0] == 6)
    for first in (top[chosen], left[chosen]):
        counts = np.bincount(first.ravel(), minlength=9)
        assert len(counts) == 9  # up to the last row and column
        expected = first.size / 9
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    columns = np.concatenate([top[chosen], left[chosen]], axis=1).T
    correlation = np.corrcoef(columns) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(chosen.sum())


def test_context_is_a_square_block_without_the_targets(blocks):
    context = as_grid(blocks.context, blocks.context_mask)
    covered = as_grid(blocks.targets, blocks.target_mask).any(1)
    assert not (context & covered).any()
    assert blocks.context_mask.sum(1).min() >= 10
    # All cells of the smallest rectangle around the context are context or target tokens.
    sides = []
    for cells, targets in zip(context, covered):
        rows, columns = np.nonzero(cells)
        box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (cells | targets)[box].all()
        sides.append(max(rows.max() - rows.min(), columns.max() - columns.min()) + 1)
    # Sides of 13 (areas of 166 to 182 tokens) and 14 (areas above).
    sides = np.array(sides)
    assert sides.max() == 14
    assert 0.35 < (sides == 14).mean() < 0.45  # 0.44, unless targets hide an outer row


def test_one_size_key_gives_one_size():
    @jax.jit
    def sample(rng, size_key):
        keys = augment.example_keys(rng, jnp.arange(64))
        sample = functools.partial(augment.random_token_blocks, grid=GRID, size_key=size_key)
        return jax.vmap(sample)(keys)

    areas = []
    for rng in jax.random.split(jax.random.key(5), 12):
        # The key that the keys of the examples are derived from may serve as the size key.
        mask = np.asarray(sample(rng, rng).target_mask).sum(-1)
        assert (mask == mask[0, 0]).all()
        areas.append(int(mask[0, 0]))
    assert len(set(areas)) > 3


def test_same_key_same_blocks_one_at_a_time_and_batched(blocks):
    sample = jax.jit(functools.partial(augment.random_token_blocks, grid=GRID))
    for i in (0, 17):
        for single, batched in zip(sample(KEYS[i]), blocks):
            np.testing.assert_array_equal(single, batched[i])
    assert (blocks.targets[0] != blocks.targets[1]).any()


def test_the_context_has_at_least_min_context_tokens():
    """Tokens from outside all blocks are added, and tokens of targets only if necessary."""
    # Context blocks of about 44 tokens; four targets of up to 42 leave 28 tokens at least.
    blocks = draw(KEYS[:500], context_scale=(0.2, 0.25), min_context=28)
    context = as_grid(blocks.context, blocks.context_mask)
    covered = as_grid(blocks.targets, blocks.target_mask).any(1)
    count = blocks.context_mask.sum(1)
    assert count.min() == 28 < count.max() and not (context & covered).any()

    blocks = draw(KEYS[:500], min_context=140)
    context = as_grid(blocks.context, blocks.context_mask)
    covered = as_grid(blocks.targets, blocks.target_mask).any(1)
    outside = (~covered).sum((1, 2))
    assert (context.sum((1, 2)) >= 140).all() and outside.min() < 140
    overlap = (context & covered).sum((1, 2))
    np.testing.assert_array_equal(overlap, np.maximum(140 - outside, 0))


def test_a_small_grid_keeps_its_promises():
    blocks = draw(KEYS[:500], grid=(4, 4), min_context=4)
    context = as_grid(blocks.context, blocks.context_mask, (4, 4))
    covered = as_grid(blocks.targets, blocks.target_mask, (4, 4)).any(1)
    assert (context.sum((1, 2)) >= 4).all()
    assert (((context & covered).sum((1, 2)) == 0) | ((~covered).sum((1, 2)) < 4)).all()


def test_max_context_keeps_a_random_subset(blocks):
    few = draw(max_context=60)
    assert few.context.shape == (COUNT, 60)
    count = blocks.context_mask.sum(1)
    np.testing.assert_array_equal(few.context_mask.sum(1), np.minimum(count, 60))
    np.testing.assert_array_equal(few.targets, blocks.targets)
    every, kept_cells = (as_grid(x.context, x.context_mask) for x in (blocks, few))
    assert not (kept_cells & ~every).any()
    # A token is kept with probability 60 / count, whatever its row.
    probability = np.minimum(1, 60 / count)[:, None, None]
    kept, expected = kept_cells.sum((0, 2)), (every * probability).sum((0, 2))
    assert np.abs(kept - expected).max() < 5 * np.sqrt(expected.max())


def test_grids_need_not_be_square_and_blocks_may_fill_them():
    blocks = draw(KEYS[:50], grid=(6, 10), targets=2, target_scale=(0.1, 0.1), min_context=3)
    cells = as_grid(blocks.targets, blocks.target_mask, (6, 10)).reshape(-1, 6, 10)
    _, _, height, width = rectangles(cells)
    assert len(cells) == 100 and set((height * width).tolist()) <= {4, 6}
    full = draw(KEYS[:4], grid=(2, 2), target_scale=(1.0, 1.0), min_context=1)
    assert full.targets.shape == (4, 4, 4) and full.target_mask.all()


@pytest.mark.parametrize(("grid", "unit", "masked"), [((14, 14), 2, 30), ((6, 4), 1, 15)])
def test_random_unit_masking(grid, unit, masked):
    mask_units = jax.vmap(lambda key: augment.random_unit_masking(key, grid, unit=unit))
    mask = np.asarray(jax.jit(mask_units)(KEYS[:2000]))
    assert mask.shape == (2000, grid[0] * grid[1]) and mask.dtype == bool
    cells = mask.reshape(2000, grid[0] // unit, unit, grid[1] // unit, unit).swapaxes(2, 3)
    assert (cells == cells[..., :1, :1]).all()  # a square as a whole
    squares = cells[..., 0, 0].reshape(2000, -1)
    assert (squares.sum(1) == masked).all()  # 0.6, rounded up
    share = masked / squares.shape[1]
    assert np.abs(squares.mean(0) - share).max() <= 5 * np.sqrt(share * (1 - share) / 2000)


def test_random_unit_masking_refuses():
    with pytest.raises(ValueError, match=r"ratio must be in \(0, 1\)"):
        augment.random_unit_masking(KEYS[0], (4, 4), ratio=0.0)
    with pytest.raises(ValueError, match="squares of 3 tokens do not divide"):
        augment.random_unit_masking(KEYS[0], (6, 4), unit=3)


def reference_squares(random, rows, columns, ratio, block, surplus):
    """Visible tokens as the authors' code chooses them, index by index."""
    size = rows * columns
    kept, seen = int(round((1 - ratio) * size, 6)), np.zeros((rows, columns), bool)
    for center in random.integers(size, size=int((1 - ratio + surplus) * size / block**2)):
        for i, j in np.ndindex(block, block):
            row = center // columns + i - block // 2
            column = center % columns + j - block // 2
            seen[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)] = True
    seen, missing = seen.ravel(), kept - seen.sum()
    change = random.choice(np.flatnonzero(seen == (missing < 0)), abs(missing), replace=False)
    seen[change] = missing > 0
    return seen.reshape(rows, columns)


@pytest.mark.parametrize(
    ("grid", "options", "kept"),
    [((14, 14), {}, 39), ((6, 5), {"ratio": 0.6, "block": 2, "surplus": 0.2}, 12)],
)
def test_inverse_block_masking_is_that_of_the_authors(grid, options, kept):
    sample = jax.vmap(lambda key: augment.inverse_block_masking(key, grid, **options))
    visible, mask = jax.device_get(jax.jit(sample)(KEYS))
    assert visible.shape == (COUNT, kept) and visible.dtype == np.int32 and mask.dtype == bool
    assert (np.diff(visible, axis=1) > 0).all()
    seen = np.zeros(mask.shape, bool)
    np.put_along_axis(seen, visible, True, axis=1)
    np.testing.assert_array_equal(seen, ~mask)
    random, seen = np.random.default_rng(0), seen.reshape(COUNT, *grid)
    knobs = {"ratio": 0.8, "block": 3, "surplus": 0.07, **options}
    expected = np.stack([reference_squares(random, *grid, **knobs) for _ in range(COUNT)])
    np.testing.assert_allclose(seen.mean(0), expected.mean(0), atol=0.05)
    for shift in (1, 2, 3):  # how often tokens at that distance are both visible
        ours, theirs = ((x[:, shift:] & x[:, :-shift]).mean() for x in (seen, expected))
        np.testing.assert_allclose(ours, theirs, atol=0.006)
        ours, theirs = ((x[:, :, shift:] & x[:, :, :-shift]).mean() for x in (seen, expected))
        np.testing.assert_allclose(ours, theirs, atol=0.006)


def test_inverse_block_masking_refuses():
    for ratio in (0.0, 1.0, 0.95):
        with pytest.raises(ValueError, match="leave a visible token"):
            augment.inverse_block_masking(KEYS[0], (4, 4), ratio=ratio)


def reference_blocks(random, grid, ratio, smallest):
    """A blockwise mask as the papers' codes make it, without a limit on the number of blocks."""
    mask, high = np.zeros(grid, bool), random.uniform(*ratio) * grid[0] * grid[1]
    failures = 0
    while mask.sum() < high and failures < 10:
        left = high - mask.sum()
        area = random.uniform(min(smallest, left), max(smallest, left))
        aspect = np.exp(random.uniform(np.log(0.3), -np.log(0.3)))
        height, width = (round(float(np.sqrt(a))) for a in (area * aspect, area / aspect))
        failures += 1
        if height < grid[0] and width < grid[1]:
            top = random.integers(grid[0] - height + 1)
            first = random.integers(grid[1] - width + 1)
            before = mask[top : top + height, first : first + width].sum()
            if 0 < height * width - before <= left:
                mask[top : top + height, first : first + width] = True
                failures = 0
    return mask


@pytest.mark.parametrize(
    ("grid", "options", "smallest"), [((14, 14), {}, 16), ((7, 5), {"smallest": 2}, 2)]
)
def test_blockwise_masking_is_that_of_the_papers(grid, options, smallest):
    sample = jax.vmap(lambda key: augment.blockwise_masking(key, grid, **options))
    masks = np.asarray(jax.jit(sample)(KEYS)).reshape(COUNT, *grid)
    random = np.random.default_rng(0)
    expected = np.stack(
        [reference_blocks(random, grid, (0.1, 0.5), smallest) for _ in range(COUNT)]
    )
    size = grid[0] * grid[1]
    assert masks.sum((1, 2)).max() <= int(0.5 * size)
    quantiles = [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98]
    ours, theirs = (np.quantile(x.sum((1, 2)) / size, quantiles) for x in (masks, expected))
    np.testing.assert_allclose(ours, theirs, atol=max(0.015, 1.01 / size))
    np.testing.assert_allclose(masks.mean(0), expected.mean(0), atol=0.04)
    # Neighbors are masked together, as often as there.
    ours, theirs = ((x[:, 1:] & x[:, :-1]).mean() for x in (masks, expected))
    np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_blockwise_masking_of_some_images_alone():
    sample = jax.vmap(lambda key: augment.blockwise_masking(key, GRID, probability=0.25))
    share = np.asarray(jax.jit(sample)(KEYS)).any(1).mean()
    np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / COUNT))
    with pytest.raises(ValueError, match="ratio must be a range"):
        augment.blockwise_masking(KEYS[0], GRID, ratio=(0.5, 0.1))
    with pytest.raises(ValueError, match="probability must be"):
        augment.blockwise_masking(KEYS[0], GRID, probability=1.5)


def test_errors():
    sample = functools.partial(augment.random_token_blocks, KEYS[0])
    with pytest.raises(ValueError, match="scale must be a range"):
        sample(GRID, target_scale=(0.2, 0.1))
    with pytest.raises(ValueError, match="aspect must be a range"):
        sample(GRID, target_aspect=(0.0, 1.0))
    with pytest.raises(ValueError, match="scale must be a range"):
        sample(GRID, context_scale=(0.5, 1.5))
    with pytest.raises(ValueError, match="targets must be a positive whole number"):
        sample(GRID, targets=0)
    for options in ({"min_context": 0}, {"min_context": 197}, {"max_context": 9}):
        with pytest.raises(ValueError, match="cannot have between"):
            sample(GRID, **options)


@pytest.mark.parametrize(
    ("tokens", "ratio", "kept"),
    # int((1 - ratio) T), as in MAE's and MSN's code, but never nothing.
    [(16, 0.75, 4), (9, 0.5, 4), (5, 0.0, 5), (196, 0.15, 166), (5, 0.9, 1)],
)
def test_random_masking(tokens, ratio, kept):
    mask_tokens = jax.vmap(lambda key: augment.random_masking(key, tokens, ratio=ratio))
    visible, mask = map(np.asarray, jax.jit(mask_tokens)(KEYS[:2000]))
    assert visible.shape == (2000, kept) and visible.dtype == np.int32
    assert mask.shape == (2000, tokens) and mask.dtype == bool
    assert (np.diff(visible, axis=1) > 0).all() and (mask.sum(axis=1) == tokens - kept).all()
    assert not np.take_along_axis(mask, visible, axis=1).any()
    # Each token, and each pair of tokens, is kept equally often.
    seen = (~mask).astype(float)
    share = kept / tokens
    assert np.abs(seen.mean(axis=0) - share).max() <= 5 * np.sqrt(share * (1 - share) / 2000)
    pairs = (seen.T @ seen / 2000)[~np.eye(tokens, dtype=bool)]
    pair_share = share * (kept - 1) / (tokens - 1)
    bound = (5 if tokens < 100 else 6) * np.sqrt(pair_share * (1 - pair_share) / 2000)
    assert np.abs(pairs - pair_share).max() <= bound
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\)"):
        augment.random_masking(KEYS[0], tokens, ratio=1.0)
