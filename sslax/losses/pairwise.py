"""Reductions over the rows of an N x M similarity matrix that is never stored.

A contrastive loss needs, for each row i, a sum over all columns j of a function of
`s_ij = <x_i, y_j>`: a log-sum-exp for InfoNCE and its kin, a sum of softplus for the sigmoid loss.
`reduce_rows` computes it tile by tile, keeps one number a row, and computes the tiles again in the
backward pass (Milakov and Gimelshein, https://arxiv.org/abs/1805.02867, 2018; Cheng et al.,
https://arxiv.org/abs/2410.17243, 2024). Memory grows as O(N D + tile^2) instead of O(N M).

The rows are cut into a ring of equal blocks, one for each device that may hold them: along
`axis_name` inside shard_map or pmap, and for global arrays along a leading axis that a sharded
batch shards. The columns travel around that ring, one block to the neighbor at each step. Where
rows and columns are the same set, the matrix is symmetric: half of the way round is enough, since
a tile above the diagonal serves its rows and, transposed, the rows of its mirror image. The sums
of the mirror image travel with the columns and come home at the end.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

MASKED = -1e30  # finite: the difference of two masked logits is 0, not NaN


class Reduction(NamedTuple):
    """A reduction of logits over columns, piece by piece.

    Attributes:
        dense: `logits [N, M] -> [N]`, all at once; masked logits are -inf.
        start: `like [...] -> partial`, the empty reduction; masked logits are `MASKED`.
        add: `(partial, logits, axis) -> partial`.
        merge: `(partial, partial) -> partial`.
        finish: `partial -> value`.
        derivative: `(logits, value) -> d value / d logits`.
    """

    dense: Callable[[Array], Array]
    start: Callable[[Array], Any]
    add: Callable[[Any, Array, int], Any]
    merge: Callable[[Any, Any], Any]
    finish: Callable[[Any], Array]
    derivative: Callable[[Array, Array], Array]


def _filled(like: Array, value: float) -> Array:
    """A constant that varies over the mesh axes of `like`, as loops inside shard_map require."""
    return jnp.where(False, like, jnp.asarray(value, like.dtype))


def _merge_sums(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    largest = jnp.maximum(a[0], b[0])
    return largest, a[1] * jnp.exp(a[0] - largest) + b[1] * jnp.exp(b[0] - largest)


def _add_to_sums(sums: tuple[Array, Array], logits: Array, axis: int) -> tuple[Array, Array]:
    largest = jnp.maximum(sums[0], logits.max(axis))
    added = jnp.exp(logits - jnp.expand_dims(largest, axis)).sum(axis)
    return largest, sums[1] * jnp.exp(sums[0] - largest) + added


# The partial result is (largest logit so far, sum of exp(logit - largest)).
LOG_SUM_EXP = Reduction(
    dense=partial(jax.nn.logsumexp, axis=-1),
    start=lambda like: (_filled(like, MASKED), _filled(like, 0.0)),
    add=_add_to_sums,
    merge=_merge_sums,
    finish=lambda sums: sums[0] + jnp.log(sums[1]),
    derivative=lambda logits, value: jnp.exp(logits - value),
)

SOFTPLUS_SUM = Reduction(
    dense=lambda logits: jax.nn.softplus(logits).sum(-1),
    start=lambda like: _filled(like, 0.0),
    add=lambda total, logits, axis: total + jax.nn.softplus(logits).sum(axis),
    merge=jnp.add,
    finish=lambda total: total,
    derivative=lambda logits, value: jax.nn.sigmoid(logits),
)


class _Plan(NamedTuple):
    """What is static about one reduction."""

    reduction: Reduction
    rows: int  # of one block of the ring, without padding
    columns: int
    ring: int
    axis_name: str | None
    exclude: int

    def rotate(self, tree: Any, shift: int = 1) -> Any:
        """Hands every block to the neighbor `shift` places on."""
        if self.ring == 1:
            return tree
        if self.axis_name is None:
            return jax.tree.map(lambda x: jnp.roll(x, shift, axis=0), tree)
        ring = [(i, (i + shift) % self.ring) for i in range(self.ring)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis_name, ring), tree)

    def logits(self, x: Array, y: Array, row: Array, column: Array, own: Array | bool) -> Array:
        """One tile `[ring, t, u]`; `own`: the columns are those of the rows' own block."""
        logits = _matmul("rid,rjd->rij", x, y)
        i, j = jnp.arange(x.shape[1]), jnp.arange(y.shape[1])
        if self.exclude:
            same = i[:, None] // self.exclude == j // self.exclude
            logits = jnp.where(same & (row == column) & own, MASKED, logits)
        if self.columns % y.shape[1]:
            logits = jnp.where(column * y.shape[1] + j < self.columns, logits, MASKED)
        if self.rows % x.shape[1]:  # a padded row is a column of the mirror image
            logits = jnp.where((row * x.shape[1] + i < self.rows)[:, None], logits, MASKED)
        return logits


