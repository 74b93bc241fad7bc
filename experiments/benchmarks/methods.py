"""A training step of every method on the embedded data, relative to SimCLR's.

    python experiments/benchmarks/methods.py [--rounds=15] [--only METHOD ...]

Every method uses its default config (the same network, except for MAE's transformer). Steps are
timed in rounds that alternate with SimCLR's. Prints medians, the ratio of times, and the ratio of
floating-point operations that XLA counts in the compiled step: where the two ratios differ much,
something other than arithmetic takes the time.
"""

import argparse
import runpy
import statistics
import time
from pathlib import Path

import jax

from sslax import data
from sslax.training import sharding
from sslax.training.plan import describe, make_plan
from sslax.training.step import compile_step

CONFIGS = Path(__file__).parents[2] / "configs"


def step_of(method: str):
    """(state -> state, compiled and donated; the first state; operations; images a step)."""
    config = runpy.run_path(str(CONFIGS / f"{method}.py"))["get_config"]()
    dataset = data.load(config.data)
    plan = make_plan(config, **describe(dataset))
    mesh = sharding.make_mesh()
    feed = data.make_feed(dataset.train, batch_size=config.batch_size, seed=0, mesh=mesh)
    arrays = feed.arrays(0)
    state = jax.jit(plan.initial_state, out_shardings=sharding.replicated(mesh))()
    compiled = compile_step(plan.method, plan.tx, mesh, feed.batch).lower(state, arrays).compile()
    operations = compiled.cost_analysis().get("flops", float("nan"))
    return lambda state: compiled(state, arrays)[0], state, operations, config.batch_size


def timed(step, state):
    began = time.perf_counter()
    state = jax.block_until_ready(step(state))
    return state, 1e3 * (time.perf_counter() - began)


def main():
    known = sorted(path.stem for path in CONFIGS.glob("*.py"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", choices=known, default=known)
    arguments = parser.parse_args()
    reference, start, base_operations, _ = step_of("simclr")
    print("| method | ms a step | images/s | time / SimCLR | operations / SimCLR |")
    print("|---|---|---|---|---|")
    for method in arguments.only:
        step, state, operations, batch = step_of(method)
        ours, theirs = [], []
        for i in range(arguments.rounds + 2):
            state, milliseconds = timed(step, state)
            start, baseline = timed(reference, start)
            if i >= 2:
                ours.append(milliseconds)
                theirs.append(baseline)
        median = statistics.median(ours)
        print(
            f"| {method} | {median:.0f} | {1e3 * batch / median:.0f} "
            f"| {median / statistics.median(theirs):.2f} | {operations / base_operations:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
