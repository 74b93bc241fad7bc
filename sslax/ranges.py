"""Ranges of knobs, written as their types, beside their defaults.

```python
def simclr(encoder, *, temperature: Positive = 0.1): ...
class ViewRecipe(NamedTuple):
    blur: Fraction = 0.0
```

To Python and to type checkers `Positive` is `float`. `check_knobs` reads the ranges back from a
function's signature or a class's fields and compares a config section with them, so that a range is
written once and every message names the key.
"""

import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from sslax.errors import UserError, check_choice, nearest

Kind = Any
"""A type, perhaps with a range; for a section, a class or function, or kinds by name."""


class Interval(NamedTuple):
    """The numbers from `low` to `high`; a bound that is `open` is not one of them."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __call__(self, value: float) -> bool:
        """Whether the interval has the number."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def describe(self, noun: str) -> str:
        """What a number has to be.

        Example:
            >>> Interval(0, 1, open_low=True).describe("number")
            'a number in (0, 1]'
        """
        if self.high < math.inf:
            left, right = "[("[self.open_low], "])"[self.open_high]
            return f"a {noun} in {left}{self.low:.10g}, {self.high:.10g}{right}"
        if self.open_low or (noun == "whole number" and self.low == 1):
            return f"a positive {noun}"
        return f"a {noun} of at least {self.low:g}"


class Condition(NamedTuple):
    """Any other condition on a value, and the words for it."""

    holds: Callable[[Any], bool]
    words: str

    def __call__(self, value: Any) -> bool:
        """Whether the value meets the condition."""
        return self.holds(value)

    def describe(self, noun: str) -> str:
        """What a value has to be."""
        return self.words.format(noun)


T = TypeVar("T")
Recipe = TypeVar("Recipe", bound=NamedTuple)
Positive = Annotated[float, Interval(0, open_low=True)]
NonNegative = Annotated[float, Interval(0)]
Fraction = Annotated[float, Interval(0, 1)]
PositiveFraction = Annotated[float, Interval(0, 1, open_low=True)]
ProperFraction = Annotated[float, Interval(0, 1, open_high=True)]
PositiveInt = Annotated[int, Interval(1)]
NonNegativeInt = Annotated[int, Interval(0)]
Odd = Annotated[int, Condition(lambda n: n > 0 and n % 2 == 1, "an odd, positive whole number")]
Hue = Annotated[float, Interval(0, 0.5)]  # of a turn
Seed = Annotated[int, Interval(0, 2**32 - 1)]  # JAX keeps 32 bits
Range = Annotated[
    tuple[T, T], Condition(lambda pair: pair[0] <= pair[1], "a range (low, high), each {}")
]
PositiveRange = Range[Positive]
FractionRange = Range[PositiveFraction]
OneOrMore = Annotated[Sequence[T], Condition(bool, "a tuple of one or more, each {}")]
Size = Annotated[tuple[PositiveInt, PositiveInt], Condition(bool, "a height and a width in pixels")]
Unset = tuple[()]


def check(name: str, value: Any, kind: Kind) -> None:
    """Checks that a value is of a type and in its range; numbers are always finite.

    Args:
        name: the value as the user writes it: "config.batch_size", "--fps".
        value: what the user gave.
        kind: a type, perhaps with a range: `PositiveInt`, `Range[Fraction]`, `float | None`.

    Raises:
        UserError: it is not; the message has the name, what is allowed, and the value.

    Example:
        >>> try:
        ...     check("config.augment.blur", 1.5, Fraction)
        ... except UserError as error:
        ...     print(error)
        config.augment.blur must be a number in [0, 1]; got 1.5.
    """
    if get_origin(kind) is Literal:
        check_choice(name, value, get_args(kind))
    if not _fits(value, kind):
        raise UserError(f"{name} must be {_describe(kind)}; got {value!r}.")


def check_knobs(prefix: str, knobs: Mapping[str, Any], owner: Kind) -> None:
    """Checks every entry of a section, and of the sections in it.

    Args:
        prefix: the section's name: "config.simclr"; "" for none.
        knobs: the section.
        owner: what has the knobs, as in `kinds_of`.

    Raises:
        UserError: an entry is unknown or out of its range.

    Example:
        >>> def simclr(encoder, *, temperature: Positive = 0.1): ...
        >>> try:
        ...     check_knobs("config.simclr", {"temperature": 0.0}, simclr)
        ... except UserError as error:
        ...     print(error)
        config.simclr.temperature must be a positive number; got 0.0.
    """
    kinds = kinds_of(owner)
    for key, value in knobs.items():
        name = f"{prefix}.{key}".removeprefix(".")
        if key not in kinds:
            raise UserError(f"There is no {name}: {nearest(key, kinds)}")
        if not _is_section(kinds[key]):
            check(name, value, kinds[key])
        elif not hasattr(value, "items"):  # which a ConfigDict has, too
            raise UserError(f"{name} must be a section with keys of its own; got {value!r}.")
        elif get_origin(kinds[key]) is Mapping:
            every = get_args(kinds[key])[1]
            check_knobs(name, value, dict.fromkeys(value, every))
        else:
            check_knobs(name, value, kinds[key])


