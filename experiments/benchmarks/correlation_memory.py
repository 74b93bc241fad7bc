"""Memory of RAFT's correlation lookup, with all pairs stored or computed on demand.

    python experiments/benchmarks/correlation_memory.py [--size 440 1024]

Nothing runs: the numbers are the temporary memory of the program that XLA compiles for one
direction of one pair. A lookup computes correlations within radius 4 on four levels, from features
with 256 channels at an eighth of the resolution; "with gradients" adds those of both features.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp

from sslax.models import correlation

LEVELS, RADIUS, STRIDE = 4, 4, 8


def dense(first, second, coords):
    pyramid = correlation.correlation_pyramid(first, second, levels=LEVELS)
    return correlation.lookup(pyramid, coords, radius=RADIUS)


FORMS = {
    "dense": dense,
    "on demand": partial(correlation.correlation_lookup, levels=LEVELS, radius=RADIUS),
}


def megabytes(function, *shapes) -> float:
    """Temporary memory of a function for arrays of these shapes, in 1e6 bytes."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(function).lower(*arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(440, 1024), help="of the images")
    parser.add_argument("--channels", type=int, default=256)
    options = parser.parse_args()
    h, w = (side // STRIDE for side in options.size)
    features, coords = (1, h, w, options.channels), (1, h, w, 2)
    errors = (1, h, w, LEVELS * (2 * RADIUS + 1) ** 2)
    print(f"{jax.default_backend()}, features of {h} x {w} x {options.channels}")
    print("| | lookup, MB | with gradients, MB |\n|---|---|---|")
    for name, form in FORMS.items():

        def gradients(first, second, coords, errors, form=form):
            found, pull_back = jax.vjp(lambda *x: form(*x, coords), first, second)
            return found, pull_back(errors)

        forward = megabytes(form, features, features, coords)
        backward = megabytes(gradients, features, features, coords, errors)
        print(f"| {name} | {forward:.0f} | {backward:.0f} |", flush=True)


if __name__ == "__main__":
    main()
