"""Checks of ranks, shapes and values, for the first lines of public array functions.

Names and behavior of the assertions follow Chex, which is not imported because it would make Abseil
a dependency of every project that uses a loss. A message names the public function that the user
called. Values are checked where they are known, that is, outside `jit`, `vmap` and `grad`.
"""

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from sslax.types import Array

# The packages of public functions, which call each other.
_LIBRARY = ("sslax.augment", "sslax.losses", "sslax.measures", "sslax.ops")
# What lies between a function and its caller: libraries, and this library's ways of calling.
_TRANSPARENT = ("jax", "functools", "contextlib")
_CALLS = ("sslax.ops.no_inline", "sslax.ops.platforms")
# Names of helpers, and of lambdas and comprehensions.
_NOT_PUBLIC = ("_", "<", "assert_", "check_")


def _public_name(frame: FrameType) -> str | None:
    """Name of the public function that a frame runs; None for a helper or a lambda.

    A function defined inside another one is named after the outer one, which is the one that users
    know, and `__call__` after its class.
    """
    qualname = frame.f_code.co_qualname.removesuffix(".__call__")
    parts = qualname.replace(".<locals>", "").split(".")
    if any(part.startswith(_NOT_PUBLIC) for part in parts):
        return None
    return qualname.partition(".<locals>")[0]


def _caller() -> str:
    """Name of the public function that was called from outside of this library's functions."""
    frame: FrameType | None = sys._getframe(1)
    name = None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_LIBRARY) and module not in _CALLS:
            name = _public_name(frame) or name
        elif not (
            frame.f_code.co_filename == __file__
            or module in _CALLS
            or module.partition(".")[0] in _TRANSPARENT
        ):
            name = name or _public_name(frame)
            if name is not None:
                break
        frame = frame.f_back
    return name or "The caller"


def value_error(message: str) -> ValueError:
    """A `ValueError` whose message names the public function that was called.

    Example:
        >>> def half(size):
        ...     raise value_error(f"size must be even; got {size}.")
        >>> half(3)
        Traceback (most recent call last):
        ValueError: half: size must be even; got 3.
    """
    return ValueError(f"{_caller()}: {message}")


def type_error(message: str) -> TypeError:
    """A `TypeError` whose message names the public function that was called."""
    return TypeError(f"{_caller()}: {message}")


def _is_known(value: Any) -> bool:
    """Whether the value can be looked at: it is neither traced nor spread over processes."""
    if isinstance(value, jax.core.Tracer):
        return False
    return not isinstance(value, jax.Array) or value.is_fully_addressable


def positive(name: str, value: float | Array) -> float | Array:
    """A positive number or array, such as a temperature.

    A traced value cannot be refused: where it is not positive it becomes NaN, so that the result
    is not silently wrong.

    Raises:
        ValueError: the value is known, and not positive and finite.

    Example:
        >>> def soften(x, temperature):
        ...     return x / positive("temperature", temperature)
        >>> soften(1.0, jnp.array(0.0))
        Traceback (most recent call last):
        ValueError: soften: temperature must be positive and finite; got 0.0.
        >>> jax.jit(soften)(1.0, 0.0).item()
        nan
    """
    if _is_known(value):
        values = np.asarray(value, np.float64)
        if not ((values > 0) & np.isfinite(values)).all():
            raise value_error(f"{name} must be positive and finite; got {value}.")
        return value
    return jnp.where((value > 0) & jnp.isfinite(value), value, jnp.nan)


def assert_positive(**numbers: int | float) -> None:
    """Each option, by its name, is positive and finite."""
    for name, number in numbers.items():
        positive(name, number)


def assert_size(size: Sequence[int]) -> None:
    """A size is two positive integers, height and width."""
    sides = [isinstance(side, int | np.integer) and side > 0 for side in size]
    if sides != [True, True]:
        raise value_error(f"size is a height and a width in pixels, positive integers; got {size}.")


def assert_integer(name: str, array: Any) -> None:
    """The array has an integer dtype.

    Raises:
        TypeError: it has another one.
    """
    dtype = array.dtype if hasattr(array, "dtype") else np.asarray(array).dtype
    if not jnp.issubdtype(dtype, jnp.integer):
        raise type_error(f"{name} must be integers; got {dtype}.")


def assert_floating(image: Any) -> None:
    """The image has a floating dtype.

    Raises:
        TypeError: it has another one, whose range is not known.
    """
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise type_error(f"the image has dtype {image.dtype}; convert it to float32 in [0, 1].")


def assert_finite(name: str, array: Any) -> None:
    """The array has no NaN and no infinity, if its values are known.

    Raises:
        ValueError: it has one.
    """
    if not _is_known(array):
        return
    if isinstance(array, np.ndarray):  # perhaps larger than a device's memory
        finite = not array.size or bool(np.isfinite([array.min(), array.max()]).all())
    else:
        with jax.ensure_compile_time_eval():
            finite = bool(_all_finite(jnp.asarray(array)))
    if not finite:
        raise value_error(f"{name} must be finite; some are NaN or infinite.")


@jax.jit
def _ends(array: Array) -> tuple[Array, Array]:
    return array.min(), array.max()


@jax.jit
def _all_finite(array: Array) -> Array:
    return jnp.isfinite(array).all()


def assert_unit_range(*images: Array) -> None:
    """Images are in [0, 1], if their values are known; overshoot of half the range is accepted.

    Raises:
        ValueError: they have another range, such as 0 to 255.
        TypeError: they have integer dtypes.
    """
    for image in images:
        assert_floating(image)
        if _is_known(image) and image.size:
            with jax.ensure_compile_time_eval():  # where a known image is read by a traced function
                low, high = (float(end) for end in _ends(image))
            if low < -0.5 or high > 1.5:
                raise value_error(
                    f"images must be in [0, 1]; these reach from {low:.3g} to {high:.3g}. Divide "
                    "8-bit values by 255."
                )


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


def assert_same_examples(a: Any, b: Any, rank: int) -> None:
    """Two batches that may lack leading axes have equal last `rank` axes and equally many examples.

    The first axis of the one with fewer axes, that of its examples, must not be broadcast.
    """
    assert_equal_shape_suffix([a, b], rank)
    axis = -max(rank, min(np.ndim(a), np.ndim(b)))
    if np.shape(a)[axis] != np.shape(b)[axis]:
        _fail("arrays with equally many examples", [a, b])


def assert_axis_dimension(array: Any, axis: int, length: int) -> None:
    """The axis has the given length."""
    if not -np.ndim(array) <= axis < np.ndim(array) or np.shape(array)[axis] != length:
        _fail(f"an array with length {length} along axis {axis}", [array])


def assert_axis_dimension_gt(array: Any, axis: int, length: int) -> None:
    """The axis is longer than `length`."""
    if not -np.ndim(array) <= axis < np.ndim(array) or np.shape(array)[axis] <= length:
        _fail(f"an array longer than {length} along axis {axis}", [array])
