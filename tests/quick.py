"""Compilation for tests whose time it is, and whose tolerances allow for other roundings.

XLA's older way of generating a CPU's code for fusions takes less than half as long as the one
through MLIR. Programs that compute the same then agree less closely than otherwise.
"""

from functools import partial

import jax

# Later versions may not have it.
_OPTIONS = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}

quick_jit = partial(jax.jit, compiler_options=_OPTIONS)
