"""An ONNX graph that is built operation by operation."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sslax.errors import UserError

OPSET, IR_VERSION = 18, 10  # of 2022 and 2024, for programs that are not the newest


def untranslated(what: str) -> UserError:
    """The error for what ONNX does not have, or this package does not know how to say in it."""
    return UserError(
        f"The network has {what}, which sslax does not translate to ONNX: use --format=stablehlo."
    )


class Graph:
    """Nodes and constants by name, with one input.

    Args:
        image: name of the input, uint8.
        shape: of it, with the name of the batch's size first.
    """

    def __init__(self, image: str, shape: Sequence[int | str]) -> None:
        self._image = helper.make_tensor_value_info(image, onnx.TensorProto.UINT8, shape)
        self._nodes: list[Any] = []
        self._constants: dict[str, np.ndarray] = {}
        self._outputs: list[Any] = []

    def add(self, operation: str, *inputs: Any, outputs: int = 0, **attributes: Any) -> Any:
        """Adds a node.

        Args:
            operation: of ONNX.
            *inputs: names or arrays.
            outputs: how many there are, where the operation has several.
            **attributes: of the node.

        Returns:
            The output's name, or a list of them where there are several.
        """
        names = [f"v{len(self._nodes)}_{i}" for i in range(outputs or 1)]
        node = helper.make_node(operation, [self.name(v) for v in inputs], names, **attributes)
        self._nodes.append(node)
        return names if outputs else names[0]

    def name(self, value: Any) -> str:
        """The name of a value; arrays become constants."""
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        name = f"c{len(self._constants)}"
        self._constants[name] = array
        return name

    def sizes(self, shape: Sequence[Any]) -> Any:
        """A shape, of which the size of the batch is known only when the graph runs."""
        if all(isinstance(size, int) for size in shape):
            return np.int64(shape)
        return self.add("Concat", *(self._size(size) for size in shape), axis=0)

    def reshape(self, value: Any, shape: Sequence[Any]) -> str:
        """The value in another shape."""
        unknown = [i for i, size in enumerate(shape) if not isinstance(size, int)]
        if len(unknown) == 1 and 0 not in shape:
            sizes: Any = np.int64([-1 if i in unknown else size for i, size in enumerate(shape)])
        else:
            sizes = self.sizes(shape)
        return self.add("Reshape", value, sizes)

    def slice(self, value: Any, axis: int, start: int, stop: int, step: int = 1) -> str:
        """`value[start:stop:step]` along an axis."""
        return self.add("Slice", value, *(np.int64([n]) for n in (start, stop, axis, step)))

    def row(self, value: Any, index: int) -> Any:
        """`value[index]`."""
        if not isinstance(value, str):
            return np.asarray(value)[index]
        return self.add("Gather", value, np.int64(index), axis=0)

    def stack(self, values: Sequence[Any], axis: int) -> str:
        """The values along a new axis."""
        wider = [self.add("Unsqueeze", value, np.int64([axis])) for value in values]
        return self.add("Concat", *wider, axis=axis)

    def output(self, name: str, shape: Sequence[int | str], value: Any) -> None:
        """Makes a value an output, float32."""
        self._nodes.append(helper.make_node("Identity", [self.name(value)], [name]))
        info = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        self._outputs.append(info)

    def model(self) -> Any:
        """The graph, with what its outputs need, checked."""
        needed = {output.name for output in self._outputs}
        nodes = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        constants = [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in self._constants.items()
            if name in needed
        ]
        graph = helper.make_graph(nodes[::-1], "sslax", [self._image], self._outputs, constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        if model.ByteSize() < 2**31:  # what the checker can take
            onnx.checker.check_model(model)
        return model

    def _size(self, size: Any) -> Any:
        """One size as an array `[1]`: a number, or a multiple of the batch's."""
        if isinstance(size, int):
            return np.int64([size])
        multiple = re.fullmatch(r"(?:(\d+)\*)?b", str(size))
        if not multiple:
            raise untranslated(f"an array whose size is {size}, with b the size of the batch")
        batch = self.add("Shape", self._image.name, start=0, end=1)
        return batch if not multiple[1] else self.add("Mul", batch, np.int64([int(multiple[1])]))
