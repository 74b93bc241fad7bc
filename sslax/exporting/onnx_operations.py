"""JAX's operations in those of ONNX, for the ones that our networks have.

Each function takes the graph, the equation of JAX's trace, and its inputs, and returns the output
or a list of them. Shapes are those of the trace.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode
from onnx import helper

from sslax.exporting.onnx_graph import Graph, untranslated

_END = np.iinfo(np.int64).min  # where a slice that runs backward ends


def _shape(equation: Any) -> tuple[Any, ...]:
    return equation.outvars[0].aval.shape


def _plain(name: str) -> Callable[..., str]:
    """An operation that ONNX has as well, element by element."""
    return lambda graph, equation, *inputs: graph.add(name, *inputs)


def _cast(graph: Graph, x: Any, dtype: Any) -> str:
    return graph.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _identity(graph: Graph, equation: Any, *inputs: Any) -> list[Any]:
    return list(inputs)


def _reshape(graph: Graph, equation: Any, x: Any, *_: Any) -> str:
    return graph.reshape(x, _shape(equation))


def _square(graph: Graph, equation: Any, x: Any) -> str:
    return graph.add("Mul", x, x)


def _rsqrt(graph: Graph, equation: Any, x: Any) -> str:
    return graph.add("Reciprocal", graph.add("Sqrt", x))


def _expm1(graph: Graph, equation: Any, x: Any) -> str:
    return graph.add("Sub", graph.add("Exp", x), np.float32(1))


def _log1p(graph: Graph, equation: Any, x: Any) -> str:
    return graph.add("Log", graph.add("Add", x, np.float32(1)))


def _integer_pow(graph: Graph, equation: Any, x: Any) -> str:
    return graph.add("Pow", x, np.float32(equation.params["y"]))


def _cbrt(graph: Graph, equation: Any, x: Any) -> str:
    root = graph.add("Pow", graph.add("Abs", x), np.float32(1 / 3))
    return graph.add("Mul", graph.add("Sign", x), root)


def _not_equal(graph: Graph, equation: Any, x: Any, y: Any) -> str:
    return graph.add("Not", graph.add("Equal", x, y))


def _select(graph: Graph, equation: Any, which: Any, *cases: Any) -> str:
    if len(cases) != 2 or equation.invars[0].aval.dtype != bool:
        raise untranslated("a selection among more than two cases")
    return graph.add("Where", which, cases[1], cases[0])


def _clamp(graph: Graph, equation: Any, low: Any, x: Any, high: Any) -> str:
    return graph.add("Min", graph.add("Max", x, low), high)


def _convert(graph: Graph, equation: Any, x: Any) -> str:
    name = equation.params["new_dtype"].name
    return _cast(graph, x, "float32" if name == "bfloat16" else name)


def _broadcast(graph: Graph, equation: Any, x: Any, *_: Any) -> str:
    shape, at = _shape(equation), equation.params["broadcast_dimensions"]
    given = dict(zip(at, equation.invars[0].aval.shape))
    aligned = tuple(given.get(axis, 1) for axis in range(len(shape)))
    x = graph.reshape(x, aligned)
    return x if aligned == tuple(shape) else graph.add("Expand", x, graph.sizes(shape))


def _transpose(graph: Graph, equation: Any, x: Any) -> str:
    return graph.add("Transpose", x, perm=equation.params["permutation"])


def _concatenate(graph: Graph, equation: Any, *inputs: Any) -> str:
    shapes = [variable.aval.shape for variable in equation.invars]
    filled = [value for value, shape in zip(inputs, shapes) if 0 not in shape]
    return graph.add("Concat", *filled, axis=equation.params["dimension"])


def _stack(graph: Graph, equation: Any, *inputs: Any) -> str:
    return graph.stack(inputs, equation.params["axis"])


def _tile(graph: Graph, equation: Any, x: Any) -> str:
    return graph.add("Tile", x, np.int64(equation.params["reps"]))


def _split(graph: Graph, equation: Any, x: Any) -> list[str]:
    stops = np.cumsum(equation.params["sizes"])
    starts = stops - equation.params["sizes"]
    axis = equation.params["axis"]
    return [graph.slice(x, axis, int(i), int(j)) for i, j in zip(starts, stops)]


def _slice(graph: Graph, equation: Any, x: Any) -> str:
    params, sizes = equation.params, equation.invars[0].aval.shape
    steps = params["strides"] or (1,) * len(sizes)
    bounds = zip(sizes, params["start_indices"], params["limit_indices"], steps)
    for axis, (size, i, j, step) in enumerate(bounds):
        if (i, j, step) != (0, size, 1):
            if not isinstance(size, int):
                raise untranslated("a part of the batch")
            x = graph.slice(x, axis, int(i), int(j), int(step))
    return x


def _reverse(graph: Graph, equation: Any, x: Any) -> str:
    for axis in equation.params["dimensions"]:
        x = graph.slice(x, axis, -1, _END, -1)
    return x


def _pad(graph: Graph, equation: Any, x: Any, value: Any) -> str:
    config = np.array([[int(n) for n in entry] for entry in equation.params["padding_config"]])
    if config[:, 2].any():
        raise untranslated("padding between elements")
    for axis, (low, high, _) in enumerate(np.minimum(config, 0)):
        if low or high:
            x = graph.slice(x, axis, int(-low), int(high) or np.iinfo(np.int64).max)
    amounts = np.maximum(config, 0)
    if not amounts.any():
        return x
    return graph.add("Pad", x, np.int64(amounts[:, :2].T.ravel()), value)


def _iota(graph: Graph, equation: Any, *_: Any) -> str:
    shape, axis = _shape(equation), equation.params["dimension"]
    dtype = equation.params["dtype"]
    if isinstance(shape[axis], int):
        line: Any = np.arange(shape[axis], dtype=dtype)
    else:
        line = _cast(graph, _count(graph, shape[axis]), dtype)
    line = graph.reshape(line, [shape[i] if i == axis else 1 for i in range(len(shape))])
    return graph.add("Expand", line, graph.sizes(shape))


def _count(graph: Graph, size: Any) -> str:
    """int64 0, 1, ... `[size]`."""
    stop = graph.add("Squeeze", graph.sizes([size]))
    return graph.add("Range", np.int64(0), stop, np.int64(1))


def _sum(graph: Graph, equation: Any, x: Any) -> str:
    if 0 in equation.invars[0].aval.shape:
        return graph.add("Expand", np.float32(0), graph.sizes(_shape(equation)))
    return _reduce("ReduceSum")(graph, equation, x)


def _reduce(name: str) -> Callable[..., str]:
    def reduce(graph: Graph, equation: Any, x: Any) -> str:
        axes = equation.params["axes"]
        return graph.add(name, x, np.int64(axes), keepdims=0) if axes else x

    return reduce


def _reduce_bool(name: str) -> Callable[..., str]:
    def reduce(graph: Graph, equation: Any, x: Any) -> str:
        return _cast(graph, _reduce(name)(graph, equation, _cast(graph, x, "int32")), "bool")

    return reduce


def _dot(graph: Graph, equation: Any, x: Any, y: Any) -> str:
    (over_x, over_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    ranks = [len(variable.aval.shape) for variable in equation.invars]
    if not batch_x and over_x == (ranks[0] - 1,) and over_y == (0,) and ranks[1] == 2:
        return graph.add("MatMul", x, y)
    letters = iter(string.ascii_lowercase)
    first = [next(letters) for _ in range(ranks[0])]
    second: list[str] = [""] * ranks[1]
    for i, j in zip((*batch_x, *over_x), (*batch_y, *over_y)):
        second[j] = first[i]
    second = [letter or next(letters) for letter in second]
    batch = [first[i] for i in batch_x]
    free = [first[i] for i in range(ranks[0]) if i not in (*batch_x, *over_x)]
    free += [second[j] for j in range(ranks[1]) if j not in (*batch_y, *over_y)]
    text = f"{''.join(first)},{''.join(second)}->{''.join(batch + free)}"
    return graph.add("Einsum", x, y, equation=text)


def _convolution(graph: Graph, equation: Any, x: Any, kernel: Any) -> str:
    params = equation.params
    numbers = params["dimension_numbers"]
    if any(n != 1 for n in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise untranslated("a transposed convolution")
    if isinstance(kernel, str):
        kernel = graph.add("Transpose", kernel, perm=numbers.rhs_spec)
    else:  # once, here
        kernel = np.transpose(np.asarray(kernel), numbers.rhs_spec)
    y = graph.add(
        "Conv",
        graph.add("Transpose", x, perm=numbers.lhs_spec),
        kernel,
        strides=params["window_strides"],
        pads=[int(n) for n in np.transpose(params["padding"]).ravel()],
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    return graph.add("Transpose", y, perm=np.argsort(numbers.out_spec))


def _pool(graph: Graph, equation: Any, x: Any) -> str:
    """Maxima of windows of images `[N, H, W, C]`."""
    params = equation.params
    (_, *window, _), (_, *strides, _) = params["window_dimensions"], params["window_strides"]
    if {*params["base_dilation"], *params["window_dilation"]} != {1} or len(window) != 2:
        raise untranslated("pooling with dilation")
    y = graph.add(
        "MaxPool",
        graph.add("Transpose", x, perm=(0, 3, 1, 2)),
        kernel_shape=window,
        strides=strides,
        pads=[int(n) for n in np.transpose(params["padding"][1:3]).ravel()],
    )
    return graph.add("Transpose", y, perm=(0, 2, 3, 1))


def _points(graph: Graph, indices: Any, shape: Sequence[Any], window: Sequence[int]) -> Any:
    """Indices `[..., k]` of windows' corners -> those of all their points, `[..., *window, k]`."""
    *outer, count = shape
    indices = graph.reshape(_cast(graph, indices, "int64"), (*outer, *(1 for _ in window), count))
    return graph.add("Add", indices, np.moveaxis(np.indices(window, np.int64), 0, -1))


