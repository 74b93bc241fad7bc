"""Assertions on ranks and shapes, for the first lines of public array functions.

Names and behavior follow Chex, which is not imported because it would make Abseil a dependency of
every project that uses a loss. A failed assertion names the public function that was called and
the shapes it was given.
"""

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import numpy as np

# Libraries whose frames lie between a function and its caller.
_TRANSPARENT = ("jax", "functools", "contextlib")
# Names of helpers, and of lambdas and comprehensions.
_NOT_PUBLIC = ("_", "<", "assert_", "check_")


def _public_name(frame: FrameType) -> str | None:
    """Name of the public function that a frame runs; None for a helper or a lambda.

    A function defined inside another one is named after the outer one, which is the one that users
    know, and `__call__` after its class.
    """
    module = frame.f_globals.get("__name__", "")
    if frame.f_code.co_filename == __file__ or module.partition(".")[0] in _TRANSPARENT:
        return None
    qualname = frame.f_code.co_qualname.removesuffix(".__call__")
    parts = qualname.replace(".<locals>", "").split(".")
    if any(part.startswith(_NOT_PUBLIC) for part in parts):
        return None
    return qualname.partition(".<locals>")[0]


def _caller() -> str:
    """Name of the innermost public function on the call stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = _public_name(frame)
        if name is not None:
            return name
        frame = frame.f_back
    return "The caller"


def _fail(expected: str, arrays: Sequence[Any]) -> NoReturn:
    shapes = ", ".join(str(list(np.shape(array))) for array in arrays)
    raise AssertionError(f"{_caller()} expects {expected}; got shape {shapes}.")


def _as_list(arrays: Any) -> list[Any]:
    return list(arrays) if isinstance(arrays, list | tuple) else [arrays]


def assert_rank(arrays: Any, ranks: int | Sequence[int]) -> None:
    """Each array has its rank; a single rank applies to all arrays.

    Example:
        >>> def area(image):
        ...     assert_rank(image, 3)
        >>> area(np.zeros((4, 5)))
        Traceback (most recent call last):
        AssertionError: area expects an array of rank 3; got shape [4, 5].
    """
    arrays = _as_list(arrays)
    expected = [ranks] * len(arrays) if isinstance(ranks, int) else list(ranks)
    if [np.ndim(array) for array in arrays] != expected:
        noun = "an array" if len(arrays) == 1 else "arrays"
        _fail(f"{noun} of rank {', '.join(map(str, expected))}", arrays)


def assert_equal_rank(arrays: Sequence[Any]) -> None:
    """All arrays have the same rank."""
    if len({np.ndim(array) for array in arrays}) > 1:
        _fail("arrays of equal rank", arrays)


def assert_equal_shape(arrays: Sequence[Any]) -> None:
    """All arrays have the same shape."""
    if len({np.shape(array) for array in arrays}) > 1:
        _fail("arrays of equal shape", arrays)


def assert_equal_shape_prefix(arrays: Sequence[Any], length: int) -> None:
    """All arrays agree in their first `length` axes."""
    if len({np.shape(array)[:length] for array in arrays}) > 1:
        _fail(f"arrays with equal first {length} axes", arrays)


def assert_equal_shape_suffix(arrays: Sequence[Any], length: int) -> None:
    """All arrays agree in their last `length` axes."""
    if len({np.shape(array)[np.ndim(array) - length :] for array in arrays}) > 1:
        _fail(f"arrays with equal last {length} axes", arrays)


def assert_shape(arrays: Any, shape: Sequence[int | None]) -> None:
    """Each array has the shape; None matches any length."""
    for array in _as_list(arrays):
        matches = [want in (None, have) for want, have in zip(shape, np.shape(array))]
        if np.ndim(array) != len(shape) or not all(matches):
            _fail(f"an array of shape {list(shape)}", [array])


def assert_axis_dimension(array: Any, axis: int, length: int) -> None:
    """The axis has the given length."""
    if not -np.ndim(array) <= axis < np.ndim(array) or np.shape(array)[axis] != length:
        _fail(f"an array with length {length} along axis {axis}", [array])


def assert_axis_dimension_gt(array: Any, axis: int, length: int) -> None:
    """The axis is longer than `length`."""
    if not -np.ndim(array) <= axis < np.ndim(array) or np.shape(array)[axis] <= length:
        _fail(f"an array longer than {length} along axis {axis}", [array])
