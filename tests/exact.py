"""Compilation for tests that compare more closely than XLA's older emitters round."""

from functools import partial

import jax

# Later versions may not have it.
_OPTIONS = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < (0, 11) else {}

exact_jit = partial(jax.jit, compiler_options=_OPTIONS)
