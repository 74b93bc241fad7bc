"""Reductions over the rows of an N x M similarity matrix that is never stored.

A contrastive loss needs, for each row i, a reduction over all columns j of the logits
`s_ij = <x_i, y_j>`: a log-sum-exp for InfoNCE and its relatives, a sum of softplus for the sigmoid
loss. `reduce_rows` computes it tile by tile, keeps one number per row, and recomputes the tiles in
the backward pass (Milakov and Gimelshein, 2018, arXiv:1805.02867; Cheng et al., 2024,
arXiv:2410.17243). Memory grows as O(N D + tile^2) instead of O(N M).

The rows are cut into a ring of equal blocks, one for each device that may hold them: along
`axis_name` inside shard_map or pmap, and along a leading axis, which a sharded batch shards, for
global arrays. The columns travel around the ring, one block per step. If rows and columns are the
same set, the matrix is symmetric and half a turn is enough: a tile above the diagonal contributes
to its rows and, transposed, to the rows of its mirror image. The sums of the mirror images travel
behind the columns and return to their block at the end. While a step visits a block, the next one
and the sums up to the step before are on their way, so that communication and products overlap.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sslax.losses.batch import full_like
from sslax.ops.dtypes import accumulation_dtype
from sslax.ops.platforms import choose, devices
from sslax.types import Array

MASKED = -1e30  # finite: the difference of two masked logits is 0, not NaN
TILE = 4096  # rows and columns of a tile: it fills an accelerator
CPU_TILE = 512  # it fits the cache

# `visit(row, column, row_state, column_state, both) -> (row_state, column_state)` computes the tile
# of logits of a row block and a column block and adds it to the state of its rows and, if `both`,
# to the state of its columns.
Visit = Callable[[Array, Array, Any, Any, Array | bool], tuple[Any, Any]]


class Reduction(NamedTuple):
    """A reduction of logits over columns that can be computed in parts.

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


def _zeros(x: Array) -> Array:
    """Where the gradient of `x` is summed."""
    return full_like(x.astype(accumulation_dtype(x)), 0.0)


def _merge_log_sum_exp(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    largest = jnp.maximum(a[0], b[0])
    return largest, a[1] * jnp.exp(a[0] - largest) + b[1] * jnp.exp(b[0] - largest)


def _add_log_sum_exp(
    partials: tuple[Array, Array], logits: Array, axis: int
) -> tuple[Array, Array]:
    largest = jnp.maximum(partials[0], logits.max(axis))
    added = jnp.exp(logits - jnp.expand_dims(largest, axis)).sum(axis)
    return largest, partials[1] * jnp.exp(partials[0] - largest) + added


# A partial result is (largest logit so far, sum of exp(logit - largest)).
LOG_SUM_EXP = Reduction(
    dense=partial(jax.nn.logsumexp, axis=-1),
    start=lambda like: (full_like(like, MASKED), full_like(like, 0.0)),
    add=_add_log_sum_exp,
    merge=_merge_log_sum_exp,
    finish=lambda partials: partials[0] + jnp.log(partials[1]),
    derivative=lambda logits, value: jnp.exp(logits - value),
)

SOFTPLUS_SUM = Reduction(
    dense=lambda logits: jax.nn.softplus(logits).sum(-1),
    start=lambda like: full_like(like, 0.0),
    add=lambda total, logits, axis: total + jax.nn.softplus(logits).sum(axis),
    merge=jnp.add,
    finish=lambda total: total,
    derivative=lambda logits, value: jax.nn.sigmoid(logits),
)


class _Plan(NamedTuple):
    """The static parameters of one reduction."""

    reduction: Reduction
    rows: int  # of one block of the ring, without padding
    columns: int
    ring: int
    axis_name: str | None
    exclude: int

    def rotate(self, tree: Any, shift: int = 1) -> Any:
        """Sends every block `shift` positions along the ring."""
        if self.ring == 1:
            return tree
        if self.axis_name is None:
            return jax.tree.map(lambda x: jnp.roll(x, shift, axis=0), tree)
        ring = [(i, (i + shift) % self.ring) for i in range(self.ring)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis_name, ring), tree)

    def nothing(self, x: Array) -> Any:
        """The empty partial results of rows `[ring, L, t, D]`."""
        return self.reduction.start(x[..., 0].astype(accumulation_dtype(x)))

    def logits(self, x: Array, y: Array, row: Array, column: Array, same: Array | bool) -> Array:
        """One tile `[ring, t, u]`; `same`: the rows and columns are of the same block."""
        logits = _matmul("rid,rjd->rij", x, y)
        i, j = jnp.arange(x.shape[1]), jnp.arange(y.shape[1])
        if self.exclude:
            excluded = i[:, None] // self.exclude == j // self.exclude
            logits = jnp.where(excluded & (row == column) & same, MASKED, logits)
        if self.columns % y.shape[1]:
            logits = jnp.where(column * y.shape[1] + j < self.columns, logits, MASKED)
        if self.rows % x.shape[1]:  # a padded row is a column of the mirror image
            logits = jnp.where((row * x.shape[1] + i < self.rows)[:, None], logits, MASKED)
        return logits