def _matmul(equation: str, x: Array, y: Array) -> Array:
    return jnp.einsum(equation, x, y, preferred_element_type=_accumulator(x.dtype))


def _accumulator(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _take(tree: Any, tile: Array) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, tile, 1, keepdims=False), tree)


def _put(tree: Any, values: Any, tile: Array) -> Any:
    def put(x: Array, value: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(x, value, tile, 1)

    return jax.tree.map(put, tree, values)


def _select(condition: Array | bool, chosen: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, other)


def _serves_both(offset: Array, count: int) -> Array:
    """Whether two of `count` blocks in a ring, `offset` apart, meet once in half a turn.

    A block meets itself and, in an even ring, its opposite from both sides: those meetings serve
    their rows only.
    """
    return (offset > 0) & (2 * offset != count)


# `visit(row, column, of_row, of_column, both) -> (of_row, of_column)` computes one tile and adds
# it to what is gathered for its rows and, where `both`, for its columns. A row's part stays in the
# inner loop, so that a step writes one tile of the large arrays, in place.


def _sweep(
    visit: Callable, rows: int, columns: int, of_rows: Any, of_columns: Any, both: Array | bool
) -> tuple[Any, Any]:
    """Visits every tile."""

    def over_row(row: Array, state: tuple) -> tuple:
        def over_column(column: Array, state: tuple) -> tuple:
            of_row, of_columns = state
            of_row, of_column = visit(row, column, of_row, _take(of_columns, column), both)
            return of_row, _put(of_columns, of_column, column)

        of_rows, of_columns = state
        state = _take(of_rows, row), of_columns
        of_row, of_columns = jax.lax.fori_loop(0, columns, over_column, state)
        return _put(of_rows, of_row, row), of_columns

    return jax.lax.fori_loop(0, rows, over_row, (of_rows, of_columns))


def _sweep_own(visit: Callable, tiles: int, empty: Any, merge: Callable) -> Any:
    """Visits the tiles of a symmetric matrix, nearly all of them once for both triangles."""

    def over_row(row: Array, gathered: Any) -> Any:
        def over_offset(offset: Array, state: tuple) -> tuple:
            of_row, gathered = state
            column, both = (row + offset) % tiles, _serves_both(offset, tiles)
            of_row, of_column = visit(row, column, of_row, _take(gathered, column), both)
            return of_row, _put(gathered, of_column, column)

        of_row, gathered = jax.lax.fori_loop(0, tiles // 2 + 1, over_offset, (empty_tile, gathered))
        return _put(gathered, merge(_take(gathered, row), of_row), row)

    empty_tile = jax.tree.map(lambda x: x[:, 0], empty)
    return jax.lax.fori_loop(0, tiles, over_row, empty)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reduce(plan: _Plan, x: Array, y: Array | None) -> Array:
    """`[ring, L, t]` from rows `[ring, L, t, D]` and columns `[ring, K, u, D]`; None: the rows."""
    reduction, tiles = plan.reduction, x.shape[1]
    empty = reduction.start(x[..., 0].astype(_accumulator(x.dtype)))

    def visiting(y: Array, own: Array | bool) -> Callable:
        def visit(row: Array, column: Array, of_row: Any, of_column: Any, both: Array) -> tuple:
            logits = plan.logits(_take(x, row), _take(y, column), row, column, own)
            of_row = reduction.add(of_row, logits, -1)
            if of_column is None:
                return of_row, None
            return of_row, _select(both, reduction.add(of_column, logits, -2), of_column)

        return visit

    if y is not None:

        def turn(step: Array, state: tuple) -> tuple:
            y, partials = state
            partials, _ = _sweep(visiting(y, step == 0), tiles, y.shape[1], partials, None, False)
            return plan.rotate(y), partials

        return reduction.finish(jax.lax.fori_loop(0, plan.ring, turn, (y, empty))[1])

    partials = _sweep_own(visiting(x, True), tiles, empty, reduction.merge)
    if plan.ring > 1:

        def half_turn(step: Array, state: tuple) -> tuple:
            (y, mirrored), partials = plan.rotate(state[0]), state[1]
            both = _serves_both(step, plan.ring)
            partials, mirrored = _sweep(visiting(y, False), tiles, tiles, partials, mirrored, both)
            return (y, mirrored), partials

        last = plan.ring // 2
        state = (x, empty), partials
        (_, mirrored), partials = jax.lax.fori_loop(1, last + 1, half_turn, state)
        partials = reduction.merge(partials, plan.rotate(mirrored, -last))
    return reduction.finish(partials)


def _reduce_forward(plan: _Plan, x: Array, y: Array | None) -> tuple[Array, tuple]:
    value = _reduce(plan, x, y)
    return value, (x, y, value)


def _reduce_backward(plan: _Plan, residuals: tuple, gradient: Array) -> tuple:
    x, y, value = residuals
    here, tiles, symmetric = (value, gradient), x.shape[1], y is None
    zeros = _filled(x.astype(_accumulator(x.dtype)), 0.0)

    def visiting(y: Array, there: Any, own: Array | bool) -> Callable:
        def visit(row: Array, column: Array, dx: Array, dy: Array, both: Array) -> tuple:
            x_tile, y_tile = _take(x, row), _take(y, column)
            logits = plan.logits(x_tile, y_tile, row, column, own)
            # d(sum of all values) / d(logits): of the tile's rows, and of its mirror image's.
            values, gradients = _take(here, row)
            weights = plan.reduction.derivative(logits, values[..., None]) * gradients[..., None]
            if symmetric:
                values, gradients = _take(there, column)
                mirrored = plan.reduction.derivative(logits, values[:, None])
                weights += mirrored * gradients[:, None]
            weights = weights.astype(x.dtype)
            dx += _matmul("rij,rjd->rid", weights, y_tile)
            return dx, dy + jnp.where(both, _matmul("rij,rid->rjd", weights, x_tile), 0)

        return visit

    if not symmetric:

        def turn(step: Array, state: tuple) -> tuple:
            (y, dy), dx = state
            dx, dy = _sweep(visiting(y, None, step == 0), tiles, y.shape[1], dx, dy, True)
            return plan.rotate((y, dy)), dx

        state = (y, _filled(y.astype(zeros.dtype), 0.0)), zeros
        (_, dy), dx = jax.lax.fori_loop(0, plan.ring, turn, state)
        return dx.astype(x.dtype), dy.astype(y.dtype)

    dx = _sweep_own(visiting(x, here, True), tiles, zeros, jnp.add)
    if plan.ring > 1:

        def half_turn(step: Array, state: tuple) -> tuple:
            (y, there, dy), dx = plan.rotate(state[0]), state[1]
            both = _serves_both(step, plan.ring)
            dx, dy = _sweep(visiting(y, there, False), tiles, tiles, dx, dy, both)
            return (y, there, dy), dx

        last = plan.ring // 2
        state = (x, here, zeros), dx
        (_, _, dy), dx = jax.lax.fori_loop(1, last + 1, half_turn, state)
        dx += plan.rotate(dy, -last)
    return dx.astype(x.dtype), None


_reduce.defvjp(_reduce_forward, _reduce_backward)


def _tiles(x: Array, ring: int, tile: int, multiple: int) -> Array:
    """`[N, D] -> [ring, tiles, size, D]`, each block of the ring padded alike."""
    n = x.shape[0] // ring
    count = -(-n // tile)
    size = -(-n // (count * multiple)) * multiple
    count = -(-n // size)
    x = jnp.pad(x.reshape(ring, n, -1), ((0, 0), (0, count * size - n), (0, 0)))
    return x.reshape(ring, count, size, -1)


def default_tile() -> int:
    """Rows and columns of a tile: one that fits a CPU's cache, or one that fills an accelerator."""
    return 512 if jax.default_backend() == "cpu" else 4096


def reduce_rows(
    reduction: Reduction,
    rows: Array,
    columns: Array | None = None,
    *,
    exclude: int = 0,
    shared: bool = False,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Reduces each row of `rows @ columns.T`, tile by tile unless the whole matrix is small.

    Args:
        reduction: what is computed of a row's logits.
        rows: `[N, D]`.
        columns: `[M, D]`; None stands for the rows themselves, which costs half as much.
        exclude: rows i and columns j with `i // exclude == j // exclude` do not meet: 1 leaves out
            the diagonal, 2 the 2 x 2 blocks on the diagonal, 0 nothing.
        shared: the columns are the same on every device, a queue for example, and stay in place.
        tile: rows and columns of a tile; None takes the dense form for a small matrix and
            `default_tile()` for others.
        axis_name: the mapped axis over whose devices rows (and columns, unless shared) are split.

    Returns:
        `[N]`, in float32 at least.
    """
    symmetric = columns is None
    if not symmetric:
        # Inside shard_map both must vary over the same axes; neither changes its value here.
        rows, columns = (
            jnp.where(False, other[0, 0], x).astype(x.dtype)
            for x, other in ((rows, columns), (columns, rows))
        )
    travels = axis_name is not None and not shared
    devices = jax.lax.axis_size(axis_name) if travels else 1
    everything = rows if symmetric else columns
    if tile is None and rows.shape[0] * everything.shape[0] * devices <= (2 * default_tile()) ** 2:
        return _reduce_dense(reduction, rows, everything, exclude, axis_name if travels else None)

    tile = tile or default_tile()
    multiple = max(exclude, 1)  # rows and columns that do not meet stay in one tile
    blocks = 1
    if axis_name is None:  # one block for each device that may hold a shard of the rows
        pairs = math.gcd(rows.shape[0], rows.shape[0] if shared else everything.shape[0])
        blocks = math.gcd(pairs // multiple, jax.device_count())
    x = _tiles(rows, blocks, tile, multiple)
    y = None if symmetric else _tiles(columns, 1 if shared else blocks, tile, multiple)
    if shared:
        y = jnp.broadcast_to(y, (blocks, *y.shape[1:]))
    plan = _Plan(
        reduction=reduction,
        rows=rows.shape[0] // blocks,
        columns=everything.shape[0] // (1 if shared else blocks),
        ring=1 if shared else devices * blocks,
        axis_name=axis_name,
        exclude=exclude,
    )
    values = _reduce(plan, x, y).reshape(blocks, -1)
    return values[:, : plan.rows].reshape(rows.shape[0])


def _reduce_dense(
    reduction: Reduction, rows: Array, columns: Array, exclude: int, axis_name: str | None
) -> Array:
    first = 0
    if axis_name is not None:
        columns = jax.lax.all_gather(columns, axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * rows.shape[0]
    logits = _matmul("id,jd->ij", rows, columns)
    if exclude:
        i, j = first + jnp.arange(rows.shape[0]), jnp.arange(columns.shape[0])
        logits = jnp.where(i[:, None] // exclude == j // exclude, -jnp.inf, logits)
    return reduction.dense(logits)
