"""The same convolutions, pools and paddings, faster on a CPU.

XLA's CPU backend runs matrix products near the machine's peak and some other operations far below
it. Each file here works around one of them and says at its head with which jax it was measured, how
to measure it again, and when it can go. `ops.platforms.choose` decides whether they are used.
"""

from sslax.models.kernels.borders import edge_pad, reflect_pad
from sslax.models.kernels.pool import max_pool

__all__ = ["edge_pad", "max_pool", "reflect_pad"]