def _matmul(equation: str, x: Array, y: Array) -> Array:
    return jnp.einsum(equation, x, y, preferred_element_type=accumulation_dtype(x))


def _take(tree: Any, tile: Array) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, tile, 1, keepdims=False), tree)


def _put(tree: Any, values: Any, tile: Array) -> Any:
    def put(x: Array, value: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(x, value, tile, 1)

    return jax.tree.map(put, tree, values)


def _select(condition: Array | bool, chosen: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, other)


def _counts_for_both(offset: Array, count: int) -> Array:
    """Whether a visit of two blocks, `offset` apart in a ring of `count`, counts for both of them.

    In half a turn two different blocks meet once. A block meets itself, and in an even ring its
    opposite, from both sides: such a visit counts for its rows only.
    """
    return (offset > 0) & (2 * offset != count)


def _sweep(
    visit: Visit, rows: int, columns: int, row_states: Any, column_states: Any, both: Array | bool
) -> tuple[Any, Any]:
    """Visits all tiles. A row's state stays in the inner loop: a step updates one tile in place."""

    def over_rows(row: Array, states: tuple) -> tuple:
        def over_columns(column: Array, state: tuple) -> tuple:
            row_state, column_states = state
            column_state = _take(column_states, column)
            row_state, column_state = visit(row, column, row_state, column_state, both)
            return row_state, _put(column_states, column_state, column)

        row_states, column_states = states
        state = _take(row_states, row), column_states
        row_state, column_states = jax.lax.fori_loop(0, columns, over_columns, state)
        return _put(row_states, row_state, row), column_states

    return jax.lax.fori_loop(0, rows, over_rows, (row_states, column_states))


def _sweep_symmetric(visit: Visit, tiles: int, empty: Any, merge: Callable) -> Any:
    """Visits the tiles of a symmetric matrix, most of them once for both triangles."""

    def over_rows(row: Array, states: Any) -> Any:
        def over_offsets(offset: Array, state: tuple) -> tuple:
            row_state, states = state
            column, both = (row + offset) % tiles, _counts_for_both(offset, tiles)
            row_state, column_state = visit(row, column, row_state, _take(states, column), both)
            return row_state, _put(states, column_state, column)

        state = empty_tile, states
        row_state, states = jax.lax.fori_loop(0, tiles // 2 + 1, over_offsets, state)
        return _put(states, merge(_take(states, row), row_state), row)

    empty_tile = jax.tree.map(lambda x: x[:, 0], empty)
    return jax.lax.fori_loop(0, tiles, over_rows, empty)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reduce(plan: _Plan, x: Array, y: Array | None) -> Array:
    """`[ring, L, t]` from rows `[ring, L, t, D]` and columns `[ring, K, u, D]`; None: the rows."""
    if y is None:
        return plan.reduction.finish(_reduce_symmetric(plan, x))

    def turn(step: Array, state: tuple) -> tuple:
        y, partials = state
        visit = _forward_visit(plan, x, y, step == 0)
        partials, _ = _sweep(visit, x.shape[1], y.shape[1], partials, None, False)
        return plan.rotate(y), partials

    _, partials = jax.lax.fori_loop(0, plan.ring, turn, (y, plan.nothing(x)))
    return plan.reduction.finish(partials)


def _reduce_symmetric(plan: _Plan, x: Array) -> Any:
    """Partial results of the rows against themselves."""
    merge, tiles = plan.reduction.merge, x.shape[1]
    partials = _sweep_symmetric(_forward_visit(plan, x, x, True), tiles, plan.nothing(x), merge)
    if plan.ring == 1:
        return partials

    def step_of_half_turn(step: Array, state: tuple) -> tuple:
        y, mirrored, partials = state
        following, mirrored = plan.rotate((y, mirrored))
        visit, both = _forward_visit(plan, x, y, False), _counts_for_both(step, plan.ring)
        partials, of_visit = _sweep(visit, tiles, tiles, partials, plan.nothing(x), both)
        return following, merge(mirrored, of_visit), partials

    last = plan.ring // 2
    state = plan.rotate(x), plan.nothing(x), partials
    _, mirrored, partials = jax.lax.fori_loop(1, last + 1, step_of_half_turn, state)
    return merge(partials, plan.rotate(mirrored, -last))


def _forward_visit(plan: _Plan, x: Array, y: Array, same: Array | bool) -> Visit:
    """Adds a tile's logits to the partial results of its rows and, transposed, of its columns."""
    add = plan.reduction.add

    def visit(
        row: Array, column: Array, of_row: Any, of_column: Any, both: Array | bool
    ) -> tuple[Any, Any]:
        logits = plan.logits(_take(x, row), _take(y, column), row, column, same)
        of_row = add(of_row, logits, -1)
        if of_column is None:
            return of_row, None
        return of_row, _select(both, add(of_column, logits, -2), of_column)

    return visit


def _reduce_forward(plan: _Plan, x: Array, y: Array | None) -> tuple[Array, tuple]:
    value = _reduce(plan, x, y)
    return value, (x, y, value)


def _reduce_backward(plan: _Plan, residuals: tuple, gradient: Array) -> tuple[Array, Array | None]:
    x, y, value = residuals
    if y is None:
        return _backward_symmetric(plan, x, (value, gradient)).astype(x.dtype), None

    def turn(step: Array, state: tuple) -> tuple:
        y, dy, dx = state
        following, dy = plan.rotate((y, dy))
        visit = _backward_visit(plan, x, y, (value, gradient), None, step == 0)
        dx, of_visit = _sweep(visit, x.shape[1], y.shape[1], dx, _zeros(y), True)
        return following, dy + of_visit, dx

    _, dy, dx = jax.lax.fori_loop(0, plan.ring, turn, (y, _zeros(y), _zeros(x)))
    return dx.astype(x.dtype), plan.rotate(dy).astype(y.dtype)


def _backward_symmetric(plan: _Plan, x: Array, cotangent: tuple[Array, Array]) -> Array:
    """Gradient of the rows that are also the columns."""
    tiles = x.shape[1]
    visit = _backward_visit(plan, x, x, cotangent, cotangent, True)
    dx = _sweep_symmetric(visit, tiles, _zeros(x), jnp.add)
    if plan.ring == 1:
        return dx

    def step_of_half_turn(step: Array, state: tuple) -> tuple:
        columns, dy, dx = state
        following, dy = plan.rotate((columns, dy))
        visit = _backward_visit(plan, x, columns[0], cotangent, columns[1], False)
        both = _counts_for_both(step, plan.ring)
        dx, of_visit = _sweep(visit, tiles, tiles, dx, _zeros(x), both)
        return following, dy + of_visit, dx

    last = plan.ring // 2
    state = plan.rotate((x, cotangent)), _zeros(x), dx
    _, dy, dx = jax.lax.fori_loop(1, last + 1, step_of_half_turn, state)
    return dx + plan.rotate(dy, -last)


def _backward_visit(
    plan: _Plan,
    x: Array,
    y: Array,
    of_rows: tuple[Array, Array],
    of_columns: tuple[Array, Array] | None,
    same: Array | bool,
) -> Visit:
    """Adds a tile's share of the gradient of its rows and of its columns.

    `of_rows` and `of_columns` are (values, gradients of the values); None for columns that are not
    rows themselves.
    """
    derivative = plan.reduction.derivative

    def visit(
        row: Array, column: Array, dx: Array, dy: Array, both: Array | bool
    ) -> tuple[Array, Array]:
        x_tile, y_tile = _take(x, row), _take(y, column)
        logits = plan.logits(x_tile, y_tile, row, column, same)
        values, gradients = _take(of_rows, row)
        d_logits = derivative(logits, values[..., None]) * gradients[..., None]
        if of_columns is not None:  # the tile's mirror image
            values, gradients = _take(of_columns, column)
            d_logits += derivative(logits, values[:, None]) * gradients[:, None]
        d_logits = d_logits.astype(x.dtype)
        dx += _matmul("rij,rjd->rid", d_logits, y_tile)
        return dx, dy + jnp.where(both, _matmul("rij,rid->rjd", d_logits, x_tile), 0)

    return visit


_reduce.defvjp(_reduce_forward, _reduce_backward)


def _to_tiles(x: Array, ring: int, tile: int, multiple: int) -> Array:
    """`[N, D] -> [ring, tiles, size, D]`; all blocks of the ring get the same padding."""
    n = x.shape[0] // ring
    count = -(-n // tile)
    size = -(-n // (count * multiple)) * multiple
    count = -(-n // size)
    x = jnp.pad(x.reshape(ring, n, -1), ((0, 0), (0, count * size - n), (0, 0)))
    return x.reshape(ring, count, size, -1)


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
    """Reduces each row of `rows @ columns.T`, tile by tile unless the matrix is small.

    Args:
        reduction: the reduction of a row of logits.
        rows: `[N, D]`.
        columns: `[M, D]`; None for the rows themselves, which halves the cost.
        exclude: entries with `i // exclude == j // exclude` are left out: 1 excludes the diagonal,
            2 the 2 x 2 blocks on the diagonal, 0 nothing.
        shared: the columns, such as a queue, are the same on every device and do not travel.
        tile: rows and columns of a tile; None takes the dense form for a small matrix and
            otherwise what suits the platform.
        axis_name: the mapped axis that splits the rows, and the columns unless they are shared.

    Returns:
        `[N]`, float32 or wider.
    """
    if columns is not None:
        # Inside shard_map both must vary over the same axes; this changes no values.
        rows, columns = (
            jnp.where(False, other[0, 0], x).astype(x.dtype)
            for x, other in ((rows, columns), (columns, rows))
        )
    options: Any = {"exclude": exclude, "shared": shared, "axis_name": axis_name}
    if tile is not None:
        return _reduce_tiled(reduction, rows, columns, tile=tile, **options)
    travels = axis_name is not None and not shared
    elements = rows.shape[0] * (rows if columns is None else columns).shape[0]
    elements *= jax.lax.axis_size(axis_name) if travels else 1

    def reduce(rows: Array, columns: Array | None, tile: int) -> Array:
        if elements > (2 * tile) ** 2:
            return _reduce_tiled(reduction, rows, columns, tile=tile, **options)
        everything = rows if columns is None else columns
        return _reduce_dense(reduction, rows, everything, exclude, axis_name if travels else None)

    if elements <= (2 * min(TILE, CPU_TILE)) ** 2:  # dense on every platform
        return reduce(rows, columns, TILE)
    return choose(
        *(rows, columns), cpu=partial(reduce, tile=CPU_TILE), default=partial(reduce, tile=TILE)
    )


def _reduce_tiled(
    reduction: Reduction,
    rows: Array,
    columns: Array | None,
    *,
    exclude: int,
    shared: bool,
    tile: int,
    axis_name: str | None,
) -> Array:
    everything = rows if columns is None else columns
    multiple = max(exclude, 1)  # excluded pairs stay in one tile
    blocks = 1
    if axis_name is None:  # one block for each device that may hold a shard of the rows
        divisor = math.gcd(rows.shape[0], rows.shape[0] if shared else everything.shape[0])
        blocks = math.gcd(divisor // multiple, devices())
    column_blocks = 1 if shared else blocks
    x = _to_tiles(rows, blocks, tile, multiple)
    y = None if columns is None else _to_tiles(columns, column_blocks, tile, multiple)
    if shared and y is not None:
        y = jnp.broadcast_to(y, (blocks, *y.shape[1:]))
    plan = _Plan(
        reduction=reduction,
        rows=rows.shape[0] // blocks,
        columns=everything.shape[0] // column_blocks,
        ring=1 if shared else (jax.lax.axis_size(axis_name) if axis_name else blocks),
        axis_name=axis_name,
        exclude=exclude,
    )
    values = _reduce(plan, x, y).reshape(blocks, -1)
    return values[:, : plan.rows].reshape(rows.shape[0])


def _reduce_dense(
    reduction: Reduction, rows: Array, columns: Array, exclude: int, axis_name: str | None
) -> Array:
    first: Array | int = 0
    if axis_name is not None:
        columns = jax.lax.all_gather(columns, axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * rows.shape[0]
    logits = _matmul("id,jd->ij", rows, columns)
    if exclude:
        i, j = first + jnp.arange(rows.shape[0]), jnp.arange(columns.shape[0])
        logits = jnp.where(i[:, None] // exclude == j // exclude, -jnp.inf, logits)
    return reduction.dense(logits)
