"""The figures of a compiled step as text."""

from collections import defaultdict
from collections.abc import Iterator

from ml_collections import ConfigDict

from sslax.planning import advice, hlo
from sslax.planning.chips import GIB
from sslax.planning.measure import Measurement, Memory

LONG = 1000  # trips of a loop that is worth a line


def format_report(config: ConfigDict, measurement: Measurement, *, lines: int = 10) -> str:
    """The report of a measurement.

    Args:
        config: that was measured.
        measurement: its figures.
        lines: of source, and of collectives, that are listed at most.
    """
    parts = [
        _title(config, measurement),
        _memory(measurement.memory),
        _roofline(measurement),
        _collectives(measurement, lines),
        _cycles(measurement, lines),
        _loops(measurement.loops, lines),
        _estimate(measurement),
        verdict(config, measurement),
    ]
    return "\n\n".join(part for part in parts if part)


def verdict(config: ConfigDict, measurement: Measurement) -> str:
    """Whether the step fits, and, where it does not, what to try."""
    memory = measurement.memory
    if memory is not None and memory.fits:
        return f"fits: {memory.peak / memory.limit:.1%} of a device's memory"
    excess = (
        "the compiler ran out of memory"
        if memory is None
        else f"{(memory.peak - memory.limit) / GIB:.2f} GiB too much on each device"
    )
    return "\n  ".join([f"does not fit: {excess}. Try", *advice.advise(config, measurement)])


def prefixed(value: float) -> str:
    """Three digits and a prefix of powers of a thousand.

    Example:
        >>> prefixed(1.56e12), prefixed(22_100.0), prefixed(3.0)
        ('1.56 T', '22.1 k', '3.00 ')
    """
    prefix = ""
    for larger in "kMGTP":
        if abs(value) < 999.5:
            break
        value, prefix = value / 1e3, larger
    digits = max(2 - max(len(f"{abs(value):.0f}") - 1, 0), 0)
    return f"{value:.{digits}f} {prefix}"


def _title(config: ConfigDict, measurement: Measurement) -> str:
    spec, contents = measurement.contents.spec, measurement.contents
    topology, batch = measurement.topology, measurement.batch_size
    shape = "x".join(map(str, spec["image_shape"]))
    examples = spec["examples"] if contents.known else "an unknown number of"
    classes = f", {spec['classes']} classes" if spec["classes"] else ""
    traced, compiled = measurement.seconds
    return (
        f"{config.method}: {examples} examples of {shape} ({contents.origin}){classes}; "
        f"{measurement.parameters / 1e6:.2f} M parameters\n"
        f"{topology.name}: {measurement.devices} x {topology.chip.name}, {topology.hosts} host(s); "
        f"a batch of {batch}, {batch / measurement.devices:g} a device\n"
        f"traced in {traced:.0f} s, compiled in {compiled:.0f} s"
    )


def _memory(memory: Memory | None) -> str:
    if memory is None:
        return ""
    rows = (
        ("training state", memory.state),
        ("batch or data set", memory.inputs),
        ("batches waiting", memory.waiting),
        ("temporaries", memory.temporaries),
        ("peak", memory.peak),
        ("limit", memory.limit),
    )
    return _table("memory of a device", (f"  {v / GIB:8.3f} GiB  {name}" for name, v in rows))


def _roofline(measurement: Measurement) -> str:
    chip = measurement.topology.chip
    if measurement.operations is None:
        return ""
    rows = [("operations", measurement.operations, chip.operations)]
    if measurement.moved is not None:
        rows.append(("bytes of its memory", measurement.moved, chip.bandwidth))
    rows.append(("bytes to others", measurement.sent, chip.link))
    return _table(
        "work of a device in a step",
        (
            f"  {prefixed(amount):>9s}  {what:20s}"
            + (f"  {1e3 * amount / rate:9.3f} ms at {prefixed(rate)}/s" if rate else "")
            for what, amount, rate in rows
        ),
    )


def _collectives(measurement: Measurement, lines: int) -> str:
    """By kind, then the largest by line of source."""
    if not measurement.collectives:
        return ""
    rows = [
        (size, count, kind, "")
        for kind, (count, size) in sorted(hlo.totals(measurement.collectives).items())
    ]
    by_place: dict[tuple[str, str], list[hlo.Collective]] = defaultdict(list)
    for collective in measurement.collectives:
        by_place[collective.place, collective.kind].append(collective)
    places = [
        (sum(c.runs * c.bytes for c in group), sum(c.runs for c in group), kind, place)
        for (place, kind), group in by_place.items()
    ]
    rows += sorted(places, reverse=True)[:lines]
    return _table(
        "collectives in a step, by kind and by line",
        (
            f"  {prefixed(size):>9s}B  {count:6d} x {kind:18s}  {place}"
            for size, count, kind, place in rows
        ),
    )


def _cycles(measurement: Measurement, lines: int) -> str:
    clock, total = measurement.topology.chip.clock, sum(measurement.cycles.values())
    if not total or clock is None:
        return ""
    rows = (
        f"  {1e3 * cycles / clock:9.3f} ms  {cycles / total:6.1%}  {place}"
        for place, cycles in measurement.cycles.most_common(lines)
    )
    return _table(f"slowest lines of {1e3 * total / clock:.1f} ms, by the compiler's cycles", rows)


def _loops(loops: list[hlo.Loop], lines: int) -> str:
    long = sorted({loop for loop in loops if (loop.trips or 0) >= LONG}, reverse=True)
    if not long:
        return ""
    return _table(
        "long loops", (f"  {loop.trips:11,d} trips  {loop.place}" for loop in long[:lines])
    )


def _estimate(measurement: Measurement) -> str:
    estimate = measurement.estimate
    if estimate is None:
        return ""
    rate = measurement.batch_size / estimate.seconds
    return (
        f"{'at most ' if estimate.bound else 'about '}{rate:,.0f} images/s, "
        f"{1e3 * estimate.seconds:.1f} ms a step\n  by {estimate.basis}"
    )


def _table(title: str, rows: Iterator[str] | list[str]) -> str:
    return "\n".join([title, *(row.rstrip() for row in rows)])