def _gather(graph: Graph, equation: Any, x: Any, indices: Any) -> str:
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    rank, shape = len(sizes), equation.invars[1].aval.shape
    batch, indexed = list(numbers.operand_batching_dims), list(numbers.start_index_map)
    rest = [axis for axis in range(rank) if axis not in batch + indexed]
    if equation.params["mode"] != GatherScatterMode.PROMISE_IN_BOUNDS:
        raise untranslated("indices that may lie outside an array")
    outer = list(numbers.start_indices_batching_dims)
    others = [axis for axis in range(len(shape) - 1) if axis not in outer]
    order = [*outer, *others, len(shape) - 1]
    indices = graph.add("Transpose", indices, perm=order)
    window = [int(sizes[axis]) for axis in indexed]
    points = _points(graph, indices, [shape[axis] for axis in order], window)
    x = graph.add("Transpose", x, perm=[*batch, *indexed, *rest])
    y = graph.add("GatherND", x, points, batch_dims=len(batch))
    # Now [*outer, *others, *window, *rest]. Each axis by what it is, to put them in order.
    labels = [("index", axis) for axis in outer + others]
    labels += [("operand", axis) for axis in indexed + rest]
    collapsed = [("operand", axis) for axis in numbers.collapsed_slice_dims]
    dropped = [i for i, label in enumerate(labels) if label in collapsed]
    if dropped:
        y = graph.add("Squeeze", y, np.int64(dropped))
    labels = [label for i, label in enumerate(labels) if i not in dropped]
    offsets = iter(sorted(label for label in labels if label[0] == "operand"))
    places = iter(sorted(label for label in labels if label[0] == "index"))
    wanted = [
        next(offsets if axis in numbers.offset_dims else places) for axis in range(len(labels))
    ]
    return graph.add("Transpose", y, perm=[labels.index(label) for label in wanted])


