"""What would make a step fit, by the keys that a config has."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sslax.planning.chips import GIB
from sslax.planning.measure import Measurement

_GPU_FRACTION = 0.92  # of a GPU's memory that JAX can be given


class Remedy(NamedTuple):
    """A way to need less memory.

    Attributes:
        key: the last part of the keys that it changes; where a config has none, it is left out.
        value: `(measurement, the key's value) -> the value to try`; None where it would not help.
        effect: what it does.
    """

    key: str
    value: Callable[[Measurement, Any], Any]
    effect: str


def _smaller_batch(measurement: Measurement, _: Any) -> int | None:
    """The largest batch that would fit, if memory beside the state grows as the batch does."""
    memory, devices = measurement.memory, measurement.devices
    if memory is None:
        images = measurement.batch_size // devices // 2
    else:
        per_batch = memory.peak - memory.state
        room = max(memory.limit - memory.state, 0.0)
        images = int(measurement.batch_size // devices * room / per_batch)
    return images * devices or None


def _accumulated(measurement: Measurement, value: Any) -> int | None:
    """The least power of two parts in which a step would fit."""
    images, parts = measurement.batch_size // measurement.devices, 2
    smaller = _smaller_batch(measurement, None)
    if smaller is None:
        return None
    while images // parts > smaller // measurement.devices:
        parts *= 2
    return None if images % parts else parts * max(int(value or 1), 1)


def _split_state(measurement: Measurement, value: Any) -> str | None:
    memory = measurement.memory
    large = memory is not None and memory.state > 0.1 * memory.peak
    return "fsdp" if large and measurement.devices > 1 and value != "fsdp" else None


def _streamed(measurement: Measurement, value: Any) -> str | None:
    memory = measurement.memory
    large = memory is not None and not memory.waiting and memory.inputs > 0.05 * memory.peak
    return "stream" if large and measurement.contents.source is None else None


REMEDIES = (
    Remedy("batch_size", _smaller_batch, "fewer images a device"),
    Remedy("accumulate", _accumulated, "the same batch, a part at a time"),
    Remedy("remat", lambda _, value: None if value else True, "activations computed twice"),
    Remedy("sharding", _split_state, "the training state split over the devices"),
    Remedy("device", _streamed, "the data read while training"),
)


def advise(config: ConfigDict, measurement: Measurement) -> list[str]:
    """Sentences that say what to try where a step does not fit; keys that there are alone.

    Args:
        config: the config that was measured.
        measurement: of a step that does not fit.
    """
    said = []
    for remedy in REMEDIES:
        for key, value in _keys(config, remedy.key):
            if (better := remedy.value(measurement, value)) is not None:
                said.append(f"--config.{key}={better}: {remedy.effect}")
    memory, chip = measurement.memory, measurement.topology.chip
    if measurement.topology.platform == "gpu" and memory is not None:
        allowed = _GPU_FRACTION * chip.memory
        if chip.usable < _GPU_FRACTION and memory.peak <= allowed:
            said.append(
                f"XLA_PYTHON_CLIENT_MEM_FRACTION={_GPU_FRACTION} in the environment: "
                f"{allowed / GIB:.0f} GiB for JAX"
            )
    said.append("more devices, or chips with more memory: another --topology")
    return said


def _keys(section: ConfigDict, last: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of a config whose last part is `last`, and their values; not those of evaluation."""
    for name, value in section.items():
        if isinstance(value, ConfigDict):
            if name != "evaluate":
                yield from _keys(value, last, f"{prefix}{name}.")
        elif name == last:
            yield prefix + name, value
