"""A trained network as ONNX, for any batch: what JAX traced, operation by operation."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend import core

from sslax import errors, paths
from sslax.errors import UserError
from sslax.exporting.program import Program, describe, program_of
from sslax.inference.encoder import Trained

FILE = "model.onnx"
_LARGEST = 2**31 - 1  # bytes of a protocol buffer
_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "remat2",
    "checkpoint",
)

Value = Any  # the name of a tensor, or a NumPy array that does not depend on the images


def write(trained: Trained, folder: Path, poses: bool) -> list[Path]:
    """Writes `model.onnx` and `model.json`.

    Raises:
        MissingExtra: onnx is not installed.
        UserError: the network has an operation without a translation, or 2 GiB of weights.
    """
    errors.require("export", "onnx")
    program = program_of(trained, poses=poses)
    model = to_onnx(program)
    if model.ByteSize() > _LARGEST:
        raise UserError(
            f"The network takes {model.ByteSize() / 2**30:.1f} GiB, and a file of ONNX at most 2: "
            "use --format=stablehlo."
        )
    file = folder / FILE
    with paths.replacing(file) as unfinished:
        unfinished.write_bytes(model.SerializeToString())
    opset = model.opset_import[0].version
    return [file, describe(folder, "onnx", program.about, file=FILE, opset=opset)]


def to_onnx(program: Program) -> Any:
    """The `onnx.ModelProto` of a program.

    The input is called `image`, the outputs have the program's names. What does not depend on the
    images is computed here. Where platforms differ the code of the others than CPUs is taken, which
    is plain operations. bfloat16 becomes float32.

    Raises:
        UserError: an operation has no translation.
    """
    from sslax.exporting.onnx_graph import Graph

    image = jax.ShapeDtypeStruct((*export.symbolic_shape("b"), *program.shape), jnp.uint8)
    closed = jax.make_jaxpr(program.function)(image)
    graph = Graph("image", ("b", *program.shape))
    values = translate(graph, closed.jaxpr, closed.consts, ["image"])
    # JAX returns dictionaries in alphabetical order.
    for (name, shape), value in zip(sorted(program.outputs.items()), values):
        graph.output(name, ("b", *shape), value)
    return graph.model()


def translate(graph: Any, jaxpr: core.Jaxpr, consts: list[Any], inputs: list[Value]) -> list[Value]:
    """Adds the operations of a traced function to a graph.

    Args:
        graph: an `onnx_graph.Graph`.
        jaxpr: of the function.
        consts: of the jaxpr.
        inputs: of the function.

    Returns:
        Its outputs.

    Raises:
        UserError: an operation has no translation.
    """
    from sslax.exporting.onnx_graph import untranslated
    from sslax.exporting.onnx_operations import OPERATIONS

    known: dict[Any, Value] = dict(zip(jaxpr.constvars, consts)) | dict(zip(jaxpr.invars, inputs))

    def read(variable: Any) -> Value:
        if hasattr(variable, "val"):
            return np.asarray(variable.val, variable.aval.dtype)
        return known[variable]

    for equation in _needed(jaxpr):
        if _is_empty(equation):
            known |= {v: _nothing(v.aval) for v in equation.outvars}
            continue
        given, name = [read(variable) for variable in equation.invars], equation.primitive.name
        if name == "platform_index":
            outputs = [np.int32(equation.params["platforms"].index(None))]
        elif name == "cond" and not isinstance(given[0], str):
            outputs = _call(graph, equation.params["branches"][int(given[0])], given[1:])
        elif name == "scan":
            outputs = _unrolled(graph, equation.params, given)
        elif name in _CALLS:
            outputs = _call(graph, _callee(equation), given)
        elif _is_constant(equation, given):
            outputs = _evaluated(equation, given)
        elif name in OPERATIONS:
            made = OPERATIONS[name](graph, equation, *given)
            outputs = made if isinstance(made, list) else [made]
        else:
            raise untranslated(f'the operation "{name}"')
        known |= zip(equation.outvars, outputs)
    return [read(variable) for variable in jaxpr.outvars]


def _needed(jaxpr: core.Jaxpr) -> list[Any]:
    """The equations that the outputs depend on, in their order."""
    wanted = {variable for variable in jaxpr.outvars if not hasattr(variable, "val")}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            if not _is_empty(equation):
                wanted.update(v for v in equation.invars if not hasattr(v, "val"))
            equations.append(equation)
    return equations[::-1]


def _is_empty(equation: Any) -> bool:
    """Whether nothing comes out, as of `jnp.pad` where it adds nothing."""
    return all(0 in variable.aval.shape for variable in equation.outvars)


def _nothing(aval: Any) -> np.ndarray:
    """An empty array; the size of the batch does not matter."""
    return np.zeros([size if isinstance(size, int) else 0 for size in aval.shape], aval.dtype)


def _callee(equation: Any) -> core.ClosedJaxpr:
    params = equation.params
    found = params.get("jaxpr", params.get("call_jaxpr"))
    return found if isinstance(found, core.ClosedJaxpr) else core.ClosedJaxpr(found, ())


def _call(graph: Any, function: core.ClosedJaxpr, inputs: list[Value]) -> list[Value]:
    return translate(graph, function.jaxpr, function.consts, inputs)


def _is_constant(equation: Any, given: list[Value]) -> bool:
    """Whether an operation depends neither on the images nor on their number."""
    sizes = [size for variable in equation.outvars for size in variable.aval.shape]
    if equation.primitive.name == "dim_as_value":
        return False
    return not any(isinstance(v, str) for v in given) and all(isinstance(s, int) for s in sizes)


def _evaluated(equation: Any, given: list[Value]) -> list[Value]:
    made = equation.primitive.bind(*map(_as_array, given), **equation.params)
    return list(made) if equation.primitive.multiple_results else [made]


def _as_array(value: Any) -> Any:
    return value if isinstance(value, jax.Array) else jnp.asarray(value)


def _unrolled(graph: Any, params: dict[str, Any], given: list[Value]) -> list[Value]:
    """A loop of known length, step by step."""
    consts, carry = given[: params["num_consts"]], given[params["num_consts"] :]
    carry, stacked = carry[: params["num_carry"]], carry[params["num_carry"] :]
    steps = range(params["length"])
    rows: list[list[Value]] = []
    for step in reversed(steps) if params["reverse"] else steps:
        here = [graph.row(value, step) for value in stacked]
        outputs = _call(graph, params["jaxpr"], [*consts, *carry, *here])
        carry = outputs[: len(carry)]
        rows.append(outputs[len(carry) :])
    if params["reverse"]:
        rows.reverse()
    return [*carry, *(graph.stack(list(column), 0) for column in zip(*rows))]
