"""Ranges of knobs: what fits, and the sentence for what does not."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pytest
from ml_collections import ConfigDict

from sslax import ranges
from sslax.errors import UserError
from sslax.ranges import Fraction, OneOrMore, Positive, PositiveInt, PositiveRange, Size, Unset
from sslax.types import Schedule


@pytest.mark.parametrize(
    ("kind", "fits", "others"),
    [
        (Positive, (1, 1e-9, np.float32(2)), (0, -1.0, math.nan, math.inf, "1", None, True)),
        (ranges.NonNegative, (0, 0.0, 3), (-1e-9, math.inf)),
        (Fraction, (0, 1, 0.5), (-0.1, 1.1, math.nan)),
        (ranges.PositiveFraction, (1, 0.1), (0, 1.5)),
        (ranges.ProperFraction, (0, 0.9), (1, -0.5)),
        (float, (-2.0, 0), (math.nan, -math.inf, "x", False)),
        (PositiveInt, (1, np.int64(5)), (0, -1, 1.0, True, "3", None)),
        (ranges.NonNegativeInt, (0,), (-1, 0.0)),
        (ranges.Odd, (1, 3), (0, 2, -1, 1.0)),
        (ranges.Seed, (0, 2**32 - 1), (-1, 2**32)),
        (bool, (True, False), (0, 1, None, "yes")),
        (str, ("", "a"), (1, None)),
        (PositiveRange, ((1, 2), [1.0, 1.0]), ((2, 1), (0, 1), (1,), (1, 2, 3), 1, (1, math.nan))),
        (Size | Unset, ((), (3, 4)), ((3,), (0, 4), (1.5, 2), 3, None)),
        (Sequence[PositiveInt], ((), (1, 2), [3]), ((1, 0), 1, "12", (1, "2"))),
        (OneOrMore[PositiveInt], ((1,),), ((), (0,))),
        (Sequence[tuple[PositiveInt, PositiveInt]], (((1, 2), [3, 4]), ()), (((1,),), (1, 2))),
        (PositiveInt | None, (None, 2), (0, "2")),
        (Positive | Schedule, (0.1, math.sqrt), (0.0, "x", None)),
        (Literal["a", 2], ("a", 2), ("b", None, 3)),
        (Literal["a"] | None, ("a", None), ("b",)),
    ],
)
def test_what_fits_a_kind(kind, fits, others):
    for value in fits:
        ranges.check("knob", value, kind)
    for value in others:
        with pytest.raises(UserError, match=r"^knob (must be|is) "):
            ranges.check("knob", value, kind)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        (Positive, math.nan, "a positive number; got nan"),
        (PositiveInt, "many", "a positive whole number; got 'many'"),
        (ranges.NonNegative, -1, "a number of at least 0; got -1"),
        (ranges.PositiveFraction, 0.0, "a number in (0, 1]; got 0.0"),
        (ranges.Seed, -1, "a whole number in [0, 4294967295]; got -1"),
        (PositiveRange | None, (2, 1), "a range (low, high), each a positive number or None"),
        (Size | Unset, (3,), "a height and a width in pixels or (); got (3,)"),
        (Sequence[tuple[int, int]], 3, "a tuple, each a pair, each a whole number; got 3"),
        (Positive | Schedule, 0, "a positive number; got 0"),
        (Literal["a"] | None, "b", "'a' or None; got 'b'"),
    ],
)
def test_the_sentence_says_what_is_allowed(kind, value, sentence):
    with pytest.raises(UserError) as error:
        ranges.check("config.knob", value, kind)
    assert f"config.knob must be {sentence}" in str(error.value)


class Inner(NamedTuple):
    blur: Fraction = 0.0


class Outer(NamedTuple):
    size: PositiveInt = 1
    inner: Inner = Inner()
    rates: Mapping[str, Positive] = {}


def method(encoder, *, augmentation, temperature: Positive = 0.1):
    """As a method's."""


def test_sections_are_checked_to_the_bottom():
    section = ConfigDict(ranges.defaults(Outer()))
    ranges.check_knobs("config", section, Outer)
    assert section.to_dict() == {"size": 1, "inner": {"blur": 0.0}, "rates": {}}
    section.inner.blur = 2.0
    with pytest.raises(UserError, match=r"^config\.inner\.blur must be a number in \[0, 1\]"):
        ranges.check_knobs("config", section, Outer)
    section.inner.blur, section.rates.encoder = 0.5, -1.0
    with pytest.raises(UserError, match=r"^config\.rates\.encoder must be a positive number"):
        ranges.check_knobs("config", section, Outer)
    for value in (None, 3, "x", ()):
        with pytest.raises(UserError, match=r"^config\.inner must be a section with keys"):
            ranges.check_knobs("config", {"inner": value}, Outer)
    with pytest.raises(UserError, match=r"^inner\.blur must be a number"):
        ranges.check_record(Outer(inner=Inner(blur=-1.0)))


def test_a_function_has_the_knobs_with_a_default():
    assert ranges.kinds_of(method) == {"temperature": Positive}
    with pytest.raises(UserError, match=r"There is no config\.m\.tau: Known: temperature\."):
        ranges.check_knobs("config.m", {"tau": 0.1}, method)
    with pytest.raises(UserError, match='did you mean "temperature"'):
        ranges.check_knobs("config.m", {"temprature": 0.1}, {**ranges.kinds_of(method), "a": int})
