"""What the loop does beside running steps."""

import threading
from types import SimpleNamespace

import pytest

from sslax.training import loop


class Slow:
    """A step whose compilation waits until something else was done."""

    def __init__(self, error=None):
        self.others = threading.Event()
        self.error = error

    def lower(self, state, arrays):
        assert (state, arrays) == ("shapes of the state", "shapes of the feed")
        return self

    def compile(self):
        if not self.others.wait(timeout=30):
            raise TimeoutError
        if self.error:
            raise self.error
        return lambda state, arrays: (state + arrays, {})


def ahead(monkeypatch, slow):
    monkeypatch.setattr(loop, "step_of", lambda *_: slow)
    feed = SimpleNamespace(batch=None, shapes="shapes of the feed")
    step_fn = loop.compile_ahead(None, None, "shapes of the state", feed)
    slow.others.set()
    return step_fn


def test_the_step_is_compiled_while_others_work(monkeypatch):
    step_fn = ahead(monkeypatch, Slow())
    assert [step_fn(i, 1)[0] for i in range(3)] == [1, 2, 3]


def test_what_the_compiler_refuses_is_an_error_of_the_first_step(monkeypatch):
    step_fn = ahead(monkeypatch, Slow(ValueError("out of memory")))
    with pytest.raises(ValueError, match="out of memory"):
        step_fn(0, 1)
