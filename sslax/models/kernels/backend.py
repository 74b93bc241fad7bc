"""The only check of the backend that a network runs on."""

import jax


def on_cpu() -> bool:
    """Whether to trace the algorithms for CPUs: the default backend, at tracing time."""
    return jax.default_backend() == "cpu"