def replace_fields(recipe: Recipe, fields: dict[str, Any]) -> Recipe:
    """A record with some fields replaced.

    Raises:
        UserError: there is no such field; the message suggests the closest one.
    """
    for field in fields:
        check_choice("field", field, recipe._fields)
    return recipe._replace(**fields)


def check_record(record: Any) -> None:
    """Checks every field of a record, as `check_knobs` does.

    Raises:
        UserError: a field is out of its range.
    """
    check_knobs("", defaults(record), type(record))


def kinds_of(owner: Kind) -> Mapping[str, Kind]:
    """Types of knobs by name.

    Args:
        owner: a function, whose arguments with a default they are; a class, whose fields they are;
            or the types themselves, by name.

    Example:
        >>> def simclr(encoder, *, temperature: float = 0.1): ...
        >>> kinds_of(simclr)
        {'temperature': <class 'float'>}
    """
    if isinstance(owner, Mapping):
        return owner
    if isinstance(owner, type):
        return inspect.get_annotations(owner)
    parameters = inspect.signature(owner).parameters.values()
    return {p.name: p.annotation for p in parameters if p.default is not p.empty}


def defaults(section: Any) -> dict[str, Any]:
    """The fields of a record as a dictionary, those of records in it likewise.

    Example:
        >>> class Camera(NamedTuple):
        ...     baseline: Positive = 0.1
        >>> class Data(NamedTuple):
        ...     path: str = ""
        ...     camera: Camera = Camera()
        >>> defaults(Data())
        {'path': '', 'camera': {'baseline': 0.1}}
    """

    def plain(value: Any) -> Any:
        if hasattr(value, "_asdict"):
            return defaults(value)
        return dict(value) if isinstance(value, Mapping) else value

    return {name: plain(value) for name, value in section._asdict().items()}


def _is_section(kind: Kind) -> bool:
    """Whether a kind is that of a section, with entries that have kinds of their own."""
    if isinstance(kind, Mapping) or inspect.isfunction(kind) or get_origin(kind) is Mapping:
        return True
    return isinstance(kind, type) and bool(inspect.get_annotations(kind))


def _fits(value: Any, kind: Kind) -> bool:
    """Whether a value is of a type and in its range."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _fits(value, arguments[0]) and all(holds(value) for holds in arguments[1:])
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple and arguments[1:] != (...,):
        same = isinstance(value, tuple | list) and len(value) == len(arguments)
        return same and all(_fits(entry, kind) for entry, kind in zip(value, arguments))
    if origin in (tuple, Sequence):
        entries = isinstance(value, tuple | list)
        return entries and all(_fits(entry, arguments[0]) for entry in value)
    if kind is float:
        return _is_number(value, Real) and -math.inf < value < math.inf
    if kind is int:
        return _is_number(value, Integral)
    if kind in (bool, str):
        return isinstance(value, kind)
    if kind in (None, types.NoneType):
        return value is None
    return callable(value) if origin is Callable else True


def _is_number(value: Any, numbers: type) -> bool:
    return isinstance(value, numbers) and not isinstance(value, bool)


_NOUNS = {float: "number", int: "whole number", str: "string"}
_WORDS: dict[Kind, str] = {
    float: "a finite number",
    int: "a whole number",
    str: "a string",
    bool: "True or False",
    types.NoneType: "None",
    Unset: "()",
}


def _describe(kind: Kind) -> str:
    """The words for a kind."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        base, condition = arguments[:2]
        entries = get_args(base)
        noun = _describe(entries[0]) if entries else _NOUNS.get(base, "value")
        return condition.describe(noun)
    if origin in (Union, types.UnionType):
        options = [o for o in arguments if get_origin(o) is not Callable]
        return " or ".join(map(_describe, options))
    if origin in (tuple, Sequence) and arguments:
        pair = origin is tuple and arguments[-1] is not ...
        return f"{'a pair' if pair else 'a tuple'}, each {_describe(arguments[0])}"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    return _WORDS.get(kind, str(kind))
