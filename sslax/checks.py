"""Assertions on ranks and shapes, the first lines of public functions of arrays.

They are named and behave as Chex's, whose import would bring Abseil into every project that uses a
loss; what they raise names the function that was called and the shapes it got.
"""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

Shape = tuple[int, ...]


def _fail(expected: str, arrays: Sequence[Any]) -> NoReturn:
    function = sys._getframe(2).f_code.co_name
    shapes = ", ".join(str(list(np.shape(array))) for array in arrays)
    raise AssertionError(f"{function} takes {expected}; got shape {shapes}.")


def _listed(arrays: Any) -> list[Any]:
    return list(arrays) if isinstance(arrays, list | tuple) else [arrays]


def assert_rank(arrays: Any, ranks: int | Sequence[int]) -> None:
    """Each array has its rank; one rank serves all.

    Example:
        >>> def area(image):
        ...     assert_rank(image, 3)
        >>> area(np.zeros((4, 5)))
        Traceback (most recent call last):
        AssertionError: area takes an array of rank 3; got shape [4, 5].
    """
    arrays = _listed(arrays)
    wanted = [ranks] * len(arrays) if isinstance(ranks, int) else list(ranks)
    if [np.ndim(array) for array in arrays] != wanted:
        plural = "an array" if len(arrays) == 1 else "arrays"
        _fail(f"{plural} of rank {', '.join(map(str, wanted))}", arrays)


def assert_equal_rank(arrays: Sequence[Any]) -> None:
    """All arrays have the same rank."""
    if len({np.ndim(array) for array in arrays}) > 1:
        _fail("arrays of equal rank", arrays)


def assert_equal_shape(arrays: Sequence[Any]) -> None:
    """All arrays have the same shape."""
    if len({np.shape(array) for array in arrays}) > 1:
        _fail("arrays of equal shape", arrays)


def assert_equal_shape_prefix(arrays: Sequence[Any], length: int) -> None:
    """The first `length` axes are the same in all arrays."""
    if len({np.shape(array)[:length] for array in arrays}) > 1:
        _fail(f"arrays whose first {length} axes are equal", arrays)


def assert_equal_shape_suffix(arrays: Sequence[Any], length: int) -> None:
    """The last `length` axes are the same in all arrays."""
    if len({np.shape(array)[np.ndim(array) - length :] for array in arrays}) > 1:
        _fail(f"arrays whose last {length} axes are equal", arrays)


def assert_shape(arrays: Any, shape: Sequence[int | None]) -> None:
    """Each array has the shape, in which None stands for any length."""
    arrays = _listed(arrays)
    for array in arrays:
        same = [want in (None, have) for want, have in zip(shape, np.shape(array))]
        if np.ndim(array) != len(shape) or not all(same):
            _fail(f"an array of shape {list(shape)}", [array])


def assert_axis_dimension(array: Any, axis: int, length: int) -> None:
    """The axis has the length."""
    if not -np.ndim(array) <= axis < np.ndim(array) or np.shape(array)[axis] != length:
        _fail(f"an array with length {length} along axis {axis}", [array])


def assert_axis_dimension_gt(array: Any, axis: int, length: int) -> None:
    """The axis is longer than `length`."""
    if not -np.ndim(array) <= axis < np.ndim(array) or np.shape(array)[axis] <= length:
        _fail(f"an array longer than {length} along axis {axis}", [array])
