"""Defaults that a config takes from a method's factory."""

import pytest

from sslax.training import presets


def factory(encoder, *, augmentation, temperature=0.1, momentum=0.99, symmetric=False):
    """As a method's."""


def test_defaults_are_those_of_the_signature():
    everything = {"temperature": 0.1, "momentum": 0.99, "symmetric": False}
    assert presets.defaults_of(factory) == everything
    some = presets.defaults_of(factory, "symmetric", "temperature")
    assert list(some.items()) == [("symmetric", False), ("temperature", 0.1)]


@pytest.mark.parametrize("name", ["augmentation", "encoder", "tau"])
def test_an_argument_without_a_default_is_named(name):
    with pytest.raises(ValueError, match=f"factory has no default for '{name}'"):
        presets.defaults_of(factory, "momentum", name)