def _scatter_add(graph: Graph, equation: Any, x: Any, indices: Any, updates: Any) -> str:
    numbers = equation.params["dimension_numbers"]
    shape, index_shape = (variable.aval.shape for variable in equation.invars[:2])
    update_shape = equation.invars[2].aval.shape
    batch, indexed = list(numbers.operand_batching_dims), list(numbers.scatter_dims_to_operand_dims)
    if batch != list(range(len(batch))) or batch != list(numbers.scatter_indices_batching_dims):
        raise untranslated("a scatter whose batch is not the first axis")
    rest = [axis for axis in range(len(shape)) if axis not in batch + indexed]
    inserted, windows = numbers.inserted_window_dims, iter(numbers.update_window_dims)
    place = {axis: next(windows) for axis in range(len(shape)) if axis not in (*batch, *inserted)}
    window = [int(update_shape[place[axis]]) if axis in place else 1 for axis in indexed]
    points = _points(graph, indices, index_shape, window)
    whole = [*index_shape[:-1], *window, 1]
    for axis in reversed(batch):
        ones = [1] * (len(whole) - 1 - axis)
        line = graph.reshape(_count(graph, shape[axis]), [shape[axis], *ones])
        line = graph.add("Expand", line, graph.sizes(whole))
        points = graph.add("Concat", line, points, axis=-1)
    outer = [axis for axis in range(len(update_shape)) if axis not in numbers.update_window_dims]
    perm = [*outer, *(place[axis] for axis in indexed if axis in place), *(place[a] for a in rest)]
    updates = graph.add("Transpose", updates, perm=perm)
    updates = graph.reshape(updates, [*whole[:-1], *(shape[axis] for axis in rest)])
    order = [*batch, *indexed, *rest]
    data = graph.add("Transpose", x, perm=order)
    y = graph.add("ScatterND", data, points, updates, reduction="add")
    return graph.add("Transpose", y, perm=np.argsort(order))


_SAME = {  # by JAX's name
    "neg": "Neg",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "erf": "Erf",
    "abs": "Abs",
    "floor": "Floor",
    "ceil": "Ceil",
    "sign": "Sign",
    "sin": "Sin",
    "cos": "Cos",
    "not": "Not",
    "add": "Add",
    "add_any": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "pow": "Pow",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "eq": "Equal",
    "and": "And",
    "or": "Or",
}

OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: _plain(theirs) for name, theirs in _SAME.items()},
    **dict.fromkeys(("stop_gradient", "copy", "optimization_barrier"), _identity),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    "square": _square,
    "rsqrt": _rsqrt,
    "expm1": _expm1,
    "log1p": _log1p,
    "cbrt": _cbrt,
    "integer_pow": _integer_pow,
    "ne": _not_equal,
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _convert,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "tile": _tile,
    "split": _split,
    "slice": _slice,
    "rev": _reverse,
    "pad": _pad,
    "iota": _iota,
    "reduce_sum": _sum,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_and": _reduce_bool("ReduceMin"),
    "reduce_or": _reduce_bool("ReduceMax"),
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "reduce_window_max": _pool,
    "gather": _gather,
    "scatter-add": _scatter_add,
}
"""By JAX's names."""
