"""Checks of options that the augmentations and their recipes share."""

from typing import Any, NamedTuple, TypeVar

from sslax import checks
from sslax.errors import check_choice

Recipe = TypeVar("Recipe", bound=NamedTuple)


def check_probability(name: str, value: float) -> None:
    """Checks that an option is in [0, 1]."""
    if not 0 <= value <= 1:
        raise checks.value_error(f"{name} is a probability, in [0, 1]; got {value}.")


def check_positive_range(name: str, value: tuple[float, float]) -> None:
    """Checks that an option is a pair of positive numbers, the first not above the second."""
    if len(value) != 2 or not 0 < value[0] <= value[1]:
        raise checks.value_error(f"{name} must be a positive, increasing pair; got {value}.")


def replace_fields(recipe: Recipe, fields: dict[str, Any]) -> Recipe:
    """A recipe with some fields replaced.

    Raises:
        UserError: there is no such field; the message suggests the closest one.
    """
    for field in fields:
        check_choice("field", field, recipe._fields)
    return recipe._replace(**fields)
