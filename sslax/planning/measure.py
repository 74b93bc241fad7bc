"""Compiles the training step of a config for a topology, and takes its figures."""

import math
import re
import time
from collections import Counter
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from sslax import data
from sslax.data.feed import AHEAD
from sslax.planning import hlo
from sslax.planning.contents import Contents
from sslax.planning.topologies import Topology
from sslax.training import loop, sharding
from sslax.training.plan import Plan, make_plan

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Memory(NamedTuple):
    """Bytes on a device.

    Attributes:
        state: of training: parameters, statistics, optimizer.
        inputs: a batch, or the whole set where it lives on the device.
        temporaries: what a step needs beside its arguments and results.
        waiting: batches that are sent ahead while a step runs.
        peak: of all of it.
        limit: what a program can have.
    """

    state: float
    inputs: float
    temporaries: float
    waiting: float
    peak: float
    limit: float

    @property
    def fits(self) -> bool:
        """Whether the devices have it."""
        return self.peak <= self.limit


class Estimate(NamedTuple):
    """How long a step takes, and what that rests on; `bound`: no less than that."""

    seconds: float
    basis: str
    bound: bool


class Measurement(NamedTuple):
    """Figures of a compiled step; a device's share, unless said otherwise.

    Attributes:
        topology: the devices.
        contents: of the training set.
        plan: the run's.
        batch_size: over all devices.
        parameters: how many are trained.
        memory: None where the compiler gave up for want of it, but did not say how much it takes.
        operations: floating-point, in a step; None where the program did not compile, and likewise
            below.
        moved: bytes between chip and memory; None where the compiler does not say. Loops count
            once.
        collectives: of a step.
        cycles: the compiler's, in a step, by line of source; empty where it has none.
        loops: of a step.
        seconds: that tracing and compiling took.
        feed: of the run, without its data.
        step: compiled, `(state, arrays) -> (state, metrics)`, and the state is donated; it runs
            where the topology is that of the devices here.
    """

    topology: Topology
    contents: Contents
    plan: Plan
    batch_size: int
    parameters: int
    memory: Memory | None
    operations: float | None
    moved: float | None
    collectives: list[hlo.Collective]
    cycles: Counter[str]
    loops: list[hlo.Loop]
    seconds: tuple[float, float]
    feed: data.AbstractFeed
    step: jax.stages.Compiled | None

    @property
    def devices(self) -> int:
        """How many."""
        return len(self.topology.devices)

    @property
    def sent(self) -> float:
        """Bytes that a device sends to others in a step."""
        return sum(c.runs * c.sent for c in self.collectives)

    @property
    def estimate(self) -> Estimate | None:
        """The time of a step; None where the program does not compile, or the chip is unknown."""
        chip = self.topology.chip
        if self.operations is None or chip.operations is None:
            return None
        talk = self.sent / chip.link
        if self.cycles:
            basis = (
                f"the compiler's cycles at {chip.clock / 1e9:.2f} GHz, then collectives at "
                f"{chip.link / 1e9:.0f} GB/s, without gathers and native scatters"
            )
            return Estimate(sum(self.cycles.values()) / chip.clock + talk, basis, False)
        parts = {
            f"operations at {chip.operations / 1e12:.0f} T/s": self.operations / chip.operations
        }
        if self.moved is not None:
            parts[f"memory at {chip.bandwidth / 1e9:.0f} GB/s"] = self.moved / chip.bandwidth
        parts[f"collectives at {chip.link / 1e9:.0f} GB/s"] = talk
        slowest = max(parts, key=parts.get)
        return Estimate(parts[slowest], f"{slowest}, the slowest of {', '.join(parts)}", True)


