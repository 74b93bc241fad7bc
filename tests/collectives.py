"""What devices may tell each other in a training step, by its compiled program."""

import math

import jax

from sslax.planning import hlo

# A gradient is reduced once, and statistics, scalars and features of the batch come on top: of
# tiny networks, whose features are as large as their gradients, more than of real ones.
REDUCED = 2.0
SMALL = 2**16  # bytes


def assert_modest(program, plan):
    """Gradients travel about once, images and activations never, and nothing goes to the host.

    Args:
        program: `hlo.Program` of a step on several devices.
        plan: of the run.
    """
    params = jax.eval_shape(plan.initial_state).params
    gradients = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    totals = hlo.totals(program.collectives)
    assert totals["all-reduce"][1] >= gradients / 2  # in bfloat16 at least
    for kind, (_, size) in totals.items():
        assert size <= REDUCED * gradients + SMALL, (kind, size, gradients)
    # One for each leaf and a few for each statistic: an unrolled loop of them would show.
    assert sum(count for count, _ in totals.values()) <= 40 + 6 * len(jax.tree.leaves(params))

    images = math.prod(plan.batch["image"].shape[1:])
    for collective in program.collectives:
        moved = max(array.size for array in collective.arrays)
        if collective.kind != "all-reduce":
            assert moved < plan.batch["image"].shape[0] * images / 2, collective
    assert "f64" not in program.dtypes()
    assert not program.host_transfers()
