"""What devices may tell each other in a training step, by its compiled program."""

import math

import jax

from sslax.planning import hlo

# Of the gradients' bytes: they travel once, or, where a loss has two passes with a backward pass
# each (DINO's small crops, the flow methods' branch), twice; tiny networks have statistics beside
# them.
REDUCED = 2.75
OTHERS = 0.15  # features and scores of tiny batches
SMALL = 4096  # bytes of what does not grow with the network: histograms, metrics

# The CPU's partial sort is a call of a library, which gathers what it sorts. TPUs sort in place.
SORTED_ON_CPU = "sslax/ops/color.py"


def assert_modest(program, plan):
    """Gradients travel about once, images and activations never, and nothing goes to the host.

    Args:
        program: `hlo.Program` of a step on several devices.
        plan: of the run.
    """
    params = plan.shapes.params
    gradients = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    # RAFT's gradients are summed over the devices in each of its iterations; counted once here.
    found = [
        c._replace(runs=1) for c in program.collectives if not c.place.startswith(SORTED_ON_CPU)
    ]
    totals = hlo.totals(found)
    assert totals["all-reduce"][1] >= gradients / 2  # in bfloat16 at least
    for kind, (_, size) in totals.items():
        most = REDUCED if kind == "all-reduce" else OTHERS
        assert size <= most * gradients + SMALL, (kind, size, gradients)
    # About one for each statistic and a few for the gradients; not one for each example.
    assert sum(count for count, _ in totals.values()) <= 16 + 2 * len(jax.tree.leaves(params))

    images = math.prod(plan.batch["image"].shape)
    for collective in found:
        moved = sum(array.size for array in collective.arrays)
        assert collective.kind == "all-reduce" or moved < images / 2, collective
    assert "f64" not in program.dtypes()
    assert not program.host_transfers()