def measure(config: ConfigDict, contents: Contents, topology: Topology) -> Measurement:
    """Compiles the step that `fit` would run, and reads its figures.

    Args:
        config: a whole config.
        contents: of its training set.
        topology: the devices, here or not.

    Raises:
        UserError: as in `make_plan`; or the devices do not divide the batch.
    """
    plan = make_plan(config, **contents.spec)
    mesh = sharding.make_mesh(list(topology.devices))
    state, feed = plan.abstract_state(mesh), contents.feed(config, mesh)
    began = time.monotonic()
    lowered = loop.step_of(plan, mesh, state, feed.batch).lower(state, feed.shapes)
    traced = time.monotonic()
    compiled, refusal = _compile(lowered, topology)
    ended = time.monotonic()
    program = hlo.Program(compiled.as_text() if compiled else "")
    if compiled:
        memory = _memory(compiled, state, feed, topology)
    else:
        memory = _refused_memory(refusal, state, feed, topology)
    operations, moved = _cost(compiled, program) if compiled else (None, None)
    return Measurement(
        topology=topology,
        contents=contents,
        plan=plan,
        batch_size=config.batch_size,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        memory=memory,
        operations=operations,
        moved=moved,
        collectives=program.collectives,
        cycles=program.cycles_by_place(),
        loops=program.loops,
        seconds=(traced - began, ended - traced),
        feed=feed,
        step=compiled,
    )


def _compile(
    lowered: jax.stages.Lowered, topology: Topology
) -> tuple[jax.stages.Compiled | None, str]:
    """The compiled step; or None, and what the compiler said, where memory is too small for it."""
    options = None
    if topology.platform == "gpu" and not topology.is_here:
        # Without the GPU there is no timing that would choose between cuBLAS and generated kernels,
        # and for some products the compiler ends with an error for want of a tile that fits.
        options = {"xla_gpu_enable_triton_gemm": False}
    try:
        return lowered.compile(options), ""
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None, str(error)


def _memory(compiled: Any, state: Any, feed: data.AbstractFeed, topology: Topology) -> Memory:
    found = compiled.memory_analysis()
    arguments = found.argument_size_in_bytes
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    peak = found.peak_memory_in_bytes or arguments + results + found.temp_size_in_bytes
    return _with_feed(peak, found.temp_size_in_bytes, state, feed, topology)


def _refused_memory(
    message: str, state: Any, feed: data.AbstractFeed, topology: Topology
) -> Memory | None:
    """What the compiler says it would take, where it gave up."""
    sizes = _bytes_on_a_device(state) + _bytes_on_a_device(feed.shapes)
    if used := re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message):
        peak = float(used[1]) * _UNITS[used[2]]
    elif needed := re.search(r"temporaries \(([\d.]+)([KMGT]?)\) exceeds", message):
        peak = float(needed[1]) * _UNITS[needed[2]] + sizes
    else:
        return None
    return _with_feed(peak, peak - sizes, state, feed, topology)


def _with_feed(
    peak: float, temporaries: float, state: Any, feed: data.AbstractFeed, topology: Topology
) -> Memory:
    inputs = _bytes_on_a_device(feed.shapes)
    waiting = 0.0 if feed.resident else AHEAD * inputs
    return Memory(
        state=_bytes_on_a_device(state),
        inputs=inputs,
        temporaries=temporaries,
        waiting=waiting,
        peak=peak + waiting,
        limit=topology.chip.memory * topology.chip.usable,
    )


def _bytes_on_a_device(tree: Any) -> float:
    """Bytes of arrays on each device, by their shardings."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
            total += leaf.size * leaf.dtype.itemsize
        else:
            total += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total


def _cost(compiled: Any, program: hlo.Program) -> tuple[float, float | None]:
    """Operations and bytes of memory traffic.

    The compiler's analysis counts a loop's body once; its other trips are counted here, of
    convolutions and matrix products alone. Where there is no analysis, as for a GPU that is not
    here, these are all that is counted.
    """
    analysis = compiled.cost_analysis() or {}
    if "flops" not in analysis:
        return program.matrix_operations(), None
    operations = analysis["flops"] + program.repeated_operations()
    return operations, analysis.get("bytes accessed")
